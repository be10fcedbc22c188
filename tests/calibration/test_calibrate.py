"""From frames to a graph in 8 bits: what it costs, what stays, and what is left behind by a fault."""

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from derain.calibration.calibrate import calibrate
from derain.calibration.ranges import Method
from derain.calibration.sensitivity import Judge, LayerCost, smallest_kept
from derain.export.exporter import export
from derain.export.fp16 import overflowing, to_fp16
from derain.export.lint import findings
from derain.export.onnx_graph import read_onnx
from derain.runtime import engines
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Frame, from_bgr
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain.runtime.psnr import psnr
from derain.training.models import Prediction, registry

WIDTH, HEIGHT = 48, 32


@pytest.fixture(scope="module")
def original(tmp_path_factory, lively_weights) -> Bundle:
    return export(str(lively_weights("daiam-nano")), tmp_path_factory.mktemp("nano") / "bundle", (WIDTH, HEIGHT))[0]


@pytest.fixture
def bundle(original, copied) -> Bundle:
    return copied(original)


@pytest.fixture(scope="module")
def clip(picture) -> list[Frame]:
    return [Frame(index, 0, picture(index, WIDTH, HEIGHT), 0) for index in range(12)]


def run(bundle: Bundle, clip: list[Frame], **options):
    settings = {"precision": Precision.INT8, "method": Method.MINMAX, "count": 8, "max_loss": 100.0} | options
    return calibrate(bundle, settings.pop("precision"), clip, "clip", **settings)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
@pytest.mark.parametrize("rest", [Precision.FP16, Precision.FP32])
def test_a_graph_in_8_bits_is_added_with_what_it_costs(precision, rest, bundle, clip):
    made, result = run(bundle, clip, precision=precision, rest=rest)
    graph = onnx.load(Bundle.load(made.path).graph(precision))
    assert findings(graph) == []
    types = {value.type.tensor_type.elem_type for value in graph.graph.value_info}
    assert (onnx.TensorProto.FLOAT16 in types) == (rest is Precision.FP16)
    assert result.kept == () and 25 < result.psnr_vs_fp32 < 60
    (quality,) = made.manifest.quality
    assert (quality.frames, quality.psnr_vs_fp32) == ("clip", result.psnr_vs_fp32)


def test_an_engine_loses_no_more_in_8_bits_than_the_calibration_says(clip, tmp_path):
    """ONNX Runtime's own 32-bit biases, in FP16's few digits, cost this network 9 dB more."""
    torch.manual_seed(0)
    made, result = run(export("random:prenet-nano", tmp_path / "bundle", (WIDTH, HEIGHT))[0], clip)
    frames = [frame.image for frame in clip if frame.id in result.judged]
    outputs = []
    for precision in (Precision.FP32, Precision.INT8):
        with engines.create("onnxruntime", made, precision) as engine:
            outputs.append(np.stack([engine.infer(frame) for frame in frames]))
    assert psnr(*outputs) > result.psnr_vs_fp32 - 2


def test_the_frames_that_judge_give_no_ranges(bundle, clip):
    _, result = run(bundle, clip)
    assert len(result.frames) == 6 and len(result.judged) == 2
    assert not set(result.frames) & set(result.judged)


def test_every_frame_that_gives_ranges_is_searched_for_what_fp16_cannot_hold(bundle, clip, monkeypatch):
    from derain.calibration import calibrate as module

    searched = []

    def search(model, images):
        searched.append(len(images))
        return overflowing(model, images)

    monkeypatch.setattr(module, "overflowing", search)
    _, result = run(bundle, clip)
    assert searched == [len(result.frames)] == [6]


def test_without_a_method_every_one_is_tried_and_the_best_taken(bundle, clip):
    _, result = run(bundle, clip, method=None)
    assert set(result.losses_db) == {"minmax", "percentile", "entropy", "mse"}
    assert result.losses_db[result.method] == min(result.losses_db.values())


def test_layers_stay_in_floating_point_until_the_loss_is_kept(bundle, clip):
    _, everything = run(bundle, clip)
    allowed = everything.loss_db / 3
    made, result = run(bundle, clip, max_loss=allowed)
    assert 0 < len(result.kept) < len(result.layers)
    assert result.loss_db <= allowed and result.psnr_vs_fp32 > everything.psnr_vs_fp32
    costliest = sorted(result.layers, key=lambda layer: -layer.mse)[: len(result.kept)]
    assert {layer.name for layer in costliest} == set(result.kept)
    graph = onnx.load(made.graph(Precision.INT8))
    plain = {n.name for n in graph.graph.node if n.op_type == "Conv" and "_dq" not in n.input[0]}
    assert set(result.kept) <= plain


def test_the_fewest_that_keep_the_loss_are_found():
    found = [LayerCost(f"l{index}", cost, 0.0) for index, cost in enumerate([1, 9, 3, 7, 5, 0.5])]
    price = {layer.name: layer.mse for layer in found}

    def loss(kept):
        return sum(price.values()) - sum(price[name] for name in kept)

    for allowed, kept in ((30, []), (17, ["l1"]), (10, ["l1", "l3"]), (0.6, ["l0", "l1", "l2", "l3", "l4"])):
        assert smallest_kept(found, allowed, loss) == kept
    with pytest.raises(ValueError, match=r"no layer can be in 8 bits at a loss of 0\.1 dB: allow more with --max-loss"):
        smallest_kept(found, 0.1, loss)


@pytest.mark.parametrize("allowed", [float("nan"), -1.0])
def test_a_loss_that_nothing_could_keep_is_refused_before_the_work(bundle, allowed):
    with pytest.raises(ValueError, match=r"^--max-loss is (nan|-1) dB, expected 0 or more"):
        run(bundle, iter(()), max_loss=allowed)


