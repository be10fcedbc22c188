"""Which of a camera's formats a bundle gets, apart from the camera: no device is touched here."""

import math
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.pixels import PixelFormat

JPEG = "MJPG"
FORMATS = {PixelFormat.NV12: ("NV12", JPEG, "YUYV"), PixelFormat.UYVY: ("UYVY", "YUYV", JPEG)}
"""By the bytes the bundle eats, the best first: its own; for uyvy YUYV, which is the same with each pair of bytes
swapped; Motion JPEG, which every USB camera has at sizes and rates its raw formats do not fit through USB for; for nv12
YUYV, whose chroma two rows come to share."""
PIXEL_BYTES = {
    **dict.fromkeys(("NV12", "NV21", "YU12", "YV12", "GREY"), 1),
    **dict.fromkeys(("UYVY", "YUYV", "Y16 "), 2),
    **dict.fromkeys(("BGR3", "RGB3"), 3),
}
"""Of a row of the first plane, by format: what OpenCV takes rows to be made of, without gaps between them."""
PROGRESSIVE = ("any", "none")
INTERLACED = ("top", "bottom", "interlaced", "seq-tb", "seq-bt", "alternate", "interlaced-tb", "interlaced-bt")
"""The names of `enum v4l2_field`, by value: these after those of PROGRESSIVE."""


class Device(Protocol):
    """What is asked of a camera."""

    def settle(self, fourcc: str, width: int, height: int) -> tuple[str, int, int]:
        """Ask for a format and a size, and give those the driver settled on, which may be others."""


def negotiate(device: Device, spec: FrameSpec) -> str | None:
    """The format the camera agreed to deliver at the bundle's size, as its four characters: the best it has of FORMATS.

    None: whatever the camera has.
    """
    for fourcc in FORMATS.get(spec.pixels, (JPEG,)):
        if device.settle(fourcc, spec.width, spec.height) == (fourcc, spec.width, spec.height):
            return fourcc
    return None


def raw_shape(fourcc: str, spec: FrameSpec) -> tuple[int, ...]:
    """The shape of a raw frame: [H, W, 2] for YUYV, else the bundle's own."""
    return (spec.height, spec.width, 2) if fourcc == "YUYV" else spec.image_shape


def from_raw(data: npt.NDArray[Any], fourcc: str, spec: FrameSpec) -> Image:
    """A raw frame's bytes in any shape as `spec.image_shape`; ValueError where they are not as many.

    The values stay the camera's: YUYV's bytes are swapped for uyvy, and for nv12 the chroma of two rows is averaged.
    """
    expected = raw_shape(fourcc, spec)
    if data.size != math.prod(expected):
        raise ValueError(f"frames are {data.shape} ({fourcc}), expected {expected} for a bundle of {spec.pixels}")
    image: Image = data.reshape(expected)
    if fourcc != "YUYV":
        return image
    if spec.pixels is PixelFormat.UYVY:
        return np.ascontiguousarray(image[..., ::-1])
    luma, chroma = cv2.split(image)
    chroma = cv2.resize(chroma, (spec.width, spec.height // 2), interpolation=cv2.INTER_AREA)  # the mean of two rows
    return np.asarray(cv2.vconcat([luma, chroma]), np.uint8)


def check_field(field: int, node: str) -> None:
    """ValueError for half pictures and combed ones, which no network learned."""
    name = dict(enumerate((*PROGRESSIVE, *INTERLACED))).get(field, field)
    if name not in PROGRESSIVE:
        raise ValueError(
            f"frames are interlaced (field {name}), expected progressive ones: use derain-stream with a deinterlacer, "
            f"such as `gst:v4l2src device={node} ! deinterlace ! …`"
        )


def check_rows(fourcc: str, width: int, stride: int) -> None:
    """ValueError where rows that start every `stride` bytes are padded: OpenCV would shear the picture."""
    row = PIXEL_BYTES.get(fourcc, 0) * width
    if 0 < row < stride:
        raise ValueError(f"rows are {stride} bytes apart ({fourcc}), expected {row}: `derain-stream` takes padded rows")
