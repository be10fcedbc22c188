"""Capture, infer, present: three threads, one loop that decides.

    source ─ capture thread ─▶ FrameQueue ─▶ the loop, on the caller's thread ─▶ sink
                                              │     ▲
                                              ▼     │
                                           Worker, the engine's thread

The loop alone decides what goes out, so that its rules need no locks and can be tested in a time of their own: it
collects what the engine finished, gives the engine the next frame, then presents, and the engine works while the sink
does. Presenting is on the caller's thread, because windows insist on the main one and because what a sink raises goes
straight up.

**Copies of a frame between the source and the engine, and between the engine and the sink: none.** The array the source
made is the one the engine reads (as a view with a leading 1), the array the engine made is the one the sink gets, and a
raw frame goes out as it came in, unless the output has other pixels than the input. What is left to Python is two
hand-overs between threads, the bookkeeping, and the guard's look at 3,072 points of each picture.
"""

import errno
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from derain.runtime.capture import STALL_S, Capture
from derain.runtime.engines import Engine
from derain.runtime.frames import Frame, Image, converter
from derain.runtime.guard import Event, Guard, State
from derain.runtime.observers import Observer, Observers
from derain.runtime.queues import FrameQueue, Policy
from derain.runtime.records import FrameRecord, Outcome, RunReport, Status, Tally, Why
from derain.runtime.sinks import Sink
from derain.runtime.sources import Source
from derain.runtime.worker import PATIENCE_S, Done, Worker

__all__ = ["FrameRecord", "Loop", "Policy", "RunReport", "Status", "run"]

log = logging.getLogger(__name__)

TICK_S = 0.1
"""How often the loop looks up without being woken: for a stop, a stalled source and the status line."""

WHY_RAW = {
    State.LATE: Why.LATE,
    State.BACKING_OFF: Why.AWAY,
    State.REOPENING: Why.AWAY,
    State.RAW: Why.GIVEN_UP,
}


class Jobs(Protocol):
    """What the loop needs of `Worker`."""

    def infer(self, frame: Frame) -> None: ...
    def reopen(self) -> None: ...
    def poll(self) -> Done | None: ...


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A picture to present: derained with the engine's `done`, or raw for a reason."""

    frame: Frame
    image: Image
    done: Done | None = None
    why: Why | None = None


