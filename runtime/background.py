"""Work that must not delay a frame, on a thread of its own."""

import os
import queue
import sys
import threading
from collections.abc import Callable

NICENESS = 10
"""Of the thread on Linux, where the process is not nicer yet, and of those an encoder starts from it: frames go first
where cores are scarce."""


class Background:
    """Does jobs one after another; `submit` never waits. A job sees to its own errors."""

    def __init__(self, name: str, most: int) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> bool:
        """Do a job soon; False, and it is forgotten, where `most` are waiting already."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    def close(self, patience_s: float) -> bool:
        """Take no more; False where what waited was not done in that time."""
        try:
            self._jobs.put(None, timeout=patience_s)
        except queue.Full:
            return False
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
        while (job := self._jobs.get()) is not None:
            job()
