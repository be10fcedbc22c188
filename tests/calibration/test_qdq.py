"""Where Q/DQ stand and what is in them."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from derain.calibration.qdq import MAX_LEVEL, _scales, activations, layers, quantize
from derain.export.exporter import export
from derain.export.fp16 import to_fp16
from derain.export.lint import findings
from derain.export.onnx_graph import CAMERA, producers
from derain.export.probe import Runner
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat

TYPES = {Precision.INT8: TensorProto.INT8, Precision.FP8: TensorProto.FLOAT8E4M3FN}
EIGHT = [Precision.INT8, Precision.FP8]


@pytest.fixture(scope="module")
def fp32(tmp_path_factory) -> onnx.ModelProto:
    folder = tmp_path_factory.mktemp("nv12")
    bundle, _ = export("random:daiam-nano", folder / "bundle", (36, 28), PixelFormat.NV12, steps=2)
    return onnx.shape_inference.infer_shapes(onnx.load(bundle.graph()), data_prop=True)


@pytest.fixture(scope="module")
def graphs(fp32) -> dict[Precision, onnx.ModelProto]:
    limits = {name: 2.0 + index % 5 for index, name in enumerate(activations(fp32))}
    return {precision: quantize(fp32, limits, precision, layers(fp32)) for precision in EIGHT}


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_every_convolution_with_learned_weights_may_be_quantised_and_no_other(fp32):
    """In 8 bits the whitening of the pixels alone would cost nearly all that the whole network loses."""
    convolutions = {node.name for node in fp32.graph.node if node.op_type == "Conv"}
    assert convolutions - set(layers(fp32)) == {"camera_decode_conv2d", "camera_encode_conv2d", "to_blocks_conv2d"}


@pytest.mark.parametrize("precision", EIGHT)
def test_every_quantised_convolution_reads_8_bits_and_a_bias_in_floating_point(precision, graphs, fp32):
    model, wanted = graphs[precision], TYPES[precision]
    made_by, stored = producers(model), {tensor.name: tensor for tensor in model.graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for node in [node for node in model.graph.node if node.name in layers(fp32)]:
        activation, weight = made_by[node.input[0]], made_by[node.input[1]]
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert made_by[activation.input[0]].op_type == "QuantizeLinear" and types[activation.input[0]] == wanted
        assert stored[weight.input[0]].data_type == wanted
        assert list(stored[weight.input[1]].dims) == [stored[weight.input[0]].dims[0]] and weight.attribute[0].i == 0
        assert list(stored[activation.input[1]].dims) == []
        assert stored[node.input[2]].data_type == TensorProto.FLOAT if len(node.input) > 2 else True
    zeros = [name for name in stored if name.endswith("_zero")]
    assert len(zeros) > 10 and not any(constants(model)[name].astype(np.float32).any() for name in zeros)


@pytest.mark.parametrize("precision", EIGHT)
def test_a_value_read_by_several_layers_is_quantised_once_and_a_weight_of_two_steps_stored_once(
    precision, graphs, fp32
):
    model = graphs[precision]
    kinds = Counter(node.op_type for node in model.graph.node)
    weights = {node.input[1] for node in fp32.graph.node if node.name in layers(fp32)}
    assert kinds["QuantizeLinear"] == len(activations(fp32))
    assert kinds["DequantizeLinear"] == len(activations(fp32)) + len(weights)
    assert len(layers(fp32)) > len(weights)
    assert len({tensor.name for tensor in model.graph.initializer}) == len(model.graph.initializer)


def test_gates_and_cell_compute_in_floating_point(graphs):
    made_by = producers(graphs[Precision.INT8])
    kinds = {"Sigmoid", "Tanh", "Mul", "Split", "LeakyRelu"}
    nodes = [node for node in graphs[Precision.INT8].graph.node if node.op_type in kinds]
    assert {node.op_type for node in nodes} == kinds
    for node in nodes:
        assert not [name for name in node.input if name in made_by and "Linear" in made_by[name].op_type]


def test_both_operands_of_every_residual_add_come_from_8_bits(graphs, fp32):
    made_by = producers(graphs[Precision.INT8])
    blocks = [
        node
        for node in graphs[Precision.INT8].graph.node
        if node.op_type == "Add" and any("_conv2_conv2d" in name for name in node.input)
    ]
    assert len(blocks) > 20
    for add in blocks:
        assert sorted(made_by[name].op_type for name in add.input) == ["Conv", "DequantizeLinear"]


@pytest.mark.parametrize("precision", EIGHT)
@pytest.mark.parametrize(("network", "options"), [("dam-zero", {"residual": True}), ("prenet", {"steps": 2})])
def test_the_frame_that_a_residual_is_added_to_keeps_its_digits(precision, network, options, lively_weights, tmp_path):
    """Quantised, the output would have the digits of 8 bits; in FP8 ONNX Runtime could not load it."""
    bundle, _ = export(str(lively_weights(network, **options)), tmp_path / "bundle", (36, 28))
    fp32 = onnx.shape_inference.infer_shapes(onnx.load(bundle.graph()), data_prop=True)
    model = quantize(fp32, dict.fromkeys(activations(fp32), 3.0), precision, layers(fp32))
    last = [node for node in model.graph.node if node.op_type == "Add"][-1]
    made_by = producers(model)
    assert sorted(made_by[name].op_type for name in last.input) == ["Conv", "Div"]
    assert findings(to_fp16(model)) == []
    frame = np.random.default_rng(0).integers(0, 256, bundle.manifest.input.image_shape, np.uint8)
    assert Runner(model).image(frame).shape == frame.shape


def test_one_scale_holds_across_a_concatenations_inputs(graphs):
    """Q stands behind the concatenation, so its operands are not quantised one by one."""
    model = graphs[Precision.INT8]
    made_by = producers(model)
    concats = [node for node in model.graph.node if node.op_type == "Concat" and not node.name.startswith(CAMERA)]
    quantised = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert len(concats) >= 5
    for concat in concats:
        assert concat.output[0] in quantised
        assert not [name for name in concat.input if name in made_by and "Linear" in made_by[name].op_type]


@pytest.mark.parametrize("precision", EIGHT)
def test_weights_come_back_within_half_a_step(precision, graphs, fp32):
    values, originals = constants(graphs[precision]), constants(fp32)
    for name in {node.input[1] for node in fp32.graph.node if node.name in layers(fp32)}:
        scale = values[f"{name}_scale"].reshape(-1, 1, 1, 1)
        back = values[f"{name}_q"].astype(np.float32) * scale
        step = scale if precision is Precision.INT8 else np.maximum(np.abs(originals[name]) / 8, scale / 512)
        assert (np.abs(back - originals[name]) <= 0.51 * step).all()
        largest = np.abs(values[f"{name}_q"].astype(np.float32)).max((1, 2, 3))
        assert largest.min() >= {Precision.INT8: 126, Precision.FP8: 416}[precision]
        np.testing.assert_array_equal(scale, scale.astype(np.float16).astype(np.float32))


def test_layers_that_are_not_named_stay_as_they_were(fp32):
    limits = dict.fromkeys(activations(fp32), 3.0)
    model = quantize(fp32, limits, Precision.INT8, layers(fp32)[:3])
    assert Counter(node.op_type for node in model.graph.node)["QuantizeLinear"] <= 3
    none = quantize(fp32, limits, Precision.INT8, [])
    assert [node.name for node in none.graph.node] == [node.name for node in fp32.graph.node]
    frame = np.random.default_rng(0).integers(0, 256, (42, 36), np.uint8)
    np.testing.assert_array_equal(Runner(none).image(frame), Runner(fp32).image(frame))


@pytest.mark.parametrize("precision", EIGHT)
def test_scales_are_the_same_numbers_when_the_rest_becomes_fp16(precision, graphs):
    model = graphs[precision]
    halves = constants(to_fp16(model))
    for name, value in constants(model).items():
        if name.endswith("_scale") and value.dtype == np.float32:
            np.testing.assert_array_equal(halves[f"{name}_fp16"].astype(np.float32), value)
    resizes = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input}
    assert not [name for name, value in halves.items() if value.dtype == np.float32 and name not in resizes]


def test_a_channel_of_zero_weights_stays_zero_and_finite(fp32):
    model = onnx.ModelProto()
    model.CopyFrom(fp32)
    name = next(node.input[1] for node in model.graph.node if node.name == layers(fp32)[0])
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    value = numpy_helper.to_array(tensor).copy()
    value[1] = 0
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    made = constants(quantize(model, dict.fromkeys(activations(model), 3.0), Precision.INT8, layers(model)))
    assert not made[f"{name}_q"][1].any() and made[f"{name}_scale"][1] > 0


@pytest.mark.parametrize("precision", EIGHT)
def test_a_scale_is_the_next_of_fp16_that_holds_the_limit_and_never_one_that_loses_digits(precision):
    limits = 10 ** np.random.default_rng(0).uniform(-6, 4, 1000)
    scales, exact = _scales(limits, precision).astype(np.float64), limits / MAX_LEVEL[precision]
    assert (scales * MAX_LEVEL[precision] >= limits).all()
    normal = exact > 2.0**-14
    assert (scales[~normal] == 2.0**-14).all() and (~normal).any()
    assert (scales[normal] < exact[normal] * (1 + 2.0**-10)).all()
