"""Files that a verb writes when its work is done."""

from pathlib import Path


def to_write(path: Path | None) -> Path | None:
    """Callback of an option that names such a file: where none can appear is told before the work, not after it.

    Raises OSError.
    """
    if path is not None:
        from derain.runtime.atomic import check_place

        check_place(path)
    return path
