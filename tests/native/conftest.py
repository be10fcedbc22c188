"""libderain through its C interface, the way a program without a C++ compiler would use it; and derain-stream."""

import ctypes as c
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from derain.export import exporter
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Image

BUILT = Path("build/native/default/runtime/native")
SECONDS_MS = 60_000
OK, END = 0, 2
EVERY = 1


class Options(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("bundle", c.c_char_p),
        ("engine", c.c_char_p),
        ("precision", c.c_char_p),
        ("policy", c.c_int32),
        ("threads", c.c_int32),
        ("deadline_ms", c.c_double),
        ("warn", c.c_void_p),
        ("user", c.c_void_p),
    )


class Frame(c.Structure):
    _fields_ = (
        ("struct_size", c.c_size_t),
        ("id", c.c_uint64),
        ("data", c.POINTER(c.c_uint8)),
        ("bytes", c.c_size_t),
        ("derained", c.c_int32),
        ("why", c.c_char_p),
        ("captured_ns", c.c_int64),
        ("inference_start_ns", c.c_int64),
        ("inference_end_ns", c.c_int64),
        ("ready_ns", c.c_int64),
    )


class Stream:
    """An open stream under the policy `every`."""

    def __init__(self, library: c.CDLL, bundle: Path, engine: str, precision: str) -> None:
        self.library = library
        self.handle = c.c_void_p()
        options = Options(c.sizeof(Options), bytes(bundle), engine.encode(), precision.encode(), EVERY)
        self._check(library.derain_open(c.byref(options), c.byref(self.handle)), OK)

    def clean(self, image: Image) -> Image:
        """One frame through the stream; RuntimeError where it comes back raw."""
        status = self.library.derain_submit(
            self.handle, c.c_void_p(image.ctypes.data), c.c_size_t(image.nbytes), c.c_int64(0), SECONDS_MS, None
        )
        self._check(status, OK)
        frame = Frame(c.sizeof(Frame))
        self._check(self.library.derain_receive(self.handle, SECONDS_MS, c.byref(frame)), OK)
        if not frame.derained:
            raise RuntimeError(frame.why.decode())
        return np.ctypeslib.as_array(frame.data, (frame.bytes,)).reshape(image.shape).copy()

    def _check(self, status: int, expected: int) -> None:
        if status != expected:
            raise RuntimeError(self.library.derain_error().decode())

    def close(self) -> None:
        self.library.derain_close(self.handle)


@pytest.fixture(scope="session")
def library(repository: Path) -> c.CDLL:
    path = Path(os.environ.get("DERAIN_NATIVE") or repository / BUILT / "libderain.so")
    if not path.is_file():
        pytest.skip(f"no native runtime at {path}: `make native` builds it")
    library = c.CDLL(str(path))
    library.derain_error.restype = c.c_char_p
    library.derain_close.restype = None
    return library


@pytest.fixture
def native(library: c.CDLL) -> Iterator[Callable[[Path, str, str], Stream]]:
    """Opens a stream on a bundle, by the names of an engine and a precision."""
    opened: list[Stream] = []

    def open_stream(bundle: Path, engine: str, precision: str = "fp32") -> Stream:
        opened.append(Stream(library, bundle, engine, precision))
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.close()


@pytest.fixture
def close_enough() -> Callable[[Image, Image], None]:
    """Asserts that two engines gave the same picture: within 1 grey level on 99.9 % of the bytes, 2 at most."""

    def check(seen: Image, expected: Image) -> None:
        difference = np.abs(seen.astype(np.int16) - expected)
        assert difference.max() <= 2
        assert np.mean(difference <= 1) >= 0.999

    return check


@pytest.fixture(scope="session")
def program(repository: Path) -> Path:
    path = Path(os.environ.get("DERAIN_STREAM") or repository / BUILT / "stream" / "derain-stream")
    if not path.is_file():
        pytest.skip(f"no derain-stream at {path}: `make native` builds it")
    return path


@pytest.fixture
def stream(program: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs derain-stream to its end."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(scope="session")
def size() -> tuple[int, int]:
    """Width and height of what `bundle` takes."""
    return 64, 48


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int]) -> Bundle:
    return exporter.export("random:daiam-nano", tmp_path_factory.mktemp("stream") / "bundle", size)[0]


@pytest.fixture
def name() -> Iterator[str]:
    """One for a ring of shared memory, which is gone after the test."""
    name = f"derain-test-{secrets.token_hex(4)}"
    yield name
    Path("/dev/shm", name).unlink(missing_ok=True)
