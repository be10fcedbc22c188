"""Every precision on every engine at hand, side by side: how near, how fast, how large, and whether it is worth it.

The engines take the frames in turn, one frame each, so that they share whatever else the machine does.
"""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from derain.runtime import engines
from derain.runtime.bundle import Bundle
from derain.runtime.engines import Engine
from derain.runtime.frames import Image, to_bgr
from derain.runtime.latency import Histogram, Percentiles
from derain.runtime.machine import Machine, machine
from derain.runtime.manifest import Precision
from derain.runtime.psnr import psnr
from derain.runtime.quality import EQUAL

log = logging.getLogger(__name__)

WORTH = 0.1
"""Share of FP32's time that a lower precision must save to be worth its trouble."""

NOTICED = 0.15
"""dB that a lower precision may lose."""


class EngineResult(BaseModel):
    """One precision on one engine; PSNR in dB over the 8-bit RGB of all frames, None where it is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    precision: str
    megabytes: float
    psnr_vs_truth: float | None
    psnr_vs_fp32: float | None
    inference_ms: Percentiles
    verdict: str


class EngineComparison(BaseModel):
    """The rows, what could not be run and why, and under which circumstances."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    width: int
    height: int
    pixels: str
    frames: int
    rounds: int
    psnr_input: float | None
    """dB of the raw frames against the truth."""
    rows: list[EngineResult]
    left_out: dict[str, str]
    before: Machine
    after: Machine


def compare_engines(
    bundle: Bundle, pictures: Sequence[Image], truths: Sequence[Image] | None, seconds: float, warm_up: int = 3
) -> EngineComparison:
    """Run every precision of a bundle on every engine that runs it here, for about `seconds` in all.

    Args:
        bundle: with one graph or engine at least.
        pictures: frames in the format of its input.
        truths: the clean bgr8 images of the same frames, or None.
        seconds: of measurement after the warm-up; each takes every picture once at least.
        warm_up: frames before it.

    Raises:
        ValueError: no engine runs it, or there are not as many truths as pictures.
    """
    if truths is not None and len(truths) != len(pictures):
        raise ValueError(f"{len(truths)} clean frames for {len(pictures)} frames: align --truth and --source")
    before = machine()
    left_out = {name: reason for name, reason in engines.available().items() if reason is not None}
    lanes = _lanes(bundle, left_out)
    rounds = 0
    try:
        _each(lanes, left_out, Lane.open, warm_up)
        end = time.monotonic() + seconds
        while lanes and (rounds < len(pictures) or time.monotonic() < end):
            _each(lanes, left_out, Lane.take, pictures[rounds % len(pictures)], rounds < len(pictures))
            rounds += 1
    finally:
        for lane in lanes:
            lane.close()
    if not lanes:
        raise ValueError(f"{bundle.path}: no engine runs it here: {'; '.join(left_out.values())}")
    raw = [to_bgr(picture, bundle.manifest.input) for picture in pictures]
    fp32 = next((lane.images for lane in lanes if lane.engine.precision is Precision.FP32), None)
    rows = [
        EngineResult(
            engine=lane.engine.name,
            precision=lane.engine.precision,
            megabytes=_file_bytes(bundle, lane.engine) / 1e6,
            psnr_vs_truth=None if truths is None else _mean_psnr(lane.images, truths),
            psnr_vs_fp32=None if fp32 is None or lane.images is fp32 else _mean_psnr(lane.images, fp32),
            inference_ms=lane.times.percentiles(),
            verdict="",
        )
        for lane in lanes
    ]
    return EngineComparison(
        model=bundle.manifest.model.name,
        width=bundle.manifest.input.width,
        height=bundle.manifest.input.height,
        pixels=bundle.manifest.input.pixels,
        frames=len(pictures),
        rounds=rounds,
        psnr_input=None if truths is None else _mean_psnr(raw, truths),
        rows=[row.model_copy(update={"verdict": verdict(row, rows)}) for row in rows],
        left_out=left_out,
        before=before,
        after=machine(),
    )


