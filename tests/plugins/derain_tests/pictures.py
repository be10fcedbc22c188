"""Small pictures, and folders and clips of them."""

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT = 32, 16
"""Of the noise, and of the frames that the inverting bundle takes."""


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


def write_clip(path: Path, images: Iterable[np.ndarray], fps: float = 25) -> Path:
    """BGR images of one size as a lossless clip, written by OpenCV itself."""
    first, *others = images
    height, width, _ = first.shape
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), fps, (width, height))
    for image in (first, *others):
        writer.write(image)
    writer.release()
    return path


def write_frames(folder: Path, images: Iterable[np.ndarray]) -> Path:
    """BGR images as the PNGs 000, 001, … of a folder, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index:03d}.png"), image)
    return folder


@pytest.fixture
def noise() -> list[np.ndarray]:
    """Ten BGR frames that only a lossless path returns unchanged."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(10)]


@pytest.fixture
def folder(tmp_path: Path, noise: list[np.ndarray]) -> Path:
    """The noise as PNGs."""
    return write_frames(tmp_path / "frames", noise)


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
