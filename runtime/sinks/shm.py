"""`shm://name`: frames for other processes of this machine, in a ring that never waits for them."""

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.shared_frames import SharedFrames
from derain.runtime.sinks.base import Sink, register


@register("shm")
class SharedMemory(Sink):
    """Writes the ring that `--source shm://name` reads; it appears with this sink and goes with it."""

    def __init__(self, location: str, spec: FrameSpec, fps: float | None) -> None:
        super().__init__(f"shm://{location}", spec, fps)
        self._frames: SharedFrames | None = SharedFrames.create(location, spec, fps)

    def _write(self, image: Image, captured_ns: int, raw: bool) -> None:
        assert self._frames is not None
        self._frames.publish(image, captured_ns, raw)

    def close(self) -> None:
        """Tell the readers, and remove the ring."""
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.close()
