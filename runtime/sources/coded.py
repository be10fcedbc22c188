"""Coded pictures: whole, or none."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.runtime.frames import Image


def decode(content: bytes) -> Image | None:
    """A PNG, JPEG, … as BGR [H, W, 3]; None where it is empty, cut short or no picture at all.

    Raises ValueError where its values are not of 8 bits, and not of 16 that are all used.
    """
    if not _is_whole(content):
        return None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return None if image is None else _in_8_bits(image)


def _in_8_bits(image: NDArray[Any]) -> Image:
    """The upper 8 of 16 bits, which are none of a raw camera's 10 or 12: its pictures would be black."""
    if image.dtype == np.uint8:
        return image
    highest = image.max()
    if image.dtype != np.uint16 or 0 < highest < 1 << 12:
        raise ValueError(
            f"holds {image.dtype} values up to {highest}, expected 8 bits, or 16 of which all are used: scale it to "
            "their full range"
        )
    return np.asarray(image >> 8, np.uint8)


def _is_whole(content: bytes) -> bool:
    """False for an empty file and for a JPEG without its end: OpenCV fails on the first and pads the second with grey.

    A JPEG's last scan (marker FFDA) is followed by the end of the image (FFD9), which cannot occur inside a scan.
    """
    is_jpeg = content.startswith(b"\xff\xd8")
    return bool(content) and (not is_jpeg or content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda"))
