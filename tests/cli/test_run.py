"""`derain run`: what it writes, tells and obeys, and how it ends."""

import errno
import io
import json
import signal
import time
import urllib.request
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rich.console import Console

from derain.cli import live, stream
from derain.cli.live import describe
from derain.runtime.engines.onnxruntime import OnnxRuntimeEngine
from derain.runtime.metrics import Metrics
from derain.runtime.psnr import psnr
from derain.runtime.records import Status
from derain.runtime.sources import open_source
from derain.runtime.sources.pattern import Pattern
from derain_tests.verbs import strict_json

SECRET = "hunter2"
CAMERA = f"rtsp://admin:{SECRET}@camera.local:554/stream?channel=1&password={SECRET}"
STAGES = ["capture", "capture_to_present", "inference", "present", "wait"]


@pytest.fixture
def derain_run(derain, inverting):
    return lambda *options: derain("run", inverting.path, *options)


def test_the_verb_writes_the_clip_the_report_and_a_summary(derain_run, inverting, folder, noise, tmp_path):
    report = tmp_path / "report.json"
    answer = derain_run("--source", folder, "--sink", tmp_path / "out.mkv", "--truth", folder, "--json", report)
    assert answer.status == 0 and answer.err == ""
    with open_source(str(tmp_path / "out.mkv"), inverting.manifest.input) as source:
        np.testing.assert_array_equal([frame.image for frame in source], [255 - image for image in noise])
    told = json.loads(report.read_text())
    counts = {"frames": 10, "presented": 10, "dropped": 0, "passed_through": 0, "deadline_misses": 0}
    assert told.items() >= counts.items()
    assert sorted(told["latency_ms"]) == STAGES
    assert {key for stage in told["latency_ms"].values() for key in stage} == {"p50", "p90", "p99", "p999", "max"}
    expected = np.mean([psnr(255 - image, image) for image in noise])
    assert told["psnr_rgb"] == {"input": None, "output": pytest.approx(expected)}
    assert "10 of 10 frames" in answer.out
    assert f"input identical, output {expected:.2f} dB" in answer.out
    assert "\x1b" not in answer.out


@pytest.mark.parametrize("how", ["name", "link"])
def test_a_sink_that_is_the_source_is_refused_and_the_original_is_whole(how, derain_run, clip, tmp_path):
    before, sink = clip.read_bytes(), clip
    if how == "link":
        sink = tmp_path / "link.mkv"
        sink.symlink_to(clip)
    assert "is read by this run, which would replace it" in derain_run("--source", clip, "--sink", sink).fault
    assert clip.read_bytes() == before


@pytest.mark.parametrize("what", ["truth", "json", "telemetry", "bundle"])
def test_no_output_takes_the_place_of_an_input_or_of_another_output(what, derain_run, inverting, clip, tmp_path):
    out, given = tmp_path / "out.mkv", []
    if what == "truth":
        out, given = clip, ["--truth", clip]
    elif what == "bundle":
        out = inverting.path / "graph.fp32.onnx"
        given, out = ["--json", out], tmp_path / "out.mkv"
    else:
        given = [f"--{what}", out]
    files = {path: path.read_bytes() for path in (clip, *inverting.path.iterdir())}
    fault = derain_run("--source", "test://rain?frames=3", "--sink", out, *given).fault
    assert ("is read by this run" if what in ("truth", "bundle") else f"by --sink and by --{what}") in fault
    assert {path: path.read_bytes() for path in files} == files
    assert not (tmp_path / "out.mkv").exists()


def test_the_policy_latest_on_a_file_is_refused_where_it_would_make_a_clip_of_what_is_left(derain_run, clip, tmp_path):
    fault = derain_run("--source", clip, "--sink", tmp_path / "out.mkv", "--policy", "latest").fault
    assert "leave --policy out" in fault


