"""What live sources read by OpenCV share."""

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import numpy.typing as npt

from derain.runtime.bundle import FrameSpec
from derain.runtime.frames import Image
from derain.runtime.sources.base import Source


class LiveCapture(Source):
    """Frames without end from an open capture; OSError when it delivers none any more. `mend` ends that message."""

    mend: ClassVar[str]

    def __init__(self, location: str, spec: FrameSpec, video: cv2.VideoCapture) -> None:
        super().__init__(location, spec)
        self.live = True
        self._video = video
        self._grabbed_ns = 0
        self.fps = video.get(cv2.CAP_PROP_FPS) or None

    def _images(self) -> Iterator[Image]:
        while True:
            grabbed = self._video.grab()
            self._grabbed_ns = time.monotonic_ns()
            decoded, image = self._video.retrieve()
            if not (grabbed and decoded):
                raise OSError(f"{self.location}: {self.mend}")
            yield self._frame(image)

    def _captured_ns(self) -> int:
        """Before what is left to decode and convert here."""
        return self._grabbed_ns

    def _frame(self, image: npt.NDArray[Any]) -> Image:
        """A frame from what OpenCV gives: BGR, unless a kind asked for other bytes."""
        return self._from_bgr(image, self.location)

    def _close(self) -> None:
        self._video.release()
