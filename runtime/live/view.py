"""What the live page shows of a run: the newest frame before and after, the figures, the last frames' latency."""

import dataclasses
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2

from derain.runtime.frames import Frame, Image, scaled, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.observers import Observer
from derain.runtime.records import FrameRecord, Outcome, Status

QUALITY = 85
WIDEST = 1280
"""Pixels. Wider pictures are scaled down: a page shows no more, and coding two of 1920x1080 costs twice the time."""

RECENT = 600
"""Frames whose latency the page plots: 20 s of a camera of 30 frames a second."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One frame as it came and as it went out, as JPEGs; `number` counts the presented frames from 1."""

    number: int
    record: FrameRecord
    before: bytes
    after: bytes


class LiveView(Observer):
    """Keeps the newest frame and the newest figures; `about` says what is running, for the page's head.

    The pipeline's thread only swaps references. Frames are coded on the readers' threads, once each for all of them and
    only while somebody looks, so a slow browser misses frames and holds nobody up.
    """

    def __init__(self, about: Mapping[str, Any], source: FrameSpec, output: FrameSpec) -> None:
        self.about = dict(about) | {"width": source.width, "height": source.height, "pixels": source.pixels}
        self.number = 0
        self.closed = False
        self._specs = source, output
        self._newest: tuple[int, FrameRecord, Image, Image] | None = None
        self._status: Status | None = None
        self._recent: deque[tuple[float, bool]] = deque(maxlen=RECENT)
        self._changing, self._coding = threading.Lock(), threading.Lock()
        self._pair: Pair | None = None

    def on_frame(self, record: FrameRecord, frame: Frame, shown: Image) -> None:
        """Keep a presented frame."""
        age_ms = ((record.presented_ns or record.captured_ns) - record.captured_ns) / 1e6
        with self._changing:
            self._recent.append((round(age_ms, 2), record.outcome is Outcome.DERAINED))
            self._newest = self.number + 1, record, frame.image, shown
        self.number += 1

    def on_status(self, status: Status) -> None:
        """Keep the figures."""
        self._status = status

    def close(self) -> None:
        """Let waiting readers go."""
        self.closed = True

    def state(self) -> dict[str, Any]:
        """The figures as JSON: `about`, `status` (null before the first) and `recent`, [latency in ms, derained?]s."""
        with self._changing:
            recent = list(self._recent)
        status = self._status
        return {
            "about": self.about,
            "status": dataclasses.asdict(status) if status is not None else None,
            "recent": recent,
        }

    def pair(self) -> Pair | None:
        """The newest frame, before and after; None before the first."""
        with self._coding:
            newest = self._newest
            if newest is None or (self._pair is not None and self._pair.number == newest[0]):
                return self._pair
            number, record, before, after = newest
            coded = [_jpeg(image, spec) for image, spec in zip((before, after), self._specs, strict=True)]
            self._pair = Pair(number, record, *coded)
            return self._pair


def _jpeg(image: Image, spec: FrameSpec) -> bytes:
    bgr = to_bgr(image, spec)
    height, width = bgr.shape[:2]
    if width > WIDEST:
        bgr = scaled(bgr, (WIDEST, round(height * WIDEST / width)))
    _, coded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    return coded.tobytes()
