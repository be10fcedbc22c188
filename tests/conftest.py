"""What several folders of tests share: the data beside the repository, lively networks, small pictures."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch counts cores: threads that wait for busy ones only spin

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
RTSP_SERVER = REPOSITORY / "tests" / "rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that sees GStreamer's bindings
RTSP_PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
RTSP_NEEDS = """
import gi
gi.require_version("GstRtspServer", "1.0")
gi.require_version("Gst", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
raise SystemExit(any(Gst.ElementFactory.find(name) is None for name in ("x264enc", "rtph264pay", "videotestsrc")))
"""


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The images of MANIFEST.md, which are not the project's to ship."""
    root = Path(os.environ.get("DERAIN_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (root / "rain100").is_dir():
        pytest.skip(f"no images for training and evaluation at {root}: set DERAIN_DATA to where they lie")
    return root


@pytest.fixture(scope="session")
def lively() -> Callable[..., object]:
    """Gives a network weights that keep every signal alive, so that no mistake drowns in default initialisation."""
    import torch
    from torch import nn

    def enliven(network: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    fan_in = module.weight[0].numel()
                    module.weight.normal_(0, (1.5 / fan_in) ** 0.5, generator=generator)
                    if module.bias is not None:
                        module.bias.uniform_(-0.3, 0.3, generator=generator)
        return network.eval()

    return enliven


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """A picture with gradients, edges and noise, uint8 [H, W, 3]."""

    def draw(seed: int = 0, width: int = 64, height: int = 48) -> np.ndarray:
        random = np.random.default_rng(seed)
        coarse = random.uniform(20, 235, (4, 5, 3)).astype(np.float32)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        image[height // 3 : height // 2, width // 4 : width // 2] += 60
        return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes reads of every clip that is opened then fail, those of the numbers given, from 1 on."""
    opened = cv2.VideoCapture

    def spoil(*numbers: int) -> None:
        class Damaged:
            def __init__(self, *given: object) -> None:
                self.capture, self.reads = opened(*given), 0
                self.isOpened, self.get, self.release = self.capture.isOpened, self.capture.get, self.capture.release

            def read(self) -> tuple[bool, np.ndarray | None]:
                self.reads += 1
                decoded, image = self.capture.read()
                return (False, None) if self.reads in numbers else (decoded, image)

        monkeypatch.setattr(cv2, "VideoCapture", Damaged)

    return spoil


@pytest.fixture(scope="session")
def rtsp_support() -> None:
    """Skips where the system has no RTSP server to test against."""
    try:
        answer = subprocess.run([SYSTEM_PYTHON, "-c", RTSP_NEEDS], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip(f"no {SYSTEM_PYTHON} here to run an RTSP server with")
    if answer.returncode:
        pytest.skip(f"no RTSP server here: apt-get install {RTSP_PACKAGES}")


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
        arguments = [SYSTEM_PYTHON, RTSP_SERVER, port, width, height, *login]
        process = subprocess.Popen([str(part) for part in arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
