"""From an unrolled graph to one ONNX file, and what an ONNX file says of itself: operators, MACs, bytes."""

import logging
import math
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnxscript import optimizer
from torch import fx

from derain.export.rewrite import Rewrite, rewrites_of

OPSET = 20
"""The newest operator set that TensorRT 10's parser knows whole and that has FP8 Q/DQ."""

LARGEST_FOLDED = 255
"""Elements of a constant that the ONNX exporter may make of others: less than a plane of the smallest frame."""

CAMERA = "camera_"
"""Names that begin so are of the camera's own colour conversion (`CameraModel`), not of the network."""

FORBIDDEN = {"Loop", "Scan", "If", "LSTM", "GRU", "RNN"}
"""Operators a static graph has none of."""


def to_onnx(graph: fx.GraphModule, input_name: str, output_name: str) -> onnx.ModelProto:
    """Convert an unrolled graph of one input and one output; checked, with every shape inferred.

    Tensors carry the graph's node names, so that a drifting or slow one can be told; the exporter's notes on where
    each node came from, file paths among them, are left out.

    Raises:
        ValueError: the result has an operator that a static graph must not have.
    """
    placeholder = next(node for node in graph.graph.nodes if node.op == "placeholder")
    example = torch.zeros(placeholder.meta["val"].shape, dtype=placeholder.meta["val"].dtype)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=[input_name],
            output_names=[output_name],
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        optimizer.optimize(program.model, output_size_limit=LARGEST_FOLDED)
    model = _with_names(program.model_proto, graph)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    found = FORBIDDEN & {node.op_type for node in model.graph.node}
    if found:
        raise ValueError(f"the exported graph has {', '.join(sorted(found))}: expected a static graph; unroll it first")
    return model


_SAME = {
    torch.ops.aten.conv2d.default: "Conv",
    torch.ops.aten.leaky_relu.default: "LeakyRelu",
    torch.ops.aten.sigmoid.default: "Sigmoid",
    torch.ops.aten.tanh.default: "Tanh",
    torch.ops.aten.cat.default: "Concat",
    torch.ops.aten.add.Tensor: "Add",
    torch.ops.aten.chunk.default: "Split",
    torch.ops.aten.split_with_sizes.default: "Split",
}
"""Operators of which ONNX has one for each of ours, in the same order."""


def _with_names(model: onnx.ModelProto, graph: fx.GraphModule) -> onnx.ModelProto:
    """Name tensors and nodes after the traced graph's nodes, and strip the exporter's metadata."""
    renamed: dict[str, str] = {}
    for operator in set(_SAME.values()):
        ours = [node.name for node in graph.graph.nodes if _SAME.get(node.target) == operator]
        theirs = [node for node in model.graph.node if node.op_type == operator]
        if len(ours) == len(theirs):
            for name, node in zip(ours, theirs, strict=True):
                renamed |= {out: name if len(node.output) == 1 else f"{name}_{i}" for i, out in enumerate(node.output)}
    kept = {value.name for value in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
    kept |= {out for node in model.graph.node for out in node.output if out not in renamed}
    renamed = {old: new for old, new in renamed.items() if old not in kept and new not in kept}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
        node.name = node.output[0]
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    return model


_QUANTISING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class GraphSummary:
    """An ONNX graph in numbers. `macs` is of convolutions and matrix products, `weights_bytes` of stored constants.

    `parameters` are the values of constants but for scales and zero points: as many in 8 bits as in FP32.
    """

    operators: dict[str, int]
    macs: int
    parameters: int
    weights_bytes: int
    file_bytes: int
    largest_constant: int
    rewrites: list[Rewrite]


def summarise(path: Path) -> GraphSummary:
    """Read an ONNX file and count.

    Raises:
        FileNotFoundError, ValueError: no such file, or not an ONNX model.
    """
    model = read_onnx(path)
    graph = model.graph
    shapes = tensor_shapes(model)
    constants = list(graph.initializer)
    constants += [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    quantisation = {name for node in graph.node if node.op_type in _QUANTISING for name in node.input[1:]}
    sizes = [math.prod(tensor.dims) for tensor in constants]
    weights_bytes = sum(len(onnx.numpy_helper.to_array(tensor).tobytes()) for tensor in constants)
    return GraphSummary(
        operators=dict(sorted(Counter(node.op_type for node in graph.node).items())),
        macs=sum(_macs(node, shapes) for node in graph.node),
        parameters=sum(
            size
            for size, tensor in zip(sizes, constants, strict=True)
            if tensor.dims and tensor.name not in quantisation
        ),
        weights_bytes=weights_bytes,
        file_bytes=path.stat().st_size,
        largest_constant=max(sizes, default=0),
        rewrites=rewrites_of(model),
    )


def read_onnx(path: Path) -> onnx.ModelProto:
    """Load an ONNX file with the shapes of all its tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file {str(path)!r}: make a bundle with `derain export`")
    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("it has no nodes")  # as an empty file
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf's DecodeError has no public base
        raise ValueError(f"{path} is not a readable ONNX model ({type(error).__name__}): export it again") from error


def without_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with its inputs, outputs and constants, but without nodes and the shapes of what they make."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.value_info[:]
    return copy


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The static shape of every named tensor, constants included."""
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return shapes


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in model.graph.node for name in node.output}


def without_convolution(model: onnx.ModelProto) -> set[str]:
    """The tensors that reach the graph's output without passing a convolution of the network."""
    made_by = producers(model)
    found: set[str] = set()
    ahead = [value.name for value in model.graph.output]
    while ahead:
        name = ahead.pop()
        node = made_by.get(name)
        if node is not None and name not in found and (node.op_type != "Conv" or node.name.startswith(CAMERA)):
            ahead.extend(node.input)
        found.add(name)
    return found


HEAVY = {"ConvTranspose", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "Einsum", "DeformConv"}
"""Operators that multiply and accumulate and that nothing here exports; not to be counted is worse than to fail."""


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of a node: output elements × products summed for each."""
    if node.op_type in HEAVY | FORBIDDEN:
        raise ValueError(f"node {node.name!r} is a {node.op_type}, whose arithmetic is not counted: expected Conv")
    if node.op_type == "Conv":
        return math.prod(_static(node.output[0], shapes)) * math.prod(_static(node.input[1], shapes)[1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(_static(node.output[0], shapes)) * _static(node.input[0], shapes)[0 if transposed else -1]
    return 0


def _static(tensor: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """A tensor's shape; ValueError where an axis has no size."""
    shape = shapes.get(tensor)
    if shape is None or 0 in shape:
        seen = "unknown" if shape is None else f"{shape}, 0 for an axis without a size"
        raise ValueError(f"tensor {tensor!r}: its shape is {seen}: expected fixed sizes; export it with them")
    return shape
