"""The curves of training runs, drawn from what a run writes."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest


@pytest.fixture(scope="module")
def curves(repository):
    """benchmarks/curves.py."""
    sys.path.insert(0, str(repository / "benchmarks"))
    import curves

    yield curves
    sys.path.remove(str(repository / "benchmarks"))


@pytest.fixture
def run(tmp_path):
    """A run of 4 patches an iteration, validated twice."""
    folder = tmp_path / "daiam-nano"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "{network: {name: daiam-nano}, optimiser: {iterations: 100, batch: 4}, out: runs/daiam-nano}"
    )
    logged = "step,train/psnr,val/gain\n49,24.5,\n49,,1.5\n99,26.5,\n99,,2.5\n"
    (folder / "metrics.csv").write_text(logged)
    return folder


def test_a_curve_is_decibels_over_the_patches_seen(curves, run):
    for column, values in (("train/psnr", [24.5, 26.5]), ("val/gain", [1.5, 2.5])):
        patches, decibels = curves.curve([run], column)
        assert patches.tolist() == [200, 400]
        assert decibels.tolist() == values
        patches, decibels = curves.curve([run, run], column)
        assert patches.tolist() == [200, 400, 600, 800]
        assert decibels.tolist() == 2 * values


def test_smoothing_leaves_a_constant_alone_up_to_its_ends_and_halves_no_value(curves):
    assert curves.smoothed(np.full(9, 3.0), 5).tolist() == pytest.approx([3.0] * 9)
    assert curves.smoothed(np.array([0.0, 3.0, 0.0]), 3).tolist() == pytest.approx([1.5, 1.0, 1.5])
    assert curves.smoothed(np.array([1.0, 2.0]), 21).size == 2


def test_the_plots_name_every_run_and_are_the_same_each_time(curves, run, tmp_path):
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        curves.draw([[run]], path)
    assert ElementTree.parse(paths[0]).getroot().tag.endswith("svg")
    assert "daiam-nano" in paths[0].read_text()
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_folder_without_a_run_is_named(curves, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the folder of a run of `derain train`"):
        curves.curve([tmp_path], "val/gain")


def test_a_folder_without_a_run_is_told_in_one_line(curves, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["curves.py", str(tmp_path), "--out", str(tmp_path / "c.svg")])
    with pytest.raises(SystemExit, match=r"error: no .*metrics\.csv: expected the folder of a run"):
        curves.main()
