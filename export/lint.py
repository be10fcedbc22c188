"""Will TensorRT 10 and 11 take this graph, and run it well? Told from the file alone, by the node's name.

The rules are those of TensorRT's documentation on explicit quantisation, of its ONNX parser, and of what its builders
refused when they were tried. They stand in for the INT8 builds that no machine without a GPU can make.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from derain.export.onnx_graph import FORBIDDEN, OPSET, producers, without_convolution

QUANTISED = {TensorProto.INT8, TensorProto.FLOAT8E4M3FN}
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}


@dataclass(frozen=True)
class Finding:
    """One thing that TensorRT refuses, or runs badly, and at which node."""

    node: str
    refused: bool
    """False: it builds and runs slower than it could."""
    what: str


def lint(model: onnx.ModelProto) -> None:
    """Raise ValueError, naming the node, where TensorRT would refuse the graph or run it badly."""
    found = findings(model)
    if found:
        first = found[0]
        verdict = "refuses" if first.refused else "would run badly"
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ValueError(f"TensorRT {verdict} node {first.node!r}: {first.what}{more}")


def findings(model: onnx.ModelProto) -> list[Finding]:
    """Everything found, what is refused first."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    facts = _Facts(inferred)
    found = [finding for node in inferred.graph.node for check in CHECKS for finding in check(node, facts)]
    version = {entry.domain: entry.version for entry in model.opset_import}.get("", 0)
    if version > OPSET:
        found.append(Finding("graph", True, f"opset {version}, TensorRT 10's parser knows up to {OPSET}"))
    return sorted(found, key=lambda finding: not finding.refused)


class _Facts:
    """Who makes and who reads each tensor, its type, and the constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.made_by = producers(model)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.shown = without_convolution(model)
        self.readers = Counter((name, node.op_type) for node in graph.node for name in node.input)

    def kind(self, tensor: str) -> str:
        """The operator that makes a tensor; empty for inputs and constants."""
        return self.made_by[tensor].op_type if tensor in self.made_by else ""

    def quantised(self, tensor: str) -> bool:
        """Behind a DequantizeLinear of an activation (a weight's reads a constant)."""
        return self.kind(tensor) == "DequantizeLinear" and self.made_by[tensor].input[0] not in self.constants


def _static(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    if node.op_type in FORBIDDEN:
        return [Finding(node.name, True, f"{node.op_type} in a graph that must be static: unroll it")]
    return []


def _bytes(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    """Bytes become floats first and floats become bytes last."""
    if node.op_type != "Cast" and any(facts.types.get(name) == TensorProto.UINT8 for name in node.input):
        return [Finding(node.name, True, f"{node.op_type} on uint8: expected a Cast to float before it")]
    return []


def _one_type(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    """Strongly typed networks convert nothing by themselves."""
    if node.op_type in ("Resize", "Cast"):
        return []
    seen = {facts.types.get(name) for name in node.input if name} & FLOATS
    if len(seen) > 1:
        return [Finding(node.name, True, f"{node.op_type} reads FP16 and FP32: expected a Cast between them")]
    return []


def _scales(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    """Constant, positive scales; zero points 0; signed 8 bits; channels on axis 0, of weights only."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return []
    if len(node.input) < 3 or node.input[1] not in facts.constants or node.input[2] not in facts.constants:
        return [Finding(node.name, True, "scale and zero point must be constants")]
    scale, zero = (facts.constants[name] for name in node.input[1:3])
    found = []
    if zero.data_type not in QUANTISED:
        kind = TensorProto.DataType.Name(zero.data_type)
        hint = ": a quantised bias? leave it in floating point" if zero.data_type == TensorProto.INT32 else ""
        found.append(Finding(node.name, True, f"{kind} behind Q/DQ, expected INT8 or FLOAT8E4M3FN{hint}"))
    if numpy_helper.to_array(zero).astype(np.float32).any():
        found.append(Finding(node.name, True, "zero point is not 0: expected a symmetric scale"))
    values = numpy_helper.to_array(scale).astype(np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        found.append(Finding(node.name, True, f"scale {values.min():g}: expected finite numbers over 0"))
    is_weight = node.input[0] in facts.constants
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if values.ndim and not is_weight:
        found.append(Finding(node.name, True, "one scale a channel on an activation: expected one a tensor"))
    if values.ndim and is_weight and axis != 0:
        found.append(Finding(node.name, True, f"weight scales on axis {axis}: expected one an output channel, axis 0"))
    return found


def _convolution(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    """Both operands in 8 bits or neither, the weight one scale a channel, the bias in floating point."""
    if node.op_type != "Conv":
        return []
    activation = facts.quantised(node.input[0])
    weight = facts.kind(node.input[1]) == "DequantizeLinear"
    found = []
    if any(facts.kind(name) == "Cast" and facts.quantised(facts.made_by[name].input[0]) for name in node.input[:1]):
        found.append(Finding(node.name, False, "a Cast between DQ and convolution: it runs in floating point"))
    elif activation != weight:
        which = "activation" if activation else "weight"
        found.append(Finding(node.name, False, f"only the {which} is quantised: it runs in floating point"))
    if len(node.input) > 2 and facts.kind(node.input[2]) == "DequantizeLinear":
        found.append(Finding(node.name, True, "its bias is quantised: expected floating point"))
    if activation and weight:
        types = {facts.types.get(facts.made_by[name].input[0]) for name in node.input[:2]}
        if len(types) > 1:
            found.append(Finding(node.name, True, "activation and weight have different 8-bit types"))
        if not facts.constants[facts.made_by[node.input[1]].input[1]].dims:
            found.append(Finding(node.name, False, "one scale for the whole weight: expected one an output channel"))
    return found


def _fusion(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    """Q behind the activation, not before it: a Q between the two keeps them out of one kernel."""
    if node.op_type in ("LeakyRelu", "Relu") and facts.quantised(node.input[0]):
        quantiser = facts.made_by[facts.made_by[node.input[0]].input[0]]
        if facts.kind(quantiser.input[0]) == "Conv":
            return [Finding(node.name, False, "Q/DQ between a convolution and its activation: expected after both")]
    return []


def _residual(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    """The other operand of an Add behind an 8-bit convolution comes from 8 bits where it is there in 8 bits.

    But for the frame to which a network adds its residual: the output keeps its digits.
    """
    if node.op_type != "Add" or node.output[0] in facts.shown:
        return []
    for mine, other in (node.input, reversed(node.input)):
        behind = facts.made_by.get(other)
        convolved = behind is not None and behind.op_type == "Conv" and facts.quantised(behind.input[0])
        if convolved and facts.readers[mine, "QuantizeLinear"]:
            return [
                Finding(node.name, False, f"reads {mine!r} in floating point, which is there in 8 bits: use its DQ")
            ]
    return []


def _concatenation(node: onnx.NodeProto, facts: _Facts) -> list[Finding]:
    """Operands in 8 bits share one scale, or the concatenation falls back to floating point."""
    if node.op_type != "Concat":
        return []
    scales = {
        float(numpy_helper.to_array(facts.constants[facts.made_by[name].input[1]]))
        for name in node.input
        if facts.quantised(name)
    }
    if len(scales) > 1:
        told = ", ".join(f"{scale:.3g}" for scale in sorted(scales))
        return [Finding(node.name, False, f"its operands have the scales {told}: expected one")]
    return []


CHECKS = (_static, _bytes, _one_type, _scales, _convolution, _fusion, _residual, _concatenation)
