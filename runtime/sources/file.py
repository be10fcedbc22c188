"""`file:///clip.mp4`: a video file, decoded by OpenCV's FFmpeg."""

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.names import check_name
from derain.runtime.sources.base import Source, register
from derain.runtime.sources.container import is_cut_short
from derain.runtime.sources.still import told_if_still

log = logging.getLogger(__name__)


MOST_DAMAGED = 300
"""Frames in succession, behind which nothing more is looked for."""


@register("file")
class VideoFile(Source):
    """Every frame of a clip; one that is cut short raises ValueError after its last frame.

    Frames that cannot be decoded, in the middle of a damaged clip, are left out and counted in a warning.
    """

    def __init__(self, location: str, spec: FrameSpec) -> None:
        super().__init__(location, spec)
        if not Path(location).is_file():
            raise FileNotFoundError(f"{location}: no such file: give the path of a video")
        check_name(Path(location))
        # An absolute path, or FFmpeg takes what is before a colon for a protocol
        self._video = cv2.VideoCapture(str(Path(location).absolute()), cv2.CAP_FFMPEG)
        if not self._video.isOpened():
            size = Path(location).stat().st_size
            raise ValueError(
                f"{location}: {size} bytes that are no video, or an unfinished one: record or copy it again"
            )
        self.fps = self._video.get(cv2.CAP_PROP_FPS) or None
        frames = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frames = frames if frames > 0 else None

    def _images(self) -> Iterator[Image]:
        return told_if_still(self._decoded(), self.location)

    def _decoded(self) -> Iterator[Image]:
        count = damaged = since = 0
        while True:
            decoded, image = self._video.read()
            if decoded:
                damaged, since = damaged + since, 0
                yield self._from_bgr(image, self.location)
                count += 1
            elif self.frames is not None and count + damaged + since < self.frames and since < MOST_DAMAGED:
                since += 1  # unreadable: whether the clip goes on behind it shows only then
            else:
                break
        if damaged:
            log.warning("%s: %d of its frames are damaged and left out", self.location, damaged)
        if self.frames is None or count + damaged >= self.frames:
            return
        if is_cut_short(Path(self.location)):
            raise ValueError(
                f"{self.location}: truncated, the decoder stopped after {count} of {self.frames} frames: "
                "copy it again, or re-encode what is left of it"
            )
        log.warning(
            "%s: %d frames came, its duration is that of %d: it is damaged, or its rate varies, it hides some, or its "
            "sound is longer than its picture",
            self.location, count, self.frames,
        )  # fmt: skip

    def _close(self) -> None:
        self._video.release()
