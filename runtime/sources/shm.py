"""`shm://name`: frames another process of this machine writes, such as a camera driver or `--sink shm://name`."""

import time
from collections.abc import Iterator

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.shared_frames import SharedFrames, wait_for_newer
from derain.runtime.sources.base import Source, believed, of_our_clock, register

LOOK_S = 0.1  # how long one wait lasts before this looks whether it was closed itself
BACK_S, BACK_FRAMES = 1.0, 4  # how long a reopened ring may stay without a new frame: the longer of both


@register("shm")
class SharedMemory(Source):
    """The newest frame each time, captured when its writer says; one copy, out of the ring. OSError when it closes.

    A time that is ten seconds old or yet to come is of another clock: the frame counts as captured when it was seen.
    It begins with the next frame that is written: the ring of a writer that died still holds that one's last.
    """

    def __init__(self, location: str, spec: FrameSpec) -> None:
        super().__init__(f"shm://{location}", spec)
        self.live = True
        self._frames = SharedFrames.attach(location, spec)
        self.fps = believed(self._frames.fps or 0)
        self._seen, self._newest_ns = self._frames.published, 0

    def reopened(self) -> Source:
        """The ring again; OSError where no new frame comes: that of a writer that died can still be attached to."""
        again = super().reopened()
        assert isinstance(again, SharedMemory)
        wait_s = max(BACK_S, BACK_FRAMES / again.fps) if again.fps else BACK_S
        if not wait_for_newer(again._frames, again._seen, wait_s):
            again.close()
            raise OSError(f"{self.location}: no frame for {wait_s:g} s: is its writer still running?")
        return again

    def _images(self) -> Iterator[Image]:
        while not self._closed:
            if wait_for_newer(self._frames, self._seen, LOOK_S):
                newest = self._frames.newest()
                if newest is not None:
                    self._newest_ns = of_our_clock(newest.captured_ns, time.monotonic_ns())
                    self._seen = newest.number + 1
                    yield newest.image
                else:
                    time.sleep(0.0005)  # a ring that is damaged stays so
            elif self._frames.closed:
                raise OSError(f"{self.location}: its writer has closed it")

    def _captured_ns(self) -> int:
        return self._newest_ns

    def _close(self) -> None:
        self._frames.close()
