"""`frames://folder`: 000000.png, 000001.png, … without loss."""

from pathlib import Path

import cv2

from derain.runtime.atomic import check_place, write_bytes
from derain.runtime.frames import Image, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.sinks.base import Sink, register


@register("frames")
class PngFolder(Sink):
    """One PNG a frame, each by atomic rename, in a folder that holds no other PNG: two clips must not mix."""

    def __init__(self, location: str, spec: FrameSpec, fps: float | None) -> None:
        super().__init__(location, spec, fps)
        self._folder = Path(location)
        if self._folder.exists() and not self._folder.is_dir():
            raise FileExistsError(f"{location}: is a file, expected a folder: give --sink frames://FOLDER")
        check_place(self._name(0))
        if old := sum(1 for _ in self._folder.glob("*.png")):
            raise FileExistsError(f"{location}: already holds {old} PNG files: remove them or give another folder")

    def _write(self, image: Image, captured_ns: int, raw: bool) -> None:
        _, png = cv2.imencode(".png", to_bgr(image, self.spec))
        write_bytes(self._name(self.written), png.tobytes())

    def _name(self, number: int) -> Path:
        return self._folder / f"{number:06d}.png"
