"""`frames://folder`: 000000.png, 000001.png, … without loss."""

import fcntl
import logging
import os
from pathlib import Path

import cv2

from derain.runtime.atomic import check_place, write_bytes
from derain.runtime.frames import Image, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.sinks.base import Sink, register

log = logging.getLogger(__name__)


@register("frames")
class PngFolder(Sink):
    """One PNG a frame, each by atomic rename, in a folder that holds no other PNG: two clips must not mix.

    It is this sink's alone from its opening, or from its first frame where it was not there yet; the system lets go of
    it when the process ends, however it ends.
    """

    def __init__(self, location: str, spec: FrameSpec, fps: float | None) -> None:
        super().__init__(location, spec, fps)
        self._folder = Path(location)
        self._held: int | None = None
        if self._folder.exists() and not self._folder.is_dir():
            raise FileExistsError(f"{location}: is a file, expected a folder: give --sink frames://FOLDER")
        check_place(self._name(0))
        if self._folder.exists():
            self._hold()

    def _write(self, image: Image, captured_ns: int, raw: bool) -> None:
        if self._held is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._hold()
        _, png = cv2.imencode(".png", to_bgr(image, self.spec))
        write_bytes(self._name(self.written), png.tobytes())

    def close(self) -> None:
        """Let go of the folder."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _hold(self) -> None:
        """Take the folder; ValueError where it is taken or full, which ends a run: no later frame would fare better."""
        self._held = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ValueError(f"{self.location}: another run writes to it: give another folder") from error
        except OSError:  # a file system that cannot lock folders, such as some network's
            log.warning("%s: cannot be locked: let no other run write there", self.location)
        if old := sum(1 for _ in self._folder.glob("*.png")):
            self.close()
            raise ValueError(f"{self.location}: already holds {old} PNG files: remove them or give another folder")

    def _name(self, number: int) -> Path:
        return self._folder / f"{number:06d}.png"
