"""Does `verify` pass what is right, fail what is wrong, and name where it went wrong?"""

import json
import re
from functools import partial

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from derain.calibration.calibrate import calibrate
from derain.calibration.qdq import activations, layers, quantize
from derain.calibration.ranges import Method, histograms
from derain.export import verify as verification
from derain.export.camera import CameraModel
from derain.export.drift import first_drift
from derain.export.exporter import bundle_network, export
from derain.export.fp16 import add_fp16, ensure_fp16_graph, to_fp16
from derain.export.onnx_graph import producers
from derain.export.probe import seeded_frame
from derain.export.verify import verify
from derain.runtime.bundle import Bundle
from derain.runtime.engines import base
from derain.runtime.engines.onnxruntime import OnnxRuntimeEngine
from derain.runtime.frames import Frame
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain.runtime.psnr import MIN_PSNR
from derain_tests.bundles import scaled, with_graph


@pytest.fixture(scope="module")
def original(lively_weights, tmp_path_factory) -> Bundle:
    """Without rewrites, so that the file's weights have the network's names."""
    return export(
        str(lively_weights("daiam-nano")), tmp_path_factory.mktemp("bgr") / "bundle", (33, 25), steps=2, rewrites=()
    )[0]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Bundle:
    """The weights that ship, for driving frames made small."""
    return export("daiam-nano", tmp_path_factory.mktemp("shipped") / "bundle", (96, 72), rewrites=())[0]


@pytest.fixture
def bundle(original, copied) -> Bundle:
    """A copy that a test may spoil."""
    return copied(original)


def pytorch_outputs(bundle: Bundle, frames):
    return [answer.image for answer in verification._references(bundle, frames)]


def rewritten(bundle: Bundle, change, precision: Precision = Precision.FP32) -> Bundle:
    """The bundle with its graph changed, in one piece and with the right hashes."""
    model = onnx.load(bundle.graph())
    change(model)
    return with_graph(bundle, model, precision)


def at_the_end(model: onnx.ModelProto, operator: str, value: np.ndarray | np.generic) -> None:
    """Spoil the values that become the frame's bytes: `operator` of them and a constant of the graph's own."""
    cast = next(node for node in model.graph.node if node.output[0] == "clean")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), "spoiling"))
    node = onnx.helper.make_node(operator, [cast.input[0], "spoiling"], ["spoilt"])
    model.graph.node.insert(list(model.graph.node).index(cast), node)
    cast.input[0] = "spoilt"


def test_a_bundle_of_odd_frames_is_the_network_bit_by_bit_or_nearly(original):
    (result,) = verify(original)
    assert result.precision is Precision.FP32
    assert result.passed and result.first_drift is None
    assert result.total.max_abs_diff <= 1 and result.total.psnr > 60


def test_the_reference_is_what_a_call_of_the_network_returns(original):
    manifest = original.manifest
    frame = seeded_frame(manifest.input, 0)
    model = CameraModel(bundle_network(original), manifest.input, manifest.output).eval()
    with torch.inference_mode():
        called = model(torch.from_numpy(frame)[None])[0].numpy()
    assert np.abs(pytorch_outputs(original, [frame])[0].astype(int) - called).max() <= 1


def test_a_bundle_of_nv12_frames_is_verified_on_bytes_as_well(lively_weights, tmp_path):
    bundle, _ = export(str(lively_weights("dam-zero", half=True)), tmp_path / "b", (34, 26), PixelFormat.NV12)
    (result,) = verify(bundle, seed=3)
    assert result.passed


@pytest.mark.parametrize(
    ("weight", "first"),
    [
        ("network.branches.streak.encoder.blocks.1.conv2.weight", "streak_encoder_blocks_1_conv2_conv2d"),
        ("network.branches.drop.gate_light.weight", "drop_gate_light_conv2d"),
        ("network.global_decoder.out.weight", "global_decoder_out_conv2d_1"),
        ("network_global_decoder_lstm_gates_weight_in_16to31", "global_decoder_lstm_chunk_1_0"),
    ],
)
def test_a_graph_with_one_changed_weight_fails_at_the_first_tensor_that_saw_it(bundle, weight, first):
    (result,) = verify(rewritten(bundle, partial(scaled, name=weight, factor=3)))
    assert not result.passed
    assert result.total.psnr < 60
    if "lstm_gates" in weight:  # the halves of a hoisted convolution are not in the naive unroll: their sum's users are
        assert result.first_drift.startswith("global_decoder_lstm_")
    else:
        assert result.first_drift == first


