"""Run an ONNX graph on ONNX Runtime's CPU and look at any of its tensors, a batch at a time; what the proofs share."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from derain.export.onnx_graph import tensor_shapes, without_nodes
from derain.runtime.engines.onnxruntime import as_written
from derain.runtime.frames import Image, from_bgr
from derain.runtime.manifest import FrameSpec

BATCH_BYTES = 2**29
"""Bytes of tensors held at once."""


class Runner:
    """A graph of one uint8 input, ready to run; `outputs` are the tensors it gives, by default the graph's own.

    FP16 is rounded after every node, as a GPU does; see `rounded_like_fp16`.
    """

    def __init__(self, model: onnx.ModelProto, outputs: Iterable[str] = ()) -> None:
        self.outputs = list(outputs)
        model = rounded_like_fp16(model)
        if self.outputs:
            tapped = onnx.ModelProto()
            tapped.CopyFrom(model)
            del tapped.graph.output[:]
            tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs)
            model = tapped
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it grows by doubling: beyond 4 GiB to more than twice what is needed
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # the file's: by default readers without readers come last
        options.execution_order = order
        providers = ["CPUExecutionProvider"]
        fp8 = any(tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN for tensor in model.graph.initializer)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=providers,
            disabled_optimizers=as_written(options, fp8),
        )
        self._input = model.graph.input[0].name

    def __call__(self, frame: Image) -> list[NDArray[Any]]:
        """The outputs for one frame, which comes without the input's leading 1."""
        values: Any = self._session.run(self.outputs or None, {self._input: frame[np.newaxis]})
        return list(values)

    def image(self, frame: Image) -> Image:
        """The first output without its leading 1."""
        first: Image = self(frame)[0][0]
        return first


@dataclass(frozen=True)
class Magnitude:
    """How large a tensor is: its shape and the sum of its elements' magnitudes."""

    shape: tuple[int, ...]
    total: float

    @property
    def mean(self) -> float:
        """Of the magnitudes."""
        return self.total / max(1, math.prod(self.shape))


class MagnitudeRunner:
    """A graph with shapes inferred, ready to run, that also tells how large each of its float tensors is.

    Each tensor x adds one number to the outputs, the sum of |x|, so that one run sees every tensor and holds none. The
    sum is finite where all of x is, up to a mean magnitude of 1e30 that no network comes near.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        shapes = tensor_shapes(model)
        self._shapes = {name: shapes[name] for name in float_tensors(model)}
        rounded = rounded_like_fp16(model)
        tapped = without_nodes(rounded)
        tapped.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "last_axis"))
        for node in rounded.graph.node:
            tapped.graph.node.append(node)
            for name in self._shapes.keys() & {*node.output}:
                # Rows first: a float that sums a whole plane loses digits.
                rows, total = [f"{name}_rows"] if self._shapes[name] else [name], f"{name}_sum"
                if self._shapes[name]:
                    tapped.graph.node.append(helper.make_node("ReduceL1", [name, "last_axis"], rows, name=rows[0]))
                tapped.graph.node.append(helper.make_node("ReduceL1", rows, [total], name=total, keepdims=0))
        image = tapped.graph.output[0].name
        self._runner = Runner(tapped, [image, *(f"{name}_sum" for name in self._shapes)])

    def __call__(self, frame: Image) -> tuple[Image, dict[str, Magnitude]]:
        """The image for one frame, both without the leading 1, and the tensors' magnitudes in order of computation."""
        image, *sums = self._runner(frame)
        totals = zip(self._shapes.items(), sums, strict=True)
        return image[0], {name: Magnitude(shape, float(total)) for (name, shape), total in totals}


def rounded_like_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph without FP16 as it is; else one that computes in FP32 and rounds each FP16 tensor where it is made.

    ONNX Runtime's CPU runs most FP16 operators in FP32 and drops the casts between them, so that neither rounding nor
    overflow shows: 1 + 2048 - 2048 gives 1. It keeps casts that the graph itself asks for.
    """
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    made = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == half}
    if half not in made.values():
        return model
    result = without_nodes(model)
    for tensor in result.graph.initializer:
        if tensor.name in constants:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for old in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == half:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = single
        halves = [name for name in old.output if made.get(name) == half]
        node.output[:] = [f"{name}_unrounded" if name in halves else name for name in old.output]
        result.graph.node.append(node)
        for name in halves:
            down = helper.make_node("Cast", [f"{name}_unrounded"], [f"{name}_half"], name=f"{name}_half", to=half)
            up = helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_rounded", to=single)
            result.graph.node.extend([down, up])
    return result


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """The names of the FP32 and FP16 tensors that nodes make, in the order of computation."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    floats = {v.name for v in model.graph.value_info if v.type.tensor_type.elem_type in kinds}
    return [name for node in model.graph.node for name in node.output if name in floats]


def tensors(model: onnx.ModelProto, names: list[str], frames: list[Image]) -> Iterator[tuple[str, NDArray[Any]]]:
    """(name, value) of each tensor for each frame; all frames of some tensors, then all frames of the next."""
    shapes = tensor_shapes(model)
    for batch in batches({name: math.prod(shapes[name]) for name in names}):
        runner = Runner(model, batch)
        for frame in frames:
            yield from zip(batch, runner(frame), strict=True)


def batches(sizes: dict[str, int]) -> Iterator[list[str]]:
    """The names of float tensors of so many values each, in their order, as many at once as BATCH_BYTES hold."""
    batch: list[str] = []
    held = 0
    for name, size in sizes.items():
        if batch and held + 4 * size > BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(name)
        held += 4 * size
    if batch:
        yield batch


def seeded_frame(spec: FrameSpec, seed: int) -> Image:
    """A frame for proofs, uint8 in `spec.image_shape`.

    Its left half has structure at every scale, from soft gradients to single pixels, and any bytes; its right half is a
    soft picture in rain, which a deraining network must change.
    """
    random = np.random.default_rng(seed)
    height, width, *rest = spec.image_shape
    frame = np.zeros(spec.image_shape, np.float32)
    for octave in range(7):
        coarse = random.uniform(-1, 1, (max(1, height >> octave), max(1, width >> octave), *rest)).astype(np.float32)
        frame += 2.0 ** (octave / 2) * cv2.resize(coarse, (width, height)).reshape(frame.shape)
    image: Image = np.clip(127.5 + 20 * frame, 0, 255).astype(np.uint8)
    middle = width // 4 * 2  # even, for shared chroma
    image[:, middle:] = from_bgr(_rainy(spec, random), spec)[:, middle:]
    return image


def _rainy(spec: FrameSpec, random: np.random.Generator) -> Image:
    """BGR: streaks that fall and drops on the lens before a soft picture, as many for an area in frames of any size."""
    size, pixels = (spec.width, spec.height), spec.width * spec.height
    picture = cv2.resize(random.uniform(40, 180, (6, 10, 3)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    rain = np.zeros((spec.height, spec.width), np.float32)
    for x, y in (random.uniform(0, 1, (pixels // 500, 2)) * size).astype(int).tolist():
        cv2.line(rain, (x, y), (x - 3, y + 21), 0.5, 1, cv2.LINE_AA)
    for x, y in (random.uniform(0, 1, (pixels // 4000, 2)) * size).astype(int).tolist():
        cv2.circle(rain, (x, y), 6, 0.6, cv2.FILLED, cv2.LINE_AA)
    rainy = picture + rain[..., np.newaxis] * (235 - picture)
    return np.asarray(np.clip(rainy, 0, 255), np.uint8)
