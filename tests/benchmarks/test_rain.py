"""The contact sheet of rendered rain."""

import importlib.util
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
