"""The bounded queue between the capture thread and the loop, and the policies that say what a full one does."""

import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from derain.runtime.frames import Frame
from derain.runtime.records import Why


class Policy(StrEnum):
    """What happens to a frame that arrives while the one before it still waits for the engine."""

    # A driver needs the newest picture: a queue would show an ever older world through a slow engine.
    LATEST = "latest"
    # A clip must come out whole: the source waits for the engine, and nothing is lost.
    EVERY = "every"


DEPTH = {
    Policy.LATEST: 1,  # more would be age without use: only the newest is ever wanted
    Policy.EVERY: 2,  # one being decoded while one waits keeps a file's engine busy; more would only be memory
}


class FrameQueue:
    """Frames in the order they were put, at most `DEPTH[policy]`; `on_change` is called after each put and at the end.

    One thread puts, one takes. Under `latest` a put never waits: it takes the place of the frame that waited, which
    `take_dropped` then gives. Under `every` a put waits for room. A broken frame takes no place: it is dropped at once.
    """

    def __init__(self, policy: Policy, on_change: Callable[[], None] = lambda: None) -> None:
        self.policy = policy
        self._depth = DEPTH[policy]
        self._frames: deque[Frame] = deque()
        self._dropped: list[tuple[Frame, Why]] = []
        self._closed = False
        self._room = threading.Condition()
        self._on_change = on_change

    def put(self, frame: Frame) -> bool:
        """Add a frame; False where the queue was closed, before or while this waited for room."""
        with self._room:
            if self.policy is Policy.EVERY and not frame.broken:
                self._room.wait_for(lambda: self._closed or len(self._frames) < self._depth)
            if self._closed:
                return False
            if frame.broken:
                self._dropped.append((frame, Why.BROKEN))
            else:
                if len(self._frames) == self._depth:
                    self._dropped.append((self._frames.popleft().without_image(), Why.NEWER))
                self._frames.append(frame)
        self._on_change()
        return True

    def take(self) -> Frame | None:
        """The frame that waited longest, or None; it never waits."""
        with self._room:
            if not self._frames:
                return None
            self._room.notify()
            return self._frames.popleft()

    def take_dropped(self) -> list[tuple[Frame, Why]]:
        """Each frame dropped since the last call, and why; their pictures are gone already."""
        with self._room:
            dropped, self._dropped = self._dropped, []
            return dropped

    def close(self) -> None:
        """No frame will be added any more; those that wait can still be taken."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._on_change()

    def __len__(self) -> int:
        with self._room:
            return len(self._frames)

    @property
    def ended(self) -> bool:
        """Closed and empty, and every dropped frame told."""
        with self._room:
            return self._closed and not self._frames and not self._dropped
