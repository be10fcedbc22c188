"""Pictures to train on: which folders, which of their files are held out, and how a file becomes a tensor."""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

HELD_OUT_EVERY = {"backgrounds/camvid": 10}
"""Folders of which every n-th file in sorted order (indices 0, n, 2n, …) is for testing only.

The place counts, so a folder must be whole: with files missing, some that others test on would be trained on.
"""

TEST_ONLY = ("rain100", "sequences/camvid_val", "sequences/solid_white_right.mp4", "real_rain")
"""Paths that are never trained on: test sets, and the clip the README reports on."""

TEST_FOLDERS = ("rain100/clean", "rain100/light", "rain100/heavy", "sequences/camvid_val", "real_rain")
"""The same by name alone, for a `data.root` that lies within them."""

TEST_FRAMES = ("CarND_LaneLines_solidWhiteCurve.jpg", "CarND_LaneLines_solidWhiteRight.jpg")
"""Photos of `backgrounds/road` that are frames of the clip."""

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class PairsConfig(BaseModel):
    """One set of rainy and clean pairs: its layout (see `layouts`), where it lies below `data.root`, which split.

    `kind` says which mask |rainy − clean| is of, for the layouts that do not say it themselves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["qian", "rain100", "rainds", "spa", "folders", "clips"]
    path: Path
    split: Literal["train", "test", "test_b"] = "train"
    kind: Literal["streaks", "drops"] = "streaks"


FOLDERS = ("backgrounds/bsds", "backgrounds/camvid", "backgrounds/road", "sequences/kitti_0926")
"""Where the clean frames lie that the weights that ship were trained on."""


class DataConfig(BaseModel):
    """Folders of clean frames under `root`, or real pairs in their place, and the patch cut from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path = Path("../shared/data")
    folders: tuple[str, ...] = Field(FOLDERS, min_length=1)
    validation: str = "backgrounds/camvid"
    pairs: tuple[PairsConfig, ...] = ()
    """Sets of real pairs to train on instead of rain rendered over `folders`."""
    validation_pairs: PairsConfig | None = None
    """A set of real pairs to validate on instead of rain rendered over `validation`."""
    patch: int = Field(112, ge=16)
    memory_gib: float = Field(8, ge=0)
    """Clean frames stay decoded in so much memory; those beyond are decoded each time a patch of theirs is due."""


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in sorted order.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(f"no images in {str(folder)!r}: expected a folder of {', '.join(sorted(IMAGES))} files")
    return files


def training_files(config: DataConfig) -> list[Path]:
    """Every file the configuration trains on: its folders less what is held out.

    Raises:
        ValueError: a folder that is for testing only.
    """
    files: list[Path] = []
    for folder in config.folders:
        refuse_test_only(config, folder, "data.folders")
        every = _held_out_every(config, folder)
        files += [f for i, f in enumerate(list_images(config.root / folder)) if every is None or i % every]
    for file in files:
        if file.is_symlink():  # git-annex, DVC and caches of downloads keep links for files
            refuse_test_only(config, str(file.resolve()), "data.folders")
    return [file for file in files if file.name not in TEST_FRAMES]


def refuse_test_only(config: DataConfig, folder: str, key: str) -> None:
    """Raise ValueError if a path to train on is, holds or lies in one of `TEST_ONLY`, however it is spelt."""
    whole = _resolved(config, folder)
    below_root = whole != _resolved(config, ".")  # of the root itself it counts what is there
    for test in TEST_ONLY:
        there = _resolved(config, test)
        holds = there.is_relative_to(whole) and (below_root or there.exists())
        if whole.is_relative_to(there) or holds:
            raise ValueError(f"{key} names {folder!r}, but {test!r} is for testing only: take it out")
    for test in TEST_FOLDERS:
        if f"/{test}/" in f"{whole.as_posix()}/":
            raise ValueError(f"{key} names {folder!r}, which lies in {test!r}, for testing only: take it out")


def held_out_files(config: DataConfig) -> list[Path]:
    """The held-out files of the validation folder, all of it where none of it is trained on.

    Raises:
        ValueError: all of the folder is trained on, or it is not there beside real pairs.
    """
    if config.pairs and not (config.root / config.validation).is_dir():
        raise ValueError(
            f"data.validation names {config.validation!r}, which is not below {config.root}: hold real pairs out "
            "(data.validation_pairs), or name a folder of clean frames"
        )
    every = _held_out_every(config, config.validation)
    trained = {_resolved(config, folder) for folder in config.folders}
    if every is None and _resolved(config, config.validation) in trained:
        raise ValueError(f"data.validation names {config.validation!r}, which is trained on: name another folder")
    try:
        return list_images(config.root / config.validation)[::every]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data.validation: {error}") from error


def _resolved(config: DataConfig, folder: str) -> Path:
    """The folder itself, however it is spelt: a trailing slash, ".." or a link must not let test images in."""
    return (config.root / folder).resolve()


def _held_out_every(config: DataConfig, folder: str) -> int | None:
    whole = _resolved(config, folder)
    for held, every in HELD_OUT_EVERY.items():  # by name too, for a `data.root` that lies above or within
        if whole == _resolved(config, held) or whole.as_posix().endswith(f"/{held}"):
            return every
    return None


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image as RGB uint8 [H, W, 3].

    Raises:
        ValueError: the file cannot be decoded, or ends early.
    """
    data = path.read_bytes()
    # OpenCV decodes a JPEG that ends early and leaves the rest grey: look for the end marker in the file's second half.
    short = data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[len(data) // 2 :]
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image = None if short or not data else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError(f"{path} cannot be decoded as a whole image: replace it or take it out of its folder")
    if image.dtype != np.uint8:
        image = _in_8_bits(image, path)
    return np.ascontiguousarray(image[..., ::-1])


def _in_8_bits(image: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """An image of another depth as uint8; ValueError where it uses but the lowest of its 16 bits, as raw cameras do."""
    highest = image.max()
    if image.dtype != np.uint16 or 0 < highest < 1 << 12:
        raise ValueError(
            f"{path} holds {image.dtype} values up to {highest}, expected 8 bits, or 16 of which all are used: scale "
            "it to their full range"
        )
    return np.asarray(image >> 8, np.uint8)


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """RGB uint8 [H, W, 3] as float [3, H, W] in 0…1."""
    return torch.from_numpy(image).permute(2, 0, 1).float().div_(255)