@pytest.mark.parametrize(
    ("count", "part"), [(4, "has more than the source's 3 frames"), (2, "the truth has 2 frames, the source 3")]
)
def test_a_truth_of_another_length_is_told_and_the_report_is_kept(count, part, derain_run, tmp_path):
    options = ("--source", "test://rain?frames=3", "--truth", f"test://clean?frames={count}", "--sink", "null://")
    assert part in derain_run(*options, "--json", tmp_path / "report.json").fault
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["presented"] == 3
    assert "psnr_rgb" not in told


def test_without_a_truth_the_report_has_no_psnr(derain_run, tmp_path):
    options = ("--source", "test://rain?frames=3", "--sink", "null://", "--json", tmp_path / "report.json")
    assert derain_run(*options).status == 0
    assert "psnr_rgb" not in json.loads((tmp_path / "report.json").read_text())


def test_the_truth_of_the_test_pattern_is_the_clean_pattern(derain_run, tmp_path):
    options = ("--source", "test://rain?frames=3", "--truth", "test://clean?frames=3", "--sink", "null://")
    assert derain_run(*options, "--json", tmp_path / "report.json").status == 0
    assert 5 < json.loads((tmp_path / "report.json").read_text())["psnr_rgb"]["input"] < 40


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--source", "nothing.mp4", "--sink", "null://"), "nothing.mp4: no such file"),
        (("--source", "test://rain", "--sink", "x.gif"), "suffix '.gif' is unknown"),
        (("--source", "test://rain", "--sink", "null://", "--precision", "int8"), "no int8 graph, the bundle has fp32"),
        (("--source", "test://rain", "--sink", "null://", "--engine", "abacus"), "engine 'abacus' is unknown"),
    ],
)
def test_a_fault_leaves_the_verb_as_one_line_and_writes_no_report(derain_run, options, part, tmp_path):
    assert part in derain_run(*options, "--json", tmp_path / "report.json").fault
    assert not (tmp_path / "report.json").exists()


def test_a_source_that_breaks_off_leaves_the_report_and_the_clip_of_what_came_before(
    derain_run, folder, validate, tmp_path
):
    (folder / "005.png").write_bytes(b"no picture")
    options = ("--source", folder, "--sink", tmp_path / "out.mkv", "--json", tmp_path / "report.json")
    answer = derain_run(*options)
    assert "005.png" in answer.fault
    assert "5 of 5 frames" in answer.out
    told = json.loads((tmp_path / "report.json").read_text())
    validate(told)
    assert told["presented"] == 5
    assert "005.png" in told["error"]
    assert (tmp_path / "out.mkv").exists()


def test_a_report_that_cannot_be_written_hides_no_error_that_ended_the_run(derain_run, folder, monkeypatch):
    (folder / "005.png").write_bytes(b"no picture")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stream, "write_json", full)
    answer = derain_run("--source", folder, "--sink", "null://")
    assert answer.status == 1
    lost, told = answer.err.splitlines()
    assert "the report is lost: [Errno 28] No space left on device" in lost
    assert "005.png" in told


def test_a_live_source_is_run_under_latest_with_a_deadline_and_a_file_under_every_without(derain_run, tmp_path):
    report = tmp_path / "report.json"
    for source, policy, deadline in (("test://rain?live=1&frames=5", "latest", 500), ("test://rain", "every", None)):
        assert derain_run("--source", source, "--sink", "null://", "--json", report).status == 0
        told = json.loads(report.read_text())
        assert (told["policy"], told["deadline_ms"]) == (policy, deadline)


def test_policy_and_deadline_are_obeyed_and_what_was_not_derained_is_told(derain_run, tmp_path):
    report = tmp_path / "report.json"
    options = ("--policy", "latest", "--deadline", "0.001", "--json", report)
    out = derain_run("--source", "test://rain?frames=20", "--sink", "null://", *options).told
    told = json.loads(report.read_text())
    assert (told["policy"], told["deadline_ms"]) == ("latest", 0.001)
    assert told["deadline_misses"] >= 1
    assert told["frames"] == told["presented"] + told["dropped"] == 20
    assert f"{told['presented'] - told['passed_through']} of them derained" in out
    assert "not derained: missed its deadline" in out


