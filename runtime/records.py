"""What became of each frame, and the report of a run made of it."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from pydantic import BaseModel, ConfigDict

from derain.runtime.latency import Latency, Percentiles

RECENT = 256  # frames behind the live figures: some seconds


class Outcome(StrEnum):
    """What became of one frame."""

    DERAINED = "derained"
    PASSED_THROUGH = "passed through"
    DROPPED = "dropped"


class Why(StrEnum):
    """Why a frame was not derained."""

    DEADLINE = "missed its deadline"
    LATE = "the engine was late with an earlier frame"
    FAULT = "the engine failed on it"
    AWAY = "the engine was being reopened"
    GIVEN_UP = "the engine failed too often"
    UNFIT = "the camera changed its size"
    BROKEN = "the camera's frame came broken"
    NEWER = "a newer frame came"
    SINK = "the sink failed"


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """When one frame passed each stage, `time.monotonic_ns()`; None for a stage it did not pass.

    `asked_ns` is when the source was asked for it. A frame that is passed through has no times of inference, also where
    the engine worked on it. `why` is None for a derained frame. `device_ns` is the part of the inference that the
    device's own events measured, None where the engine has none.
    """

    id: int
    asked_ns: int
    captured_ns: int
    inference_start_ns: int | None
    inference_end_ns: int | None
    presented_ns: int | None
    outcome: Outcome
    why: Why | None = None
    device_ns: int | None = None


class RunReport(BaseModel):
    """What a run did: `frames` = `presented` + `dropped`, and `passed_through` are those presented raw.

    `deadline_misses` are the frames whose result was not there in time, those that a late engine never saw among them;
    `fps` is presented frames a second from start to end, `outside_engine_share` the share of that time in which the
    engine had nothing to do. `error` is what ended the run early. `why` counts the frames that were not derained by
    their reason. Stages: `capture` from asking the source to having the bytes, `wait` for the engine, `inference` (also
    when its result came too late), `device` its part by the device's own events where there are any, `present` from the
    result to the sink's return, and `capture_to_present` over all presented frames.
    """

    model_config = ConfigDict(frozen=True)

    policy: str
    deadline_ms: float | None
    frames: int
    presented: int
    dropped: int
    passed_through: int
    deadline_misses: int
    engine_faults: int
    engine_reopened: int
    engine_state: str
    engine_fault: str | None
    source_faults: int
    source_fault: str | None
    error: str | None = None
    why: dict[str, int]
    fps: float
    outside_engine_share: float
    latency_ms: dict[str, Percentiles]


@dataclass(frozen=True, slots=True)
class Status:
    """A run as it stands: counts since its start, rates and ages over the last 256 frames, the two states in words.

    `fps` is up to now, so it falls when nothing comes any more.
    `why` counts the frames that were not derained by their reason; the two faults are the last ones' texts.
    """

    frames: int
    dropped: int
    passed_through: int
    fps: float
    p50_ms: float
    p99_ms: float
    age_ms: float
    engine: str
    source: str
    engine_faults: int = 0
    engine_reopened: int = 0
    engine_fault: str | None = None
    source_faults: int = 0
    source_fault: str | None = None
    why: Mapping[str, int] = field(default_factory=dict)


class Tally:
    """Counts frames captured at `from_ns` or later; bounded in memory whatever their number."""

    def __init__(self, from_ns: int = 0) -> None:
        self._from_ns = from_ns
        self.outcomes: Counter[Outcome] = Counter()
        self.why: Counter[Why] = Counter()
        self.latency = Latency()
        self.last_presented_ns: int | None = None
        self._newest_captured_ns: int | None = None
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT)

    def add(self, record: FrameRecord) -> None:
        """Count one frame."""
        if record.captured_ns < self._from_ns:
            return
        self.outcomes[record.outcome] += 1
        if record.why is not None:
            self.why[record.why] += 1
        self.latency.add("capture", max(record.captured_ns - record.asked_ns, 0))
        if record.presented_ns is None:
            return
        age_ns = record.presented_ns - record.captured_ns
        if record.inference_start_ns is not None and record.inference_end_ns is not None:
            self.latency.add("wait", max(record.inference_start_ns - record.captured_ns, 0))
            self.latency.add("inference", record.inference_end_ns - record.inference_start_ns)
            if record.device_ns is not None:
                self.latency.add("device", record.device_ns)
            self.latency.add("present", record.presented_ns - record.inference_end_ns)
        self.latency.add("capture_to_present", max(age_ns, 0))
        self.last_presented_ns, self._newest_captured_ns = record.presented_ns, record.captured_ns
        self._recent.append((record.presented_ns, age_ns))

    def add_unused_inference(self, captured_ns: int, ns: int) -> None:
        """Count the inference of a frame that went out raw all the same: without it the percentiles would flatter."""
        if captured_ns >= self._from_ns:
            self.latency.add("inference", ns)

    @property
    def presented(self) -> int:
        """Frames that reached the sink."""
        return self.outcomes[Outcome.DERAINED] + self.outcomes[Outcome.PASSED_THROUGH]

    def status(self, now_ns: int, engine: str, source: str) -> Status:
        """The run as it stands."""
        times, ages = zip(*self._recent, strict=True) if self._recent else ((now_ns,), (0,))
        span_ns = now_ns - times[0]
        p50_ns, p99_ns = np.quantile(ages, (0.5, 0.99)).tolist()
        newest = self._newest_captured_ns
        return Status(
            frames=self.outcomes.total(),
            dropped=self.outcomes[Outcome.DROPPED],
            passed_through=self.outcomes[Outcome.PASSED_THROUGH],
            fps=(len(times) - 1) / span_ns * 1e9 if span_ns > 0 else 0.0,
            p50_ms=p50_ns / 1e6,
            p99_ms=p99_ns / 1e6,
            age_ms=0.0 if newest is None else (now_ns - newest) / 1e6,
            engine=engine,
            source=source,
            why={str(why): count for why, count in sorted(self.why.items())},
        )
