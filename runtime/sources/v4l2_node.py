"""What OpenCV does not tell of a camera, asked of its driver: two ioctl calls of Linux's `videodev2.h`."""

import fcntl
import os
import struct
import sys
from typing import Any, NamedTuple

VIDEO_CAPTURE = 1
G_FMT, G_PARM = 4, 21
FORMAT = struct.Struct("@I0P2I4s2I180x")
"""struct v4l2_format: type; then, aligned as a pointer, width, height, pixelformat, field, bytesperline, and more."""
PARAMETERS = struct.Struct("@5I184x")
"""struct v4l2_streamparm: type, capability, capturemode, the time per frame as numerator and denominator, and more."""


class Rows(NamedTuple):
    """How a driver lays out a frame: `stride` is the bytes from one row's start to the next one's."""

    fourcc: str
    width: int
    stride: int


def rows(node: str) -> Rows | None:
    """The layout of the frames the device at `node` delivers; None where its driver cannot be asked."""
    if (answer := _ask(node, G_FMT, FORMAT)) is None:
        return None
    _, width, _, fourcc, _, stride = answer
    return Rows(fourcc.decode("latin-1"), width, stride)


def frame_rate(node: str) -> float | None:
    """Frames a second the device at `node` is set to; None where its driver cannot be asked or does not know."""
    _, _, _, numerator, denominator = _ask(node, G_PARM, PARAMETERS) or (0, 0, 0, 0, 0)
    return denominator / numerator if numerator and denominator else None


def _ask(node: str, number: int, layout: struct.Struct) -> tuple[Any, ...] | None:
    """The answer to a question about video capture; None where there is none: no V4L2 device, or several planes."""
    request = 3 << 30 | layout.size << 16 | ord("V") << 8 | number  # _IOWR('V', number, struct)
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
