"""The smallest ONNX around one tensor: its node alone, the values that reach it, and what PyTorch has there instead."""

import io
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from derain.export.drift import reference_tensors
from derain.export.onnx_graph import producers, read_onnx
from derain.export.probe import Runner
from derain.runtime.atomic import write_bytes
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import Precision


def write_minimal(bundle: Bundle, precision: Precision, tensor: str, frame: NDArray[np.uint8], path: Path) -> Path:
    """Write the node that makes `tensor` as an ONNX file of its own, and an .npz with its values on `frame` beside it.

    The .npz holds each input of the file by its name, `tensor` as the graph computes it and, where PyTorch has a tensor
    of that name, `tensor`_pytorch.

    Args:
        bundle: with a graph of `precision`.
        precision: whose graph.
        tensor: a name in that graph, such as `Verification.first_drift`.
        frame: as for the graph, without the leading 1.
        path: of the ONNX file to write.

    Returns:
        The path of the .npz.

    Raises:
        ValueError: the graph makes no such tensor.
    """
    model = read_onnx(bundle.graph(precision))
    single = extract(model, tensor)
    inputs = [value.name for value in single.graph.input]
    names = [name for name in inputs if name != model.graph.input[0].name]
    values = dict(zip([*names, tensor], Runner(model, [*names, tensor])(frame), strict=True))
    if model.graph.input[0].name in inputs:
        values[model.graph.input[0].name] = frame[np.newaxis]
    for value in (*single.graph.input, *single.graph.output):
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        values[value.name] = values[value.name].astype(kind)  # a Runner gives FP16 as FP32
    expected = reference_tensors(bundle, torch.from_numpy(frame)[None], {tensor})
    values |= {f"{name}_pytorch": value for name, value in expected.items()}
    stored = io.BytesIO()
    np.savez(stored, **values)
    beside = path.with_suffix(".npz")
    write_bytes(path, single.SerializeToString())
    write_bytes(beside, stored.getvalue())
    return beside


def extract(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """A model of the node that makes `tensor` and of what makes its constants; its other inputs come from outside.

    Raises:
        ValueError: no node makes it.
    """
    made_by = producers(model)
    if tensor not in made_by:
        raise ValueError(
            f"tensor {tensor!r}: no node of the graph makes it: `derain inspect` an export of this version"
        )
    constants = {stored.name: stored for stored in model.graph.initializer}

    def constant(name: str) -> bool:
        return not name or name in constants or (name in made_by and all(map(constant, made_by[name].input)))

    wanted, nodes = [tensor], list[onnx.NodeProto]()
    while wanted:
        node = made_by[wanted.pop()]
        if node not in nodes:
            nodes.insert(0, node)
            wanted += [name for name in node.input if name in made_by and constant(name)]
    made = {name for node in nodes for name in node.output}
    read = list(dict.fromkeys(name for node in nodes for name in node.input if name and name not in made))
    typed = {value.name: value for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    graph = helper.make_graph(
        nodes,
        "minimal",
        [typed[name] for name in read if name not in constants],
        [typed[tensor]],
        [constants[name] for name in read if name in constants],
    )
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(single, full_check=True)
    return single
