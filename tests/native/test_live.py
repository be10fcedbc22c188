"""derain-stream on live sources, an RTSP server, pipelines and shared memory, answering as `derain run` does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from derain.runtime.shared_frames import SharedFrames

SECRET = "hunter2"
PYTHON = [sys.executable, "-c", "from derain.cli.main import main; main()"]
WRITER = """
import signal, sys, time
import numpy as np
from derain.runtime.manifest import FrameSpec
from derain.runtime.shared_frames import SharedFrames

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
name, width, height = sys.argv[1:]
spec = FrameSpec(tensor="frame", width=width, height=height)
ring, random = SharedFrames.create(name, spec), np.random.default_rng(0)
try:
    while True:
        ring.publish(random.integers(0, 256, spec.image_shape, np.uint8), time.monotonic_ns())
        time.sleep(1 / 30)
finally:
    ring.close()
"""
ENOUGH = 10  # frames
ELEMENTS = "videotestsrc", "tcpserversink", "tcpclientsrc", "rawvideoparse", "rtspsrc", "rtph264depay", "avdec_h264"
GST_PACKAGES = "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav"


class Running:
    """A runtime at work on a source; what it says is in `said`, what it presents in a folder of PNGs."""

    def __init__(self, command, bundle, source, folder):
        folder.mkdir()
        self.frames, self.report, self.said = folder / "frames", folder / "report.json", folder / "said"
        options = ("--source", source, "--sink", f"frames://{self.frames}", "--json", self.report)
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [*map(str, [*command, "run", bundle.path, *options])],
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=os.environ | {"COLUMNS": "500"},
            )

    def says(self, words):
        assert self.process.poll() is None, self.said.read_text()
        return words in self.said.read_text()

    def presented(self):
        assert self.process.poll() is None, self.said.read_text()
        return sum(1 for _ in self.frames.glob("*.png"))

    def held(self):
        """How many threads and open files it has."""
        proc = Path("/proc", str(self.process.pid))
        return sum(1 for _ in (proc / "task").iterdir()), sum(1 for _ in (proc / "fd").iterdir())

    def end(self, name="SIGINT"):
        """The report after a signal, and what was said."""
        self.process.send_signal(getattr(signal, name))
        assert self.process.wait(30) == 0
        return json.loads(self.report.read_text()), self.said.read_text()


@pytest.fixture
def start(bundle, tmp_path):
    """Starts a runtime by its command, to be ended by the test, or after it."""
    started = []

    def run(command, source):
        started.append(Running(command, bundle, source, tmp_path / f"run-{len(started)}"))
        return started[-1]

    yield run
    for running in started:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="session")
def gst(program, bundle):
    """Skips where there is no GStreamer, in derain-stream or at all."""
    arguments = ("run", bundle.path, "--source", "gst:filesrc location=/nowhere", "--sink", "null://")
    if "has no GStreamer" in subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60).stderr:
        pytest.skip("derain-stream has no GStreamer: build it with libgstreamer-plugins-base1.0-dev")
    if shutil.which("gst-inspect-1.0") is None:
        pytest.skip("no gst-inspect-1.0: apt-get install gstreamer1.0-tools")
    for element in ELEMENTS:
        if subprocess.run(["gst-inspect-1.0", "--exists", element], timeout=60).returncode:
            pytest.skip(f"no GStreamer element {element}: apt-get install {GST_PACKAGES}")


class Camera:
    """A program that delivers frames, the URI they are read by, and the runtimes that can read them."""

    def __init__(self, uri, runtimes, start, clean=lambda: None):
        self.uri, self.runtimes, self.start, self.clean = uri, runtimes, start, clean


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def rtsp(serve, port, size, program):
    return Camera(f"rtsp://me:{SECRET}@127.0.0.1:{port}/test", [PYTHON, [program]], lambda: serve(*size))


@pytest.fixture
def tcp(gst, port, size, program, processes):
    """Raw frames over TCP, which only a pipeline reads; pip's OpenCV, Python's here, has no GStreamer."""
    width, height = size
    caps = f"video/x-raw,format=BGR,width={width},height={height},framerate=30/1"
    server = f"videotestsrc is-live=true ! {caps} ! tcpserversink host=127.0.0.1 port={port}"
    parse = f"rawvideoparse width={width} height={height} format=bgr framerate=30/1"

    def start_server():
        processes.append(subprocess.Popen(["gst-launch-1.0", "-q", *server.split()], stderr=subprocess.DEVNULL))
        return processes[-1]

    return Camera(f"gst:tcpclientsrc host=127.0.0.1 port={port} ! {parse}", [[program]], start_server)


@pytest.fixture
def rtsp_pipeline(gst, serve, port, size, program):
    """A pipeline that starts and fails on a thread of its own."""
    uri = f"gst:rtspsrc location=rtsp://me:{SECRET}@127.0.0.1:{port}/test latency=0 ! rtph264depay ! avdec_h264"
    return Camera(uri, [[program]], lambda: serve(*size))


@pytest.fixture
def ring(size, program, name, processes, wait_until):
    path = Path("/dev/shm", name)

    def start_writer():
        processes.append(subprocess.Popen([sys.executable, "-c", WRITER, name, *map(str, size)]))
        wait_until(path.exists)
        return processes[-1]

    return Camera(f"shm://{name}", [PYTHON, [program]], start_writer, lambda: path.unlink(missing_ok=True))


@pytest.mark.parametrize(("kind", "name"), [("rtsp", "SIGINT"), ("rtsp", "SIGTERM"), ("tcp", "SIGTERM")])
def test_a_camera_is_derained_in_silence_until_a_signal_ends_it(
    kind, name, request, program, start, wait_until, validate
):
    camera = request.getfixturevalue(kind)
    camera.start()
    running = start([program], camera.uri)
    wait_until(lambda: running.presented() >= ENOUGH)
    report, said = running.end(name)
    validate(report)
    assert said == ""
    assert report["presented"] >= ENOUGH
    assert report["frames"] == report["presented"] + report["dropped"]
    assert report["policy"] == "latest"
    assert report["source_faults"] == report["engine_faults"] == 0
    assert set(report["latency_ms"]) == {"capture", "wait", "inference", "present", "capture_to_present"}
    assert report["latency_ms"]["capture_to_present"]["p50"] > report["latency_ms"]["inference"]["p50"] > 0


@pytest.mark.parametrize(
    ("kind", "loss", "why"),
    [
        ("rtsp", "SIGKILL", "the stream broke off: check the camera and the network"),
        ("rtsp", "SIGSTOP", "no frame for"),
        ("tcp", "SIGKILL", "the pipeline ended: try it with `gst-launch-1.0`"),
        ("tcp", "SIGSTOP", "no frame for"),
        ("rtsp_pipeline", "SIGKILL", "the pipeline "),
        ("ring", "SIGKILL", "no frame for"),
        ("ring", "SIGSTOP", "no frame for"),
        ("ring", "SIGTERM", "its writer has closed it"),
    ],
)
def test_a_camera_that_goes_and_comes_back_is_opened_again_by_both_runtimes_alike(
    kind, loss, why, request, start, wait_until, validate
):
    camera = request.getfixturevalue(kind)
    process = camera.start()
    runs = [start(runtime, camera.uri) for runtime in camera.runtimes]
    wait_until(lambda: all(running.presented() >= ENOUGH for running in runs))
    process.send_signal(getattr(signal, loss))
    if loss != "SIGSTOP":
        process.wait()
    wait_until(lambda: all(running.says("source lost") for running in runs))
    time.sleep(1)  # away long enough for an attempt or two to fail
    assert not any(running.says("is open again") for running in runs)
    if loss == "SIGSTOP":
        process.send_signal(signal.SIGCONT)
    else:
        camera.clean()
        camera.start()
    wait_until(lambda: all(running.says("is open again") for running in runs))
    before = [running.presented() for running in runs]
    wait_until(lambda: all(run.presented() >= count + ENOUGH for run, count in zip(runs, before, strict=True)))
    ends = [running.end() for running in runs]
    for report, said in ends:
        validate(report)
        lost = [line.partition("source lost: ")[2] for line in said.splitlines() if "source lost: " in line]
        assert report["source_faults"] == len(lost)
        assert why in lost[0]
        fault = report["source_fault"].partition("; not back: ")[0]
        assert lost[-1].rstrip() == f"{fault}: reopening it"
        assert SECRET not in said + json.dumps(report)
    first, last = ends[0][0], ends[-1][0]
    assert list(first) == list(last)
    for key in ("policy", "deadline_ms", "engine_faults", "engine_state"):
        assert first[key] == last[key]


def test_a_source_that_is_silent_from_the_start_is_told_of_and_waited_for_by_both_runtimes_alike(
    bundle, program, name, start, wait_until
):
    spec = bundle.manifest.input
    ring = SharedFrames.create(name, spec)
    try:
        runs = [start(runtime, f"shm://{name}") for runtime in (PYTHON, [program])]
        wait_until(lambda: all(running.says("no frame for") for running in runs))
        ring.publish(np.zeros(spec.image_shape, np.uint8), time.monotonic_ns())
        wait_until(lambda: all(running.presented() for running in runs))
        ends = [running.end() for running in runs]
    finally:
        ring.close()
    told = re.compile(
        r"shm://.+: open, but no frame for 5\.\d s, expected one within 5\.0 s: is the camera, or what .+\?"
    )
    words = [re.sub(r"5\.\d s,", "5 s,", told.search(said)[0]) for _, said in ends]
    assert words[0] == words[1]
    assert all(said.count("open, but no frame for") == 1 for _, said in ends)


def test_a_camera_with_a_password_is_opened_with_it_and_by_nobody_else(
    serve, port, size, program, bundle, start, stream, wait_until
):
    serve(*size, "me", SECRET)
    running = start([program], f"rtsp://me:{SECRET}@127.0.0.1:{port}/test")
    wait_until(lambda: running.presented() >= ENOUGH)
    assert SECRET not in "".join(map(str, running.end()))
    for login, path in ((f"me:{SECRET}2", "test"), (f"you:{SECRET}", "test"), (f"me:{SECRET}", "nothing")):
        uri = f"rtsp://{login}@127.0.0.1:{port}/{path}"
        fault = f"rtsp://***@127.0.0.1:{port}/{path}: no stream: check address, credentials and that the camera is on"
        done = stream("run", bundle.path, "--source", uri, "--sink", "null://")
        assert (done.returncode, done.stderr) == (1, f"error: {fault}\n")


@pytest.mark.parametrize(
    ("pipeline", "shown", "fault"),
    [
        ("videotestsrc !", "videotestsrc !", "does not start (syntax error)"),
        (
            f"videotestsrc ! nothing user-pw={SECRET}",
            "videotestsrc ! nothing user-pw=***",
            'does not start (no element "nothing")',
        ),
        (
            "filesrc location=/nowhere ! decodebin",
            "filesrc location=/nowhere ! decodebin",
            'does not start (Resource not found. No such file "/nowhere")',
        ),
        ("appsrc", "appsrc", "no frame within 5000 ms"),
    ],
)
def test_a_pipeline_that_does_not_start_is_told_in_one_line(pipeline, shown, fault, gst, stream, bundle):
    done = stream("run", bundle.path, "--source", f"gst:{pipeline}", "--sink", "null://")
    assert (done.returncode, done.stderr) == (1, f"error: gst:{shown}: {fault}: try it with `gst-launch-1.0`\n")


def test_a_server_that_is_away_is_told_in_one_line_without_the_password(rtsp_pipeline, stream, bundle):
    done = stream("run", bundle.path, "--source", rtsp_pipeline.uri, "--sink", "null://")
    assert done.returncode == 1
    assert re.fullmatch(r"error: gst:rtspsrc .*: does not start \(.+\): try it with `gst-launch-1.0`\n", done.stderr)
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("tcp", "SIGKILL"),
        ("tcp", "SIGSTOP"),
        ("rtsp_pipeline", "SIGKILL"),
        ("ring", "SIGKILL"),
        ("ring", "SIGSTOP"),
    ],
)
def test_attempts_to_reopen_a_source_leave_no_thread_and_no_file_behind(
    kind, loss, request, program, start, wait_until
):
    camera = request.getfixturevalue(kind)
    server = camera.start()
    running = start([program], camera.uri)
    wait_until(lambda: running.presented() >= ENOUGH)
    before = running.held()
    server.send_signal(getattr(signal, loss))
    wait_until(lambda: running.says("source lost"))
    time.sleep(3)  # attempts that fail at once do so after 0.1, 0.2, 0.4 and 0.8 s
    if loss == "SIGSTOP":
        server.send_signal(signal.SIGCONT)
    else:
        server.wait()
        camera.clean()
        camera.start()
    wait_until(lambda: running.says("is open again"))
    count = running.presented()
    wait_until(lambda: running.presented() >= count + ENOUGH)
    wait_until(lambda: all(now <= then for now, then in zip(running.held(), before, strict=True)))
    running.end()


def test_a_camera_that_is_not_there_is_told_in_one_line(stream, bundle):
    done = stream("run", bundle.path, "--source", "v4l2:///dev/video99", "--sink", "null://")
    fault = "/dev/video99: no such camera: list them with `ls /dev/video*`"
    assert (done.returncode, done.stderr) == (1, f"error: {fault}\n")
