"""FP16, written into the graph: bytes at the edge, half floats inside, FP32 islands where frames show they are needed.

Which nodes stay in FP32 is measured, not listed. Overflow: a node that makes, reads or stores a value beyond FP16's
reach on some frame. Loss: where the output is still too far from FP32's, the nodes whose rounding costs most, each
measured alone, until what is left is expected to be small enough; the graph that results is measured again.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from derain.export.onnx_graph import read_onnx, without_nodes
from derain.export.probe import Runner, float_tensors, seeded_frame, tensors
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Image
from derain.runtime.manifest import GraphEntry, Precision, Quality
from derain.runtime.psnr import MAX_ABS_DIFF, MIN_PSNR, finite_or_none, max_abs_diff, mse, psnr

log = logging.getLogger(__name__)

SAFE_MAX = 65504 / 4
"""FP16's largest number, less a factor for frames that were not seen."""

MARGIN = 3.0
"""dB above the least that `verify` accepts: what an FP16 graph must reach on each of the frames it is made with."""

MOST_LEVELS = MAX_ABS_DIFF[Precision.FP16] // 2
"""Grey levels, likewise, half of what `verify` accepts."""

STAYS_FLOAT = {"Resize": (1, 2)}
"""Inputs that ONNX wants in FP32 whatever the node computes in: roi and scales."""


@dataclass(frozen=True)
class Fp16Report:
    """What stayed in FP32 and why, and how near the graph came."""

    overflowing: tuple[str, ...]
    """Nodes in FP32 for values beyond FP16's reach."""
    lossy: tuple[str, ...]
    """Nodes in FP32 for what their rounding costs."""
    largest: float
    """The largest magnitude of any tensor on the frames."""
    psnr_vs_fp32: float
    """dB over all frames' bytes; infinite where they are equal."""
    psnr_worst: float
    """dB on the worst frame."""
    max_abs_diff: int
    """Grey levels, of any byte."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite PSNR is null."""
        values = asdict(self)
        return values | {name: finite_or_none(values[name]) for name in ("psnr_vs_fp32", "psnr_worst")}


def ensure_fp16_graph(bundle: Bundle) -> Bundle:
    """The bundle with an FP16 graph, made on seeded frames where it has none.

    `derain calibrate --precision fp16` makes it on the camera's own.
    """
    if any(graph.precision is Precision.FP16 for graph in bundle.manifest.graphs):
        return bundle
    return add_fp16(bundle, [seeded_frame(bundle.manifest.input, seed) for seed in range(2)], "seeded")[0]


def add_fp16(bundle: Bundle, frames: list[Image], name: str) -> tuple[Bundle, Fp16Report]:
    """Make the FP16 graph on `frames`, which the manifest calls `name`, and add it to the bundle.

    Raises OSError before any work where the bundle cannot be written to, ValueError as `make_fp16`.
    """
    Bundle.check_place(bundle.path)
    graph, report = make_fp16(read_onnx(bundle.graph()), frames)
    entry = GraphEntry(precision=Precision.FP16, file="graph.fp16.onnx")
    quality = Quality(
        frames=name,
        precision=Precision.FP16,
        psnr_vs_fp32=finite_or_none(report.psnr_vs_fp32),
        max_abs_diff=report.max_abs_diff,
    )
    return bundle.add({entry.file: graph.SerializeToString()}, graphs=[entry], quality=[quality]), report


def make_fp16(
    model: onnx.ModelProto, frames: list[Image], target: float = MIN_PSNR[Precision.FP16] + MARGIN
) -> tuple[onnx.ModelProto, Fp16Report]:
    """The FP16 graph of an FP32 graph, near it by at least `target` dB and MOST_LEVELS on each of `frames`.

    Raises:
        ValueError: the FP32 graph itself gives numbers that are not finite, or no choice of islands reaches the target.
    """
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    beyond, largest = overflowing(model, frames)
    reference = Runner(model)
    expected = [reference.image(frame) for frame in frames]

    def measured(islands: set[str]) -> tuple[onnx.ModelProto, _Measured]:
        graph = to_fp16(model, islands)
        runner = Runner(graph)
        return graph, _Measured([runner.image(frame) for frame in frames], expected)

    graph, reached = measured(beyond)
    lossy: list[str] = []
    if not reached.near(target):
        worst = reached.worst_frame
        ranked = _ranked_by_loss(model, beyond, frames[worst], expected[worst])
        kept = 1
        while not reached.near(target) and len(lossy) < len(ranked):
            lossy = ranked[:kept]
            graph, reached = measured(beyond | set(lossy))
            kept *= 2
    if not reached.near(target):
        seen = (
            f"FP16 reaches {reached.psnr_worst:.1f} dB against FP32, at most {reached.max_abs_diff} grey levels apart"
        )
        raise ValueError(f"{seen}, expected {target:.1f} and {MOST_LEVELS} on every frame: run it in FP32")
    order = [node.name for node in model.graph.node]
    told = tuple(name for name in order if name in beyond), tuple(name for name in order if name in lossy)
    log.info(
        "FP16: %d nodes in FP32 for overflow, %d for loss, %.1f dB", len(told[0]), len(told[1]), reached.psnr_worst
    )
    return graph, Fp16Report(*told, largest, reached.psnr, reached.psnr_worst, reached.max_abs_diff)