def test_with_the_clean_frames_the_loss_is_the_fall_against_them(bundle, clip):
    truth = [Frame(frame.id, 0, cv2.GaussianBlur(frame.image, (3, 3), 0), 0) for frame in clip]
    made, result = run(bundle, clip, truth=truth)
    assert result.loss_db == pytest.approx(result.psnr_rgb_fp32 - result.psnr_rgb, abs=1e-6)
    (quality,) = [each for each in made.manifest.quality if each.precision is Precision.INT8]
    assert quality.ssim_rgb == result.ssim_rgb == pytest.approx(result.ssim_rgb_fp32, abs=0.1)
    for other in (truth[1:], truth[:-1], [*truth, truth[0]]):
        with pytest.raises(
            ValueError, match=rf"--truth has {len(other)} frames, --frames 12: expected one clean frame"
        ):
            run(bundle, clip, truth=other)


def test_the_loss_is_of_the_picture_whatever_the_cameras_bytes(original, clip, tmp_path):
    weights = str(original.file("weights.safetensors"))
    losses = {}
    for pixels in (PixelFormat.BGR8, PixelFormat.NV12):
        made, _ = export(weights, tmp_path / pixels, (WIDTH, HEIGHT), pixels)
        frames = [Frame(frame.id, 0, from_bgr(frame.image, made.manifest.input), 0) for frame in clip]
        losses[pixels] = run(made, frames)[1]
    bgr8, nv12 = losses.values()
    assert nv12.loss_db == pytest.approx(bgr8.loss_db, rel=0.35)
    assert nv12.psnr_vs_fp32 == pytest.approx(bgr8.psnr_vs_fp32, abs=1.3)


class Foreign(nn.Module):
    """A user's network, with submodules named as the camera's conversions might be."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.encode, self.between = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.decode = nn.Conv2d(8, 3, 3, padding=1)
        with torch.no_grad():
            self.encode.weight *= gain
            self.between.weight /= gain

    def forward(self, x: Tensor, state: None = None) -> tuple[Prediction, None]:
        hidden = torch.relu(self.between(torch.relu(self.encode(x))))
        return Prediction(x + 0.1 * self.decode(hidden), {}), None


@pytest.fixture
def foreign(monkeypatch, tmp_path):
    def make(gain: float) -> Bundle:
        monkeypatch.setitem(registry._BUILDERS, "foreign", lambda: Foreign(gain))
        return export("random:foreign", tmp_path / f"foreign{gain:g}", (WIDTH, HEIGHT))[0]

    return make


def test_a_network_of_any_names_is_quantised_whole(foreign, clip):
    made, result = run(foreign(1), clip)
    operators = [node.op_type for node in onnx.load(made.graph(Precision.INT8)).graph.node]
    assert operators.count("QuantizeLinear") == 3 and result.kept == ()


def test_a_layer_beyond_fp16_stays_in_floating_point_and_is_told(foreign, clip):
    made, result = run(foreign(5e4), clip)
    assert set(result.kept) == {"encode_conv2d", "between_conv2d"}
    assert findings(onnx.load(made.graph(Precision.INT8))) == []


def test_bad_frames_leave_the_bundle_as_it_was(bundle, clip):
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    black = [Frame(index, 0, np.zeros((HEIGHT, WIDTH, 3), np.uint8), 0) for index in range(9)]
    for frames, told in ((black, "all black"), (clip[:2], "2 frames, expected at least 4")):
        with pytest.raises(ValueError, match=told):
            run(bundle, frames)
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before


def test_the_search_measures_the_graph_as_it_will_run(bundle, clip, monkeypatch):
    """With FP16 that costs more than the 8 bits do, no choice of layers is enough; in FP32 it would not show."""
    from derain.calibration import calibrate as module

    def coarse(model, islands=()):
        graph = to_fp16(model, islands)
        for tensor in graph.graph.initializer:
            if tensor.name.startswith("network_global_decoder_out_bias"):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float16(0.5), tensor.name))
        return graph

    _, alone = run(bundle, clip, rest=Precision.FP32, max_loss=100.0)
    monkeypatch.setattr(module, "to_fp16", coarse)
    with pytest.raises(ValueError, match="no layer can be in 8 bits"):
        run(bundle, clip, max_loss=2 * alone.loss_db)


def test_every_frame_is_held_against_the_clean_one_of_its_own_number(bundle, clip):
    truth = [Frame(frame.id, 0, np.full_like(frame.image, 10 + 20 * frame.id), 0) for frame in clip]
    made, result = run(bundle, clip, truth=truth)
    for precision, told in ((Precision.FP32, result.psnr_rgb_fp32), (Precision.INT8, result.psnr_rgb)):
        with engines.create("onnxruntime", made, precision) as engine:
            scores = [psnr(engine.infer(clip[number].image), truth[number].image) for number in result.judged]
        assert told == pytest.approx(np.mean(scores), abs=0.05)


def test_without_clean_frames_fp32_is_taken_to_be_at_32_db(original, clip):
    """Errors that add: one grey level everywhere, on 255² / 10^3.2 squared grey levels of FP32's own."""
    images = [frame.image for frame in clip[:2]]
    judge = Judge(read_onnx(original.graph()), images, None, original.manifest.output)
    off = [np.where(image < 128, image + 1, image - 1).astype(np.uint8) for image in judge.expected]
    assert judge.loss(off) == pytest.approx(10 * np.log10(1 + 10**3.2 / 255**2))
