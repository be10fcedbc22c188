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

    The end of the image (marker FFD9) cannot occur inside a scan. A thumbnail's lies before the first one, in a
    segment, and behind the image phones append a film, in which there may be anything.
    """
    is_jpeg = content.startswith(b"\xff\xd8")
    return bool(content) and (not is_jpeg or content.find(b"\xff\xd9", _first_scan(content)) >= 0)


def _first_scan(jpeg: bytes) -> int:
    """Where a JPEG's first scan (marker FFDA) begins, behind segments that say how long they are."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda":
        is_fill = jpeg[at + 1 : at + 2] == b"\xff"
        at += 1 if is_fill else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return at
