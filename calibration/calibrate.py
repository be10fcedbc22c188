"""From a bundle and frames to its INT8 or FP8 graph: ranges, sensitivity, the layers that stay, and what it costs."""

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from derain.calibration.frames import choose
from derain.calibration.qdq import activations, layers, quantize
from derain.calibration.ranges import Method, histograms
from derain.calibration.sensitivity import Judge, LayerCost, Progress, costs, smallest_kept
from derain.export.fp16 import overflowing, to_fp16
from derain.export.lint import lint
from derain.export.onnx_graph import read_onnx
from derain.runtime.bundle import Bundle
from derain.runtime.frames import Frame, Image
from derain.runtime.manifest import GraphEntry, Precision, Quality
from derain.runtime.psnr import finite_or_none, max_abs_diff, psnr

log = logging.getLogger(__name__)

MAX_LOSS = 0.15
"""dB that the defaults may cost."""

EVERY_NTH_JUDGES = 4
"""Of the chosen frames, one in so many judges the result and gives no ranges."""


@dataclass(frozen=True)
class Calibration:
    """What was chosen and what it costs; `loss_db` as `derain.calibration.sensitivity` defines it."""

    precision: Precision
    method: Method
    losses_db: dict[str, float]
    """Of every method tried, all layers in 8 bits."""
    layers: tuple[LayerCost, ...]
    kept: tuple[str, ...]
    """Layers left in floating point: beyond what FP16 holds, or the costliest."""
    loss_db: float
    psnr_vs_fp32: float
    max_abs_diff: int
    psnr_rgb: float | None
    psnr_rgb_fp32: float | None
    ssim_rgb: float | None
    ssim_rgb_fp32: float | None
    frames: tuple[int, ...]
    """Ids of the frames that gave the ranges."""
    judged: tuple[int, ...]
    """Ids of the frames that judged."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"psnr_vs_fp32": finite_or_none(self.psnr_vs_fp32)}


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
        OSError: the bundle cannot be written to, which is told before any work.
        ValueError: bad frames (see `frames.choose`), another number of clean ones, no convolution to
            quantise, or no layer fits the loss.
    """
    if not max_loss >= 0:
        raise ValueError(f"--max-loss is {max_loss:g} dB, expected 0 or more")
    Bundle.check_place(bundle.path)
    seen = _Counted(stream)
    chosen = choose(seen, bundle.manifest.input, count, name)
    judging = chosen[EVERY_NTH_JUDGES - 1 :: EVERY_NTH_JUDGES]
    ranging = [frame for index, frame in enumerate(chosen) if index % EVERY_NTH_JUDGES != EVERY_NTH_JUDGES - 1]
    model = read_onnx(bundle.graph())
    truths = None if truth is None else _truths(truth, judging, seen.count)
    judge = Judge(model, [frame.image for frame in judging], truths, bundle.manifest.output)
    quantiser = _Quantiser(model, precision, rest, [frame.image for frame in ranging], progress)

    losses = quantiser.losses([method] if method else list(Method), judge)
    best = min(losses, key=lambda tried: losses[tried])
    found, kept = quantiser.kept(best, judge, max_loss) if losses[best] > max_loss else ([], [])
    graph = quantiser.graph(best, without=kept)
    lint(graph)
    outputs = judge.outputs(graph)
    result = Calibration(
        precision=precision,
        method=best,
        losses_db={str(tried): loss for tried, loss in losses.items()},
        layers=tuple(found),
        kept=(*quantiser.wide, *kept),
        loss_db=judge.loss(outputs),
        psnr_vs_fp32=psnr(outputs, judge.expected),
        max_abs_diff=max(max_abs_diff(a, b) for a, b in zip(outputs, judge.expected, strict=True)),
        psnr_rgb=judge.psnr_rgb(outputs),
        psnr_rgb_fp32=judge.psnr_rgb(judge.expected),
        ssim_rgb=judge.ssim_rgb(outputs),
        ssim_rgb_fp32=judge.ssim_rgb(judge.expected),
        frames=tuple(frame.id for frame in ranging),
        judged=tuple(frame.id for frame in judging),
    )
    entry = GraphEntry(precision=precision, file=f"graph.{precision}.onnx")
    quality = Quality(
        frames=name,
        precision=precision,
        psnr_rgb=result.psnr_rgb,
        ssim_rgb=result.ssim_rgb,
        psnr_vs_fp32=finite_or_none(result.psnr_vs_fp32),
        max_abs_diff=result.max_abs_diff,
    )
    return bundle.add({entry.file: graph.SerializeToString()}, graphs=[entry], quality=[quality]), result


class _Quantiser:
    """An FP32 graph and what its tensors hold on some frames, from which its 8-bit graphs are made."""

    def __init__(
        self, model: onnx.ModelProto, precision: Precision, rest: Precision, images: list[Image], progress: Progress
    ) -> None:
        self.model, self.precision, self.rest, self.progress = model, precision, rest, progress
        progress("ranges", 0.0)
        self._histograms = histograms(model, activations(model), images)
        self._limits: dict[Method, dict[str, float]] = {}
        self._islands = overflowing(model, images)[0] if rest is Precision.FP16 else set[str]()
        self.wide = [layer for layer in layers(model) if layer in self._islands]
        self.layers = [layer for layer in layers(model) if layer not in self._islands]
        if not self.layers:
            why = "all hold more than FP16 does" if self.wide else "the network has none"
            raise ValueError(f"no convolution to put into {precision}: {why}; use `--precision fp16`")

    def graph(self, method: Method, without: Collection[str] = ()) -> onnx.ModelProto:
        """The graph as it will run, with all layers but those `without` in 8 bits."""
        graph = self._in_8_bits(method, [layer for layer in self.layers if layer not in without])
        return to_fp16(graph, self._islands) if self.rest is Precision.FP16 else graph

    def losses(self, methods: list[Method], judge: Judge) -> dict[Method, float]:
        """What each method costs in dB with all layers in 8 bits."""
        losses: dict[Method, float] = {}
        for method in methods:
            losses[method] = judge.loss(judge.outputs(self.graph(method)))
            self.progress("ranges", len(losses) / len(methods))
        return losses

    def kept(self, method: Method, judge: Judge, max_loss: float) -> tuple[list[LayerCost], list[str]]:
        """What each layer costs, and the fewest to keep in floating point for at most `max_loss` dB."""
        found = costs(judge, self.layers, lambda names: self._in_8_bits(method, names), self.progress)

        def loss(kept: list[str]) -> float:
            return judge.loss(judge.outputs(self.graph(method, without=kept)))

        return found, smallest_kept(found, max_loss, loss)

    def _in_8_bits(self, method: Method, names: list[str]) -> onnx.ModelProto:
        if method not in self._limits:
            limit = {name: histogram.limit(method, self.precision) for name, histogram in self._histograms.items()}
            self._limits[method] = limit
        return quantize(self.model, self._limits[method], self.precision, names)


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
