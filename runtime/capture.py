"""The source's own thread, and what happens when a camera fails.

A file that fails ends the run with its error. A live source that has delivered a frame once is never given up: when it
raises (unplugged) or delivers nothing for `stall_s` (stalled), it is reopened with back-off. A thread that hangs in a
stalled read cannot be stopped: it is left behind, its source closed, which ends the reads that look for it, and its
frames ignored. While a frame waits for room in the queue the source is not silent. One that is silent from the start is
told of once and waited for.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from derain.runtime.backoff import BackOff
from derain.runtime.queues import FrameQueue
from derain.runtime.sources import Source

log = logging.getLogger(__name__)

STALL_S = 2.0
"""Without a frame until a live source counts as stalled: longer than a camera needs to change its exposure."""

STALL_FRAMES, LONGEST_STALL_S = 4, 60.0
"""Of a source whose frames are further apart: the time of so many frames, but no longer than a minute."""

FIRST_FRAME_S = 5.0
"""Without its first frame until a live source is told of or, where it was opened again, counts as stalled, unless a
stall takes longer: a camera needs more time to start."""

PATIENCE_S = 1.0
"""How long the end of a run waits for a read to return, before its source is closed and its thread left behind."""


class Capture:
    """Reads a source into a queue on a thread of its own, and closes the queue when the source ends.

    `error` is what ended it early, `faults` how often a live source was lost, `state` a word or two for a status line.
    """

    def __init__(
        self,
        source: Source,
        queue: FrameQueue,
        stall_s: float = STALL_S,
        back_off: BackOff | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.error: Exception | None = None
        self.faults = 0
        self.fault: str | None = None
        self.state = "open"
        self._source = self._current = source
        self._queue = queue
        slow_s = min(STALL_FRAMES / source.fps, LONGEST_STALL_S) if source.fps else 0.0
        self._stall_ns = round(max(stall_s, slow_s) * 1e9)
        self._back_off = back_off or BackOff()
        self._clock = clock
        self._count = 0
        self._generation = 0
        self._heard_ns = clock()
        self._putting = self._ended = self._silence_told = False
        self._began = False  # the source, as it was opened last, gave a frame
        self._lost = self._away = ""  # why it was lost, and why it is not back
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = self._new_thread(source)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self._current.close()

    def stop(self) -> None:
        """Deliver nothing more; the queue is closed."""
        self._stopped.set()
        self._queue.close()

    def watch(self, now_ns: int) -> None:
        """Close a stalled live source and leave it behind; to be called now and then."""
        with self._lock:
            silent_ns = now_ns - self._heard_ns
            waits = self._source.live and self.state == "open" and not self._stopped.is_set()
            patience_ns = self._stall_ns if self._began else max(self._stall_ns, round(FIRST_FRAME_S * 1e9))
            if not waits or self._putting or self._ended or silent_ns < patience_ns:
                return
            if self._count == 0:
                self._warn_of_silence(silent_ns, patience_ns)
                return
            self._generation += 1
            self._lose(f"no frame for {silent_ns / 1e9:.1f} s")
            stalled, self._thread = self._current, self._new_thread(None)
        stalled.close()
        self._thread.start()

    def _new_thread(self, source: Source | None) -> threading.Thread:
        """One that reads `source`, or, for None, first reopens it."""
        arguments = (source, self._generation)
        return threading.Thread(target=self._run, args=arguments, name="derain-capture", daemon=True)

    def _run(self, source: Source | None, generation: int) -> None:
        while generation == self._generation and not self._stopped.is_set():
            if source is None and (source := self._reopen(generation)) is None:
                continue
            try:
                self._deliver(source, generation)
                return
            except Exception as error:
                if not self._survives(error, generation):
                    return
            finally:
                source.close()
            source = None

    def _deliver(self, source: Source, generation: int) -> None:
        """Every frame of a source into the queue, and the queue's end after the last."""
        for frame in source:
            with self._lock:
                if generation != self._generation:
                    return
                self.state = "open"
                numbered = frame if frame.id == self._count else replace(frame, id=self._count)
                self._count += 1
                self._began = True
                self._putting = not frame.broken  # one that is never waits for room, but wakes who watches
            taken = self._queue.put(numbered)
            with self._lock:
                self._putting = False
                if not frame.broken:  # a camera that delivers nothing else is as good as stalled
                    self._heard_ns = self._clock()
            if not taken:
                return
        with self._lock:
            if generation != self._generation:
                return
            self._ended = True
        self._queue.close()

    def _survives(self, error: Exception, generation: int) -> bool:
        with self._lock:
            if generation != self._generation:
                return False
            if self._source.live and self._count > 0 and not self._stopped.is_set():
                self._lose(str(error))
                return True
            self.error = error
        self._queue.close()
        return False

    def _warn_of_silence(self, silent_ns: int, expected_ns: int) -> None:
        """Once. The source is waited for: opening it again would only begin its start anew."""
        if self._silence_told:
            return
        self._silence_told = True
        log.warning(
            "%s: open, but no frame for %.1f s, expected one within %.1f s: is the camera, or what writes its frames, "
            "at work?",
            self._source.location,
            silent_ns / 1e9,
            expected_ns / 1e9,
        )

    def _lose(self, why: str) -> None:
        self.faults += 1
        self.fault = self._lost = why
        self._away = ""
        self.state = f"lost ({why})"
        log.warning("source lost: %s: reopening it", why)

    def _stay_away(self, why: str, generation: int) -> None:
        """Tell why a source is not back where that is news: it may need another fix than its loss."""
        with self._lock:
            if generation != self._generation or why == self._away:
                return
            self._away = why
            self.fault = f"{self._lost}; not back: {why}"
        log.warning("the source is not back: %s", why)

    def _reopen(self, generation: int) -> Source | None:
        """One attempt, after its delay; None where it failed or is no longer wanted."""
        self._stopped.wait(self._back_off.next_s(self._clock()))
        if self._stopped.is_set():
            return None
        try:
            source = self._source.reopened()
        except Exception as error:  # whatever it is, the camera may be back next time
            self._stay_away(str(error) or type(error).__name__, generation)
            return None
        with self._lock:
            wanted = generation == self._generation and not self._stopped.is_set()
            if wanted:
                self._current, self.state, self._heard_ns, self._began = source, "open", self._clock(), False
        if not wanted:
            source.close()
            return None
        log.warning("the source is open again")
        return source
