"""Outputs that no derained frame can be."""

import numpy as np
import pytest

from derain.runtime.frames import from_bgr
from derain.runtime.pixels import PixelFormat
from derain.runtime.plausibility import Plausibility, luma_sample


def picture(seed, spec):
    rng = np.random.default_rng(seed)
    return from_bgr(rng.integers(0, 256, (spec.height, spec.width, 3), np.uint8), spec)


@pytest.fixture(params=list(PixelFormat))
def spec(request, make_spec):
    return make_spec(width=128, height=96, pixels=request.param)


def test_a_good_output_has_no_fault_frame_after_frame(spec):
    plausibility = Plausibility(spec, spec)
    assert [plausibility.fault(image, image) for image in (picture(seed, spec) for seed in range(5))] == [None] * 5


@pytest.mark.parametrize("value", [0, 16, 255])
def test_a_flat_output_is_found_in_every_format(spec, value):
    fault = Plausibility(spec, spec).fault(picture(0, spec), np.full(spec.image_shape, value, np.uint8))
    assert fault == f"the output is flat, {value} everywhere, the input is not"


def test_a_flat_output_of_a_flat_input_is_right(spec):
    dark = from_bgr(np.full((96, 128, 3), 7, np.uint8), spec)
    assert Plausibility(spec, spec).fault(dark, dark) is None


def test_a_frozen_output_is_found_where_the_input_moves_and_only_there(spec):
    plausibility = Plausibility(spec, spec)
    first, second = picture(0, spec), picture(1, spec)
    assert plausibility.fault(first, first) is None
    assert plausibility.fault(first, first) is None
    assert "the output is frozen while the input moves by" in plausibility.fault(second, first)
    assert plausibility.fault(second, second) is None


def test_the_sample_is_luma_and_small_whatever_the_size(make_spec):
    for width, height in ((2, 2), (32, 16), (1920, 1080)):
        for pixels in PixelFormat:
            spec = make_spec(width=width, height=height, pixels=pixels)
            grey = np.zeros((height, width, 3), np.uint8)
            grey[:] = np.arange(width, dtype=np.uint32)[:, None] % 251
            sample = luma_sample(from_bgr(grey, spec), spec)
            assert sample.size <= 64 * 2 * 48 * 2
            levels = luma_sample(from_bgr(np.full_like(grey, 255), spec), spec)
            assert np.ptp(levels) == 0
            assert levels[0, 0] in (235, 255)
