"""The ONNX file: static, small, named, and without a trace of the machine that wrote it."""

import getpass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from derain.export.camera import CameraModel
from derain.export.exporter import traced
from derain.export.onnx_graph import FORBIDDEN, OPSET, read_onnx, summarise, tensor_shapes, to_onnx
from derain.export.trace import trace
from derain.export.unroll import UnrollReport, unroll
from derain.training.models import build, parameter_count


def exported(network: nn.Module, make_spec, **size) -> tuple[onnx.ModelProto, UnrollReport]:
    graph, report = unroll(traced(network, make_spec(**size), make_spec("clean", **size)))
    return to_onnx(graph, "frame", "clean"), report


@pytest.fixture(scope="module")
def nano(lively) -> nn.Module:
    return lively(build("daiam-nano", encoder_steps=3, decoder_steps=3))


@pytest.fixture(scope="module")
def small_nano(lively) -> nn.Module:
    return lively(build("daiam-nano"))


@pytest.fixture(scope="module")
def nano_model(nano, make_spec) -> onnx.ModelProto:
    return exported(nano, make_spec, width=33, height=25)[0]


@pytest.fixture(scope="module")
def daiam_model(lively, make_spec) -> tuple[onnx.ModelProto, UnrollReport]:
    """At the size whose cost the paper states; tracing computes nothing, so this is quick."""
    return exported(lively(build("daiam")), make_spec, width=720, height=480)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    def write(model: onnx.ModelProto, name: str = "graph.onnx") -> Path:
        path = tmp_path_factory.mktemp("onnx") / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


def test_the_daiam_at_720x480_costs_what_the_paper_says(daiam_model, written):
    model, report = daiam_model
    summary = summarise(written(model))
    assert summary.macs == pytest.approx(8.92e11, rel=0.005)
    assert summary.macs == report.macs


def test_the_file_is_its_weights_and_little_more(daiam_model, nano_model, nano, written):
    """What is pruned is not stored, so a file may even be smaller than the network's weights."""
    for model, parameters in ((daiam_model[0], 3_601_105), (nano_model, parameter_count(nano))):
        summary = summarise(written(model))
        assert summary.file_bytes <= 1.1 * 4 * parameters + 1_000_000
        assert summary.weights_bytes <= 1.02 * 4 * parameters
        assert summary.file_bytes < summary.weights_bytes + 500_000
        assert summary.weights_bytes > 0.7 * 4 * parameters


def test_no_constant_is_as_large_as_a_plane_of_the_frame(daiam_model, small_nano, make_spec, written):
    """At these sizes no weight has as many elements as a plane, so the largest constant is a weight."""
    assert summarise(written(daiam_model[0])).largest_constant == 9 * 259 * 64  # the global decoder's first
    model, _ = exported(small_nano, make_spec, width=640, height=480)
    summary = summarise(written(model))
    assert summary.largest_constant == 9 * (4 * 16 + 48) * 16  # the global decoder's first convolution
    planes = [tensor.name for tensor in model.graph.initializer if tensor.dims and tensor.dims[-1] >= 120]
    assert planes == []


class StartsAtHalf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        attention = torch.full_like(x[:, :1], 0.5) + torch.zeros_like(x[:, :1])
        for _ in range(2):
            attention = torch.sigmoid(self.conv(torch.cat([x, attention], 1)))
        return attention


@pytest.mark.parametrize("size", [(16, 16), (120, 160)])
def test_a_plane_that_starts_at_a_half_is_expanded_and_never_stored(size, lively, written):
    module = lively(StartsAtHalf())
    x = torch.rand(1, 3, *size)
    graph, _ = unroll(trace(module, x))
    model = to_onnx(graph, "x", "y")
    summary = summarise(written(model))
    assert summary.largest_constant <= 27
    assert summary.operators["Expand"] == 1
    (y,) = session(model).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y, module(x).detach().numpy(), atol=1e-5)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_the_graph_is_static_and_strictly_checked(nano_model, daiam_model):
    for model in (nano_model, daiam_model[0]):
        kinds = {node.op_type for node in model.graph.node}
        assert {"Conv", "Sigmoid", "Tanh"} <= kinds
        assert kinds & (FORBIDDEN | {"Loop", "Scan", "If", "LSTM", "GRU"}) == set()
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET}
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        shapes = tensor_shapes(inferred)
        assert [out for node in model.graph.node for out in node.output if 0 in shapes.get(out, (0,))] == []
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert len(model.functions) == 0


