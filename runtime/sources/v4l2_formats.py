"""Which of a camera's formats a bundle gets, apart from the camera: no device is touched here."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.pixels import PixelFormat

# By the bytes the bundle eats, the best first. YUYV is UYVY with each pair of bytes swapped, which costs one copy;
# NV12 shares its chroma over two rows and can be had from neither without computing.
RAW = {PixelFormat.NV12: ("NV12",), PixelFormat.UYVY: ("UYVY", "YUYV")}
JPEG = "MJPG"
PIXEL_BYTES = {
    **dict.fromkeys(("NV12", "NV21", "YU12", "YV12", "GREY"), 1),
    **dict.fromkeys(("UYVY", "YUYV", "Y16 "), 2),
    **dict.fromkeys(("BGR3", "RGB3"), 3),
}
"""Of a row of the first plane, by format: what OpenCV takes rows to be made of, without gaps between them."""


class Device(Protocol):
    """What is asked of a camera."""

    def settle(self, fourcc: str, width: int, height: int) -> tuple[str, int, int]:
        """Ask for a format and a size, and give those the driver settled on, which may be others."""


def negotiate(device: Device, spec: FrameSpec) -> str | None:
    """The format the camera agreed to deliver at the bundle's size, as its four characters.

    The bundle's own bytes where the camera has them; else Motion JPEG, which every USB camera has at sizes and rates
    its raw formats do not fit through USB for; else None: whatever the camera has.
    """
    for fourcc in (*RAW.get(spec.pixels, ()), JPEG):
        if device.settle(fourcc, spec.width, spec.height) == (fourcc, spec.width, spec.height):
            return fourcc
    return None


def from_raw(data: npt.NDArray[Any], fourcc: str, spec: FrameSpec) -> Image:
    """A raw frame's bytes in any shape as `spec.image_shape`; ValueError where they are not as many."""
    expected = spec.image_shape
    if data.size != int(np.prod(expected)):
        raise ValueError(f"frames are {data.shape} ({fourcc}), the bundle expects {expected} ({spec.pixels})")
    image: Image = data.reshape(expected)
    return np.ascontiguousarray(image[..., ::-1]) if fourcc == "YUYV" else image


def check_rows(fourcc: str, width: int, stride: int) -> None:
    """ValueError where rows that start every `stride` bytes are padded: OpenCV would shear the picture."""
    row = PIXEL_BYTES.get(fourcc, 0) * width
    if 0 < row < stride:
        raise ValueError(f"rows are {stride} bytes apart ({fourcc}), expected {row}: `derain-stream` takes padded rows")
