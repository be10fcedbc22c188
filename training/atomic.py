"""Files that appear whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk or a quota has no room left."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its place, force it to the disk and rename it: a kill at any moment leaves old or new whole.

    Raises:
        OSError: the disk is full or refuses the write; it names the file, and what was at `path` is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    with _told_of(path, len(data), "; the one before it is kept" if path.exists() else ""):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def append_text(path: Path, text: str) -> None:
    """Add to the end of a file, in UTF-8, all of it or nothing; errors as `write_bytes`."""
    data, size = text.encode(), path.stat().st_size
    with _told_of(path, len(data), "; what it held is kept"):
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError:
            os.truncate(path, size)
            raise


@contextmanager
def naming_the_run(out: Path) -> Iterator[None]:
    """A full disk, wherever in a run it was met, ends in one line with the file and how to go on behind the mend."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            fault = f"{error.filename or out}: {error.strerror}"
            raise OSError(f"{fault}: free space on its disk, then go on with --resume {out}") from error
        raise


@contextmanager
def _told_of(path: Path, size: int, kept: str) -> Iterator[None]:
    """Writing to an open file names none in its error: name it, and say what is left of it."""
    try:
        yield
    except OSError as error:
        fault = f"{size:,} bytes cannot be written: {error.strerror}{kept}"
        raise OSError(error.errno, fault, str(path)) from error
