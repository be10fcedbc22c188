"""Which names of files OpenCV can be told."""

import os
from pathlib import Path


def check_name(path: Path) -> None:
    """Raise ValueError where a file's path is not UTF-8: OpenCV would end the process with a segmentation fault."""
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise ValueError(f"{shown}: its name is not UTF-8: rename it") from error