def test_input_and_output_are_camera_bytes_by_their_names(nano_model):
    for value, name in ((nano_model.graph.input[0], "frame"), (nano_model.graph.output[0], "clean")):
        assert value.name == name
        assert value.type.tensor_type.elem_type == TensorProto.UINT8
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [1, 25, 33, 3]
    assert len(nano_model.graph.input) == len(nano_model.graph.output) == 1


def test_tensors_carry_the_names_of_the_modules_that_made_them(nano_model):
    made_by = {node.output[0]: node.op_type for node in nano_model.graph.node}
    assert made_by["streak_encoder_conv_conv2d_1_step"] == "Conv"
    assert made_by["global_decoder_out_conv2d_2"] == "Conv"
    assert made_by["drop_heavy_blocks_4_act_leaky_relu_5"] == "LeakyRelu"
    convolutions = [name for name, kind in made_by.items() if kind == "Conv"]
    parts = ("streak_", "drop_", "global_decoder_")
    assert [name for name in convolutions if not name.startswith(parts)] == ["to_blocks_conv2d"]  # whitens the pixels
    assert [node.name for node in nano_model.graph.node if node.name != node.output[0]] == []


def test_nothing_of_the_machine_is_in_the_file(nano_model, repository):
    data = nano_model.SerializeToString()
    marks = [repository, Path.home(), Path(torch.__file__).parent, ".py", "site-packages", "/tmp", "Traceback"]
    marks += [name for name in (getpass.getuser(), "derain", "forward(") if len(name) > 4]
    found = [str(mark) for mark in marks if str(mark).encode() in data and str(mark) != "/"]
    assert found == []


def test_an_export_is_the_same_bytes_every_time(lively):
    module = lively(StartsAtHalf())
    first, again = (to_onnx(unroll(trace(module, torch.zeros(1, 3, 16, 16)))[0], "x", "y") for _ in range(2))
    assert first.SerializeToString() == again.SerializeToString()


@pytest.mark.parametrize("pixels", ["bgr8", "nv12"])
def test_onnx_runtime_computes_what_pytorch_computes(pixels, small_nano, make_spec, camera_bytes):
    spec, clean = make_spec(pixels=pixels, width=34, height=26), make_spec("clean", pixels=pixels, width=34, height=26)
    graph, _ = unroll(traced(small_nano, spec, clean))
    frame = camera_bytes(spec)
    with torch.inference_mode():
        expected = CameraModel(small_nano, spec, clean)(frame).numpy()
    (seen,) = session(to_onnx(graph, "frame", "clean")).run(None, {"frame": frame.numpy()})
    assert np.abs(seen.astype(int) - expected).max() <= 1
    assert expected.std() > 10


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def test_a_graph_with_a_recurrent_operator_is_refused_by_its_name():
    x = torch.zeros(1, 4, 8)
    graph = trace(Looping(), x)
    with pytest.raises(ValueError, match=r"^the exported graph has LSTM: expected a static graph; unroll it first$"):
        to_onnx(graph, "x", "y")


