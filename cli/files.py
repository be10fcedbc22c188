"""Files that a verb writes when its work is done."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel

if TYPE_CHECKING:
    from derain.runtime.bundle import Bundle


def writable_path(path: Path | None) -> Path | None:
    """Callback of an option that names such a file: where none can appear is told before the work, not after it.

    Raises OSError.
    """
    if path is not None:
        from derain.runtime.atomic import check_place

        check_place(path)
    return path


STDOUT = Path("-")


def json_path(context: typer.Context, path: Path | None) -> Path | None:
    """Callback of --json: as `writable_path`, and of "-" stdout, where everything else is told on stderr then."""
    if path != STDOUT:
        return writable_path(path)
    context.with_resource(redirect_stdout(sys.stderr))
    return path


def local(uri: str) -> Path | None:
    """The file or folder that a source's or a sink's URI names; None for any other kind."""
    scheme, colon, location = uri.partition(":")
    if scheme in ("file", "frames") and colon:
        return Path(location.removeprefix("//"))
    return None if "://" in uri else Path(uri)


def files_of(bundle: "Bundle") -> list[Path]:
    """A bundle's folder and its own files, which no verb that reads it may write to by another option."""
    return [bundle.path, *(bundle.path / name for name in bundle.names())]


def refuse_overwriting(written: Mapping[str, Path | None], read: Iterable[Path | None]) -> None:
    """Raise ValueError where a file that an option names for writing is read too, or named twice: one would be lost."""
    from derain.runtime.atomic import is_node

    outputs = {option: path for option, path in written.items() if path is not None and not is_node(path)}
    inputs = [path for path in read if path is not None]
    for option, path in outputs.items():
        if any(_same(path, other) for other in inputs):
            raise ValueError(f"{path}: is read by this run, which would replace it: give another {option}")
    for (option, path), (other, beside) in combinations(outputs.items(), 2):
        if _same(path, beside):
            raise ValueError(f"{path}: is named by {option} and by {other}, expected a file each: give another {other}")


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def write_json(path: Path | None, value: Any) -> None:
    """Write plain values or a report as JSON, by atomic rename or to stdout; nothing where no path was given.

    JSON has no infinity, as the PSNR of equal images is: a number that is not finite is null.
    """
    from derain.cli.console import Console
    from derain.runtime.atomic import write_bytes

    if path is None:
        return
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else _plain(value)
    text = json.dumps(plain, indent=2) + "\n"
    if path == STDOUT:
        Console(file=sys.__stdout__).out(text, end="", highlight=False)
    else:
        write_bytes(path, text.encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
