"""Frames between two processes of one machine: a ring of slots in POSIX shared memory, `/dev/shm/NAME`.

| offset | bytes | what                                                         |
| ------ | ----- | ------------------------------------------------------------ |
| 0      | 8     | `DERAINSH`                                                   |
| 8      | 4     | version, 1                                                   |
| 12     | 4     | slots                                                        |
| 16     | 8     | width and height                                             |
| 24     | 8     | pixel format, as in the manifest, padded with zeros          |
| 32     | 8     | number of frames published so far                            |
| 40     | 8     | 1 once the writer has closed                                 |
| 48     | 8     | 1 where the writer holds a lock (flock) while it lives       |
| 56     | 8     | the writer's frames per second times 1000, 0 where unknown   |
| 64     | slots | each: sequence, time, raw (8 each), zeros (40), the bytes    |

All integers are little-endian and unsigned; a slot is padded to 64 bytes; times are CLOCK_MONOTONIC in ns, which all
processes of a machine share. Frame n is in slot n modulo slots. A slot's sequence is odd while it is written and
2·(n + 1) when frame n is in it (a seqlock): a reader copies, looks again, and drops what changed meanwhile. `raw` is 1
where the frame could not be derained in time and is as the camera gave it. The writer never waits for a reader, and
never makes the file shorter: it would kill those who read. The order of the stores is the processor's: kept on x86; on
ARM it rests on the barriers inside the interpreter, and has not been tried. A ring whose writer held a lock and lives
no more gives way to a new writer, so that a process that was killed can be started again.

The file is mapped directly: Python's own `multiprocessing.shared_memory` would remove it when any reader ends.
"""

import errno
import fcntl
import mmap
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec

MAGIC, VERSION = b"DERAINSH", 1
FIXED = struct.Struct("<8sIIII8s")
COUNT, CLOSED, LOCKED, RATE, SLOTS_AT = 32, 40, 48, 56, 64
WORD = struct.Struct("<Q")
SLOTS = 4
FOLDER = Path("/dev/shm")  # where Linux keeps POSIX shared memory


class Newest(NamedTuple):
    """A copy of a ring's newest frame; `raw` where its writer could not derain it."""

    number: int
    captured_ns: int
    image: Image
    raw: bool


