"""The bundle that inverts, frames for it, and a clip of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from derain.runtime.bundle import Bundle
from derain.runtime.manifest import FrameSpec
from derain_tests.pictures import HEIGHT, WIDTH, write_clip


@pytest.fixture
def make_spec() -> Callable[..., FrameSpec]:
    def make(tensor: str = "frame", **changes) -> FrameSpec:
        return FrameSpec(**({"tensor": tensor, "width": WIDTH, "height": HEIGHT} | changes))

    return make


@pytest.fixture
def bundle(inverting: Bundle) -> Bundle:
    return inverting


@pytest.fixture
def smooth() -> np.ndarray:
    """BGR gradients that sharing chroma hardly changes, well inside the gamut."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    return np.stack([100 + 20 * x, 110 + 15 * y, 120 + 20 * (1 - x)], axis=-1).round().astype(np.uint8)


@pytest.fixture
def clip(tmp_path: Path, noise: list[np.ndarray]) -> Path:
    """The noise as a clip at 30 frames/s."""
    return write_clip(tmp_path / "clip.mkv", noise, fps=30)
