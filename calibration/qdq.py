"""Explicit INT8 and FP8: QuantizeLinear and DequantizeLinear where TensorRT fuses them.

- A quantised convolution reads its input and its weight through DequantizeLinear: activations symmetric with one scale
  a tensor, weights with one an output channel (axis 0), zero points 0. Its bias and its output stay as they are.
- Q/DQ stand on the value a convolution reads: behind the activation, so that TensorRT fuses convolution, activation
  and Q into one kernel; and behind a concatenation, so that one scale holds across its inputs.
- A residual Add behind a quantised convolution reads its other operand through the same DQ as the block's first
  convolution, so that both operands come from 8 bits and the Add joins the convolution's kernel. Not where the
  sum reaches the output without another convolution: the frame to which a network adds its residual keeps its digits.
- What else there is, gates and cell path among them, computes in floating point.

Scales are numbers that FP16 holds exactly, so that `derain.export.fp16.to_fp16` may turn the rest into FP16.
"""

from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from derain.export.onnx_graph import CAMERA, producers, without_convolution, without_nodes
from derain.runtime.manifest import Precision

WHITENING = "to_blocks_"
"""In the names of the fixed convolution that gives a compact network its pixels. In symmetric INT8 the camera's 8 bits
would be 7 there: under 1 % of the arithmetic, and nearly all of the loss."""

MAX_LEVEL = {Precision.INT8: 127.0, Precision.FP8: 448.0}
EIGHT_BITS = {Precision.INT8: np.int8, Precision.FP8: ml_dtypes.float8_e4m3fn}
SMALLEST_SCALE = 2.0**-14
"""FP16's smallest normal number: a smaller scale would lose digits."""


def layers(model: onnx.ModelProto) -> list[str]:
    """The names of the convolutions that may be quantised, in the order of computation."""
    names = (node.name for node in model.graph.node if node.op_type == "Conv")
    return [name for name in names if not name.startswith(CAMERA) and WHITENING not in name]


def activations(model: onnx.ModelProto) -> list[str]:
    """The tensors that those convolutions read, each once, in the order of computation."""
    chosen = set(layers(model))
    return list(dict.fromkeys(node.input[0] for node in model.graph.node if node.name in chosen))


def quantize(
    model: onnx.ModelProto, limits: Mapping[str, float], precision: Precision, quantised: Iterable[str]
) -> onnx.ModelProto:
    """The FP32 graph with the convolutions named in `quantised` in 8 bits; `limits` are the ranges of `activations`."""
    chosen = set(quantised)
    result = without_nodes(model)
    eight_bits = _EightBits(result.graph, limits, precision)
    made_by = producers(model)
    shown = without_convolution(model)
    for old in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        if old.name in chosen:
            node.input[0], node.input[1] = eight_bits.activation(old.input[0]), eight_bits.weight(old.input[1])
        elif old.op_type == "Add" and old.output[0] not in shown:
            for mine, other in ((0, 1), (1, 0)):
                behind = made_by.get(old.input[other])
                if behind is not None and behind.name in chosen:
                    node.input[mine] = eight_bits.ready.get(old.input[mine], old.input[mine])
        result.graph.node.append(node)
    used = {name for node in result.graph.node for name in node.input}
    kept = [tensor for tensor in result.graph.initializer if tensor.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)


class _EightBits:
    """Puts Q/DQ into a graph that is being built, once a tensor; `ready` says what each is read as."""

    def __init__(self, graph: onnx.GraphProto, limits: Mapping[str, float], precision: Precision) -> None:
        self.ready: dict[str, str] = {}
        self._graph, self._limits, self._precision = graph, limits, precision
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def activation(self, name: str) -> str:
        """The tensor behind its own Q and DQ."""
        if name not in self.ready:
            step = [self._scales(name, np.float64(self._limits[name])), self._zeros(str(self._precision), ())]
            coded, read = f"{name}_q", f"{name}_dq"
            self._graph.node.append(helper.make_node("QuantizeLinear", [name, *step], [coded], name=coded))
            self._graph.node.append(helper.make_node("DequantizeLinear", [coded, *step], [read], name=read))
            self.ready[name] = read
        return self.ready[name]

    def weight(self, name: str) -> str:
        """The weight, stored in 8 bits, behind its DQ; one scale an output channel."""
        if name not in self.ready:
            values = numpy_helper.to_array(self._constants[name]).astype(np.float64)
            limits = np.abs(values).max((1, 2, 3))
            steps = values / _scales(limits, self._precision).reshape(-1, 1, 1, 1)
            stored = self._constant(_stored(steps, f"{name}_q", self._precision))
            step = [self._scales(name, limits), self._zeros(name, limits.shape)]
            read = f"{name}_dq"
            self._graph.node.append(helper.make_node("DequantizeLinear", [stored, *step], [read], name=read, axis=0))
            self.ready[name] = read
        return self.ready[name]

    def _scales(self, name: str, limits: NDArray[np.float64] | np.float64) -> str:
        scales = _scales(limits, self._precision).astype(np.float32)
        return self._constant(numpy_helper.from_array(scales, f"{name}_scale"))

    def _zeros(self, name: str, shape: tuple[int, ...]) -> str:
        return self._constant(_stored(np.zeros(shape), f"{name}_zero", self._precision))

    def _constant(self, tensor: onnx.TensorProto) -> str:
        if tensor.name not in self._constants:
            self._constants[tensor.name] = tensor
            self._graph.initializer.append(tensor)
        return tensor.name


def _scales(limits: NDArray[np.float64] | np.float64, precision: Precision) -> NDArray[np.float16]:
    """limit / largest level, rounded up to FP16 so that the limit still fits; a channel of zeros gets the smallest."""
    exact = np.maximum(np.asarray(limits) / MAX_LEVEL[precision], SMALLEST_SCALE)
    rounded = exact.astype(np.float16)
    return np.where(rounded < exact, np.nextafter(rounded, np.float16(np.inf)), rounded).astype(np.float16)


def rounded(steps: NDArray[np.float64], precision: Precision) -> NDArray[np.float64]:
    """Values in units of a scale as 8 bits hold them: clipped, and rounded to a whole number or to E4M3."""
    bounded = np.clip(steps, -MAX_LEVEL[precision], MAX_LEVEL[precision])
    return np.asarray(bounded.astype(EIGHT_BITS[precision]) if precision is Precision.FP8 else np.rint(bounded), float)


def _stored(steps: NDArray[np.float64], name: str, precision: Precision) -> onnx.TensorProto:
    return numpy_helper.from_array(rounded(steps, precision).astype(EIGHT_BITS[precision]), name)
