"""What every source does, and the registry of sources by URI scheme."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from derain.runtime.frames import Frame, Image, from_bgr, scaled
from derain.runtime.manifest import FrameSpec
from derain.runtime.names import check_address
from derain.runtime.redact import redact

_kinds: dict[str, type["Source"]] = {}

OLDEST_NS = 10_000_000_000
"""A live frame that seems older than this has a time of another clock."""

FASTEST = 240.0
"""Declared frames a second that are believed: an RTSP stream that declares none is told as 90,000."""

BROKEN: Image = np.empty(0, np.uint8)
"""What a live kind gives for a frame that came cut short."""


class Source(ABC):
    """Frames in `spec`'s pixel format, to be iterated over once; a context manager.

    `fps` is None where the source has no rate of its own, `frames` where it has no known end. A `live` source does not
    wait for whoever reads it, and may fail and come back: see `reopened`. A kind fills in `_images`, and `_close` where
    it holds something.
    """

    def __init__(self, location: str, spec: FrameSpec) -> None:
        self.location = location
        self.spec = spec
        self.width, self.height = spec.width, spec.height
        self.fps: float | None = None
        self.frames: int | None = None
        self.live = False
        self.uri = location
        self._fitted = False
        self._fits = True
        self._state = threading.Lock()
        self._reading = self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        """Raises ValueError where there are no frames, they have another size than `spec`, or they end too early."""
        images, count = self._images(), 0
        while True:
            asked_ns = time.monotonic_ns()
            with self._read() as open_:
                image = next(images, None) if open_ else None
            if image is None:
                break
            yield Frame(count, self._captured_ns(), image, asked_ns, self._fits)
            self._fitted, self._fits = self._fitted or image is not BROKEN, True
            count += 1
        if count == 0 and not self._closed:
            raise ValueError(f"{self.location}: holds no frames: check it, or give another --source")

    def reopened(self) -> "Source":
        """A new source of the same URI, for a live one that was lost."""
        again = open_source(self.uri, self.spec)
        again._fitted = self._fitted
        return again

    def close(self) -> None:
        """Release the device or the file; while another thread waits in a read, that thread does it after the read."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            if self._reading:
                return
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _images(self) -> Iterator[Image]:
        """uint8 images in `spec.image_shape`, or BROKEN."""

    def _close(self) -> None:  # noqa: B027 (most kinds hold nothing)
        """Release what the kind holds; called once."""

    def _captured_ns(self) -> int:
        """When the last image was complete: now, unless the kind knows better."""
        return time.monotonic_ns()

    @contextmanager
    def _read(self) -> Iterator[bool]:
        """Around one read; False where the source was closed before it."""
        with self._state:
            self._reading = not self._closed
        try:
            yield self._reading
        finally:
            with self._state:
                closed_meanwhile = self._reading and self._closed
                self._reading = False
            if closed_meanwhile:
                self._close()

    def _from_bgr(self, image: npt.NDArray[Any], name: str) -> Image:
        """Convert a decoded image; where a live source changes its size in mid-stream, scale it and say so."""
        if self.live and self._fitted and image.shape[:2] != (self.spec.height, self.spec.width):
            self._fits = False
            size = (self.spec.width, self.spec.height)
            return from_bgr(scaled(image, size), self.spec)
        try:
            return from_bgr(image, self.spec)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def believed(fps: float) -> float | None:
    """What a live source says of its frames a second, where a camera can have that many."""
    return fps if 0 < fps <= FASTEST else None


def of_our_clock(stamp_ns: int, now_ns: int) -> int:
    """The time that a frame which is here now was stamped with, or now where that is of another clock."""
    return stamp_ns if 0 <= now_ns - stamp_ns < OLDEST_NS else now_ns


def register(scheme: str) -> Callable[[type[Source]], type[Source]]:
    """Class decorator: makes a source known by its URI `scheme`; it is called with what follows `://`, and the spec."""

    def add(kind: type[Source]) -> type[Source]:
        _kinds[scheme] = kind
        return kind

    return add


def open_source(uri: str, spec: FrameSpec) -> Source:
    """Open `scheme://location` or `scheme:location`; a path without a scheme is `frames` for a folder, else `file`.

    Raises ValueError for an unknown scheme, FileNotFoundError or ValueError where the location is no such source.
    """
    scheme, colon, location = uri.partition(":")
    if not colon or (scheme not in _kinds and "://" not in uri):
        scheme, location = ("frames" if Path(uri).is_dir() else "file"), uri
    if scheme not in _kinds:
        known = ", ".join(sorted(_kinds))
        raise ValueError(f"source {redact(uri)}: scheme {redact(scheme)!r} is unknown, known are: {known}")
    location = location.removeprefix("//")
    if scheme in ("file", "frames") and not location:  # it would be the current folder, for a shell's unset variable
        raise ValueError(f"source {uri!r}: names no file or folder: give its path, or . for this folder")
    if scheme not in ("file", "frames"):
        check_address(uri)
    source = _kinds[scheme](location, spec)
    source.uri = uri
    return source