class Loop:
    """The rules, without threads: `step` does what can be done now, `patience_s` says when to look again at the latest.

    Frames are presented in their order, each at most once; the engine has one at a time.
    """

    def __init__(
        self,
        frames: FrameQueue,
        worker: Jobs,
        sink: Sink,
        guard: Guard,
        observer: Observer,
        to_output: Callable[[Image], Image] = lambda image: image,
        clock: Callable[[], int] = time.monotonic_ns,
        count_from_ns: int = 0,
    ) -> None:
        self.tally = Tally(count_from_ns)
        self._frames, self._worker, self._sink, self._guard = frames, worker, sink, guard
        self._observer, self._to_output, self._clock = observer, to_output, clock
        self._lost = 0  # to the sink
        self._waiting: Frame | None = None  # with the engine, and not presented yet

    @property
    def finished(self) -> bool:
        """Every frame there was has been presented or dropped."""
        return self._frames.ended and self._waiting is None

    def step(self) -> bool:
        """Do what can be done now; False where nothing went out."""
        for frame, why in self._frames.take_dropped():
            self._drop(frame, why)
        outgoing = [self._collect(), self._admit()]
        for picture in outgoing:
            if picture is not None:
                self._present(picture)
        return any(outgoing)

    def patience_s(self) -> float:
        """Seconds until the next deadline, reopening or tick."""
        waiting = self._waiting
        timers = (self._guard.deadline(waiting.captured_ns) if waiting else None, self._guard.due_ns)
        left = [(at - self._clock()) / 1e9 for at in timers if at is not None]
        return max(min([TICK_S, *left]), 0.0)

    def _collect(self) -> Outgoing | None:
        """Take what the engine finished, look at the clock, and tell the guard."""
        guard, now = self._guard, self._clock()
        if guard.due_ns is not None and now >= guard.due_ns:
            guard.on(Event.DUE, now)
            self._worker.reopen()
        done = self._worker.poll()
        if done is None:
            if self._waiting is None or not guard.overdue(self._waiting.captured_ns, now):
                return None
            guard.on(Event.DEADLINE, now)
            return self._raw(self._taken(), Why.DEADLINE)
        if done.frame is None:
            guard.on(Event.OPENED if done.fault is None else Event.FAULT, now, done.fault)
            return None
        late = self._waiting is not None and guard.overdue(done.frame.captured_ns, done.end_ns)
        if late:
            guard.on(Event.DEADLINE, now)
        guard.on(Event.RESULT if done.fault is None else Event.FAULT, now, done.fault)
        if self._waiting is None or late or done.clean is None:
            self._unused(done.frame.captured_ns, done.end_ns - done.start_ns)
        if self._waiting is None:
            return None
        frame = self._taken()
        if late:
            return self._raw(frame, Why.DEADLINE)
        return self._raw(frame, Why.FAULT) if done.clean is None else Outgoing(frame, done.clean, done)

    def _admit(self) -> Outgoing | None:
        """The next frame: to the engine where it can have it, else out raw."""
        if self._waiting is not None:
            return None
        frame = self._frames.take()
        if frame is None:
            return None
        if not frame.fits:
            return self._raw(frame, Why.UNFIT)
        if self._guard.state is not State.DERAINING:
            return self._raw(frame, WHY_RAW[self._guard.state])
        if self._guard.overdue(frame.captured_ns, self._clock()):
            return self._raw(frame, Why.DEADLINE)
        self._waiting = frame
        self._worker.infer(frame)
        return None

    def _present(self, picture: Outgoing) -> None:
        frame, done = picture.frame, picture.done
        try:
            self._sink.write(picture.image, frame.captured_ns, raw=done is None)
        except OSError as error:
            if self._frames.policy is Policy.EVERY:  # nothing may be lost, so this is the end
                raise
            self._lost += 1
            if self._lost.bit_count() == 1:  # 1, 2, 4, 8, …: a log on the same full disk must not grow with every frame
                told = error.strerror if error.errno in errno.errorcode else error
                log.warning("frame %d lost, %d so far: %s: %s", frame.id, self._lost, self._sink.location, told)
            self._drop(frame, Why.SINK)
            return
        record = FrameRecord(
            id=frame.id,
            asked_ns=frame.asked_ns,
            captured_ns=frame.captured_ns,
            inference_start_ns=done.start_ns if done else None,
            inference_end_ns=done.end_ns if done else None,
            presented_ns=self._clock(),
            outcome=Outcome.DERAINED if done else Outcome.PASSED_THROUGH,
            why=picture.why,
            device_ns=done.device_ns if done else None,
        )
        self.tally.add(record)
        self._observer.on_frame(record, frame, picture.image)

    def _unused(self, captured_ns: int, ns: int) -> None:
        self.tally.add_unused_inference(captured_ns, ns)
        self._observer.on_unused(captured_ns, ns)

    def _drop(self, frame: Frame, why: Why) -> None:
        record = FrameRecord(frame.id, frame.asked_ns, frame.captured_ns, None, None, None, Outcome.DROPPED, why)
        self.tally.add(record)
        self._observer.on_drop(record)

    def _taken(self) -> Frame:
        frame, self._waiting = self._waiting, None
        assert frame is not None
        return frame

    def _raw(self, frame: Frame, why: Why) -> Outgoing:
        return Outgoing(frame, self._to_output(frame.image), None, why)


