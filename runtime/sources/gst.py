"""`gst:nvarguscamerasrc ! nvvidconv ! …`: a GStreamer pipeline, where OpenCV was built with GStreamer."""

import cv2

from derain.runtime.manifest import FrameSpec
from derain.runtime.redact import redact
from derain.runtime.sources.base import register
from derain.runtime.sources.opencv import LiveCapture

APPSINK = " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


@register("gst")
class Pipeline(LiveCapture):
    """A pipeline's frames as BGR. One without an appsink gets one that holds the newest frame only."""

    mend = "the pipeline ended: try it with `gst-launch-1.0`"

    def __init__(self, location: str, spec: FrameSpec) -> None:
        shown = redact(f"gst:{location}")
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise OSError(
                f"{shown}: this OpenCV has no GStreamer, as pip's has not: use `derain-stream`, or an OpenCV of 4.11 "
                "or newer that was built with it"
            )
        pipeline = location if "appsink" in location else location + APPSINK
        video = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not video.isOpened():
            raise OSError(f"{shown}: does not start: try it with `gst-launch-1.0`")
        super().__init__(shown, spec, video)
