"""What live sources read by OpenCV share."""

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import numpy.typing as npt

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.sources.base import OLDEST_NS, Source, believed

SKEW = 1.2e-3
"""How much longer a second of a camera's clock may last than ours: crystals hardly differ, but where 30/1.001 frames a
second are stamped as 30 each lasts 1 ms longer."""


class LiveCapture(Source):
    """Frames without end from an open capture; OSError when it delivers none any more. `mend` ends that message.

    A frame may have waited in a buffer on its way, so its age is told by the stream's own clock: the frame that came
    fastest is taken as fresh, and another is older by as much as it came later than that clock says.
    """

    mend: ClassVar[str]

    def __init__(self, location: str, spec: FrameSpec, video: cv2.VideoCapture) -> None:
        super().__init__(location, spec)
        self.live = True
        self._video = video
        self._grabbed_ns = self._stamp_ns = 0
        self._offset_ns: float | None = None  # from the stream's times to ours
        self.fps = believed(video.get(cv2.CAP_PROP_FPS))

    def _images(self) -> Iterator[Image]:
        while True:
            grabbed = self._video.grab()
            self._grabbed_ns = time.monotonic_ns()
            decoded, image = self._video.retrieve()
            if not (grabbed and decoded):
                raise OSError(f"{self.location}: {self.mend}")
            yield self._frame(image)

    def _captured_ns(self) -> int:
        """By the stream's clock where it has one that goes on, else before what is left to decode and convert here."""
        stamp_ns, before_ns = round(self._video.get(cv2.CAP_PROP_POS_MSEC) * 1e6), self._stamp_ns
        self._stamp_ns = stamp_ns
        if stamp_ns <= before_ns:
            self._offset_ns = None
            return self._grabbed_ns
        offset_ns: float = self._grabbed_ns - stamp_ns
        if self._offset_ns is not None and offset_ns - self._offset_ns < OLDEST_NS:
            offset_ns = min(offset_ns, self._offset_ns + SKEW * (stamp_ns - before_ns))
        self._offset_ns = offset_ns
        return round(stamp_ns + offset_ns)

    def _frame(self, image: npt.NDArray[Any]) -> Image:
        """A frame from what OpenCV gives: BGR, unless a kind asked for other bytes."""
        return self._from_bgr(image, self.location)

    def _close(self) -> None:
        self._video.release()
