"""Files that a verb writes when its work is done."""

import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def writable_path(path: Path | None) -> Path | None:
    """Callback of an option that names such a file: where none can appear is told before the work, not after it.

    Raises OSError.
    """
    if path is not None:
        from derain.runtime.atomic import check_place

        check_place(path)
    return path


def write_json(path: Path | None, value: Any) -> None:
    """Write plain values or a report as JSON, by atomic rename; nothing where no path was given.

    JSON has no infinity, as the PSNR of equal images is: a number that is not finite is null.
    """
    from derain.runtime.atomic import write_bytes

    if path is not None:
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else _plain(value)
        write_bytes(path, (json.dumps(plain, indent=2) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
