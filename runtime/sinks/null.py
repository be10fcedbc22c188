"""`null://`: counts the frames and drops them, to measure everything before it."""

from derain.runtime.frames import Image
from derain.runtime.sinks.base import Sink, register


@register("null")
class NullSink(Sink):
    """Does nothing with a frame."""

    def _write(self, image: Image, captured_ns: int, raw: bool) -> None:
        pass
