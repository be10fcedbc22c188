"""What every sink does, and the registry of sinks by URI scheme."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.names import check_address
from derain.runtime.redact import redact

_kinds: dict[str, type["Sink"]] = {}


class Sink(ABC):
    """Takes frames in `spec`'s pixel format, in order; a context manager. `written` counts them.

    `live` is set where they come from a live source, whose times go on whether there is a frame or not; `awaited` is
    unset by one who has the frames already, and whom a slow sink keeps from nothing.
    Nothing touches the disk before the first frame. A kind fills in `_write`, and `close` where it holds something.
    """

    def __init__(self, location: str, spec: FrameSpec, fps: float | None) -> None:
        self.location = location
        self.spec = spec
        self.fps = fps
        self.live, self.awaited = False, True
        self.written = 0

    def write(self, image: Image, captured_ns: int | None = None, raw: bool = False) -> None:
        """Present one frame, uint8 in `spec.image_shape`; ValueError for any other array.

        `captured_ns` is when it was captured, in `time.monotonic_ns()`; None: now. `raw`: it goes out as it came.
        """
        if image.shape != self.spec.image_shape or image.dtype != np.uint8:
            seen, expected = f"{image.dtype} {image.shape}", f"uint8 {self.spec.image_shape} ({self.spec.pixels})"
            raise ValueError(f"{self.location}: image is {seen}, expected {expected}: convert it with from_bgr")
        self._write(image, time.monotonic_ns() if captured_ns is None else captured_ns, raw)
        self.written += 1

    def close(self) -> None:  # noqa: B027 (some kinds hold nothing)
        """Finish the output: what was written stays readable, also after an error. Closing twice does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _write(self, image: Image, captured_ns: int, raw: bool) -> None: ...


def register(scheme: str) -> Callable[[type[Sink]], type[Sink]]:
    """Class decorator: makes a sink known by its URI `scheme`; it is called with what follows `://`, spec and fps."""

    def add(kind: type[Sink]) -> type[Sink]:
        _kinds[scheme] = kind
        return kind

    return add


def open_sink(uri: str, spec: FrameSpec, fps: float | None = None, live: bool = False) -> Sink:
    """Open `scheme://location` or `scheme:location`; a path without one is `file` where it has a suffix, else `frames`.

    `fps` is the source's rate, where it has one, `live` whether it is a camera. Raises ValueError for an unknown
    scheme, ValueError or FileExistsError where the location cannot be such a sink.
    """
    scheme, colon, location = uri.partition(":")
    if colon and (scheme in _kinds or "://" in uri):
        location = location.removeprefix("//")
    else:
        scheme, location = ("file" if Path(uri).suffix else "frames"), uri
    if scheme not in _kinds:
        raise ValueError(f"sink {redact(uri)}: scheme {scheme!r} is unknown, known are: {', '.join(sorted(_kinds))}")
    if scheme in ("file", "frames") and not location:  # it would be the current folder, for a shell's unset variable
        raise ValueError(f"sink {uri!r}: names no file or folder: give its path, or . for this folder")
    if scheme not in ("file", "frames"):
        check_address(uri)
    sink = _kinds[scheme](location, spec, fps)
    sink.live = live
    return sink
