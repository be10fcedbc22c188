import json

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from derain.cli.run import run
from derain.runtime.quality import psnr
from derain.runtime.sources import open_source

STAGES = ["capture", "capture_to_present", "inference", "present"]


@pytest.fixture
def derain_run(bundle):
    app = Typer()
    app.command()(run)
    return lambda *options: CliRunner().invoke(app, [str(bundle.path), *map(str, options)])


def test_the_verb_writes_the_clip_the_report_and_a_summary(derain_run, bundle, folder, noise, tmp_path):
    report = tmp_path / "report.json"
    result = derain_run("--source", folder, "--sink", tmp_path / "out.mkv", "--truth", folder, "--json", report)
    assert result.exit_code == 0, result.output
    with open_source(str(tmp_path / "out.mkv"), bundle.manifest.input) as source:
        np.testing.assert_array_equal([frame.image for frame in source], [255 - image for image in noise])
    told = json.loads(report.read_text())
    counts = {"frames": 10, "presented": 10, "dropped": 0, "passed_through": 0, "deadline_misses": 0}
    assert told.items() >= counts.items()
    assert sorted(told["latency_ms"]) == STAGES
    assert {key for stage in told["latency_ms"].values() for key in stage} == {"p50", "p90", "p99", "p999", "max"}
    expected = np.mean([psnr(255 - image, image) for image in noise])
    assert told["psnr_rgb"] == {"input": None, "output": pytest.approx(expected)}
    assert "10 of 10 frames" in result.output
    assert f"input identical, output {expected:.2f} dB" in result.output
    assert "\x1b" not in result.output


def test_without_a_truth_the_report_has_no_psnr(derain_run, tmp_path):
    result = derain_run("--source", "test://rain?frames=3", "--sink", "null://", "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    assert "psnr_rgb" not in json.loads((tmp_path / "report.json").read_text())


def test_the_truth_of_the_test_pattern_is_the_clean_pattern(derain_run, tmp_path):
    options = ("--source", "test://rain?frames=3", "--truth", "test://clean?frames=3", "--sink", "null://")
    result = derain_run(*options, "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    assert 5 < json.loads((tmp_path / "report.json").read_text())["psnr_rgb"]["input"] < 40


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--source", "nothing.mp4", "--sink", "null://"), "nothing.mp4: no such file"),
        (("--source", "test://rain", "--sink", "x.gif"), "suffix '.gif' is unknown"),
        (("--source", "test://rain", "--sink", "null://", "--engine", "abacus"), "engine 'abacus' is unknown"),
        (("--source", "test://rain", "--sink", "null://", "--truth", "test://clean?frames=2"), "ends after 2 frames"),
    ],
)
def test_a_fault_leaves_the_verb_as_one_line_and_writes_no_report(derain_run, options, part, tmp_path):
    result = derain_run(*options, "--json", tmp_path / "report.json")
    assert isinstance(result.exception, (ValueError, OSError))
    assert part in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "report.json").exists()
