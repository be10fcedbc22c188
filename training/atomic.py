"""Files that appear whole or not at all."""

import os
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its place, force it to the disk and rename it: a kill at any moment leaves old or new whole.

    Raises:
        OSError: the disk is full or refuses the write; one line, and what was at `path` is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        kept = "; the one before it is kept" if path.exists() else ""
        fault = f"{path} ({len(data):,} bytes) cannot be written: {error.strerror}{kept}"
        raise OSError(f"{fault}; make room, then go on with --resume") from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())
