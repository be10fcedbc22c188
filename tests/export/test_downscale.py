"""A network that sees frames smaller than they are: what it changes is enlarged and added to the frame."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from derain.export.build import build as build_engine
from derain.export.camera import CameraModel
from derain.export.exporter import export
from derain.export.fp16 import to_fp16
from derain.export.onnx_graph import summarise
from derain.export.verify import verify
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain.training.models import Prediction
from derain_tests.bundles import with_graph

SIZE = (50, 38)


class Change(nn.Module):
    """Adds `plane` [3, H, W] to its input, repeated over it, and keeps what it saw."""

    scale = 4

    def __init__(self, plane: Tensor) -> None:
        super().__init__()
        self.plane = plane

    def forward(self, x: Tensor) -> tuple[Prediction, None]:
        self.seen = x
        return Prediction(x + self.plane, {}), None


def through(network: nn.Module, frame: Tensor, downscale: int, make_spec) -> Tensor:
    spec = make_spec(pixels="rgb8", width=frame.shape[2], height=frame.shape[1])
    with torch.inference_mode():
        return CameraModel(network, spec, spec, downscale)(frame).int()


@pytest.fixture(scope="module")
def frame() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, *SIZE[::-1], 3), np.uint8))


@pytest.mark.parametrize("downscale", [1, 2, 3, 8])
def test_a_frame_keeps_its_own_detail_where_the_network_changes_nothing(downscale, frame, make_spec):
    assert torch.equal(through(Change(torch.zeros(3, 1, 1)), frame, downscale, make_spec), frame.int())


@pytest.mark.parametrize("downscale", [2, 3])
def test_the_network_sees_the_means_of_blocks_and_its_change_goes_onto_every_pixel(downscale, frame, make_spec):
    network = Change(torch.tensor([-40, 0, 20]).reshape(3, 1, 1) / 255)
    clean = through(network, frame, downscale, make_spec)
    assert torch.equal(clean, (frame.int() + torch.tensor([-40, 0, 20])).clamp(0, 255))
    sides = [-(-side // (4 * downscale)) * 4 for side in SIZE[::-1]]  # padded to the multiple that the network takes
    assert list(network.seen.shape) == [1, 3, *sides]
    block = frame[0, :downscale, :downscale].float().mean((0, 1)) / 255
    torch.testing.assert_close(network.seen[0, :, 0, 0], block)


def test_a_change_is_enlarged_smoothly_and_stays_in_its_place(make_spec):
    plane = torch.zeros(3, 4, 8)
    plane[:, :, 4:] = 100 / 255
    grey = torch.full((1, 8, 16, 3), 50, dtype=torch.uint8)
    row = through(Change(plane), grey, 2, make_spec)[0, 3, :, 0]
    assert row.tolist() == [50] * 7 + [75, 125] + [150] * 7


@pytest.fixture(scope="module")
def bundle(lively_weights, tmp_path_factory) -> Bundle:
    weights = str(lively_weights("daiam-nano"))
    return export(weights, tmp_path_factory.mktemp("small") / "b", SIZE, PixelFormat.BGR8, downscale=2)[0]


def test_its_bundle_is_the_network_at_a_quarter_of_the_arithmetic(bundle, lively_weights, tmp_path):
    (result,) = verify(bundle)
    assert result.passed and result.total.max_abs_diff <= 1
    assert bundle.manifest.model.config["downscale"] == 2
    full, _ = export(str(lively_weights("daiam-nano")), tmp_path / "b", (48, 48))
    assert "downscale" not in full.manifest.model.config
    seen = 28 * 20  # of 50x38, halved and padded to blocks of 4
    assert bundle.manifest.unroll.macs / seen == pytest.approx(full.manifest.unroll.macs / 48**2)


def test_colour_order_goes_into_the_weights_past_both_changes_of_size(bundle):
    graph = summarise(bundle.graph())
    assert next(entry.operators for entry in graph.rewrites if entry.name == "pixels") == 2
    assert (graph.operators["AveragePool"], graph.operators["Resize"], "Gather" in graph.operators) == (1, 1, False)


def test_verify_fails_where_the_graph_has_another_downscale_than_the_manifest_says(bundle, copied):
    other = copied(bundle)
    manifest = json.loads((other.path / "manifest.json").read_text())
    del manifest["model"]["config"]["downscale"]
    (other.path / "manifest.json").write_text(json.dumps(manifest))
    (result,) = verify(Bundle.load(other.path))
    assert not result.passed


@pytest.mark.parametrize(("downscale", "most"), [(0, 2), (3, 2)])
def test_a_downscale_that_leaves_too_little_is_refused(downscale, most, tmp_path):
    with pytest.raises(ValueError, match=f"downscale {downscale}: expected 1 to {most} for frames of 50x38"):
        export("random:daiam-nano", tmp_path / "b", SIZE, downscale=downscale)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pixels", [PixelFormat.BGR8, PixelFormat.NV12])
def test_it_becomes_an_engine_in_fp32_and_fp16(pixels, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")
    made, _ = export("random:daiam-nano", tmp_path / "b", (64, 48), pixels, downscale=2)
    made = with_graph(made, to_fp16(onnx.load(made.graph())), Precision.FP16)
    for precision in (Precision.FP32, Precision.FP16):
        made, entry = build_engine(made, precision, "tensorrt-rtx")
        assert entry.precision is precision
