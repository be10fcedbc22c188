"""The engine's own thread: it infers and reopens, one thing at a time, and never lets a fault out but as a result."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from derain.runtime.engines import Engine
from derain.runtime.frames import Frame, Image
from derain.runtime.plausibility import Plausibility

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long the end of a run waits for an engine that is still at work, before its thread is left behind."""


@dataclass(frozen=True, slots=True)
class Done:
    """What the engine did: `frame` is None for a reopening; `clean` is None, and `fault` says why, where it failed."""

    frame: Frame | None
    clean: Image | None
    start_ns: int
    end_ns: int
    fault: str | None
    device_ns: int | None = None


class Worker:
    """Gives an open engine one job at a time: `infer` or `reopen`, then `poll` until it is done.

    `on_done` is called on the engine's thread after each job. A context manager; it leaves the engine to its owner.
    """

    def __init__(
        self, engine: Engine, on_done: Callable[[], None], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._engine = engine
        self._plausibility = Plausibility(engine.input, engine.output)
        self._on_done = on_done
        self._clock = clock
        self._patience_s = PATIENCE_S
        self._jobs: queue.SimpleQueue[Callable[[], Done] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="derain-infer", daemon=True)

    def infer(self, frame: Frame) -> None:
        """Derain a frame."""
        self._jobs.put(lambda: self._infer(frame))

    def reopen(self) -> None:
        """Close the engine, open it again and warm it up."""
        self._jobs.put(self._reopen)

    def poll(self) -> Done | None:
        """What was finished since the last call, if anything; it never waits."""
        return None if self._done.empty() else self._done.get()

    def leave(self) -> None:
        """Wait no longer at the end: somebody has waited for `PATIENCE_S` already."""
        self._patience_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            log.warning("engine %s does not come back after %g s: left behind", self._engine.name, PATIENCE_S)
            self._engine.abandon()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._done.put(job())
            self._on_done()

    # Whatever an engine raises, MemoryError included, must not end the stream: it becomes a counted fault.

    def _infer(self, frame: Frame) -> Done:
        start_ns = self._clock()
        try:
            clean = self._engine.infer(frame.image)
        except Exception as error:
            return Done(frame, None, start_ns, self._clock(), _told(error))
        end_ns = self._clock()
        fault = self._plausibility.fault(frame.image, clean)
        return Done(frame, clean if fault is None else None, start_ns, end_ns, fault, self._engine.device_ns)

    def _reopen(self) -> Done:
        start_ns = self._clock()
        fault = None
        try:
            self._engine.close()
            self._engine.open()
            self._engine.warm_up()
        except Exception as error:
            fault = _told(error)
        return Done(None, None, start_ns, self._clock(), fault)


def _told(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