@pytest.mark.parametrize(
    ("option", "part"),
    [
        (("--policy", "sometimes"), "'sometimes' is unknown, known are: latest, every"),
        (("--precision", "fp64"), "'fp64' is not one of 'fp32', 'fp16', 'int8', 'fp8'"),
        (("--deadline", "0"), "0 ms, expected more than 0"),
    ],
)
def test_a_wrong_option_is_wrong_usage(derain_run, option, part):
    answer = derain_run("--source", "test://rain", "--sink", "null://", *option)
    assert answer.status == 2
    assert part in " ".join(answer.err.replace("│", " ").split())


def test_a_truth_under_the_policy_latest_is_refused_as_it_needs_every_frame(derain_run):
    options = ("--source", "test://rain", "--sink", "null://", "--truth", "test://clean", "--policy", "latest")
    assert "add --policy every" in derain_run(*options).fault


def test_the_status_line_tells_the_figures_and_only_states_worth_telling():
    status = Status(12, 1, 2, 29.97, 10.04, 20.06, 33.4, "deraining", "open")
    line = describe(status, 100)
    assert line == (
        "frame 12 of 100 · 30.0 frames/s · p50 10.0 ms, p99 20.1 ms · age 33 ms · dropped 1 · passed through 2"
    )
    assert describe(replace(status, engine="late", source="lost (unplugged)"), None).endswith(
        "engine late · source lost (unplugged)"
    )


def test_a_log_gets_a_line_now_and_then_and_a_terminal_one_that_changes(monkeypatch):
    monkeypatch.setattr(live, "LOG_EVERY_S", 0.0)
    status = Status(12, 1, 2, 29.97, 10.04, 20.06, 33.4, "deraining", "open")
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
        with live.LiveLine(console, None) as line:
            line.on_status(status)
            line.on_status(replace(status, frames=13))
            time.sleep(0.2 * terminal)  # a terminal is drawn 12.5 times a second
        text = console.file.getvalue()
        assert ("\x1b" in text) == terminal
        assert "frame 13" in text


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_an_endless_stream_finishes_the_file_and_exits_0(name, started, inverting, wait_until, tmp_path):
    clip, report = tmp_path / "out.mkv", tmp_path / "report.json"
    source = "test://rain?live=1&frames=1000000&fps=60"
    process = started("run", inverting.path, "--source", source, "--sink", clip, "--json", report)
    wait_until(lambda: [path for path in tmp_path.glob(".out.*") if path.stat().st_size])
    process.send_signal(getattr(signal, name))
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    presented = json.loads(report.read_text())["presented"]
    assert presented >= 1
    assert f"{presented} of " in output
    with open_source(str(clip), inverting.manifest.input) as frames:
        assert len(list(frames)) >= presented, "a live camera's frames are repeated where one is missing"


def test_telemetry_and_metrics_are_there_when_asked_for(derain_run, tmp_path, monkeypatch):
    lines, scraped = tmp_path / "run.jsonl", []
    close = Metrics.close

    def scrape_and_close(metrics):
        with urllib.request.urlopen(metrics.address, timeout=10) as answer:
            scraped.append(answer.read().decode())
        close(metrics)

    monkeypatch.setattr(Metrics, "close", scrape_and_close)
    options = ("--telemetry", lines, "--metrics", "127.0.0.1:0")
    assert derain_run("--source", "test://rain?frames=5", "--sink", "null://", *options).status == 0
    assert json.loads(lines.read_text().splitlines()[-1])["frames"] == 5
    assert 'derain_frames_total{outcome="derained"} 5.0' in scraped[0]


