"""Frames, specs and traced graphs that the tests of the exporter share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from derain.runtime.manifest import FrameSpec

WIDTH, HEIGHT = 32, 24


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., FrameSpec]:
    def make(tensor: str = "frame", **changes) -> FrameSpec:
        return FrameSpec(**({"tensor": tensor, "width": WIDTH, "height": HEIGHT} | changes))

    return make


@pytest.fixture(scope="session")
def camera_bytes() -> Callable[[FrameSpec, int], torch.Tensor]:
    """Any bytes a camera could deliver in a spec's shape."""

    def draw(spec: FrameSpec, seed: int = 0) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, spec.shape, np.uint8))

    return draw
