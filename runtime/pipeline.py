"""Capture, infer, present: one frame after the other, each timed on one monotonic clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from derain.runtime.engines import Engine
from derain.runtime.frames import Frame, Image
from derain.runtime.latency import Latency, Percentiles
from derain.runtime.sinks import Sink
from derain.runtime.sources import Source


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """When one frame passed each stage, `time.monotonic_ns()`."""

    id: int
    captured_ns: int
    inference_start_ns: int
    inference_end_ns: int
    presented_ns: int


class RunReport(BaseModel):
    """What a run did. In sequence no frame is dropped, passed through or given a deadline, so those counts are 0.

    `fps` is frames a second of the loop's own time, `outside_engine_share` the share of it spent outside the engine.
    Stages: `capture` from asking the source to having the bytes, `inference`, `present`, and `capture_to_present`.
    """

    model_config = ConfigDict(frozen=True)

    frames: int
    presented: int
    dropped: int
    passed_through: int
    deadline_misses: int
    fps: float
    outside_engine_share: float
    latency_ms: dict[str, Percentiles]


OnFrame = Callable[[FrameRecord, Frame, Image], None]


def run(engine: Engine, source: Source, sink: Sink, on_frame: OnFrame | None = None) -> RunReport:
    """Derain `source` into `sink` until the source ends; all three are open, and the caller closes them.

    `on_frame` gets each frame's record, the frame and the clean image, outside every measured time. What the source,
    the engine or the sink raises goes up; the sink holds every frame presented before.
    """
    latency = Latency()
    frames = busy_ns = 0
    asked_ns = time.monotonic_ns()
    for frame in source:
        start_ns = time.monotonic_ns()
        clean = engine.infer(frame.image)
        end_ns = time.monotonic_ns()
        sink.write(clean)
        presented_ns = time.monotonic_ns()
        latency.add("capture", frame.captured_ns - asked_ns)
        latency.add("inference", end_ns - start_ns)
        latency.add("present", presented_ns - end_ns)
        latency.add("capture_to_present", presented_ns - frame.captured_ns)
        frames += 1
        busy_ns += presented_ns - asked_ns
        if on_frame is not None:
            on_frame(FrameRecord(frame.id, frame.captured_ns, start_ns, end_ns, presented_ns), frame, clean)
        asked_ns = time.monotonic_ns()
    return RunReport(
        frames=frames,
        presented=frames,
        dropped=0,
        passed_through=0,
        deadline_misses=0,
        fps=frames / busy_ns * 1e9,
        outside_engine_share=1 - latency.total("inference") / busy_ns,
        latency_ms=latency.summary(),
    )