def test_a_missed_deadline_is_recorded_and_half_the_options_for_it_are_wrong_usage(derain_run, tmp_path):
    options = ("--source", "test://rain?frames=20", "--sink", "null://", "--record", "10")
    assert derain_run(*options, "--record-to", tmp_path / "faults", "--deadline", "0.001").status == 0
    (clip,) = (tmp_path / "faults").iterdir()
    assert json.loads((clip / "records.json").read_text())["why"] == "missed its deadline"
    assert derain_run(*options).status == 2


def test_the_engine_is_ready_before_the_source_is_opened(derain_run, monkeypatch):
    """A network camera sends meanwhile, and what waits is old when it is taken."""
    order = []
    for kind, name in ((OnnxRuntimeEngine, "warm_up"), (Pattern, "__init__")):
        before = getattr(kind, name)
        told = lambda *given, before=before, name=name, **more: order.append(name) or before(*given, **more)  # noqa: E731
        monkeypatch.setattr(kind, name, told)
    assert derain_run("--source", "test://rain?frames=3", "--sink", "null://").status == 0
    assert order == ["warm_up", "__init__"]


def test_a_deadline_without_end_is_none(derain_run, tmp_path):
    report = tmp_path / "report.json"
    options = ("--source", "test://rain?live=1&frames=3", "--sink", "null://", "--deadline", "inf", "--json", report)
    assert derain_run(*options).status == 0
    assert json.loads(report.read_text())["deadline_ms"] is None


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_no_password_reaches_a_log_or_an_error_whatever_is_wrong(debug, derain, inverting, noise, monkeypatch):
    unfit = SimpleNamespace(
        isOpened=lambda: True,
        get=lambda _: 25.0,
        grab=lambda: True,
        retrieve=lambda: (True, noise[0][:8]),
        release=lambda: None,
    )
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: unfit)
    for source, sink in (
        (CAMERA, "null://"),
        (CAMERA.replace("rtsp", "smoke"), "null://"),
        ("test://rain", CAMERA),
        ("test://rain", CAMERA.replace("rtsp:", "https:")),
    ):
        answer = derain(*debug, "run", inverting.path, "--source", source, "--sink", sink)
        assert answer.status == 1 and "***@camera.local" in answer.err
        assert SECRET not in answer.out + answer.err


def test_run_reports_by_the_keys_that_stay(derain, bundle, clip, tmp_path):
    options = ("--source", clip, "--truth", clip, "--sink", tmp_path / "out.mkv", "--json", tmp_path / "r.json")
    answer = derain("run", bundle.path, *options)
    assert answer.status == 0 and answer.err == ""
    told = strict_json(tmp_path / "r.json")
    counts = {"frames": 8, "presented": 8, "dropped": 0, "passed_through": 0, "deadline_misses": 0}
    assert told.items() >= counts.items()
    assert sorted(told["latency_ms"]) == STAGES
    for stage in told["latency_ms"].values():
        assert 0 <= stage["p50"] <= stage["p90"] <= stage["p99"] <= stage["p999"] <= stage["max"]
    assert told["psnr_rgb"]["input"] is None and told["psnr_rgb"]["output"] > 0
    assert cv2.VideoCapture(str(tmp_path / "out.mkv")).get(cv2.CAP_PROP_FRAME_COUNT) == 8


def test_run_derains_as_the_network_does(derain, bundle, clip, tmp_path):
    from derain.export.exporter import bundle_network
    from derain.training.evaluate import derain_with

    assert derain("run", bundle.path, "--source", clip, "--sink", f"frames://{tmp_path}/out").status == 0
    video = cv2.VideoCapture(str(clip))
    network = derain_with(bundle_network(bundle))
    for file in sorted((tmp_path / "out").iterdir()):
        frame = video.read()[1]
        expected = network(np.ascontiguousarray(frame[..., ::-1]))[..., ::-1]
        assert np.abs(cv2.imread(str(file)).astype(int) - expected).max() <= 1
        assert np.abs(expected.astype(int) - frame).mean() > 1
