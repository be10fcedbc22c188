"""Which names of files, cameras and windows a library can be told: OpenCV ends the process on others."""

import os
from pathlib import Path

from derain.runtime.redact import redact


def check_name(path: Path) -> None:
    """Raise ValueError where a file's path is not UTF-8."""
    _check(str(path.absolute()), "its name is not UTF-8: rename it")


def check_address(uri: str) -> None:
    """Raise ValueError where the URI of what is no file is not UTF-8."""
    _check(redact(uri), "is not UTF-8: write it in UTF-8")


def _check(text: str, fault: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(text).decode(errors="backslashreplace")
        raise ValueError(f"{shown}: {fault}") from error
