"""`v4l2:///dev/video0`: a camera of this machine, through Video4Linux."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from derain.runtime.bundle import FrameSpec, PixelFormat
from derain.runtime.frames import Image
from derain.runtime.sources.base import Source, register

# The formats a camera is asked for as they are; from any other, OpenCV makes BGR.
_RAW = {PixelFormat.NV12: "NV12", PixelFormat.UYVY: "UYVY"}


@register("v4l2")
class Camera(Source):
    """A camera's frames, without end: its own bytes for nv12 and uyvy, OpenCV's BGR for bgr8 and rgb8."""

    def __init__(self, location: str, spec: FrameSpec) -> None:
        super().__init__(location, spec)
        if not Path(location).exists():
            raise FileNotFoundError(f"{location}: no such camera: list them with `ls /dev/video*`")
        self._video = cv2.VideoCapture(location, cv2.CAP_V4L2)
        if not self._video.isOpened():
            raise OSError(f"{location}: cannot be opened as a camera: is another program using it?")
        if spec.pixels in _RAW:
            self._video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*_RAW[spec.pixels]))
            self._video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        self._video.set(cv2.CAP_PROP_FRAME_WIDTH, spec.width)
        self._video.set(cv2.CAP_PROP_FRAME_HEIGHT, spec.height)
        self.fps = self._video.get(cv2.CAP_PROP_FPS) or None

    def _images(self) -> Iterator[Image]:
        while True:
            captured, image = self._video.read()
            if not captured:
                raise OSError(f"{self.location}: the camera stopped delivering frames: check its cable and power")
            yield self._raw(image) if self.spec.pixels in _RAW else self._from_bgr(image, self.location)

    def _raw(self, image: npt.NDArray[Any]) -> Image:
        expected = self.spec.image_shape
        if image.size != int(np.prod(expected)):
            raise ValueError(
                f"{self.location}: frames are {image.shape}, the bundle expects {expected} ({self.spec.pixels}): "
                f"see `v4l2-ctl --list-formats-ext -d {self.location}` and export a bundle for one of them"
            )
        return image.reshape(expected)

    def close(self) -> None:
        """Give the camera back."""
        self._video.release()
