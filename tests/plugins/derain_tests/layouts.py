"""Pairs on disk that are told apart by one grey level each."""

from pathlib import Path

import cv2
import numpy as np


def flat(value: int, width: int = 40, height: int = 30) -> np.ndarray:
    """A picture of one grey level."""
    return np.full((height, width, 3), value, np.uint8)


def write_flat(file: Path, value: int, **size: int) -> None:
    """Such a picture as a file, in a folder that is made for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), flat(value, **size))


def qian(root: Path) -> None:
    """Three splits of three pairs in the layout of that name."""
    for split, first in (("train", 10), ("test_a", 60), ("test_b", 90)):
        for number in (0, 2, 11):
            write_flat(root / split / "data" / f"{number}_rain.png", first + number)
            write_flat(root / split / "gt" / f"{number}_clean.png", 100 + first + number)
