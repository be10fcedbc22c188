"""Latency under a camera's clock, and whether one engine is faster than another.

The clock is an open loop: frame n is due at start + n / fps whatever the pipeline does, and its age counts from then.
So a slow engine shows as drops and age; a closed loop would only show a slower camera (coordinated omission).
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from derain.runtime import pipeline
from derain.runtime.engines import Engine
from derain.runtime.frames import Frame, Image
from derain.runtime.latency import Histogram, Percentiles
from derain.runtime.machine import Machine, machine
from derain.runtime.manifest import FrameSpec
from derain.runtime.observers import Observer
from derain.runtime.queues import Policy
from derain.runtime.records import FrameRecord, RunReport
from derain.runtime.sinks.null import NullSink
from derain.runtime.sources import Source

PARTS = 5
T_OF_PARTS = 2.776
"""Student's t at 97.5 % with PARTS - 1 degrees of freedom."""


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
    `samples_ms` are every frame's stages in the order of capture, as far as it passed them: `wait`, `present` and
    `device`, where the engine has device events, of the derained ones; `inference` of those whose result came too late
    as well; `capture_to_present` of all presented ones, whose capture, seconds after the warm-up, is in `at_s`.
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


class Samples(Observer):
    """What a run left from `from_ns` on: each presented frame's record; captured at and ns of each unused inference."""

    def __init__(self, from_ns: int) -> None:
        self.from_ns = from_ns
        self.records: list[FrameRecord] = []
        self.unused: list[tuple[int, int]] = []

    def on_frame(self, record: FrameRecord, frame: Frame, shown: Image) -> None:  # noqa: D102
        if record.captured_ns >= self.from_ns:
            self.records.append(record)

    def on_unused(self, captured_ns: int, ns: int) -> None:  # noqa: D102
        if captured_ns >= self.from_ns:
            self.unused.append((captured_ns, ns))


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
    warm_up = math.ceil(round(warm_up_s * fps, 6))  # frames: the first one after it is due at its end, or later
    source = CameraClock(pictures, engine.input, fps, warm_up + round(seconds * fps))
    from_ns = source.start_ns + round(warm_up_s * 1e9)
    samples = Samples(from_ns)
    run = pipeline.run(
        engine,
        source,
        NullSink("null", engine.output, fps),
        [samples],
        policy=Policy.LATEST,
        deadline_ms=deadline_ms,
        count_from_ns=from_ns,
    )
    manifest = engine.bundle.manifest
    # By the clock, or a short run's n frames had been presented in n - 1 periods
    run = run.model_copy(update={"fps": run.presented / seconds})
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
        jitter_ms=_jitter([record.presented_ns or 0 for record in samples.records], fps),
        before=before,
        after=machine(),
        **_samples(samples),
    )


def _jitter(presented_ns: list[int], fps: float) -> Percentiles | None:
    histogram = Histogram()
    for one, following in itertools.pairwise(presented_ns):
        histogram.add(abs(following - one - round(1e9 / fps)))
    return histogram.percentiles() if histogram.count else None


def _samples(samples: Samples) -> dict[str, Any]:
    records, from_ns = samples.records, samples.from_ns
    derained = [record for record in records if record.inference_start_ns is not None]
    inferences = [
        (record.captured_ns, (record.inference_end_ns or 0) - (record.inference_start_ns or 0)) for record in derained
    ]
    stages = {
        "wait": [(record.inference_start_ns or 0) - record.captured_ns for record in derained],
        "inference": [ns for _, ns in sorted(inferences + samples.unused)],
        "present": [(record.presented_ns or 0) - (record.inference_end_ns or 0) for record in derained],
        "capture_to_present": [(record.presented_ns or 0) - record.captured_ns for record in records],
    }
    if device := [record.device_ns for record in derained if record.device_ns is not None]:
        stages["device"] = device
    return {
        "at_s": [round((record.captured_ns - from_ns) / 1e9, 4) for record in records],
        "samples_ms": {name: [round(ns / 1e6, 4) for ns in durations] for name, durations in stages.items()},
    }


class StageChange(BaseModel):
    """Of the medians of one stage in two reports, in ms; `change` is (b - a) / a, `low` to `high` its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    stage: str
    a_ms: float
    b_ms: float
    change: float
    low: float
    high: float
    verdict: str


def compare_stage(a: BenchReport, b: BenchReport, stage: str = "inference") -> StageChange:
    """Whether B's median of a stage differs from A's: of these two runs, since what another run gives they cannot tell.

    Neighbouring frames share their noise, so frames must not count as independent. Each run is cut into five parts, in
    their order, and the logarithms of the parts' medians are compared by Student's t (batch means: Schmeiser 1982). Of
    two runs of 10 s that differ by nothing but noise, 3 % are told apart wrongly where that noise lasts 0.3 s, and 8 %
    where it lasts 1 s.

    Raises:
        ValueError: a report has fewer frames in that stage than parts.
    """
    medians, parts = [], []
    for name, report in (("A", a), ("B", b)):
        samples = np.asarray(report.samples_ms[stage])
        if samples.size < PARTS:
            raise ValueError(
                f"report {name}: {samples.size} frames with {stage.replace('_', ' ')} times, expected {PARTS} or more: "
                "give `derain bench` longer with --seconds, or a faster engine"
            )
        medians.append(float(np.median(samples)))
        parts.append(np.log([np.median(part) for part in np.array_split(samples, PARTS)]))
    change = medians[1] / medians[0] - 1
    margin = T_OF_PARTS * math.sqrt(sum(float(np.var(part, ddof=1)) for part in parts) / PARTS)
    low, high = ((1 + change) * math.exp(sign * margin) - 1 for sign in (-1, 1))
    differ = not low <= 0 <= high
    verdict = f"B was {abs(change):.1%} {'faster' if change < 0 else 'slower'}" if differ else "no difference found"
    return StageChange(
        stage=stage, a_ms=medians[0], b_ms=medians[1], change=change, low=low, high=high, verdict=verdict
    )