def test_a_nan_in_the_graph_does_not_pass(bundle):
    change = partial(scaled, name="network.branches.drop.encoder.head.bias", factor=float("nan"))
    (result,) = verify(rewritten(bundle, change))
    assert not result.passed
    assert result.first_drift == "drop_encoder_head_conv2d"


@pytest.mark.filterwarnings("error")
def test_weights_that_overflow_do_not_pass_though_both_sides_agree(bundle, tmp_path):
    network = bundle_network(bundle)
    head = network.branches["drop"].encoder.head
    with torch.no_grad():  # the largest number, and one product beyond it: infinite in whatever order it is summed
        head.weight[3] = 0
        head.weight[3, 0, 1, 1] = head.bias[3] = torch.finfo(torch.float32).max
    weights = tmp_path / "large.safetensors"
    options = json.dumps(bundle.manifest.model.config["options"])
    save_file(network.state_dict(), weights, {"model": "daiam-nano", "options": options})
    model = onnx.load(bundle.graph())
    for part in ("weight", "bias"):
        (stored,) = [each for each in model.graph.initializer if each.name.endswith(f"drop.encoder.head.{part}")]
        stored.CopyFrom(numpy_helper.from_array(getattr(head, part).detach().numpy(), stored.name))
    spoilt = bundle.add({"weights.safetensors": weights, "graph.fp32.onnx": model.SerializeToString()})
    (result,) = verify(spoilt)
    assert result.total.psnr > MIN_PSNR[Precision.FP32] and result.total.max_abs_diff <= 1
    assert not result.passed
    assert result.overflow == "drop_encoder_head_conv2d"


def test_a_dead_layer_does_not_pass_though_the_output_hardly_shows_it(tmp_path):
    edge, _ = export("daiam-edge", tmp_path / "bundle", (96, 72), rewrites=())
    (sound,) = verify(edge)
    assert sound.passed
    dead = partial(scaled, name="network.branches.streak.light.blocks.1.conv2.weight", factor=0)
    (result,) = verify(rewritten(edge, dead))
    assert result.total.psnr > MIN_PSNR[Precision.FP32] and result.total.max_abs_diff <= 1
    assert not result.passed
    assert result.first_drift == "streak_light_blocks_1_conv2_conv2d"
    assert result.graph_fault == f"has tensor {result.first_drift!r} of another magnitude than PyTorch"


