"""The linter: quiet on what we make, and the node's name for everything that TensorRT refuses or runs badly."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from derain.calibration.qdq import activations, layers, quantize
from derain.export.exporter import traced
from derain.export.fp16 import to_fp16
from derain.export.lint import findings, lint
from derain.export.onnx_graph import to_onnx
from derain.export.unroll import unroll
from derain.runtime.manifest import Precision
from derain.runtime.pixels import PixelFormat
from derain.training.models import build

BLOCK = "streak_encoder_blocks_0"
FIRST, SECOND = f"{BLOCK}_conv1_conv2d", f"{BLOCK}_conv2_conv2d"


@pytest.fixture(scope="module")
def fp32(lively, make_spec) -> onnx.ModelProto:
    graph, _ = unroll(traced(lively(build("daiam-nano")), make_spec(), make_spec("clean")))
    return onnx.shape_inference.infer_shapes(to_onnx(graph, "frame", "clean"), data_prop=True)


@pytest.fixture(scope="module")
def int8(fp32) -> onnx.ModelProto:
    return quantize(fp32, dict.fromkeys(activations(fp32), 4.0), Precision.INT8, layers(fp32))


@pytest.fixture
def graph(int8) -> onnx.ModelProto:
    """A copy that a test may spoil."""
    model = onnx.ModelProto()
    model.CopyFrom(int8)
    return model


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found,) = [node for node in model.graph.node if node.name == name]
    return found


def replace(model: onnx.ModelProto, name: str, value) -> None:
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor.CopyFrom(numpy_helper.from_array(value, name))


@pytest.mark.parametrize(("pixels", "steps"), [(PixelFormat.BGR8, 1), (PixelFormat.NV12, 2)])
def test_every_graph_we_make_is_clean(pixels, steps, lively, make_spec):
    size = {"pixels": pixels, "width": 36, "height": 28}
    network = lively(build("daiam-nano", encoder_steps=steps, decoder_steps=steps))
    naive = traced(network, make_spec(**size), make_spec("clean", **size))
    model = onnx.shape_inference.infer_shapes(to_onnx(unroll(naive)[0], "frame", "clean"), data_prop=True)
    limits = dict.fromkeys(activations(model), 4.0)
    eight = [quantize(model, limits, precision, layers(model)) for precision in (Precision.INT8, Precision.FP8)]
    some = quantize(model, limits, Precision.INT8, layers(model)[::3])
    made = [model, to_fp16(model), to_fp16(model, [n.name for n in model.graph.node][::5]), *eight, some]
    assert [findings(graph) for graph in (*made, *map(to_fp16, eight), to_fp16(some))] == [[]] * 9


def spoil_zero_point(model):
    replace(model, "int8_zero", np.int8(3))


def spoil_scale(model):
    replace(model, node(model, FIRST).input[0].removesuffix("_dq") + "_scale", np.float32(-1))


def spoil_axis(model):
    node(model, node(model, FIRST).input[1]).attribute[0].i = 1


def spoil_channels(model):
    scale = node(model, node(model, FIRST).input[0]).input[1]
    replace(model, scale, np.full(16, 0.1, np.float32))


def spoil_bias(model):
    conv = node(model, FIRST)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.int32), "b32"))
    model.graph.initializer.append(numpy_helper.from_array(np.int32(0), "z32"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["b32", "one", "z32"], ["b"], name="bias_dq"))
    conv.input[2] = "b"


def spoil_static(model):
    model.graph.node.append(helper.make_node("LSTM", ["nothing"], ["never"], name="the_lstm"))


def spoil_bytes(model):
    model.graph.node.insert(0, helper.make_node("Transpose", ["frame"], ["turned"], name="turned", perm=[0, 3, 1, 2]))


def spoil_type(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float16), "half"))
    node(model, FIRST).input[1] = "half"


def spoil_opset(model):
    model.opset_import[0].version = 99


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spoil_zero_point, r"refuses node '\w+': zero point is not 0: expected a symmetric scale \(and \d+ more\)$"),
        (spoil_scale, r"refuses node '\w+': scale -1: expected finite numbers over 0"),
        (spoil_axis, r"refuses node '[\w.]*blocks.0.conv1.weight_dq': weight scales on axis 1: .*axis 0"),
        (spoil_channels, r"refuses node '\w+': one scale a channel on an activation: expected one a tensor"),
        (spoil_bias, r"refuses node 'bias_dq': INT32 behind Q/DQ, expected INT8 .*: a quantised bias\?"),
        (spoil_static, r"refuses node 'the_lstm': LSTM in a graph that must be static"),
        (spoil_bytes, r"refuses node 'turned': Transpose on uint8: expected a Cast"),
        (spoil_type, rf"refuses node '{FIRST}': Conv reads FP16 and FP32"),
        (spoil_opset, r"refuses node 'graph': opset 99, TensorRT 10's parser knows up to 20"),
    ],
)
def test_what_tensorrt_refuses_is_told_with_the_nodes_name(change, told, graph):
    change(graph)
    with pytest.raises(ValueError, match=rf"^TensorRT {told}") as caught:
        lint(graph)
    assert "\n" not in str(caught.value)


def unquantise_weight(model):
    conv = node(model, FIRST)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float32), "plain"))
    conv.input[1] = "plain"


def one_scale_for_the_weight(model):
    conv = node(model, FIRST)
    weight = node(model, conv.input[1])
    replace(model, weight.input[1], np.float32(0.1))
    replace(model, weight.input[2], np.int8(0))


def q_before_the_activation(model):
    act = node(model, f"{BLOCK}_act_leaky_relu")
    at = list(model.graph.node).index(act)
    for index, (kind, source) in enumerate((("QuantizeLinear", act.input[0]), ("DequantizeLinear", "early_q"))):
        scale = node(model, node(model, FIRST).input[0]).input[1]
        result = "early_q" if index == 0 else "early_dq"
        model.graph.node.insert(at + index, helper.make_node(kind, [source, scale, "int8_zero"], [result], name=result))
    act.input[0] = "early_dq"


def skip_in_floating_point(model):
    (add,) = [n for n in model.graph.node if n.op_type == "Add" and SECOND in n.input]
    add.input[0] = add.input[0].removesuffix("_dq")


def two_scales_in_a_concatenation(model):
    concat = next(n for n in model.graph.node if n.name == "streak_cat")
    others = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and "weight" not in n.name]
    at = list(model.graph.node).index(concat)
    for index, operand in enumerate(list(concat.input)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1 + index), f"s{index}"))
        arguments = [f"s{index}", "int8_zero"]
        for kind, source, result in (
            ("QuantizeLinear", operand, f"cq{index}"),
            ("DequantizeLinear", f"cq{index}", f"cdq{index}"),
        ):
            model.graph.node.insert(at, helper.make_node(kind, [source, *arguments], [result], name=result))
            at += 1
        concat.input[index] = f"cdq{index}"
    assert others


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (unquantise_weight, rf"node '{FIRST}': only the activation is quantised"),
        (one_scale_for_the_weight, rf"node '{FIRST}': one scale for the whole weight"),
        (q_before_the_activation, rf"node '{BLOCK}_act_leaky_relu': Q/DQ between a convolution and its activation"),
        (skip_in_floating_point, r"node '\w+': reads '\w+' in floating point, which is there in 8 bits: use its DQ"),
        (two_scales_in_a_concatenation, r"node 'streak_cat': its operands have the scales 0\.1, 1\.1: expected one"),
    ],
)
def test_what_tensorrt_runs_badly_is_told_with_the_nodes_name(change, told, graph):
    change(graph)
    with pytest.raises(ValueError, match=rf"^TensorRT would run badly {told}"):
        lint(graph)


def test_what_is_refused_comes_first(graph):
    unquantise_weight(graph)
    spoil_static(graph)
    first, *rest = findings(graph)
    assert first.refused and first.node == "the_lstm"
    assert [finding.node for finding in rest] == [FIRST]


def test_int8_and_fp8_in_one_convolution_are_refused(fp32):
    limits = dict.fromkeys(activations(fp32), 4.0)
    model = quantize(fp32, limits, Precision.INT8, layers(fp32))
    other = quantize(fp32, limits, Precision.FP8, layers(fp32))
    weight = node(model, node(model, FIRST).input[1])
    for name in (weight.input[0], weight.input[2]):
        (mine,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        mine.CopyFrom(next(tensor for tensor in other.graph.initializer if tensor.name == name))
    assert [finding.node for finding in findings(model)] == [FIRST]
