"""`rtsp://user:password@host:554/path`: a network camera, through OpenCV's FFmpeg over TCP."""

from collections.abc import Iterator

import cv2

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.redact import redact
from derain.runtime.sources.base import register
from derain.runtime.sources.opencv import LiveCapture
from derain.runtime.sources.still import told_if_still

OPEN_MS, READ_MS = 5000, 3000  # then the camera counts as away; FFmpeg's own 30 s would be a long frozen picture


@register("rtsp")
class NetworkCamera(LiveCapture):
    """A network camera's frames, without end. Its URI is never shown with its credentials."""

    mend = "the stream broke off: check the camera and the network"

    def __init__(self, location: str, spec: FrameSpec) -> None:
        uri = f"rtsp://{location}"
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
        video = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, timeouts)
        if not video.isOpened():
            raise OSError(f"{redact(uri)}: no stream: check address, credentials and that the camera is on")
        super().__init__(redact(uri), spec, video)

    def _images(self) -> Iterator[Image]:
        return told_if_still(super()._images(), self.location)
