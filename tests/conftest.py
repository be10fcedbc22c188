"""What several folders of tests share; most of it lies in plugins/derain_tests, a file for a subject."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch counts cores: threads that wait for busy ones only spin

import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

pytest_plugins = ("derain_tests.pictures", "derain_tests.bundles", "derain_tests.rtsp", "derain_tests.verbs")


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
def wait_until() -> Callable[..., None]:
    """Waits for a condition, asserting that it comes true in time."""

    def wait(condition: Callable[[], object], timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.02)

    return wait