def test_an_int8_graph_that_hardly_derains_does_not_pass_at_over_30_db(shipped, copied):
    """Its output is a third the network's and two thirds the frame as it came."""

    def change(model: onnx.ModelProto) -> None:
        cast = next(node for node in model.graph.node if node.output[0] == "clean")
        for name, value in (("third", 1 / 3), ("rest", 2 / 3)):
            model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
        mixed = [
            onnx.helper.make_node("Cast", ["frame"], ["raw"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", ["raw", "rest"], ["raw_share"]),
            onnx.helper.make_node("Mul", [cast.input[0], "third"], ["clean_share"]),
            onnx.helper.make_node("Add", ["raw_share", "clean_share"], ["mixed"]),
        ]
        at = list(model.graph.node).index(cast)
        for node in reversed(mixed):
            model.graph.node.insert(at, node)
        cast.input[0] = "mixed"

    results = {result.precision: result for result in verify(rewritten(copied(shipped), change, Precision.INT8))}
    result = results[Precision.INT8]
    assert results[Precision.FP32].passed and not result.passed
    assert result.total.psnr > MIN_PSNR[Precision.INT8]
    assert result.graph_fault == result.engine_fault
    told = r"errs by \S+ squared, expected at most \S+, 25% of what the network changes"
    assert re.fullmatch(told, result.graph_fault)


def test_one_wrong_byte_does_not_pass_however_high_the_psnr(bundle):
    speck = np.zeros((1, 25, 33, 3), np.float32)
    speck[0, 12, 16, 1] = -3
    (result,) = verify(rewritten(bundle, partial(at_the_end, operator="Add", value=speck)))
    assert not result.passed
    assert result.total.psnr > 60 and result.total.max_abs_diff in (2, 3, 4)
    assert result.first_drift is None  # it lies behind the last tensor that both have


def test_an_fp16_graph_with_a_spoilt_border_does_not_pass_however_high_the_psnr(bundle):
    whole, _ = add_fp16(bundle, [seeded_frame(bundle.manifest.input, 0)], "seeded")
    assert all(result.passed for result in verify(whole))
    model = onnx.load(whole.graph(Precision.FP16))
    border = np.zeros((1, 25, 33, 3), np.float16)
    corner = pytorch_outputs(bundle, [seeded_frame(bundle.manifest.input, 0)])[0][-1, -1]
    border[0, -1, -1] = np.where(corner < 128, 16, -16)
    at_the_end(model, "Add", border)
    spoilt = with_graph(whole, model, Precision.FP16)
    (fp16,) = [result for result in verify(spoilt) if result.precision is Precision.FP16]
    assert not fp16.passed
    assert fp16.total.psnr > MIN_PSNR[Precision.FP16]


def test_a_change_too_small_to_see_passes(bundle):
    change = partial(scaled, name="network.global_decoder.out.weight", factor=1.00001)
    (result,) = verify(rewritten(bundle, change))
    assert result.passed


def test_every_graph_is_judged_by_its_own_precisions_measure(bundle):
    """A few grey levels are too much for FP32, fine for INT8."""
    change = partial(at_the_end, operator="Mul", value=np.float32(0.98))
    both = rewritten(bundle, change, Precision.INT8)
    results = {result.precision: result for result in verify(both)}
    assert results[Precision.FP32].passed and results[Precision.INT8].passed
    assert results[Precision.INT8].total.max_abs_diff > 1
    (alone,) = verify(rewritten(both, change))[:1]
    assert alone.precision is Precision.FP32 and not alone.passed


@pytest.fixture(scope="module")
def in_8_bits(tmp_path_factory) -> dict[Precision, Bundle]:
    """The shipped network's INT8 and FP8 graphs as calibrate makes them, of frames in rain."""
    made = {}
    for precision in (Precision.INT8, Precision.FP8):
        plain, _ = export("daiam-nano", tmp_path_factory.mktemp(str(precision)) / "bundle", (96, 72))
        frames = [Frame(index, 0, seeded_frame(plain.manifest.input, index + 1), 0) for index in range(4)]
        made[precision], _ = calibrate(plain, precision, frames, "pictures", method=Method.MINMAX, max_loss=100.0)
    return made


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_layer_that_is_dead_in_8_bits_alone_does_not_pass_though_its_bias_is_there(precision, in_8_bits, copied):
    sound = in_8_bits[precision]
    assert all(result.passed for result in verify(sound))
    model = onnx.load(sound.graph(precision))
    made_by = producers(model)
    (gate,) = [node for node in model.graph.node if node.name == "streak_gate_heavy_conv2d_and_1"]
    (weight,) = [t for t in model.graph.initializer if t.name == made_by[gate.input[1]].input[0]]
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(values), weight.name))
    fp32, dead = verify(with_graph(copied(sound), model, precision))
    assert fp32.passed
    assert dead.total.psnr > MIN_PSNR[precision]
    assert f"has constant '{weight.name.removesuffix('_q')}' other than the FP32 graph's" == dead.graph_fault


@pytest.mark.parametrize(
    ("precision", "constant", "factor"),
    [
        (Precision.FP16, "network_to_blocks_weight_in_482e6fec", 1.005),
        (Precision.INT8, "network_to_blocks_weight_in_482e6fec", 1.05),
        (Precision.FP8, "network.branches.drop.light.blocks.2.conv1.bias", 0),
    ],
)
def test_a_constant_in_floating_point_that_is_not_the_fp32_graphs_does_not_pass_though_it_hardly_shows(
    precision, constant, factor, in_8_bits, copied
):
    sound = ensure_fp16_graph(copied(in_8_bits[Precision.INT8 if precision is Precision.FP16 else precision]))
    model = onnx.load(sound.graph(precision))
    scaled(model, f"{constant}_fp16", factor)
    spoilt = {result.precision: result for result in verify(with_graph(sound, model, precision))}[precision]
    assert spoilt.total.psnr > MIN_PSNR[precision]
    assert spoilt.graph_fault == f"has constant {constant!r} other than the FP32 graph's"


def test_a_flat_frame_in_which_a_tensor_is_next_to_nothing_passes(in_8_bits):
    grey = np.full(in_8_bits[Precision.INT8].manifest.input.image_shape, 128, np.uint8)
    assert all(result.passed for result in verify(in_8_bits[Precision.INT8], frames=[grey]))


