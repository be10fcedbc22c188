"""Camera bytes in and out of the graph: what goes in comes out when the network changes nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from derain.export.camera import CameraModel, FrameDecoder, FrameEncoder
from derain.runtime.frames import from_bgr, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.pixels import ColorMatrix, ColorRange, PixelFormat
from derain.training.models import Prediction

COLOURS = [(matrix, colour_range) for matrix in ColorMatrix for colour_range in ColorRange]


class Identity(nn.Module):
    """Returns its input; asks for sizes that are multiples of `scale`."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> tuple[Prediction, None]:
        assert x.shape[2] % self.scale == x.shape[3] % self.scale == 0
        return Prediction(x, {}), None


def through(spec: FrameSpec, frame: Tensor, scale: int = 1, clean: FrameSpec | None = None) -> Tensor:
    model = CameraModel(Identity(scale), spec, clean or spec).eval()
    with torch.inference_mode():
        return model(frame)


@pytest.mark.parametrize("pixels", ["bgr8", "rgb8"])
@pytest.mark.parametrize(("width", "height"), [(32, 24), (33, 25), (17, 16), (19, 31)])
@pytest.mark.parametrize("scale", [1, 4])
def test_rgb_bytes_come_back_exactly_at_any_size(pixels, width, height, scale, make_spec, camera_bytes):
    spec = make_spec(pixels=pixels, width=width, height=height)
    frame = camera_bytes(spec)
    assert torch.equal(through(spec, frame, scale), frame)


