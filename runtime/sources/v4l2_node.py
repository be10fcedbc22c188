"""What OpenCV does not tell of a camera, asked of its driver: three ioctl calls of Linux's `videodev2.h`."""

import fcntl
import os
import struct
import sys
from typing import Any, NamedTuple

VIDEO_CAPTURE, VIDEO_CAPTURE_MPLANE, DEVICE_CAPS = 1, 0x1000, 1 << 31
QUERYCAP, G_FMT, G_PARM = 2 << 30 | 0, 3 << 30 | 4, 3 << 30 | 21  # _IOR, _IOWR and _IOWR, but for the size
CAPABILITY = struct.Struct("@84x2I12x")
"""struct v4l2_capability: names and a version; then what all nodes of the camera can do and what this one can."""
FORMAT = struct.Struct("@I0P2I4s2I180x")
"""struct v4l2_format: type; then, aligned as a pointer, width, height, pixelformat, field, bytesperline, and more."""
PARAMETERS = struct.Struct("@5I184x")
"""struct v4l2_streamparm: type, capability, capturemode, the time per frame as numerator and denominator, and more."""


class Rows(NamedTuple):
    """How a driver lays out a frame: `stride` is the bytes from one row's start to the next; `field` is V4L2's."""

    fourcc: str
    width: int
    stride: int
    field: int


def multi_planar(node: str) -> bool:
    """Whether the device at `node` captures video by V4L2's multi-planar interface and not by the single-planar one."""
    of_all, of_this = _ask(node, QUERYCAP, CAPABILITY) or (0, 0)
    capabilities = of_this if of_all & DEVICE_CAPS else of_all
    return bool(capabilities & VIDEO_CAPTURE_MPLANE) and not capabilities & VIDEO_CAPTURE


def rows(node: str) -> Rows | None:
    """The layout of the frames the device at `node` delivers; None where its driver cannot be asked."""
    if (answer := _ask(node, G_FMT, FORMAT)) is None:
        return None
    _, width, _, fourcc, field, stride = answer
    return Rows(fourcc.decode("latin-1"), width, stride, field)


def frame_rate(node: str) -> float | None:
    """Frames a second the device at `node` is set to; None where its driver cannot be asked or does not know."""
    _, _, _, numerator, denominator = _ask(node, G_PARM, PARAMETERS) or (0, 0, 0, 0, 0)
    return denominator / numerator if numerator and denominator else None


def _ask(node: str, number: int, layout: struct.Struct) -> tuple[Any, ...] | None:
    """The answer to a question about video capture; None where there is none: no V4L2 device, or several planes."""
    request = number | layout.size << 16 | ord("V") << 8
    question = VIDEO_CAPTURE.to_bytes(4, sys.byteorder).ljust(layout.size, b"\0")
    try:
        device = os.open(node, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return layout.unpack(fcntl.ioctl(device, request, question))
    except OSError:
        return None
    finally:
        os.close(device)