class SharedFrames:
    """One end of a ring; `create` is the writer's, `attach` a reader's."""

    def __init__(self, path: Path, spec: FrameSpec, memory: mmap.mmap, lock: int | None = None) -> None:
        self.path, self._spec, self._memory, self._lock = path, spec, memory, lock
        self._bytes = int(np.prod(spec.image_shape))
        self._slot = _padded(self._bytes)

    @classmethod
    def create(cls, name: str, spec: FrameSpec, fps: float | None = None) -> Self:
        """Make the ring of a writer of `fps` frames a second, None where it has no rate of its own.

        FileExistsError where there is one of that name, OSError where memory is short.
        """
        path = _path(name)
        _remove_if_abandoned(path)
        size = SLOTS_AT + SLOTS * _padded(int(np.prod(spec.image_shape)))
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except FileExistsError as error:
            fix = ": stop it" if _is_held(path) else f", or died: `rm {path}`"
            raise FileExistsError(f"{path}: exists: another program writes to it{fix}") from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            os.posix_fallocate(descriptor, 0, size)  # unlike ftruncate: a page that is short later kills with SIGBUS
            memory = mmap.mmap(descriptor, size)
        except OSError as error:
            path.unlink()
            os.close(descriptor)
            raise OSError(
                f"{path}: {size} bytes of shared memory: {error.strerror}: give {FOLDER} more (docker: --shm-size)"
            ) from error
        WORD.pack_into(memory, LOCKED, 1)
        WORD.pack_into(memory, RATE, round(1000 * (fps or 0)))
        memory[8 : FIXED.size] = FIXED.pack(*_header(spec))[8:]
        memory[:8] = MAGIC  # last: it makes the header valid
        return cls(path, spec, memory, descriptor)

    @classmethod
    def attach(cls, name: str, spec: FrameSpec) -> Self:
        """Open a ring; OSError where there is none yet, ValueError where its frames are not `spec`'s."""
        path = _path(name)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such shared memory: start the program that writes it first")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) if size >= SLOTS_AT else None
        finally:
            os.close(descriptor)
        if memory is None or not any(memory[: len(MAGIC)]):
            raise OSError(f"{path}: {size} bytes, no frames yet: is its writer still starting?")
        seen, expected = FIXED.unpack_from(memory), _header(spec)
        if seen != expected:
            raise ValueError(f"{path}: holds {_told(seen)}, expected {_told(expected)}: start its writer accordingly")
        if WORD.unpack_from(memory, LOCKED) == (1,) and not _is_held(path):
            raise OSError(f"{path}: its writer died: start it again")
        return cls(path, spec, memory)

    def publish(self, image: Image, captured_ns: int, raw: bool = False) -> None:
        """Write a frame, uint8 in `spec.image_shape`, over the oldest."""
        number = self.published
        at = SLOTS_AT + number % SLOTS * self._slot
        WORD.pack_into(self._memory, at, 2 * number + 1)
        WORD.pack_into(self._memory, at + 8, captured_ns)
        WORD.pack_into(self._memory, at + 16, raw)
        np.frombuffer(self._memory, np.uint8, self._bytes, at + 64)[:] = image.reshape(-1)
        WORD.pack_into(self._memory, at, 2 * number + 2)
        WORD.pack_into(self._memory, COUNT, number + 1)

    def newest(self) -> Newest | None:
        """The newest frame; None where there is none, or it was overwritten."""
        number = self.published - 1
        if number < 0:
            return None
        at = SLOTS_AT + number % SLOTS * self._slot
        before = self._word(at)
        captured_ns, raw = self._word(at + 8), self._word(at + 16) != 0
        image = np.frombuffer(self._memory, np.uint8, self._bytes, at + 64).reshape(self._spec.image_shape).copy()
        if before != 2 * number + 2 or self._word(at) != before:
            return None
        return Newest(number, captured_ns, image, raw)

    @property
    def published(self) -> int:
        """How many frames were written so far."""
        return self._word(COUNT)

    @property
    def fps(self) -> float | None:
        """The writer's frames a second, to a thousandth, where it has a rate and told it."""
        return self._word(RATE) / 1000 or None

    @property
    def closed(self) -> bool:
        """Whether the writer has closed."""
        return self._word(CLOSED) != 0

    def close(self) -> None:
        """Let go; a writer marks the ring as closed and removes its name."""
        lock, self._lock = self._lock, None
        if lock is not None:
            WORD.pack_into(self._memory, CLOSED, 1)
            if _is_at(lock, self.path):  # else another program has put a newer one there
                self.path.unlink(missing_ok=True)
            os.close(lock)
        self._memory.close()

    def _word(self, at: int) -> int:
        word: int = WORD.unpack_from(self._memory, at)[0]
        return word


def wait_for_newer(frames: SharedFrames, than: int, timeout_s: float) -> bool:
    """Wait until more than `than` frames were published, looking twice a millisecond."""
    end = time.monotonic() + timeout_s
    while frames.published <= than:
        if frames.closed or time.monotonic() >= end:
            return False
        time.sleep(0.0005)
    return True


def _remove_if_abandoned(path: Path) -> None:
    """Remove a ring whose writer held a lock and lives no more; its readers are told."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        head = os.pread(descriptor, SLOTS_AT, 0)
        if len(head) < SLOTS_AT or not head.startswith(MAGIC) or WORD.unpack_from(head, LOCKED) != (1,):
            return
        if not _lock_dead(descriptor):
            return
        if _is_at(descriptor, path):  # nobody else was faster
            os.pwrite(descriptor, WORD.pack(1), CLOSED)
            path.unlink()
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    finally:
        os.close(descriptor)


def _lock_dead(descriptor: int) -> bool:
    """Take the lock that a dead writer left; one that a reader tries meanwhile is free again in no time."""
    for _ in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        else:
            return True
    return False


def _is_held(path: Path) -> bool:
    """Whether a writer that lives is known to hold a ring's lock; one that may not be read, or just gone, is not."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still names an open file."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _path(name: str) -> Path:
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"shm://{name}: expected a name without slashes, such as shm://front-camera")
    return FOLDER / name


def _header(spec: FrameSpec) -> tuple[bytes, int, int, int, int, bytes]:
    return MAGIC, VERSION, SLOTS, spec.width, spec.height, spec.pixels.encode().ljust(8, b"\0")


def _told(header: tuple[bytes, int, int, int, int, bytes]) -> str:
    magic, version, slots, width, height, pixels = header
    words = f"version {version}, {slots} slots of {width}x{height} {pixels.rstrip(bytes(1)).decode('ascii', 'replace')}"
    return words if magic == MAGIC else f"something else ({magic!r})"


def _padded(size: int) -> int:
    return 64 + -(-size // 64) * 64