class _Measured:
    """How near pictures are to those expected, of all frames and of the worst."""

    def __init__(self, seen: list[Image], expected: list[Image]) -> None:
        levels = [max_abs_diff(a, b) for a, b in zip(seen, expected, strict=True)]
        each = [psnr(a, b) for a, b in zip(seen, expected, strict=True)]
        self.psnr, self.psnr_worst, self.max_abs_diff = psnr(seen, expected), min(each), max(levels)
        worst = levels if self.max_abs_diff > MOST_LEVELS else [-value for value in each]
        self.worst_frame = int(np.argmax(worst))

    def near(self, target: float) -> bool:
        return self.psnr_worst >= target and self.max_abs_diff <= MOST_LEVELS


def to_fp16(model: onnx.ModelProto, islands: Iterable[str] = ()) -> onnx.ModelProto:
    """Every FP32 node but those named in `islands` in FP16, with a Cast wherever a value crosses; checked.

    Inputs and outputs keep their types. Scales of Q/DQ nodes become FP16 as well, which is how TensorRT is told what a
    DequantizeLinear gives; `derain.calibration` chooses scales that FP16 holds exactly.
    """
    kept = set(islands)
    source = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in source.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            raise ValueError(f"output {value.name!r} is FP32: expected camera bytes; export the bundle again")
    result = without_nodes(source)
    del result.graph.initializer[:]
    crossing = _Crossing(source.graph, result.graph)
    for old in source.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        kind = TensorProto.FLOAT if node.name in kept else TensorProto.FLOAT16
        for index, name in enumerate(old.input):
            stays = index in STAYS_FLOAT.get(node.op_type, ())
            node.input[index] = crossing.read(name, TensorProto.FLOAT if stays else kind, cast=node.op_type != "Cast")
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = kind
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT and kind != TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))
        result.graph.node.append(node)
        crossing.made(node, kind)
    result = onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(result, full_check=True)
    return result


class _Crossing:
    """Gives each node of the graph `to` the operands of `source` in the precision it computes in, made once each."""

    def __init__(self, source: onnx.GraphProto, to: onnx.GraphProto) -> None:
        self._to = to
        self._constants = {tensor.name: tensor for tensor in source.initializer}
        self._kinds = {value.name: value.type.tensor_type.elem_type for value in (*source.value_info, *source.input)}
        self._there: set[str] = set()

    def read(self, name: str, kind: int, cast: bool) -> str:
        """What the operand `name` is called in `kind`; a computed one behind a Cast, where `cast` lets it."""
        if name in self._constants:
            return self._constant(name, kind)
        if not name or not cast or {self._kinds[name], kind} != {TensorProto.FLOAT, TensorProto.FLOAT16}:
            return name
        new = f"{name}_{'fp16' if kind == TensorProto.FLOAT16 else 'fp32'}"
        if new not in self._there:
            self._there.add(new)
            self._to.node.append(helper.make_node("Cast", [name], [new], name=new, to=kind))
        return new

    def made(self, node: onnx.NodeProto, kind: int) -> None:
        """Remember that the node computes its floats in `kind`."""
        self._kinds |= {name: kind for name in node.output if self._kinds.get(name) == TensorProto.FLOAT}

    def _constant(self, name: str, kind: int) -> str:
        value = self._constants[name]
        halved = kind == TensorProto.FLOAT16 and value.data_type == TensorProto.FLOAT
        new = f"{name}_fp16" if halved else name
        if new not in self._there:
            self._there.add(new)
            if halved:
                with np.errstate(over="ignore"):  # a weight that overflows is what the scan looks for
                    value = numpy_helper.from_array(numpy_helper.to_array(value).astype(np.float16), new)
            self._to.initializer.append(value)
        return new


def overflowing(model: onnx.ModelProto, frames: list[Image]) -> tuple[set[str], float]:
    """The nodes that touch a value beyond FP16's reach, and the largest magnitude seen."""
    peaks: dict[str, float] = {}
    for name, value in tensors(model, float_tensors(model), frames):
        peak = _peak(value)
        if not math.isfinite(peak):
            raise ValueError(f"tensor {name!r} is not finite in FP32: expected weights of a network that converged")
        peaks[name] = max(peak, peaks.get(name, 0.0))
    largest = max(peaks.values(), default=0.0)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            peaks[tensor.name] = _peak(numpy_helper.to_array(tensor))
    beyond = {name for name, peak in peaks.items() if peak > SAFE_MAX}
    touching = {node.name for node in model.graph.node if beyond & {*node.input, *node.output}}
    return touching, largest


def _peak(value: NDArray[np.float32]) -> float:
    return float(np.abs(value).max(initial=0.0))


def _ranked_by_loss(model: onnx.ModelProto, islands: set[str], frame: Image, expected: Image) -> list[str]:
    """The nodes that FP16 may change, the one whose rounding alone changes the output most first."""
    floats = set(float_tensors(model))
    names = [node.name for node in model.graph.node]
    candidates = [n.name for n in model.graph.node if n.name not in islands and floats & {*n.output}]
    costs = {}
    for candidate in candidates:
        runner = Runner(to_fp16(model, (name for name in names if name != candidate)))
        costs[candidate] = mse(runner.image(frame), expected)
    return sorted(candidates, key=lambda name: -costs[name])
