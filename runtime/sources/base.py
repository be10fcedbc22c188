"""What every source does, and the registry of sources by URI scheme."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from derain.runtime.bundle import FrameSpec
from derain.runtime.frames import Frame, Image, from_bgr

_kinds: dict[str, type["Source"]] = {}


class Source(ABC):
    """Frames in `spec`'s pixel format, to be iterated over once; a context manager.

    `fps` is None where the source has no rate of its own, `frames` where it has no known end. A kind fills in
    `_images`, and `close` where it holds something.
    """

    def __init__(self, location: str, spec: FrameSpec) -> None:
        self.location = location
        self.spec = spec
        self.width, self.height = spec.width, spec.height
        self.fps: float | None = None
        self.frames: int | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Raises ValueError where there are no frames, they have another size than `spec`, or they end too early."""
        count = 0
        for image in self._images():
            yield Frame(count, time.monotonic_ns(), image)
            count += 1
        if count == 0:
            raise ValueError(f"{self.location}: holds no frames: check it, or give another --source")

    def close(self) -> None:  # noqa: B027 (most kinds hold nothing)
        """Release the device or the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _images(self) -> Iterator[Image]:
        """uint8 images in `spec.image_shape`."""

    def _from_bgr(self, image: npt.NDArray[Any], name: str) -> Image:
        try:
            return from_bgr(image, self.spec)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def register(scheme: str) -> Callable[[type[Source]], type[Source]]:
    """Class decorator: makes a source known by its URI `scheme`; it is called with what follows `://`, and the spec."""

    def add(kind: type[Source]) -> type[Source]:
        _kinds[scheme] = kind
        return kind

    return add


def open_source(uri: str, spec: FrameSpec) -> Source:
    """Open `scheme://location`; a path without a scheme is `frames` where it is a folder, else `file`.

    Raises ValueError for an unknown scheme, FileNotFoundError or ValueError where the location is no such source.
    """
    scheme, separator, location = uri.partition("://")
    if not separator:
        scheme, location = ("frames" if Path(uri).is_dir() else "file"), uri
    if scheme not in _kinds:
        raise ValueError(f"source {uri}: scheme {scheme!r} is unknown, known are: {', '.join(sorted(_kinds))}")
    return _kinds[scheme](location, spec)