def handmade(path: Path) -> Path:
    """Conv 3→8, 3×3, stride 2 on 20×30, then a depthwise 8→8, then a scalar is added."""
    weights = [
        helper.make_tensor("w1", TensorProto.FLOAT, (8, 3, 3, 3), np.ones(216)),
        helper.make_tensor("w2", TensorProto.FLOAT, (8, 1, 3, 3), np.ones(72)),
        helper.make_tensor("one", TensorProto.FLOAT, (), [1.0]),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "one"], ["y"]),
    ]
    value = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 20, 30))]
    graph = helper.make_graph(
        nodes, "g", value, [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, 10, 15))], weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), path)
    return path


def test_the_summary_counts_what_was_worked_out_by_hand(tmp_path):
    path = handmade(tmp_path / "g.onnx")
    summary = summarise(path)
    assert summary.macs == 10 * 15 * 8 * (3 * 9) + 10 * 15 * 8 * 9
    assert summary.operators == {"Add": 1, "Conv": 2}
    assert summary.parameters == 216 + 72
    assert summary.weights_bytes == 4 * (216 + 72 + 1)
    assert summary.largest_constant == 216
    assert summary.file_bytes == path.stat().st_size


def test_matrix_products_count_and_what_nobody_counts_is_refused_by_its_node(tmp_path):
    path = handmade(tmp_path / "g.onnx")
    before, model = summarise(path).macs, onnx.load(path)
    for name, value in (("m", np.ones((15, 7))), ("a", np.ones((6, 5))), ("b", np.ones((6, 4)))):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(value.astype(np.float32), name if name == "m" else f"g{name}")
        )
    model.graph.node.append(helper.make_node("MatMul", ["y", "m"], ["p"], name="p"))  # [1, 8, 10, 15] × [15, 7]
    model.graph.node.append(helper.make_node("Gemm", ["ga", "gb"], ["q"], name="q", transA=1))  # [5, 6] × [6, 4]
    onnx.save(model, path)
    assert summarise(path).macs == before + 8 * 10 * 7 * 15 + 5 * 4 * 6
    dynamic = onnx.ModelProto()
    dynamic.CopyFrom(model)
    dynamic.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    del dynamic.graph.value_info[:], dynamic.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(dynamic, path)
    with pytest.raises(ValueError, match=r"^tensor .*: its shape is .*: expected fixed sizes; export it with them"):
        summarise(path)
    loop = onnx.ModelProto()
    loop.CopyFrom(model)
    loop.graph.node.append(helper.make_node("LSTM", ["a", "w", "w"], ["t"], name="memory", hidden_size=4))
    onnx.save(loop, path)
    with pytest.raises(ValueError, match=r"^node .memory. is a LSTM, whose arithmetic is not counted"):
        summarise(path)
    model.graph.node.append(helper.make_node("ConvTranspose", ["a", "w2"], ["t"], name="grower"))
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"^node .grower. is a ConvTranspose, whose arithmetic is not counted"):
        summarise(path)


class Dense(nn.Module):
    """A product over channels, and a convolution that grows."""

    def __init__(self, grows: bool) -> None:
        super().__init__()
        self.dense, self.grow = nn.Linear(8, 3), nn.ConvTranspose2d(4, 4, 2) if grows else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x)
        return y if self.grow is None else self.grow(y)


def test_the_unroller_counts_products_too_and_refuses_what_it_cannot_count():
    _, report = unroll(trace(Dense(grows=False), torch.empty(1, 4, 6, 8)))
    assert report.macs == report.macs_naive == 4 * 6 * 3 * 8
    with pytest.raises(ValueError, match=r"^the arithmetic of aten\.conv_transpose2d\.input is not counted"):
        unroll(trace(Dense(grows=True), torch.empty(1, 4, 6, 8)))


def test_what_is_no_onnx_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "g.onnx"
    with pytest.raises(FileNotFoundError, match=r"no ONNX file '.*g\.onnx': make a bundle with `derain export`"):
        read_onnx(path)
    whole = handmade(path).read_bytes()
    for data in (whole[: len(whole) // 2], b"not a model", b""):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"g\.onnx is not a readable ONNX model .*: export it again$") as caught:
            summarise(path)
        assert "\n" not in str(caught.value)
