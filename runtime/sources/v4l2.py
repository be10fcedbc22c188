"""`v4l2:///dev/video0`: a camera of this machine, through Video4Linux."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from derain.runtime.bundle import FrameSpec, PixelFormat
from derain.runtime.frames import Image
from derain.runtime.sources.base import register
from derain.runtime.sources.opencv import LiveCapture

# The formats a camera is asked for as they are; from any other, OpenCV makes BGR.
_RAW = {PixelFormat.NV12: "NV12", PixelFormat.UYVY: "UYVY"}


@register("v4l2")
class Camera(LiveCapture):
    """A camera's frames, without end: its own bytes for nv12 and uyvy, OpenCV's BGR for bgr8 and rgb8."""

    mend = "the camera stopped delivering frames: check its cable and power"

    def __init__(self, location: str, spec: FrameSpec) -> None:
        if not Path(location).exists():
            raise FileNotFoundError(f"{location}: no such camera: list them with `ls /dev/video*`")
        video = cv2.VideoCapture(location, cv2.CAP_V4L2)
        if not video.isOpened():
            raise OSError(f"{location}: cannot be opened as a camera: is another program using it?")
        if spec.pixels in _RAW:
            video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*_RAW[spec.pixels]))
            video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        video.set(cv2.CAP_PROP_FRAME_WIDTH, spec.width)
        video.set(cv2.CAP_PROP_FRAME_HEIGHT, spec.height)
        super().__init__(location, spec, video)

    def _frame(self, image: npt.NDArray[Any]) -> Image:
        return self._raw(image) if self.spec.pixels in _RAW else super()._frame(image)

    def _raw(self, image: npt.NDArray[Any]) -> Image:
        expected = self.spec.image_shape
        if image.size != int(np.prod(expected)):
            raise ValueError(
                f"{self.location}: frames are {image.shape}, the bundle expects {expected} ({self.spec.pixels}): "
                f"see `v4l2-ctl --list-formats-ext -d {self.location}` and export a bundle for one of them"
            )
        return image.reshape(expected)