def run(
    engine: Engine,
    source: Source,
    sink: Sink,
    observers: Sequence[Observer] = (),
    *,
    policy: Policy | None = None,
    deadline_ms: float | None = None,
    stop: threading.Event | None = None,
    stall_s: float = STALL_S,
    count_from_ns: int = 0,
) -> RunReport:
    """Derain `source` into `sink` until the source ends or `stop` is set; the caller opens and closes all it gives.

    `policy` is `latest` for a live source and `every` for any other, unless given. `deadline_ms` counts from a frame's
    capture: where the engine's result is not there by then, the raw frame goes out. `observers` are called on this
    thread, between frames: they had better be quick.

    Frames captured before `count_from_ns` are presented as any other but left out of the report, as a warm-up is.

    What a file source raises goes up once every frame before it is presented. Under `every`, what the sink raises goes
    up too; under `latest` a frame that the sink fails on (OSError) counts as dropped. What the engine raises is the
    guard's business and never goes up. What was measured until then is not lost: the observers get the report first.
    """
    policy = policy or (Policy.LATEST if source.live else Policy.EVERY)
    wake = threading.Event()
    frames = FrameQueue(policy, wake.set)
    guard = Guard(round(deadline_ms * 1e6) if deadline_ms is not None and math.isfinite(deadline_ms) else None)
    to_output = converter(engine.input, engine.output)
    observer = Observers(observers)
    start_ns = told_ns = time.monotonic_ns()
    error: Exception | None = None
    with Worker(engine, wake.set) as worker, Capture(source, frames, stall_s) as capture:
        loop = Loop(frames, worker, sink, guard, observer, to_output, count_from_ns=count_from_ns)
        moved, stopped_ns = False, None
        try:
            while not loop.finished:
                if not moved:
                    wake.wait(loop.patience_s())
                wake.clear()
                moved = loop.step()
                now = time.monotonic_ns()
                capture.watch(now)
                if stopped_ns is None and stop is not None and stop.is_set():
                    stopped_ns = now
                    capture.stop()
                if stopped_ns is not None and now - stopped_ns > PATIENCE_S * 1e9:
                    worker.leave()
                    break
                if now - told_ns >= TICK_S * 1e9:
                    told_ns = now
                    observer.on_status(_status(loop.tally, guard, capture, now))
        except Exception as raised:
            error = raised
    if error is None:
        observer.on_status(_status(loop.tally, guard, capture, time.monotonic_ns()))
        error = capture.error
    report = _report(loop.tally, policy, guard, capture, max(start_ns, count_from_ns), error)
    observer.on_report(report)
    if error is not None:
        raise error
    return report


def _status(tally: Tally, guard: Guard, capture: Capture, now_ns: int) -> Status:
    return replace(
        tally.status(now_ns, guard.state, capture.state),
        engine_faults=guard.faults,
        engine_reopened=guard.reopened,
        engine_fault=guard.fault,
        source_faults=capture.faults,
        source_fault=capture.fault,
    )


def _report(
    tally: Tally, policy: Policy, guard: Guard, capture: Capture, start_ns: int, error: Exception | None
) -> RunReport:
    elapsed_ns = max((tally.last_presented_ns or time.monotonic_ns()) - start_ns, 1)
    return RunReport(
        policy=policy,
        deadline_ms=guard.deadline_ns / 1e6 if guard.deadline_ns is not None else None,
        frames=tally.outcomes.total(),
        presented=tally.presented,
        dropped=tally.outcomes[Outcome.DROPPED],
        passed_through=tally.outcomes[Outcome.PASSED_THROUGH],
        deadline_misses=tally.why[Why.DEADLINE] + tally.why[Why.LATE],
        engine_faults=guard.faults,
        engine_reopened=guard.reopened,
        engine_state=guard.state,
        engine_fault=guard.fault,
        source_faults=capture.faults,
        source_fault=capture.fault,
        error=None if error is None else str(error) or type(error).__name__,
        why={str(why): count for why, count in sorted(tally.why.items())},
        fps=tally.presented / elapsed_ns * 1e9,
        outside_engine_share=max(1 - tally.latency.total("inference") / elapsed_ns, 0.0),
        latency_ms=tally.latency.summary(),
    )
