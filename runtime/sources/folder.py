"""`frames:///folder`: the images of a folder, sorted by name."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from derain.runtime.bundle import FrameSpec
from derain.runtime.frames import Image
from derain.runtime.sources.base import Source, register

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@register("frames")
class ImageFolder(Source):
    """One frame an image; a broken image raises ValueError with its name."""

    def __init__(self, location: str, spec: FrameSpec) -> None:
        super().__init__(location, spec)
        folder = Path(location)
        if not folder.is_dir():
            raise FileNotFoundError(f"{location}: no such folder: give --source a folder of images")
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not self._paths:
            raise ValueError(f"{location}: holds no images, expected at least one of {', '.join(SUFFIXES)}")
        self.frames = len(self._paths)

    def _images(self) -> Iterator[Image]:
        for path in self._paths:
            content = path.read_bytes()
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if _is_whole(content) else None
            if image is None:
                raise ValueError(f"{path}: {len(content)} bytes that are no whole image: replace or remove it")
            yield self._from_bgr(image, str(path))


def _is_whole(content: bytes) -> bool:
    """False for an empty file and for a JPEG without its end: OpenCV fails on the first and pads the second with grey.

    A JPEG's last scan (marker FFDA) is followed by the end of the image (FFD9), which cannot occur inside a scan.
    """
    is_jpeg = content.startswith(b"\xff\xd8")
    return bool(content) and (not is_jpeg or content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda"))
