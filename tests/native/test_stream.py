"""derain-stream against Python's runtime: the same report, the same pixels, frames exchanged through shm://."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain.runtime.bench import BenchReport
from derain.runtime.shared_frames import SharedFrames, wait_for_newer
from derain.runtime.sources import open_source
from derain_tests.pictures import write_clip, write_frames

FRAMES = 12


@pytest.fixture
def clip(tmp_path, picture, size):
    return write_clip(tmp_path / "clip.mkv", [picture(seed, *size) for seed in range(FRAMES)])


@pytest.fixture
def python(derain):
    """Runs a verb of Python's runtime to its end, which must be a good one."""
    return lambda *arguments: derain(*arguments).told


def frames_of(path, spec):
    with open_source(str(path), spec) as source:
        return np.array([frame.image for frame in source])


def test_both_runtimes_derain_a_clip_alike_and_report_it_alike(
    bundle, clip, python, stream, validate, close_enough, tmp_path
):
    outputs, reports = [], []
    for name, run in (("python", python), ("native", stream)):
        output, report = tmp_path / f"{name}.mkv", tmp_path / f"{name}.json"
        run("run", bundle.path, "--source", clip, "--sink", output, "--truth", clip, "--json", report)
        outputs.append(frames_of(output, bundle.manifest.output))
        reports.append(json.loads(report.read_text()))
        validate(reports[-1])
    close_enough(*outputs)
    first, second = reports
    assert list(first) == list(second)
    for key in ("policy", "deadline_ms", "frames", "presented", "dropped", "passed_through", "why", "engine_state"):
        assert first[key] == second[key]
    assert second["presented"] == FRAMES
    assert second["psnr_rgb"]["output"] == pytest.approx(first["psnr_rgb"]["output"], abs=0.1)
    assert second["psnr_rgb"]["input"] is None


