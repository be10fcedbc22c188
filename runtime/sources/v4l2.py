"""`v4l2:///dev/video0`: a camera of this machine, through Video4Linux and OpenCV.

It has not met a camera: what is asked and what is made of the answers is tested with a device that is none.
"""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy.typing as npt

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.sources.base import BROKEN, of_our_clock, register
from derain.runtime.sources.coded import decode
from derain.runtime.sources.opencv import LiveCapture
from derain.runtime.sources.v4l2_formats import JPEG, check_field, check_rows, from_raw, negotiate, raw_shape
from derain.runtime.sources.v4l2_node import frame_rate, multi_planar, rows

BUFFERS = 2
"""One that is filled while the other is read. A decoder slower than the camera gets frames as old as all of them."""


class OpenCVDevice:
    """The calls of OpenCV that `negotiate` needs."""

    def __init__(self, video: cv2.VideoCapture) -> None:
        self._video = video

    def settle(self, fourcc: str, width: int, height: int) -> tuple[str, int, int]:  # noqa: D102
        self._video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
        self._video.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._video.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        code = int(self._video.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        settled = code.to_bytes(4, "little").decode("latin-1")
        return settled, int(self._video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(self._video.get(cv2.CAP_PROP_FRAME_HEIGHT))


@register("v4l2")
class Camera(LiveCapture):
    """A camera's frames, without end: its own bytes for nv12 and uyvy where it has them, else Motion JPEG.

    Those are decoded here and not by OpenCV's camera, which would pad one cut short with grey: it comes as broken.
    YUYV's values stay what they are for nv12 and uyvy, by whatever matrix the camera made them. From a camera that has
    none of these OpenCV makes BGR.

    Its rate stays as `v4l2-ctl --set-parm` or its driver set it: OpenCV alone asks every camera for 30 frames/s.

    A raw frame cut short comes as broken from OpenCV 4.11. Later ones do not tell, and fill it up with an older frame's
    bytes: `derain-stream` sees it.
    """

    mend = "the camera stopped delivering frames: check its cable and power"

    def __init__(self, location: str, spec: FrameSpec) -> None:
        if not Path(location).exists():
            raise FileNotFoundError(f"{location}: no such camera: list them with `ls /dev/video*`")
        if multi_planar(location):
            raise ValueError(
                f"{location}: has only V4L2's multi-planar interface, expected the single-planar one: use "
                f"derain-stream with `gst:v4l2src device={location} ! …`"
            )
        rate = frame_rate(location)
        video = cv2.VideoCapture(location, cv2.CAP_V4L2)
        if not video.isOpened():
            raise OSError(
                f"{location}: cannot be opened as a camera: is another program using it? Or OpenCV does not know its "
                "format (a CSI camera: gst: with derain-stream)"
            )
        self.format = negotiate(OpenCVDevice(video), spec)
        video.set(cv2.CAP_PROP_CONVERT_RGB, int(self.format is None))
        video.set(cv2.CAP_PROP_BUFFERSIZE, BUFFERS)
        if rate is not None and rate >= 1:  # OpenCV asks for whole frames a second
            video.set(cv2.CAP_PROP_FPS, rate)  # the last: each of the others makes it ask for 30 again
        if (layout := rows(location)) is not None:
            fourcc, width, stride, field = layout
            try:
                check_field(field, location)
                check_rows(fourcc, width, stride)
            except ValueError as error:
                video.release()
                raise ValueError(f"{location}: {error}") from error
        super().__init__(location, spec, video)

    def _captured_ns(self) -> int:
        """The driver's time of the frame where it is of our clock: it may have waited in a buffer since."""
        return of_our_clock(round(self._video.get(cv2.CAP_PROP_POS_MSEC) * 1e6), self._grabbed_ns)

    def _frame(self, image: npt.NDArray[Any]) -> Image:
        if self.format is None:
            return super()._frame(image)
        if self.format == JPEG:
            picture = decode(image.tobytes())
            return BROKEN if picture is None else super()._frame(picture)
        if image.size < math.prod(raw_shape(self.format, self.spec)):
            return BROKEN
        try:
            return from_raw(image, self.format, self.spec)
        except ValueError as error:
            raise ValueError(
                f"{self.location}: {error}: see `v4l2-ctl --list-formats-ext -d {self.location}` and export a bundle "
                "for one of them"
            ) from error
