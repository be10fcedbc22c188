"""The frames around a fault, kept on disk: what came in, what went out, and when."""

import dataclasses
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from derain.runtime.atomic import new_directory
from derain.runtime.background import Background
from derain.runtime.frames import Frame, Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.names import check_name
from derain.runtime.observers import Observer
from derain.runtime.records import FrameRecord, Outcome, Status, Why
from derain.runtime.sinks import open_sink

log = logging.getLogger(__name__)

MOST_BYTES = 512 << 20
MOST_CLIPS = 20
"""A run's. An engine that fails all day must not fill the disk."""

PATIENCE_S = 60.0
"""How long the end of a run waits for a clip that is being written."""

FAULTS = (Why.FAULT, Why.DEADLINE, Why.UNFIT, Why.BROKEN, Why.SINK)
"""What begins a clip, where the frame before it was derained: what follows is the same fault going on."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame's record, and its pictures unless it was dropped."""

    record: FrameRecord
    before: Image | None = None
    after: Image | None = None

    @property
    def bytes(self) -> int:
        """What it holds; a raw frame went out as it came in and is held once."""
        pictures = {id(image): image.nbytes for image in (self.before, self.after) if image is not None}
        return sum(pictures.values())


@dataclass
class Fault:
    """One that has been seen, and until when its clip goes on."""

    why: str
    at: datetime
    until_ns: int
    bytes_after: int = 0


class Recorder(Observer):
    """Writes the `seconds` around each fault into a folder of its own in `folder`, half of them before and half after.

    A fault is a failing or late engine, a camera lost, of another size or with a broken frame, or a failing sink; the
    raw frames that follow belong to it. While a clip goes on or is being written further faults begin none, and a run
    writes at most MOST_CLIPS. A clip holds `in` and `out`, lossless .mkv (PNGs where the size is odd) in the order of
    presentation, and `records.json`: `why`, `time`, and every frame's record in `frames`, dropped ones among them. In
    both videos of a `live` source a frame stands until the next one was captured. A clip appears by rename; where it
    cannot be written (a full disk) that is told, and the stream goes on.

    Memory: pictures are kept uncoded and without a copy, `seconds` × frames a second × (bytes in + bytes out): 373 MB
    for each second of bgr8 at 1920x1080 and 30 frames/s, half of it for nv12. It is never more than MOST_BYTES, the
    clip is shorter then; while one is being written the next frames need as much again.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float,
        source: FrameSpec,
        output: FrameSpec,
        fps: float | None = None,
        live: bool = True,
        most_bytes: int = MOST_BYTES,
        most_clips: int = MOST_CLIPS,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clips = 0
        self._folder, self._specs, self._fps, self._live = folder, (source, output), fps, live
        self._span_ns = round(seconds * 1e9)
        self._most_bytes, self._most_clips, self._clock = most_bytes, most_clips, clock
        self._kept: deque[Kept] = deque()
        self._bytes = 0
        self._fault: Fault | None = None
        self._well, self._writing, self._told, self._cut = True, False, False, False
        self._source_faults = 0
        check_name(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._background = Background("derain-recorder", 1)

    def on_frame(self, record: FrameRecord, frame: Frame, shown: Image) -> None:
        """Keep a presented frame, and see whether it is a fault's first."""
        self._keep(Kept(record, frame.image, shown))

    def on_drop(self, record: FrameRecord) -> None:
        """Keep the record of a frame that was not presented, and see whether it is a fault's first."""
        self._keep(Kept(record))

    def on_status(self, status: Status) -> None:
        """See whether the source was lost, and whether a clip is due: a lost camera sends no frame to see it by."""
        if status.source_faults > self._source_faults:
            self._begin(f"source lost: {status.source_fault}")
        self._source_faults = status.source_faults
        self._end_if_due()

    def close(self) -> None:
        """Finish the clip of a fault that came shortly before the end."""
        if self._fault is not None:
            self._end(self._fault)
        if self._writing:
            log.warning("%s: a clip is still being written", self._folder)
        if not self._background.close(PATIENCE_S):
            log.warning("%s: a clip was not written within %.0f s and is lost", self._folder, PATIENCE_S)

    def _keep(self, kept: Kept) -> None:
        record = kept.record
        self._kept.append(kept)
        self._bytes += kept.bytes
        from_ns = record.captured_ns - self._span_ns
        while self._kept and (self._bytes > self._most_bytes or self._kept[0].record.captured_ns < from_ns):
            if self._bytes > self._most_bytes and not self._cut:
                self._cut = True
                seconds = (record.captured_ns - self._kept[0].record.captured_ns) / 1e9
                log.warning(
                    "%s: %.1f s of pictures fill the %d MB that are kept, so clips are shorter than %g s",
                    self._folder, seconds, self._most_bytes >> 20, self._span_ns / 1e9,
                )  # fmt: skip
            self._bytes -= self._kept.popleft().bytes
        if self._fault is not None:
            self._fault.bytes_after += kept.bytes
        if record.outcome is Outcome.DERAINED:
            self._well = True
        elif record.why in FAULTS:
            if self._well:
                self._begin(record.why)
            self._well = False
        self._end_if_due()

    def _begin(self, why: str) -> None:
        if self._fault is not None or self._writing:
            return
        if self.clips < self._most_clips:
            self._fault = Fault(why, datetime.now(UTC), self._clock() + self._span_ns // 2)
        elif not self._told:
            self._told = True
            log.warning("%s: %d clips are kept, the most of one run: no more", self._folder, self.clips)

    def _end_if_due(self) -> None:
        fault = self._fault
        if fault is not None and (self._clock() >= fault.until_ns or 2 * fault.bytes_after >= self._most_bytes):
            self._end(fault)

    def _end(self, fault: Fault) -> None:
        self._fault = None
        self.clips += 1
        self._writing = True
        self._background.submit(partial(self._write, self.clips, fault, tuple(self._kept)))

    def _write(self, number: int, fault: Fault, kept: tuple[Kept, ...]) -> None:
        path = self._folder / f"{fault.at:%Y%m%dT%H%M%SZ}-{os.getpid()}-{number:02d}"  # others may record here too
        records = [dataclasses.asdict(one.record) for one in kept]
        document = {"why": fault.why, "time": fault.at.isoformat(), "frames": records}
        try:
            with new_directory(path) as folder:
                for name, spec in zip(("in", "out"), self._specs, strict=True):
                    suffix = "" if spec.width % 2 or spec.height % 2 else ".mkv"
                    with open_sink(f"{folder / name}{suffix}", spec, self._fps, self._live) as sink:
                        sink.awaited = False
                        for one in kept:
                            image, record = one.before if name == "in" else one.after, one.record
                            if image is not None:
                                sink.write(image, record.captured_ns, raw=record.outcome is Outcome.PASSED_THROUGH)
                (folder / "records.json").write_text(json.dumps(document, indent=1) + "\n")
            log.warning("%s: kept %d frames around a fault: %s", path, len(kept), fault.why)
        except OSError as error:
            log.warning("%s: a clip is lost: %s", path, error.strerror or error)
        finally:
            self._writing = False