def test_a_report_goes_into_a_pipe_and_a_reader_that_goes_away_costs_neither_clip_nor_report(
    bundle, program, validate, tmp_path
):
    command = [program, "run", bundle.path, "--source", "test://rain?live=1&frames=20&fps=20", "--sink"]
    piped = subprocess.run([*command, "null://", "--json", "/dev/stdout"], capture_output=True, text=True, check=True)
    validate(json.loads(piped.stdout[piped.stdout.index("{\n") : piped.stdout.rindex("}\n") + 1]))
    alone = subprocess.run([*command, "null://", "--json", "-"], capture_output=True, text=True, check=True)
    validate(json.loads(alone.stdout))
    assert "of them derained" in alone.stderr and "capture to present" in alone.stderr
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run([*command, "null://", "--json", "-"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert lost.returncode == 1 and b"stdout: No space left on device: the report is not written" in lost.stderr
    clip, report = tmp_path / "clip.mkv", tmp_path / "report.json"
    with subprocess.Popen([*command, clip, "--json", report], stdout=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait(30) == 0
    validate(json.loads(report.read_text()))
    assert len(frames_of(clip, bundle.manifest.output)) >= 15


def test_both_benches_report_alike_and_can_be_compared(bundle, python, stream, validate, tmp_path):
    options = ("--fps", 30, "--seconds", 1, "--warm-up", 0.2)
    reports = []
    for name, run in (("python", python), ("native", stream)):
        path = tmp_path / f"{name}.json"
        run("bench", bundle.path, *options, "--json", path)
        reports.append(path)
        validate(json.loads(path.read_text()))
        report = BenchReport.model_validate_json(path.read_bytes())
        assert report.frames == 30
        assert report.fps == report.presented
    first, second = (list(json.loads(path.read_text())) for path in reports)
    assert sorted(first) == sorted(second)
    python("bench", "--compare", *reports)


@pytest.mark.parametrize(("visible", "asked"), [("2,0", "--id=2"), ("-1", None), ("0;exit 0", None)])
def test_the_benchs_gpu_is_the_first_that_cuda_may_use(visible, asked, bundle, stream, tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\n[ "$1" = --id=-1 ] && echo No devices were found && exit 6\necho "$1, 580.65"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    stream("bench", bundle.path, "--fps", 30, "--seconds", 0.2, "--warm-up", 0, "--json", tmp_path / "report.json")
    gpu = json.loads((tmp_path / "report.json").read_text())["after"]["gpu"]
    assert (gpu and gpu["name"]) == asked


def test_what_python_writes_to_shared_memory_the_native_runtime_reads(
    bundle, program, python, name, picture, size, tmp_path
):
    spec = bundle.manifest.input
    ring = SharedFrames.create(name, spec, 50)
    report = tmp_path / "report.json"
    arguments = [program, "run", bundle.path, "--source", f"shm://{name}", "--sink", tmp_path / "out.mkv"]
    with subprocess.Popen([*arguments, "--policy", "every", "--json", report]) as process:
        try:
            images = [picture(seed, *size) for seed in range(3)]
            while not list(tmp_path.glob(".out.*")) or process.poll() is not None:
                assert process.poll() is None
                ring.publish(images[0], time.monotonic_ns())
                time.sleep(0.02)
            for image in images:
                ring.publish(image, time.monotonic_ns())
                time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            ring.close()
    assert cv2.VideoCapture(str(tmp_path / "out.mkv")).get(cv2.CAP_PROP_FPS) == 50
    seen = frames_of(tmp_path / "out.mkv", spec)
    seen = seen[[True, *np.any(seen[1:] != seen[:-1], axis=(1, 2, 3))]]  # it keeps the camera's time by repeating them
    frames = write_frames(tmp_path / "frames", images)
    python("run", bundle.path, "--source", frames, "--sink", tmp_path / "expected.mkv")
    difference = np.abs(frames_of(tmp_path / "expected.mkv", spec).astype(int) - seen[-3:])
    assert difference.max() <= 2
    told = json.loads(report.read_text())
    assert told["latency_ms"]["capture_to_present"]["p50"] < 1000


def test_what_the_native_runtime_writes_to_shared_memory_python_reads(
    bundle, program, name, close_enough, wait_until, tmp_path
):
    source = "test://rain?live=1&frames=100000&fps=30&seed=1"
    with subprocess.Popen([program, "run", bundle.path, "--source", source, "--sink", f"shm://{name}"]) as process:
        try:
            wait_until(Path("/dev/shm", name).exists)
            ring = SharedFrames.attach(name, bundle.manifest.output)
            assert ring.fps == 30
            seen = []
            while len(seen) < 5:
                assert wait_for_newer(ring, seen[-1].number + 1 if seen else 0, 30)
                if (newest := ring.newest()) is not None:
                    seen.append(newest)
            assert not any(newest.raw for newest in seen)
            ages_s = [(time.monotonic_ns() - newest.captured_ns) / 1e9 for newest in seen]
            assert min(ages_s) >= 0
            assert max(ages_s) < 30
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert ring.closed
            ring.close()
        finally:
            process.kill()
    assert len({newest.image.tobytes() for newest in seen}) == 5
    assert not Path("/dev/shm", name).exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_an_endless_stream_finishes_the_file_and_exits_0(name, bundle, program, wait_until, tmp_path):
    clip, report = tmp_path / "out.mkv", tmp_path / "report.json"
    source = "test://rain?live=1&frames=1000000&fps=30"
    arguments = [program, "run", bundle.path, "--source", source, "--sink", clip, "--json", report]
    with subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: [path for path in tmp_path.glob(".out.*") if path.stat().st_size])
            process.send_signal(getattr(signal, name))
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    presented = json.loads(report.read_text())["presented"]
    assert presented >= 1
    assert f"{presented} of " in output.decode()
    assert len(frames_of(clip, bundle.manifest.output)) >= presented  # one stands for those that did not come in time


def test_two_signals_at_once_are_one_stop(bundle, program, wait_until, tmp_path):
    clip, report = tmp_path / "out.mkv", tmp_path / "report.json"
    source = "test://rain?live=1&frames=1000000&fps=30"
    arguments = [program, "run", bundle.path, "--source", source, "--sink", clip, "--json", report]
    with subprocess.Popen(list(map(str, arguments))) as process:
        try:
            wait_until(lambda: [path for path in tmp_path.glob(".out.*") if path.stat().st_size])
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert json.loads(report.read_text())["presented"] >= 1


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--source", "nothing.mp4", "--sink", "null://"), "nothing.mp4: no such file"),
        (("--source", "test://rain", "--sink", "x.gif"), "suffix '.gif' is unknown"),
        (("--source", "test://rain", "--sink", "null://", "--precision", "int8"), "no int8 graph, the bundle has fp32"),
        (("--source", "test://rain", "--sink", "null://", "--engine", "abacus"), "abacus"),
        (("--source", "rtsp://me:secret@127.0.0.1:9/x", "--sink", "null://"), "rtsp://***@127.0.0.1:9/x: no stream"),
    ],
)
def test_a_fault_is_told_in_one_line_exits_1_and_writes_no_report(options, part, bundle, stream, tmp_path):
    result = stream("run", bundle.path, *options, "--json", tmp_path / "report.json")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert part in result.stderr
    assert "secret" not in result.stderr
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("verb", ["run", "bench"])
@pytest.mark.parametrize(
    ("place", "part"), [("folder", "is a folder: name a file"), ("file/report.json", "is a file, so")]
)
def test_a_report_that_cannot_be_written_is_told_before_the_work(verb, place, part, bundle, stream, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    ends = ("--source", "test://rain?frames=3", "--sink", tmp_path / "out.mkv") if verb == "run" else ("--seconds", 0.2)
    result = stream(verb, bundle.path, *ends, "--json", tmp_path / place)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert part in result.stderr
    assert result.stdout == "" and not (tmp_path / "out.mkv").exists()


def test_a_report_whose_place_is_gone_by_the_end_costs_no_summary(bundle, program, wait_until, tmp_path):
    ends = ("--source", "test://rain?live=1&frames=1000000&fps=30", "--sink", tmp_path / "out.mkv")
    arguments = [program, "run", bundle.path, *ends, "--json", tmp_path / "new" / "report.json"]
    with subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(lambda: [path for path in tmp_path.glob(".out.*") if path.stat().st_size])
            (tmp_path / "new").touch()
            process.send_signal(signal.SIGINT)
            output, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "report.json: cannot be written" in said
    assert "latency, ms" in output


@pytest.mark.parametrize("how", ["name", "link"])
def test_a_sink_that_is_the_source_is_refused_and_the_original_is_whole(how, bundle, stream, clip, tmp_path):
    before, sink = clip.read_bytes(), clip
    if how == "link":
        sink = tmp_path / "link.mkv"
        sink.symlink_to(clip)
    result = stream("run", bundle.path, "--source", f"file://{clip}", "--sink", f"file://{sink}")
    told = f"error: {sink}: is read by this run, which would replace it: give another --sink\n"
    assert (result.returncode, result.stderr) == (1, told)
    assert clip.read_bytes() == before
    assert sink.is_symlink() == (how == "link")


@pytest.mark.parametrize("what", ["source", "truth", "bundle", "sink"])
def test_no_report_takes_the_place_of_an_input_or_of_the_sink(what, bundle, stream, clip, tmp_path):
    truth = shutil.copyfile(clip, tmp_path / "truth.mkv")
    sink = tmp_path / "out.mkv"
    report = {"source": clip, "truth": truth, "bundle": bundle.graph(), "sink": sink}[what]
    before = report.read_bytes() if report.exists() else None
    result = stream("run", bundle.path, "--source", clip, "--truth", truth, "--sink", sink, "--json", report)
    assert result.returncode == 1
    assert ("is named by --json and by --sink" if what == "sink" else "is read by this run") in result.stderr
    assert (report.read_bytes() if report.exists() else None) == before
    if what == "bundle":
        assert "is read by this run" in stream("bench", bundle.path, "--json", report).stderr


def test_a_truth_that_goes_on_is_told_and_the_report_is_kept(bundle, stream, validate, tmp_path):
    options = ("--source", "test://rain?frames=3", "--truth", "test://clean?frames=4", "--sink", "null://")
    result = stream("run", bundle.path, *options, "--json", tmp_path / "report.json")
    assert result.returncode == 1
    assert "the truth has more than the source's 3 frames" in result.stderr
    assert "3 of 3 frames" in result.stdout
    told = json.loads((tmp_path / "report.json").read_text())
    validate(told)
    assert told["presented"] == 3
    assert "psnr_rgb" not in told


def test_a_source_that_breaks_off_leaves_the_report_and_the_clip_of_what_came_before(
    bundle, stream, clip, validate, tmp_path
):
    spec = bundle.manifest.input
    write_frames(tmp_path / "frames", frames_of(clip, spec))
    broken = sorted((tmp_path / "frames").iterdir())[5]
    broken.write_bytes(b"no picture")
    ends = ("--source", f"frames://{tmp_path / 'frames'}", "--sink", tmp_path / "out.mkv")
    result = stream("run", bundle.path, *ends, "--json", tmp_path / "report.json")
    assert result.returncode == 1
    assert broken.name in result.stderr
    assert "5 of 5 frames" in result.stdout
    told = json.loads((tmp_path / "report.json").read_text())
    validate(told)
    assert told["presented"] == 5
    assert broken.name in told["error"]
    assert len(frames_of(tmp_path / "out.mkv", spec)) == 5


def test_a_truth_that_ends_first_ends_the_run_and_the_report_is_kept(bundle, stream, validate, tmp_path):
    ends = ("--source", "test://rain?frames=6", "--truth", "test://clean?frames=2", "--sink", "null://")
    result = stream("run", bundle.path, *ends, "--json", tmp_path / "report.json")
    assert result.returncode == 1
    assert "ends after 2 frames" in result.stderr
    told = json.loads((tmp_path / "report.json").read_text())
    validate(told)
    assert "ends after 2 frames" in told["error"]


ON_A_SMALL_DISK = 'mount -t tmpfs -o size="$1" none "$2" || exit 77; disk="$2"; shift 2; "$@"; cp "$disk"/* "$disk"/..'


def test_on_a_full_disk_the_clip_of_what_was_written_is_whole(bundle, program, tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", "9m", disk]
    ends = ("--source", "test://rain?frames=400", "--sink", disk / "out.mkv")
    result = subprocess.run([*small, program, "run", bundle.path, *ends], capture_output=True, text=True, timeout=120)
    if result.returncode == 77 or result.stderr.startswith("unshare"):
        pytest.skip("no small disk to fill: this user may not mount one")
    assert result.stderr == f"error: {disk / 'out.mkv'}: No space left on device\n"
    assert 10 < len(frames_of(tmp_path / "out.mkv", bundle.manifest.output)) < 400


def test_the_engine_is_ready_before_the_source_is_opened(bundle, stream):
    result = stream("run", bundle.path, "--source", "nothing.mp4", "--sink", "null://", "--engine", "abacus")
    assert "abacus" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "bundle"),
        ("run", "bundle", "--source", "a", "--sink", "b", "--policy", "sometimes"),
        ("run", "bundle", "--source", "a", "--sink", "b", "--precision", "fp64"),
        ("run", "bundle", "--source", "a", "--sink", "b", "--deadline", "0"),
        ("run", "bundle", "--source", "a", "--sink", "b", "--deadline", "nan"),
        ("bench", "bundle", "--fps", "0"),
        ("bench", "bundle", "--fps", "1001"),
        ("bench", "bundle", "--seconds", "1e7"),
        ("fly",),
        (),
    ],
)
def test_wrong_usage_exits_2(arguments, stream):
    assert stream(*arguments).returncode == 2


@pytest.mark.parametrize(("given", "seen"), [((), 500), (("--deadline", "inf"), None), (("--deadline", 80), 80)])
def test_an_infinite_deadline_is_none_for_a_live_source_too(given, seen, bundle, stream, validate, tmp_path):
    ends = ("--source", "test://rain?live=1&frames=3", "--sink", "null://")
    result = stream("run", bundle.path, *ends, *given, "--json", tmp_path / "report.json")
    assert result.returncode == 0, result.stderr
    told = json.loads((tmp_path / "report.json").read_text())
    validate(told)
    assert told["deadline_ms"] == seen
    assert "500 unless given, inf for none" in " ".join(stream("run", "--help").stdout.split())


def test_a_deadline_nobody_can_hold_leaves_raw_frames_and_says_so(bundle, stream, validate, tmp_path):
    report = tmp_path / "report.json"
    source = "test://rain?frames=20"
    result = stream("run", bundle.path, "--source", source, "--sink", "null://", "--deadline", 0.001, "--json", report)
    assert result.returncode == 0, result.stderr
    told = json.loads(report.read_text())
    validate(told)
    assert told["frames"] == told["passed_through"] == 20
    assert told["deadline_misses"] >= 1
    assert "not derained: missed its deadline" in result.stdout