def verdict(row: EngineResult, rows: Sequence[EngineResult]) -> str:
    """Whether a row is worth it beside FP32 on its engine, or on the first that has FP32, in one sentence."""
    plain = [other for other in rows if other.precision == Precision.FP32]
    name = row.precision.upper()
    if not plain:
        return f"There is no FP32 here to compare {name} with."
    base = next((other for other in plain if other.engine == row.engine), plain[0])
    if base is row:
        fastest = min(plain, key=lambda other: other.inference_ms.p50)
        return "The measure of the others." if fastest is row else f"Slower than FP32 on {fastest.engine}."
    saved = 1 - row.inference_ms.p50 / base.inference_ms.p50
    if saved >= 0.5:
        speed = f"{1 / (1 - saved):.1f} times as fast"
    elif saved <= -1:
        speed = f"{1 - saved:.1f} times as slow"
    else:
        speed = f"{abs(saved):.0%} {'faster' if saved > 0 else 'slower'}".replace("%", " %")
    if row.psnr_vs_truth is not None and base.psnr_vs_truth is not None:
        lost = base.psnr_vs_truth - row.psnr_vs_truth
        quality = (
            f"{abs(lost):.2f} dB {'worse' if lost > 0 else 'better'}" if abs(lost) >= 0.005 else "as near the truth"
        )
    else:
        lost = 0.0
        quality = f"{row.psnr_vs_fp32:.1f} dB from FP32's output; its cost in quality needs --truth"
    if saved < WORTH:
        judgement = "is not worth it here"
    elif lost > NOTICED:
        judgement = "trades quality for speed"
    else:
        judgement = "is worth it here"
    return f"{name} {judgement}: {speed}, {quality}."


class Lane:
    """One precision on one engine: the time of every frame, and the first round's pictures."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.times = Histogram()
        self.images: list[Image] = []

    def open(self, warm_up: int) -> None:
        """Open the engine and infer so many frames that do not count."""
        self.engine.open()
        self.engine.warm_up(warm_up)

    def take(self, picture: Image, keep: bool) -> None:
        """Infer a frame, and keep its picture if asked to. One not timed comes before: its processor has been idle."""
        self.engine.infer(picture)
        start = time.monotonic_ns()
        clean = self.engine.infer(picture)
        self.times.add(time.monotonic_ns() - start)
        if keep:
            self.images.append(to_bgr(clean, self.engine.output))

    def close(self) -> None:
        """Close the engine; its figures outlive a failure to."""
        try:
            self.engine.close()
        except Exception as error:
            log.warning("%s %s does not close: %s", self.engine.name, self.engine.precision, error)


def _lanes(bundle: Bundle, left_out: dict[str, str]) -> list[Lane]:
    """Every precision of the bundle on every engine that is not left out."""
    manifest = bundle.manifest
    present = {graph.precision for graph in manifest.graphs} | {built.precision for built in manifest.engines}
    return [
        Lane(engines.create(name, bundle, precision))
        for name in engines.available()
        if name not in left_out
        for precision in Precision
        if precision in present
    ]


def _each(lanes: list[Lane], left_out: dict[str, str], step: Callable[..., None], *arguments: Any) -> None:
    """A step of every lane. One that fails, whatever its engine raises, leaves the lanes: the others go on."""
    for lane in list(lanes):
        try:
            step(lane, *arguments)
        except Exception as error:
            lanes.remove(lane)
            lane.close()
            reason = " ".join(str(error).split()) or type(error).__name__
            left_out[f"{lane.engine.name} {lane.engine.precision}"] = reason


def _file_bytes(bundle: Bundle, engine: Engine) -> int:
    """Of the plan that the engine loads, or else of its graph."""
    manifest = bundle.manifest
    plans = [e.file for e in manifest.engines if (e.api, e.precision) == (engine.name, engine.precision)]
    graphs = [e.file for e in manifest.graphs if e.precision == engine.precision]
    return manifest.files[(plans + graphs)[0]].bytes


def _mean_psnr(images: Sequence[Image], references: Sequence[Image]) -> float:
    values = [psnr(image, reference) for image, reference in zip(images, references, strict=True)]
    return statistics.fmean(min(value, EQUAL) for value in values)
