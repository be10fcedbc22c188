"""`derain bench`: one engine, two reports against each other, and every engine side by side."""

import json

import pytest

from derain.runtime.bench import BenchReport
from derain.runtime.engine_comparison import EngineComparison


@pytest.fixture
def report(derain, inverting, tmp_path) -> BenchReport:
    path = tmp_path / "report.json"
    options = ("--fps", 100, "--seconds", 0.5, "--warm-up", 0.1, "--json", path)
    assert derain("bench", inverting.path, *options).status == 0
    return BenchReport.model_validate_json(path.read_bytes())


def test_an_engine_is_measured_and_two_reports_are_compared(inverting, derain, tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        options = ("--fps", 50, "--seconds", 0.4, "--warm-up", 0.1, "--json", path, "--html", tmp_path / "a.html")
        told = derain("bench", inverting.path, *options).told
        assert "of 20 frames" in told
        assert "jitter" in told
    assert "<svg" in (tmp_path / "a.html").read_text()
    told = derain("bench", "--compare", *paths, "--json", tmp_path / "changes.json").told
    assert told.count("95 % interval") == 2
    changes = json.loads((tmp_path / "changes.json").read_text())
    assert list(changes) == ["inference", "capture_to_present"]
    assert all(stage["low"] <= stage["change"] <= stage["high"] for stage in changes.values())
    assert told.count("of 20 frames presented, 0 of them raw") == 2


def test_a_broken_clip_is_told_in_one_line_of_ours_alone(fresh_derain, bundle, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(5000))
    assert "no video" in fresh_derain("bench", bundle.path, "--source", f"file://{broken}").fault


def test_a_camera_s_broken_frames_are_no_pictures_to_measure_with(inverting, derain, tmp_path):
    path = tmp_path / "report.json"
    source = ("--source", "test://rain?live=1&fps=60&frames=40&truncate=3&outage=0.05")
    assert derain("bench", inverting.path, *source, "--seconds", 1, "--warm-up", 0.1, "--json", path).status == 0
    assert "broken" not in BenchReport.model_validate_json(path.read_bytes()).why


def test_only_other_hardware_is_another_machine(report, derain, tmp_path):
    gpu = {"name": "NVIDIA A10", "driver_version": "590.1", "pstate": "P0", "temperature.gpu": "40"}
    changes = [{}, {"temperature.gpu": "41", "pstate": "P2"}, {"name": "NVIDIA A30"}, {"driver_version": "595.2"}]
    paths = [tmp_path / f"{number}.json" for number in range(len(changes))]
    for path, change in zip(paths, changes, strict=True):
        before = report.before.model_copy(update={"gpu": gpu | change})
        path.write_text(report.model_copy(update={"before": before}).model_dump_json())
    told = ["measured on different machines" in derain("bench", "--compare", paths[0], path).told for path in paths]
    assert told == [False, False, True, True]


def test_a_comparison_of_runs_with_raw_frames_says_what_its_verdicts_are_about(report, derain, tmp_path):
    paths = [tmp_path / f"{number}.json" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_text(report.model_copy(update={"passed_through": number}).model_dump_json())
    told = [derain("bench", "--compare", paths[0], path).told for path in paths]
    assert ["inference judges the engine" in one for one in told] == [False, True]


def test_reports_that_cannot_be_compared_are_refused(report, derain, tmp_path):
    a, b, c, d, e = (tmp_path / f"{name}.json" for name in "abcde")
    a.write_text(report.model_dump_json())
    b.write_text(report.model_copy(update={"camera_fps": 30.0}).model_dump_json())
    d.write_text(report.model_copy(update={"deadline_ms": 40.0}).model_dump_json())
    c.write_text('{"fps": 3}')
    e.write_text("[]")
    assert "camera_fps is 100.0 and 30.0, expected the same" in derain("bench", "--compare", a, b).fault
    assert "deadline_ms is None and 40.0, expected the same" in derain("bench", "--compare", a, d).fault
    assert "c.json: not a bench report" in derain("bench", "--compare", a, c).fault
    assert "e.json: not a bench report: should be an object, got []: make" in derain("bench", "--compare", a, e).fault


@pytest.mark.parametrize(
    ("options", "flag"),
    [(("--compare", "a", "b"), "--html"), (("--compare", "a", "b"), "--fps"), (("bundle", "--all"), "--engine")],
)
def test_an_option_that_would_not_be_looked_at_is_wrong_usage(options, flag, derain, inverting, tmp_path):
    given = [
        inverting.path if option == "bundle" else tmp_path / option if option in "ab" else option for option in options
    ]
    answer = derain("bench", *given, flag, "1")
    assert answer.status == 2
    assert f"{flag} says nothing to {'--all' if '--all' in options else '--compare'}" in " ".join(answer.err.split())


@pytest.mark.parametrize("options", [(), ("bundle", "--compare", "a", "b"), ("bundle", "--precision", "fp64")])
def test_a_wrong_choice_of_arguments_is_wrong_usage(options, derain):
    assert derain("bench", *options).status == 2


def test_all_engines_are_told_and_written_with_their_verdicts_and_truth_is_for_them_alone(
    make_bundle, derain, tmp_path
):
    both = make_bundle(precisions=("fp32", "int8"))
    paths = tmp_path / "a.json", tmp_path / "a.html"
    told = derain("bench", both.path, "--all", "--seconds", 0.1, "--json", paths[0], "--html", paths[1]).told
    report = EngineComparison.model_validate_json(paths[0].read_bytes())
    assert [entry.precision for entry in report.rows] == ["fp32", "int8"]
    assert all(f"{entry.engine} {entry.precision}: {entry.verdict}" in told for entry in report.rows)
    assert "<svg" in paths[1].read_text()
    refused = derain("bench", both.path, "--truth", "test://rain")
    assert refused.status == 2 and "--truth is for --all" in refused.err
