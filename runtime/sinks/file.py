"""`file://out.mp4`: a video file, encoded by OpenCV's FFmpeg."""

import errno
import logging
import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np

from derain.runtime.atomic import behind_links, check_place, is_node, temporary_beside
from derain.runtime.frames import Image, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.names import check_name
from derain.runtime.sinks.base import Sink, register

log = logging.getLogger(__name__)

CODECS = {".mkv": "FFV1", ".avi": "MJPG", ".mp4": "mp4v"}
FPS = 25.0  # for sources without a rate of their own, such as a folder of images

CLOCK = 65535
"""The most parts of a second that MPEG-4 knows: OpenCV asks for 119,933 where a clip has 119.933 frames in one."""

MARGIN = 4
"""Raw frames of free space to keep: one to write, and the encoder's own buffer."""
BUFFERED = 8 << 20
"""Bytes likewise: Matroska holds a cluster of 5 MB back."""
INDEX = 32
"""Bytes likewise for each frame of the file: the container's end lists them all."""


@register("file")
class VideoFile(Sink):
    """A clip: lossless FFV1 in .mkv, Motion JPEG in .avi, MPEG-4 in .mp4.

    Written under a temporary name beside the target, which a link may point to, and renamed at close, also after an
    error, so that the target is always a whole clip of the frames there were. A live source's frame is repeated until
    the next one was captured, or the clip would play faster than the camera saw; of a longer gap a second is kept.
    Where it is `awaited` only as often as the time of one frame allows: a coder that falls behind would lose ever more
    frames to the repeated ones.
    """

    def __init__(self, location: str, spec: FrameSpec, fps: float | None) -> None:
        super().__init__(location, spec, fps)
        self._path = behind_links(Path(location))
        self._temporary = temporary_beside(self._path)
        self._writer: cv2.VideoWriter | None = None
        self._period_ns = 1e9 / (fps or FPS)
        self._due_ns = 0.0  # the next frame of the file
        self._last = np.empty(0, np.uint8)
        self._coded = 0  # frames in the file, repeated ones too
        self._takes_ns = 0.0  # to code a frame, of late
        self._told = False
        if is_node(Path(location)):
            raise FileExistsError(
                f"{location}: is a device or a pipe, expected a file: give another, or --sink null:// for none"
            )
        if self._path.suffix.lower() not in CODECS:
            raise ValueError(
                f"{self._path}: suffix {self._path.suffix!r} is unknown, known are: {', '.join(sorted(CODECS))}"
            )
        if self._path.is_dir():
            raise FileExistsError(f"{location}: is a folder, expected a file: give --sink frames://{location}")
        check_place(self._path)
        check_name(self._path)
        if spec.width % 2 or spec.height % 2:  # OpenCV would drop the last column or row without a word
            raise ValueError(
                f"{location}: videos need an even size, frames are {spec.width}x{spec.height}: use frames://"
            )

    def _write(self, image: Image, captured_ns: int, raw: bool) -> None:
        if self._writer is None:
            self._writer = self._opened()
        for _ in range(self._missing(captured_ns) if self.live else 0):
            self._code(self._last)
        self._last = to_bgr(image, self.spec)
        self._code(self._last)

    def _opened(self) -> cv2.VideoWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        codec = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        rate = min(self.fps or FPS, CLOCK)
        rate = round(rate, next(places for places in (3, 2, 1, 0) if rate * 10**places <= CLOCK))
        size = (self.spec.width, self.spec.height)
        writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, codec, rate, size)
        if not writer.isOpened():
            raise OSError(f"{self.location}: cannot be written in {self._path.parent}: check its space and rights")
        return writer

    def _code(self, bgr: Image) -> None:
        assert self._writer is not None
        # OpenCV loses frames without a word on a full disk; a coded frame is hardly ever larger than the raw one.
        kept = MARGIN * bgr.nbytes + BUFFERED + INDEX * self._coded
        if shutil.disk_usage(self._path.parent).free < kept:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.location)
        start_ns = time.monotonic_ns()
        self._writer.write(bgr)
        self._takes_ns += (time.monotonic_ns() - start_ns - self._takes_ns) / 8
        self._coded += 1
        self._due_ns += self._period_ns

    def _missing(self, captured_ns: int) -> int:
        """How many frames are to be repeated before the one captured then."""
        self._due_ns = max(self._due_ns, captured_ns - 1e9) if self._coded else captured_ns
        missing = max(round((captured_ns - self._due_ns) / self._period_ns), 0)
        most = int(self._period_ns / self._takes_ns) if self.awaited and self._takes_ns else missing
        if missing and not most and not self._told:
            self._told = True
            log.warning(
                "%s: coding a frame takes %.0f ms, one is due every %.0f ms: frames are lost, and the clip plays "
                "faster than the camera saw: .avi and .mp4 take less than .mkv, and a smaller frame less than a larger",
                self.location, self._takes_ns / 1e6, self._period_ns / 1e6,
            )  # fmt: skip
        return min(missing, most)

    def close(self) -> None:
        """Finish the clip and give it its name."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if self.written:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)
