"""Files and folders that appear whole or not at all: written under a temporary name beside the target, then renamed."""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux's fcntl.h and fs.h."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk or a quota has no room left."""


def temporary_beside(path: Path) -> Path:
    """A hidden, unused name in `path`'s folder with `path`'s suffix, so that a rename onto `path` is atomic."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")


def is_node(path: Path) -> bool:
    """Whether a device, FIFO or socket is there, which a rename would take from everyone who uses it.

    Asked of the path as given: where /dev/stdout is a pipe, what it leads to has no name.
    """
    return path.exists() and not path.is_file() and not path.is_dir()


def check_place(path: Path) -> None:
    """Raise OSError where `write_bytes` could not write to `path`: a folder, or behind a file, or not allowed."""
    if is_node(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} cannot be written to: name another place")
        return
    path = behind_links(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")
    _check_parents(path)


def check_directory_place(path: Path) -> None:
    """Raise OSError where `new_directory` could not put a folder at `path`: as for a file, at a mount point, or where
    this process stands in the folder that would be replaced, which would leave its shell in one that is gone."""
    path = behind_links(path)
    _check_parents(path)
    if os.path.ismount(path):
        raise FileExistsError(f"{path} is a mount point, which cannot be replaced: name a folder in it")
    if path.is_dir() and Path.cwd().resolve().is_relative_to(path):
        raise FileExistsError(
            f"{path} would be replaced while the current folder lies in it: run it from outside, as from {path.parent}"
        )


def _check_parents(path: Path) -> None:
    nearest = next(folder for folder in path.parents if folder.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file, so {path} cannot be made: name another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{nearest} cannot be written to: name another place for {path.name}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, making its folder, by atomic rename: a reader sees the old file or the new one whole.

    A device, FIFO or socket is written into.
    """
    check_place(path)
    if is_node(path):
        with _full_disk_told_of(path):
            path.write_bytes(data)
        return
    path = behind_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with _full_disk_told_of(path):
            temporary.write_bytes(data)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes `path`'s place when the block ends well and vanishes when it does not.

    A folder that was at `path` changes places with it in one step and is removed after it; on file systems that cannot,
    it is moved aside before. Raises OSError as `check_directory_place`.
    """
    check_directory_place(path)
    path = behind_links(path)
    temporary, aside = temporary_beside(path), temporary_beside(path)
    temporary.mkdir(parents=True)
    try:
        with _full_disk_told_of(path):
            yield temporary
        if path.exists() and _exchange(temporary, path):
            return
        if path.exists():
            path.rename(aside)
        try:
            temporary.rename(path)
        except OSError:
            if aside.exists():
                aside.rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names at once, as Linux's renameat2 does; False where the system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return renameat2 is not None and renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0


def behind_links(path: Path) -> Path:
    """Where a link points, and "." by its name: what is renamed onto is the file or folder itself."""
    return Path(os.path.realpath(path))


@contextmanager
def _full_disk_told_of(path: Path) -> Iterator[None]:
    """A full disk is told of `path`: a write to an open file names none, and a copy the file it reads."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            error.filename, error.filename2 = str(path), None
        raise
