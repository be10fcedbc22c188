"""`derain demo` from end to end."""

import re

import cv2

from derain.cli.demo import FRAMES_A_SCENE, HEIGHT, LABEL_ROWS, WIDTH
from derain.runtime.bundle import Bundle


def test_the_demo_derains_its_own_clip_leaves_what_it_names_and_runs_again_over_it(derain, tmp_path, monkeypatch):
    printed = derain("demo", "--out", tmp_path / "out").told
    rainy, derained = map(float, re.search(r"rainy ([\d.]+) dB, derained ([\d.]+) dB", printed).groups())
    assert derained > rainy + 2
    clip = cv2.VideoCapture(str(tmp_path / "out" / "derained.mp4"))
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == 3 * FRAMES_A_SCENE
    picture = cv2.imread(str(tmp_path / "out" / "side_by_side.png"))
    assert picture.shape == (2 * (HEIGHT + LABEL_ROWS), 2 * WIDTH, 3)
    assert Bundle.load(tmp_path / "out" / "bundle").manifest.model.name == "daiam-nano"

    monkeypatch.setattr("derain.cli.demo.FRAMES_A_SCENE", 2)
    monkeypatch.setattr("derain.cli.demo.SHOWN", 1)
    assert derain("demo", "--out", tmp_path / "out").status == 0
    assert not [name for name in (tmp_path / "out").iterdir() if "partial" in name.name]


def test_a_demo_in_the_place_of_a_file_is_refused_with_the_mend(derain, tmp_path):
    (tmp_path / "taken").write_text("mine")
    fault = derain("demo", "--out", tmp_path / "taken").fault
    assert fault.endswith("taken, which is a file: name a folder")
    assert (tmp_path / "taken").read_text() == "mine"
