"""A run's figures as JSON lines, for whoever reads them later."""

import dataclasses
import errno
import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path

from derain.runtime.background import Background
from derain.runtime.observers import Observer
from derain.runtime.records import Status

log = logging.getLogger(__name__)

EVERY_S = 1.0
WAITING = 60
"""Lines that may wait for a slow disk, a minute's; more are lost and counted."""

PATIENCE_S = 5.0


class JsonLines(Observer):
    """Adds a line to `path` each second, and one at the end: `time`, UTC in ISO 8601, and the fields of `Status`.

    A second and not a frame, so that the cost is bounded: some 500 bytes a second, 2 MB an hour, whatever the camera's
    rate; single frames are in what `Recorder` keeps. Lines are written on a thread of their own, each in one call, and
    where the disk is full they are lost, told once and counted in `lost`. Raises OSError where `path` cannot be opened.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.lost = 0
        self._path = path
        self._file = FileIO(path, "a", opener=_opened)
        self._clock = clock
        self._due_ns = clock()
        self._newest: Status | None = None
        self._background = Background("derain-telemetry", WAITING)

    def on_status(self, status: Status) -> None:
        """Write a line where one is due."""
        self._newest = status
        if self._clock() >= self._due_ns:
            self._due_ns = self._clock() + round(EVERY_S * 1e9)
            self._submit(status)

    def close(self) -> None:
        """Write the last figures."""
        if self._newest is not None:
            self._submit(self._newest)
        if self._background.close(PATIENCE_S):
            self._file.close()

    def _submit(self, status: Status) -> None:
        if not self._background.submit(partial(self._write, datetime.now(UTC), status)):
            self._lose("the disk is too slow")

    def _write(self, now: datetime, status: Status) -> None:
        line = {"time": now.isoformat(timespec="milliseconds")} | dataclasses.asdict(status)
        try:
            self._append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            self._lose(error.strerror or str(error))

    def _append(self, line: bytes) -> None:
        """The whole line or none of it: a full disk takes a part, onto which the next line would be written."""
        if (written := self._file.write(line)) < len(line):
            self._file.truncate(self._file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _lose(self, why: str) -> None:
        if not self.lost:
            log.warning("%s: telemetry lost: %s", self._path, why)
        self.lost += 1


def _opened(path: str, flags: int) -> int:
    """A descriptor at once: a pipe that nobody reads is an error, where it would keep the stream from its start."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(f"{path}: a pipe that nobody reads: start its reader first") from error
        raise
    os.set_blocking(descriptor, True)
    return descriptor