def test_an_fp16_graph_that_overflows_fails_with_the_tensors_name(bundle):
    model = onnx.load(bundle.graph())
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith("streak.encoder.conv.bias")]
    bias.CopyFrom(numpy_helper.from_array(np.full(16, 1e6, np.float32), bias.name))
    spoilt = with_graph(bundle, to_fp16(model), Precision.FP16)
    results = {result.precision: result for result in verify(spoilt)}
    assert results[Precision.FP32].passed and results[Precision.FP32].overflow is None
    assert not results[Precision.FP16].passed
    assert results[Precision.FP16].overflow.startswith("streak_encoder_")


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.FP8])
def test_what_is_merely_rounded_has_not_drifted_and_a_changed_weight_has(precision, shipped, picture):
    model = onnx.shape_inference.infer_shapes(onnx.load(shipped.graph()), data_prop=True)
    collected = histograms(model, activations(model), [picture(seed, 96, 72) for seed in range(3)])
    limits = {name: histogram.limit(Method.MINMAX, precision) for name, histogram in collected.items()}
    found = []
    for factor in (1.0, 3.0):
        scaled(model, "network.branches.drop.gate_light.weight", factor)
        whole = precision is Precision.FP16
        graph = to_fp16(model if whole else quantize(model, limits, precision, layers(model)))
        found.append(first_drift(with_graph(shipped, graph, precision), precision, picture(7, 96, 72)))
    assert found == [None, "drop_gate_light_conv2d"]


class Bleaching(OnnxRuntimeEngine):
    """Has no plan of the FP32 graph, and adds 20 grey levels to dark frames."""

    @classmethod
    def precisions(cls, bundle: Bundle) -> list[Precision]:
        return [precision for precision in super().precisions(bundle) if precision is not Precision.FP32]

    def _infer(self, tensor):
        clean = super()._infer(tensor)
        return clean if tensor.mean() > 100 else np.where(clean < 128, clean + 20, clean - 20).astype(np.uint8)


@pytest.fixture
def bleaching(monkeypatch) -> str:
    monkeypatch.setitem(base._backends, "bleaching", Bleaching)
    monkeypatch.setattr(Bleaching, "name", "bleaching")
    return "bleaching"


def test_an_engine_is_verified_in_the_precisions_it_has_and_refused_where_it_has_none(bundle, bleaching):
    with pytest.raises(ValueError, match=r"no engine for bleaching in it: run `derain build .* --api bleaching`"):
        verify(bundle, bleaching)
    (result,) = verify(ensure_fp16_graph(bundle), bleaching)
    assert result.precision is Precision.FP16 and result.passed


def test_the_worst_frame_counts_and_the_hop_that_spoils_it_is_told(bundle, bleaching):
    bright, dark = (seeded_frame(bundle.manifest.input, seed) // 3 for seed in (1, 2))
    frames = [bright + 160, dark]
    (result,) = verify(ensure_fp16_graph(bundle), bleaching, frames=frames)
    assert not result.passed and result.frame == 2
    assert result.pytorch_to_graph.psnr > 50 and result.pytorch_to_graph.max_abs_diff <= 1
    assert result.graph_to_engine.max_abs_diff in (19, 20, 21)
    assert result.first_drift is None  # no tensor of the graph is wrong


def test_the_shipped_network_in_fp16_holds_50_db_on_every_driving_frame(shipped, data_root):
    files = sorted((data_root / "sequences" / "camvid_val").iterdir())[::25]
    frames = [cv2.resize(cv2.imread(str(file)), (96, 72), interpolation=cv2.INTER_AREA) for file in files]
    results = {result.precision: result for result in verify(ensure_fp16_graph(shipped), frames=frames)}
    for precision in (Precision.FP32, Precision.FP16):  # other tests may have added others
        result = results[precision]
        assert result.passed and result.total.psnr >= 50 and result.pytorch_to_graph.psnr >= 50


def test_results_as_json_are_plain_and_an_infinite_psnr_is_null(original):
    (result,) = verify(original)
    told = result.to_json()
    hops = {"pytorch_to_graph", "graph_to_engine"}
    assert set(told) == {"psnr_vs_fp32", "max_abs_diff", *hops, "passed", "fault", "overflow", "first_drift", "frame"}
    assert told["passed"] is True and told["fault"] is None and told["frame"] == 0
    assert told["graph_to_engine"] == {"psnr": None, "max_abs_diff": 0}
    assert (told["psnr_vs_fp32"] is None) == (told["max_abs_diff"] == 0)


@pytest.mark.parametrize("pixels", list(PixelFormat))
def test_the_frame_that_is_compared_has_structure_at_every_scale(pixels, make_spec):
    spec = make_spec(pixels=pixels, width=66, height=34)
    frame = seeded_frame(spec, 0)
    assert frame.shape == spec.image_shape and frame.dtype == np.uint8
    assert np.array_equal(frame, seeded_frame(spec, 0)) and not np.array_equal(frame, seeded_frame(spec, 1))
    values = frame.astype(float)
    assert values.std() > 25
    fine = np.abs(np.diff(values, axis=1)).mean()
    assert 5 < fine < 60
    assert len(np.unique(frame)) > 100
    coarse = values[:32, :64].reshape(2, 16, 4, 16, -1).mean((1, 3))
    assert coarse.std() > 8
