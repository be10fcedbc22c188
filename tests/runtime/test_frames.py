"""Pixel formats: shapes, and the bytes of known colours."""

import itertools

import cv2
import numpy as np
import pytest

from derain.runtime.frames import from_bgr, to_bgr
from derain.runtime.pixels import ColorMatrix, ColorRange, PixelFormat, rgb_to_yuv

COLOURS = list(itertools.product(ColorMatrix, ColorRange))


@pytest.mark.parametrize(
    ("pixels", "shape"),
    [("bgr8", (1, 16, 32, 3)), ("rgb8", (1, 16, 32, 3)), ("nv12", (1, 24, 32)), ("uyvy", (1, 16, 32, 2))],
)
def test_a_format_knows_the_shape_of_its_bytes(pixels, shape, make_spec):
    assert PixelFormat(pixels).frame_shape(32, 16) == shape
    assert make_spec(pixels=pixels).image_shape == shape[1:]


@pytest.mark.parametrize(
    ("pixels", "size", "message"),
    [
        ("nv12", (33, 16), "width 33 is odd, nv12 needs an even width: use 32 or 34"),
        ("nv12", (32, 17), "height 17 is odd, nv12 needs an even height: use 16 or 18"),
        ("uyvy", (33, 16), "width 33 is odd, uyvy needs an even width: use 32 or 34"),
    ],
)
def test_a_size_that_chroma_cannot_share_is_refused(pixels, size, message):
    with pytest.raises(ValueError, match=message):
        PixelFormat(pixels).frame_shape(*size)


def test_a_uyvy_frame_may_have_an_odd_height():
    assert PixelFormat.UYVY.frame_shape(32, 17) == (1, 17, 32, 2)


@pytest.mark.parametrize(("matrix", "range_"), COLOURS)
def test_black_white_and_the_primaries_meet_the_itu_code_values(matrix, range_):
    m, offset = rgb_to_yuv(matrix, range_)
    low, high = (0, 255) if range_ is ColorRange.FULL else (16, 235)
    top = 255.5 if range_ is ColorRange.FULL else 240
    np.testing.assert_allclose(offset, [low, 128, 128])
    np.testing.assert_allclose(m @ [255, 255, 255] + offset, [high, 128, 128], atol=1e-9)
    assert (m @ [0, 0, 255] + offset)[1] == pytest.approx(top)
    assert (m @ [255, 0, 0] + offset)[2] == pytest.approx(top)
    kr = {ColorMatrix.BT601: 0.299, ColorMatrix.BT709: 0.2126}[matrix]
    assert (m @ [255, 0, 0] + offset)[0] == pytest.approx(low + kr * (high - low))


@pytest.mark.parametrize("pixels", ["bgr8", "rgb8"])
def test_rgb_formats_round_trip_exactly(pixels, noise, make_spec):
    spec = make_spec(pixels=pixels)
    image = from_bgr(noise[0], spec)
    assert (image[..., 0] == noise[0][..., 0 if pixels == "bgr8" else 2]).all()
    np.testing.assert_array_equal(to_bgr(image, spec), noise[0])


@pytest.mark.parametrize("pixels", ["nv12", "uyvy"])
@pytest.mark.parametrize(("matrix", "range_"), COLOURS)
def test_a_smooth_image_survives_shared_chroma_within_rounding(pixels, matrix, range_, smooth, make_spec):
    spec = make_spec(pixels=pixels, matrix=matrix, range=range_)
    image = from_bgr(smooth, spec)
    assert image.shape == spec.image_shape
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    error = np.abs(to_bgr(image, spec).astype(int) - smooth)
    assert error.max() <= 3
    assert error.mean() < 1


def test_a_grey_image_has_neutral_chroma_and_its_luma_in_the_places_the_formats_say(make_spec):
    grey = np.full((16, 32, 3), 255, np.uint8)
    nv12 = from_bgr(grey, make_spec(pixels="nv12"))
    assert (nv12[:16] == 235).all()
    assert (nv12[16:] == 128).all()
    uyvy = from_bgr(grey, make_spec(pixels="uyvy"))
    assert (uyvy[..., 0] == 128).all()
    assert (uyvy[..., 1] == 235).all()


@pytest.mark.parametrize("pixels", ["nv12", "uyvy"])
def test_blue_comes_before_red_in_the_chroma_bytes(pixels, make_spec):
    blue = np.zeros((16, 32, 3), np.uint8)
    blue[..., 0] = 255
    image = from_bgr(blue, make_spec(pixels=pixels))
    first, second = (image[16, :2]) if pixels == "nv12" else image[0, :2, 0]
    assert first == 240
    assert second < 128


@pytest.mark.parametrize(("pixels", "code"), [("nv12", cv2.COLOR_YUV2BGR_NV12), ("uyvy", cv2.COLOR_YUV2BGR_UYVY)])
def test_the_way_back_is_opencvs_own_for_bt601_in_limited_range(pixels, code, noise, make_spec):
    spec = make_spec(pixels=pixels)
    image = from_bgr(noise[0], spec)
    reference = cv2.cvtColor(image, code)
    assert np.abs(to_bgr(image, spec).astype(int) - reference).max() <= 1


def test_the_way_there_agrees_with_opencvs_for_bt601_in_limited_range(smooth, make_spec):
    image = from_bgr(smooth, make_spec(pixels="nv12"))
    planar = cv2.cvtColor(smooth, cv2.COLOR_BGR2YUV_I420)
    assert np.abs(image[:16].astype(int) - planar[:16]).max() <= 1
    chroma = image[16:].reshape(8, 16, 2)
    reference = planar[16:].reshape(2, 8, 16).transpose(1, 2, 0)
    assert np.abs(chroma.astype(int) - reference).max() <= 1


def test_a_frame_of_another_size_names_both_sizes_and_the_export_that_fits(noise, make_spec):
    with pytest.raises(ValueError, match=r"frames are 32x16, the bundle expects 64x16: .*--size 32x16"):
        from_bgr(noise[0], make_spec(width=64))
