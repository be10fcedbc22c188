"""Coded pictures: whole, or none."""

import cv2
import numpy as np

from derain.runtime.frames import Image


def decode(content: bytes) -> Image | None:
    """A PNG, JPEG, … as BGR [H, W, 3]; None where it is empty, cut short or no picture at all."""
    if not _is_whole(content):
        return None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def _is_whole(content: bytes) -> bool:
    """False for an empty file and for a JPEG without its end: OpenCV fails on the first and pads the second with grey.

    A JPEG's last scan (marker FFDA) is followed by the end of the image (FFD9), which cannot occur inside a scan.
    """
    is_jpeg = content.startswith(b"\xff\xd8")
    return bool(content) and (not is_jpeg or content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda"))
