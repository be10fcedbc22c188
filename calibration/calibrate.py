"""From a bundle and frames to its INT8 or FP8 graph: ranges, sensitivity, the layers that stay, and what it costs."""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from derain.calibration.frames import choose
from derain.calibration.qdq import activations, layers, quantize
from derain.calibration.ranges import Method, histograms
from derain.calibration.sensitivity import Judge, LayerCost, Progress, costs, smallest_kept
from derain.export.lint import lint
from derain.export.precision import overflowing, psnr, to_fp16
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Frame
from derain.runtime.manifest import GraphEntry, Precision, Quality

log = logging.getLogger(__name__)

MAX_LOSS = 0.15
"""dB that the defaults may cost."""

JUDGED = 4
"""Every so many chosen frames, one judges the result and gives no ranges."""


@dataclass(frozen=True)
class Calibration:
    """What was chosen and what it costs; `loss_db` as `derain.calibration.sensitivity` defines it."""

    precision: Precision
    method: Method
    losses_db: dict[str, float]
    """Of every method tried, all layers in 8 bits."""
    layers: tuple[LayerCost, ...]
    kept: tuple[str, ...]
    """Layers left in floating point."""
    loss_db: float
    psnr_vs_fp32: float
    max_abs_diff: int
    psnr_rgb: float | None
    psnr_rgb_fp32: float | None
    frames: tuple[int, ...]
    """Ids of the frames that gave the ranges."""
    judged: tuple[int, ...]
    """Ids of the frames that judged."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"psnr_vs_fp32": self.psnr_vs_fp32 if math.isfinite(self.psnr_vs_fp32) else None}


def calibrate(
    bundle: Bundle,
    precision: Precision,
    stream: Iterable[Frame],
    name: str,
    truth: Iterable[Frame] | None = None,
    method: Method | None = None,
    count: int = 16,
    max_loss: float = MAX_LOSS,
    rest: Precision = Precision.FP16,
    progress: Progress = lambda phase, share: None,
) -> tuple[Bundle, Calibration]:
    """Quantise a bundle's FP32 graph and add the result to it.

    Args:
        bundle: with an FP32 graph.
        precision: INT8 or FP8.
        stream: the camera's frames, in the format of the bundle's input.
        name: of the stream, for the manifest and for errors.
        truth: the clean frames of the same ids and number, bgr8; None judges the loss as `sensitivity` says.
        method: how ranges are cut; None tries all and takes the one that costs least.
        count: of frames to choose from the stream.
        max_loss: dB; layers stay in floating point until it is kept.
        rest: what is not quantised computes in FP16 (for TensorRT) or FP32 (for CPUs).
        progress: told the phase and the share of it that is done.

    Raises:
        ValueError: bad frames (see `frames.choose`), another number of clean ones, or no layer fits the loss.
    """
    manifest = bundle.manifest
    seen = _Counted(stream)
    chosen = choose(seen, manifest.input, count, name)
    judging = chosen[JUDGED - 1 :: JUDGED]
    ranging = [frame for index, frame in enumerate(chosen) if index % JUDGED != JUDGED - 1]
    model = onnx.shape_inference.infer_shapes(onnx.load(bundle.graph()), data_prop=True)
    truths = None if truth is None else _truths(truth, judging, seen.count)
    judge = Judge(model, [frame.image for frame in judging], truths, manifest.output)

    progress("ranges", 0.0)
    images = [frame.image for frame in ranging]
    collected = histograms(model, activations(model), images)
    convolutions = layers(model)
    islands = overflowing(model, images[:JUDGED])[0] if rest is Precision.FP16 else set()

    def ranges(method: Method) -> dict[str, float]:
        return {tensor: histogram.limit(method, precision) for tensor, histogram in collected.items()}

    def as_it_runs(names: list[str], limits: dict[str, float]) -> onnx.ModelProto:
        graph = quantize(model, limits, precision, names)
        return to_fp16(graph, islands) if rest is Precision.FP16 else graph

    losses: dict[Method, float] = {}
    for tried in [method] if method else list(Method):
        losses[tried] = judge.loss(judge.outputs(as_it_runs(convolutions, ranges(tried))))
        progress("ranges", len(losses) / (1 if method else len(Method)))
    best = min(losses, key=lambda tried: losses[tried])
    limits = ranges(best)

    found: list[LayerCost] = []
    kept: list[str] = []
    if losses[best] > max_loss:
        found = costs(judge, convolutions, lambda names: quantize(model, limits, precision, names), progress)
        kept = smallest_kept(found, max_loss, lambda names: judge.loss(judge.outputs(as_it_runs(names, limits))))
    graph = as_it_runs([layer for layer in convolutions if layer not in set(kept)], limits)
    lint(graph)
    outputs = judge.outputs(graph)
    result = Calibration(
        precision=precision,
        method=best,
        losses_db={str(tried): loss for tried, loss in losses.items()},
        layers=tuple(found),
        kept=tuple(kept),
        loss_db=judge.loss(outputs),
        psnr_vs_fp32=psnr(outputs, judge.expected),
        max_abs_diff=max(_worst(a, b) for a, b in zip(outputs, judge.expected, strict=True)),
        psnr_rgb=judge.psnr_rgb(outputs),
        psnr_rgb_fp32=judge.psnr_rgb(judge.expected),
        frames=tuple(frame.id for frame in ranging),
        judged=tuple(frame.id for frame in judging),
    )
    entry = GraphEntry(precision=precision, file=f"graph.{precision}.onnx")
    quality = Quality(
        frames=name,
        precision=precision,
        psnr_rgb=result.psnr_rgb,
        psnr_vs_fp32=result.psnr_vs_fp32 if math.isfinite(result.psnr_vs_fp32) else None,
        max_abs_diff=result.max_abs_diff,
    )
    return bundle.add({entry.file: graph.SerializeToString()}, graphs=[entry], quality=[quality]), result


class _Counted:
    """A stream that knows how many frames it gave."""

    def __init__(self, stream: Iterable[Frame]) -> None:
        self._stream, self.count = stream, 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._stream:
            self.count += 1
            yield frame


def _truths(stream: Iterable[Frame], wanted: list[Frame], expected: int) -> list[Any]:
    """The images of the wanted ids, in their order; ValueError where the stream has not `expected` frames."""
    truth, ids = _Counted(stream), {frame.id for frame in wanted}
    found = {frame.id: frame.image.copy() for frame in truth if frame.id in ids}
    if truth.count != expected:
        raise ValueError(f"--truth has {truth.count} frames, --frames {expected}: expected one clean frame for each")
    return [found[frame.id] for frame in wanted]


def _worst(a: Any, b: Any) -> int:
    return int(np.abs(a.astype(np.int16) - b).max())
