"""Where the images for training and evaluation lie."""

import os
from pathlib import Path


def data_root() -> Path | None:
    """The folder that DERAIN_DATA names, or None to leave the configuration's own."""
    named = os.environ.get("DERAIN_DATA")
    return Path(named) if named else None