@pytest.mark.parametrize("pixels", ["nv12", "uyvy"])
@pytest.mark.parametrize(("matrix", "colour_range"), COLOURS)
@pytest.mark.parametrize(("width", "height"), [(32, 24), (34, 26), (18, 22)])
def test_ycbcr_bytes_within_the_gamut_come_back_within_a_level(
    pixels, matrix, colour_range, width, height, make_spec, picture
):
    spec = make_spec(pixels=pixels, matrix=matrix, range=colour_range, width=width, height=height)
    soft = (64 + picture(width=width, height=height) // 2).astype(np.uint8)  # far enough from black and white
    frame = torch.from_numpy(from_bgr(soft, spec))[None]
    for scale in (1, 4):
        difference = through(spec, frame, scale).int() - frame.int()
        assert difference.abs().max() <= 1
    assert frame.float().std() > 10


def test_uyvy_may_be_odd_in_height(make_spec, picture):
    spec = make_spec(pixels="uyvy", width=32, height=25)
    frame = torch.from_numpy(from_bgr(64 + picture(width=32, height=25) // 2, spec))[None]
    assert (through(spec, frame, 4).int() - frame.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("pixels", "width", "height", "part"),
    [
        ("nv12", 33, 24, "width 33 is odd, nv12 needs an even width: use 32 or 34"),
        ("nv12", 32, 25, "height 25 is odd, nv12 needs an even height: use 24 or 26"),
        ("uyvy", 33, 24, "width 33 is odd, uyvy needs an even width: use 32 or 34"),
    ],
)
def test_odd_sizes_are_refused_where_chroma_is_shared(pixels, width, height, part):
    with pytest.raises(ValueError) as caught:
        PixelFormat(pixels).frame_shape(width, height)
    assert str(caught.value) == part


@pytest.mark.parametrize("pixels", list(PixelFormat))
@pytest.mark.parametrize(("matrix", "colour_range"), COLOURS)
def test_the_decoder_agrees_with_the_desks_on_any_bytes(pixels, matrix, colour_range, make_spec, camera_bytes):
    spec = make_spec(pixels=pixels, matrix=matrix, range=colour_range)
    frame = camera_bytes(spec)
    rgb = (FrameDecoder(spec)(frame) * 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(rgb[..., ::-1] - to_bgr(frame[0].numpy(), spec)).max() <= 1


@pytest.mark.parametrize("pixels", ["nv12", "uyvy"])
@pytest.mark.parametrize(("matrix", "colour_range"), COLOURS)
def test_the_encoder_agrees_with_the_desks(pixels, matrix, colour_range, make_spec, picture):
    spec, bgr = make_spec(pixels=pixels, matrix=matrix, range=colour_range), picture(width=32, height=24)
    rgb = torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    difference = FrameEncoder(spec)(rgb)[0].int().numpy() - from_bgr(bgr, spec)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("matrix", "colour_range", "red"),
    [  # Y, Cb, Cr of pure red, worked out from Kr and Kb of the standards
        ("bt601", "limited", (16 + 219 * 0.299, 128 - 112 * 0.299 / 0.886, 128 + 112)),
        ("bt709", "limited", (16 + 219 * 0.2126, 128 - 112 * 0.2126 / 0.9278, 128 + 112)),
        ("bt601", "full", (255 * 0.299, 128 - 127.5 * 0.299 / 0.886, 255)),
        ("bt709", "full", (255 * 0.2126, 128 - 127.5 * 0.2126 / 0.9278, 255)),
    ],
)
def test_red_becomes_the_standards_bytes_and_back(matrix, colour_range, red, make_spec):
    spec = make_spec(pixels="uyvy", matrix=matrix, range=colour_range)
    image = torch.zeros(1, 3, 24, 32)
    image[:, 0] = 1
    frame = FrameEncoder(spec)(image)
    y, cb, cr = frame[0, 5, 7, 1].item(), frame[0, 5, 6, 0].item(), frame[0, 5, 7, 0].item()
    assert (y, cb, cr) == pytest.approx(red, abs=0.51)
    torch.testing.assert_close(FrameDecoder(spec)(frame), image, rtol=0, atol=0.012)


def test_nv12_keeps_luma_first_and_chroma_interleaved_behind_it(make_spec):
    spec = make_spec(pixels="nv12", range="full")
    image = torch.zeros(1, 3, 24, 32)
    image[:, 2, :, 16:] = 1  # blue on the right
    frame = FrameEncoder(spec)(image)[0]
    assert frame.shape == (36, 32)
    assert frame[:24, :16].max() == 0 and frame[:24, 16:].min() == 29
    assert frame[24:, 16::2].unique().tolist() == [255] and frame[24:, 17::2].unique().tolist() == [107]
    assert frame[24:, :16].unique().tolist() == [128]


def test_the_network_gets_rgb_from_0_to_1_padded_by_its_own_border(make_spec):
    spec = make_spec(pixels="bgr8", width=17, height=18)
    frame = torch.zeros(spec.shape, dtype=torch.uint8)
    frame[..., 2] = torch.arange(17) * 15  # red rises to the right
    seen = {}

    class Spy(Identity):
        def forward(self, x):
            seen["x"] = x
            return super().forward(x)

    CameraModel(Spy(4), spec, spec)(frame)
    x = seen["x"]
    assert x.shape == (1, 3, 20, 20)
    assert x[0, 0, 0].tolist() == pytest.approx([min(i, 16) * 15 / 255 for i in range(20)])
    assert not x[:, 1:].any()


def test_values_beyond_the_range_are_clamped_and_rounded_to_nearest(make_spec):
    image = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.7]).reshape(1, 1, 1, 4).expand(1, 3, 24, 4).repeat(1, 1, 1, 8)
    frame = FrameEncoder(make_spec(pixels="rgb8"))(image)
    assert frame[0, 0, :4, 0].tolist() == [0, 0, 1, 255]


def test_input_and_output_may_be_of_different_formats(make_spec, picture):
    spec, clean = make_spec(pixels="nv12"), make_spec("clean", pixels="rgb8")
    bgr = 64 + picture(width=32, height=24) // 2
    frame = from_bgr(bgr, spec)
    derained = through(spec, torch.from_numpy(frame)[None], clean=clean)
    assert np.abs(derained[0].int().numpy()[..., ::-1] - to_bgr(frame, spec)).max() <= 1
