"""Latency under a camera's clock, and whether one engine is faster than another.

The clock is an open loop: frame n is due at start + n / fps whatever the pipeline does, and its age counts from then.
So a slow engine shows as drops and age; a closed loop would only show a slower camera (coordinated omission).
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from derain.runtime import pipeline
from derain.runtime.bundle import FrameSpec
from derain.runtime.engines import Engine
from derain.runtime.frames import Frame, Image
from derain.runtime.latency import Histogram, Percentiles
from derain.runtime.machine import Machine, machine
from derain.runtime.queues import Policy
from derain.runtime.records import FrameRecord, RunReport
from derain.runtime.sinks.null import NullSink
from derain.runtime.sources import Source

STAGES = ("wait", "inference", "present", "capture_to_present")
RESAMPLES = 2000
SURE = 0.95


class CameraClock(Source):
    """`count` frames at `fps` from a few pictures in memory, each captured when it was due, without a copy."""

    def __init__(self, pictures: Sequence[Image], spec: FrameSpec, fps: float, count: int) -> None:
        super().__init__("memory", spec)
        self.live, self.fps, self.frames = True, fps, count
        self._pictures, self._count = pictures, count
        self.start_ns = self._due_ns = time.monotonic_ns()

    def _images(self) -> Iterator[Image]:
        for number, picture in zip(range(self._count), itertools.cycle(self._pictures), strict=False):
            self._due_ns = self.start_ns + round(number * 1e9 / (self.fps or 1))
            time.sleep(max(self._due_ns - time.monotonic_ns(), 0) / 1e9)
            yield picture

    def _captured_ns(self) -> int:
        return self._due_ns


class BenchReport(RunReport):
    """A run's report with what one needs to judge it. Everything but the warm-up is counted.

    `camera_fps` is the clock's, `jitter_ms` how far the time between two presentations was from the clock's period.
    `samples_ms` are each derained frame's stages, `device` among them where the engine has device events, `at_s` the
    seconds of its capture after the warm-up, in their order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    engine: str
    precision: str
    width: int
    height: int
    pixels: str
    camera_fps: float
    seconds: float
    warm_up_s: float
    jitter_ms: Percentiles | None
    before: Machine
    after: Machine
    at_s: list[float]
    samples_ms: dict[str, list[float]]


def bench(
    engine: Engine,
    pictures: Sequence[Image],
    fps: float,
    seconds: float,
    warm_up_s: float = 2.0,
    deadline_ms: float | None = None,
) -> BenchReport:
    """Run an open, warmed-up engine under `latest` for `warm_up_s` and then `seconds` at `fps` camera frames a second.

    Raises ValueError where the pictures are not frames for it, or no frame comes in that time.
    """
    if seconds * fps < 1:
        raise ValueError(f"{seconds:g} s at {fps:g} frames/s hold no frame: give it longer with --seconds")
    engine.infer(pictures[0])  # refuses pictures that are no frames for it, which the guard would only count
    before = machine()
    source = CameraClock(pictures, engine.input, fps, round((warm_up_s + seconds) * fps))
    from_ns = source.start_ns + round(warm_up_s * 1e9)
    records: list[FrameRecord] = []

    def on_frame(record: FrameRecord, _: Frame, __: Image) -> None:
        if record.captured_ns >= from_ns:
            records.append(record)

    run = pipeline.run(
        engine,
        source,
        NullSink("null", engine.output, fps),
        on_frame,
        policy=Policy.LATEST,
        deadline_ms=deadline_ms,
        count_from_ns=from_ns,
    )
    manifest = engine.bundle.manifest
    return BenchReport(
        **run.model_dump(),
        model=manifest.model.name,
        engine=engine.name,
        precision=engine.precision,
        width=engine.input.width,
        height=engine.input.height,
        pixels=engine.input.pixels,
        camera_fps=fps,
        seconds=seconds,
        warm_up_s=warm_up_s,
        jitter_ms=_jitter([record.presented_ns or 0 for record in records], fps),
        before=before,
        after=machine(),
        **_samples(records, from_ns),
    )


def _jitter(presented_ns: list[int], fps: float) -> Percentiles | None:
    histogram = Histogram()
    for one, following in itertools.pairwise(presented_ns):
        histogram.add(abs(following - one - round(1e9 / fps)))
    return histogram.percentiles() if histogram.count else None


def _samples(records: list[FrameRecord], from_ns: int) -> dict[str, Any]:
    derained = [
        (record.captured_ns, record.inference_start_ns, record.inference_end_ns, record.presented_ns)
        for record in records
        if record.why is None
    ]
    captured, start, end, presented = np.array(derained, np.int64).reshape(-1, 4).T
    durations = (start - captured, end - start, presented - end, presented - captured)
    samples = {name: np.round(ns / 1e6, 4).tolist() for name, ns in zip(STAGES, durations, strict=True)}
    if device := [round(record.device_ns / 1e6, 4) for record in records if record.device_ns is not None]:
        samples["device"] = device
    return {"at_s": np.round((captured - from_ns) / 1e9, 4).tolist(), "samples_ms": samples}


class Comparison(BaseModel):
    """Of the medians of one stage in two reports, in ms; `change` is (b - a) / a, `low` to `high` its 95 % interval.

    `confidence` is the share of resamples on the verdict's side, at most what so many resamples can tell.
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    a_ms: float
    b_ms: float
    change: float
    low: float
    high: float
    confidence: float
    verdict: str


def compare(a: BenchReport, b: BenchReport, stage: str = "inference", seed: int = 0) -> Comparison:
    """Whether B's median of a stage differs from A's, by a block bootstrap.

    Neighbouring frames share their noise, so whole blocks of a second are drawn with replacement: drawing frames would
    promise too narrow an interval (Künsch 1989). Raises ValueError where a report has no derained frame.
    """
    rng = np.random.default_rng(seed)
    medians = []
    for name, report in (("A", a), ("B", b)):
        samples = np.asarray(report.samples_ms[stage])
        if samples.size == 0:
            raise ValueError(f"report {name}: no derained frame to compare: give `derain bench` a faster engine")
        medians.append((float(np.median(samples)), _resampled_medians(samples, round(report.camera_fps), rng)))
    (a_ms, a_resampled), (b_ms, b_resampled) = medians
    changes = b_resampled / a_resampled - 1
    low, high = np.quantile(changes, ((1 - SURE) / 2, (1 + SURE) / 2)).tolist()
    change = b_ms / a_ms - 1
    if low <= 0 <= high:
        verdict, agree = "no difference found", (changes >= low) & (changes <= high)
    else:
        verdict = f"B is {abs(change):.1%} {'faster' if change < 0 else 'slower'}"
        agree = np.sign(changes) == np.sign(change)
    confidence = min(float(np.mean(agree)), 1 - 1 / RESAMPLES)
    return Comparison(
        stage=stage, a_ms=a_ms, b_ms=b_ms, change=change, low=low, high=high, confidence=confidence, verdict=verdict
    )


def _resampled_medians(
    samples: npt.NDArray[np.float64], block: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    block = max(min(block, samples.size // 4), 1)
    starts = rng.integers(0, samples.size, (RESAMPLES, -(-samples.size // block)))
    medians = [np.median(samples[(row[:, None] + np.arange(block)).ravel() % samples.size]) for row in starts]
    return np.array(medians)
