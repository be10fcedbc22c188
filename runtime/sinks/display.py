"""`display://`: a window."""

from contextlib import suppress

import cv2

from derain.runtime.frames import Image, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.sinks.base import Sink, register


@register("display")
class Window(Sink):
    """Shows each frame in a window called `display://`'s location, or `derain`."""

    def __init__(self, location: str, spec: FrameSpec, fps: float | None) -> None:
        super().__init__(location or "derain", spec, fps)
        try:
            cv2.namedWindow(self.location, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise OSError(
                "display://: this OpenCV has no windows: pip install opencv-python in place of "
                "opencv-python-headless, or look at --sink mjpeg://127.0.0.1:8090 in a browser"
            ) from error
        self._open = True

    def _write(self, image: Image, captured_ns: int, raw: bool) -> None:
        cv2.imshow(self.location, to_bgr(image, self.spec))
        cv2.waitKey(1)

    def close(self) -> None:
        """Close the window, if nobody has."""
        if self._open:
            self._open = False
            with suppress(cv2.error):
                cv2.destroyWindow(self.location)
