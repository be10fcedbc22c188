"""`frames:///folder`: the images of a folder, sorted by name, the numbers in it by value: 2.png before 10.png."""

import re
from collections.abc import Iterator
from pathlib import Path

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.sources.base import Source, register
from derain.runtime.sources.coded import decode

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def images_of(folder: Path) -> list[Path]:
    """Its images in the order of their frames."""
    return sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=_in_time)


@register("frames")
class ImageFolder(Source):
    """One frame an image; a broken image raises ValueError with its name."""

    def __init__(self, location: str, spec: FrameSpec) -> None:
        super().__init__(location, spec)
        folder = Path(location)
        if not folder.is_dir():
            raise FileNotFoundError(f"{location}: no such folder: give a folder of images")
        self._paths = images_of(folder)
        if not self._paths:
            raise ValueError(f"{location}: holds no images, expected at least one of {', '.join(SUFFIXES)}")
        self.frames = len(self._paths)

    def _images(self) -> Iterator[Image]:
        for path in self._paths:
            content = path.read_bytes()
            try:
                image = decode(content)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            if image is None:
                raise ValueError(f"{path}: {len(content)} bytes that are no whole image: replace or remove it")
            yield self._from_bgr(image, str(path))


def _in_time(path: Path) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name
