"""A real RTSP server: GStreamer's, from the distribution's packages."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that sees GStreamer's bindings
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
NEEDS = """
import gi
gi.require_version("GstRtspServer", "1.0")
gi.require_version("Gst", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
raise SystemExit(any(Gst.ElementFactory.find(name) is None for name in ("x264enc", "rtph264pay", "videotestsrc")))
"""


@pytest.fixture(scope="session")
def rtsp_support() -> None:
    """Skips where the system has no RTSP server to test against."""
    try:
        answer = subprocess.run([SYSTEM_PYTHON, "-c", NEEDS], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip(f"no {SYSTEM_PYTHON} here to run an RTSP server with")
    if answer.returncode:
        pytest.skip(f"no RTSP server here: apt-get install {PACKAGES}")


@pytest.fixture
def port() -> int:
    """One of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free


@pytest.fixture
def serve(rtsp_support: None, port: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a server of frames of a width and height at rtsp://127.0.0.1:PORT/test, for a user and password if given.

    It is always the same port; what it returns can be killed.
    """
    started: list[subprocess.Popen[str]] = []

    def start(width: int, height: int, *login: str) -> subprocess.Popen[str]:
        arguments = [SYSTEM_PYTHON, SERVER, port, width, height, *login]
        process = subprocess.Popen([str(part) for part in arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
