"""`rtsp://` against a real server: GStreamer's, from Debian."""

import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from derain.runtime import pipeline
from derain.runtime.bundle import Bundle
from derain.runtime.records import Outcome
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source
from derain.runtime.testing import ScriptedEngine

PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
WIDTH, HEIGHT = 160, 96
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
NEEDS = """
import gi
gi.require_version("GstRtspServer", "1.0")
gi.require_version("Gst", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
raise SystemExit(any(Gst.ElementFactory.find(name) is None for name in ("x264enc", "rtph264pay", "videotestsrc")))
"""


@pytest.fixture(scope="module")
def gstreamer():
    try:
        answer = subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip(f"no {PYTHON} here to run an RTSP server with")
    if answer.returncode:
        pytest.skip(f"no RTSP server here: apt-get install {PACKAGES}")


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def serve(gstreamer, port):
    """Starts a server on always the same port; what it returns can be killed."""
    started = []

    def start():
        arguments = [PYTHON, SERVER, port, WIDTH, HEIGHT]
        process = subprocess.Popen([str(part) for part in arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def sized(bundle, make_spec):
    """A bundle of the server's size, for an engine that needs no file."""
    frame, clean = (make_spec(name, width=WIDTH, height=HEIGHT) for name in ("frame", "clean"))
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"input": frame, "output": clean}))


def test_a_stream_that_is_killed_and_restarted_comes_back_and_is_derained_again(serve, port, sized):
    process = serve()
    stop, restarted, states, records = threading.Event(), [], [], []
    end = time.monotonic() + 60

    def on_frame(record, frame, shown):
        records.append(record)
        if len(records) == 30:
            process.kill()
        if restarted and record.captured_ns > restarted[0] and len(records) > 60:
            stop.set()

    def on_status(status):
        states.append(status.source)
        if process.poll() is not None and not restarted and status.source != "open":
            serve()
            restarted.append(time.monotonic_ns())
        if time.monotonic() > end:
            stop.set()

    uri = f"rtsp://me:hunter2@127.0.0.1:{port}/test"
    with open_source(uri, sized.manifest.input) as source, ScriptedEngine(sized) as engine:
        sink = open_sink("null://", sized.manifest.output)
        report = pipeline.run(engine, source, sink, on_frame, on_status=on_status, stop=stop)
    assert restarted, "the loss of the stream was not noticed within a minute"
    assert report.source_faults >= 1
    assert records[-1].captured_ns > restarted[0], "the stream did not come back within a minute"
    assert records[-1].outcome is Outcome.DERAINED
    assert [record.id for record in records] == sorted({record.id for record in records})
    assert any(state.startswith("lost") for state in states)
    assert states[-1] == "open"
    assert "hunter2" not in "".join(states) + report.model_dump_json()
