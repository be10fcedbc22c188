"""Pictures that stand still where a camera's never do."""

import logging
from collections.abc import Iterator

import numpy as np

from derain.runtime.frames import Image

log = logging.getLogger(__name__)

STILL = 10
"""Frames that are the same to the last bit, from the first on: sensors have noise."""


def told_if_still(images: Iterator[Image], location: str) -> Iterator[Image]:
    """The images as they come; a warning where they begin with STILL times the same one.

    OpenCV from 4.13 on does not convert the interlaced frames of its FFmpeg and does not say so: it gives the picture
    before once more, and a black one where there was none.
    """
    first = next(images, None)
    if first is None:
        return
    yield first
    for alike, image in enumerate(images, 2):
        still = np.array_equal(image, first)
        if still and alike == STILL:
            log.warning(
                "%s: its first %d frames are all the same: if it is interlaced, OpenCV from 4.13 on does not convert "
                "it: deinterlace it, as by `ffmpeg -i … -vf yadif …`, or pip install 'opencv-python-headless<4.13'",
                location, STILL,
            )  # fmt: skip
        yield image
        if not still or alike == STILL:
            break
    yield from images
