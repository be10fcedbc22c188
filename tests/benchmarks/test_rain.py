"""The contact sheet of rendered rain, and its rate."""

import importlib.util
import re
import sys

import cv2
import pytest

from derain.training.panels import BAR
from derain_tests.pictures import write_frames


@pytest.fixture
def rain(repository, monkeypatch):
    """Runs benchmarks/rain.py with arguments."""
    found = importlib.util.spec_from_file_location("rain_benchmark", repository / "benchmarks" / "rain.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["rain.py", *map(str, arguments)])
        module.main()

    return run


def test_a_sheet_has_a_row_of_four_strengths_for_each_frame_and_kind_of_rain(rain, picture, tmp_path, capsys):
    frames = write_frames(tmp_path / "frames", [picture(index, 66, 49) for index in range(3)])
    rain("sheet", frames, "--out", tmp_path / "sheet.png")
    assert capsys.readouterr().out == f"6 rows of 4 strengths in {tmp_path / 'sheet.png'}\n"
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (6 * (49 + BAR), 4 * 66, 3)


def test_frames_that_are_not_there_are_told_in_one_line(rain, tmp_path):
    with pytest.raises(SystemExit, match=r"error: no images in .*: expected a folder of"):
        rain("sheet", tmp_path / "none", "--out", tmp_path / "sheet.png")


def test_a_loader_of_two_workers_is_not_faster_than_two_processes_can_be(rain, tmp_path, capsys):
    """Its workers hand over several batches at once: the time between two says nothing."""
    run = tmp_path / "run.yaml"
    run.write_text("network: {name: daiam-nano}\nrain: {kinds: both}\noptimiser: {iterations: 1}\nout: runs/x\n")
    rain("rate", "--batch", 2, "--rounds", 5, "--workers", 2, "--config", run)
    lines = capsys.readouterr().out.splitlines()
    rates = [int(re.search(r"(\d+) patches/s of 112x112", line)[1]) for line in lines]
    assert len(rates) == 5 and f"loader with 2 workers: the rain of {run}, batch 2" in lines[-1]
    assert 0 < rates[-1] < 2 * 2 * rates[0]
