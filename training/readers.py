"""Pairs of rainy and clean pictures on disk: two folders, groups of folders, or two clips."""

import json
import logging
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice, zip_longest
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as Header

from derain.training.data import list_images, read_rgb

Image = NDArray[np.uint8]

log = logging.getLogger(__name__)

STILL = 10
"""Frames of a clip that are the same to the last bit, from the first on: a camera's are not."""


@dataclass(frozen=True)
class Pair:
    """A rainy image and its truth, RGB uint8 [H, W, 3] of one size; and the image with drops only, where known.

    `group` is what its scores are averaged with: an intensity of rain, a sub-folder, or nothing.
    """

    name: str
    rainy: Image
    clean: Image
    drops: Image | None = None
    group: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """[H, W, 3] of its images."""
        return self.clean.shape

    def truth(self) -> Image:
        """The clean image."""
        return self.clean

    def read(self) -> "Pair":
        """Itself: it is decoded already."""
        return self


@dataclass(frozen=True)
class PairFiles:
    """Where a pair lies. `drops`: the image with drops only; the rainy one itself, or the clean one, in many sets."""

    name: str
    rainy: Path
    clean: Path
    drops: Path | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[H, W, 3] of its images, from the files' headers; errors as `read`."""
        size = _header_size(self.rainy)
        for file in {self.clean, self.drops or self.clean} - {self.rainy}:
            self._expect_one_size(file, size, _header_size(file))
        return *size, 3

    def truth(self) -> Image:
        """The clean image alone, decoded."""
        return read_rgb(self.clean)

    def read(self) -> Pair:
        """Decode the files.

        Raises:
            ValueError: a file is broken, or they are of unlike size.
        """
        rainy, clean = read_rgb(self.rainy), read_rgb(self.clean)
        known = {self.rainy: rainy, self.clean: clean}
        drops = None if self.drops is None else known[self.drops] if self.drops in known else read_rgb(self.drops)
        for file, image in ((self.clean, clean), (self.drops, drops)):
            if image is not None and file is not None:
                self._expect_one_size(file, rainy.shape, image.shape)
        return Pair(self.name, rainy, clean, drops)

    def _expect_one_size(self, file: Path, rainy: tuple[int, ...], other: tuple[int, ...]) -> None:
        if rainy != other:
            raise ValueError(f"{self.rainy} is {_size(rainy)} and {file} {_size(other)}: expected one size a pair")


@dataclass(frozen=True)
class ImageFile:
    """Where an image lies that is decoded when it is due."""

    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """[H, W, 3], from the file's header; errors as `read`."""
        return *_header_size(self.path), 3

    def read(self) -> Image:
        """Decode it; ValueError where it is broken."""
        return read_rgb(self.path)


def decoded(files: Iterable[Path], room: float) -> Iterator[Image | ImageFile]:
    """The images, as far as `room` bytes hold them, and the files of those beyond; all cores decode."""
    found = [ImageFile(path) for path in files]
    held = [end <= room for end in accumulate(math.prod(file.shape) for file in found)]
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda file, fits: file.read() if fits else file, found, held)


def read_pairs(rainy: Path, clean: Path) -> Iterator[Pair]:
    """The pairs of two folders, matched by file name without its suffix, in sorted order; or of two clips.

    Raises:
        FileNotFoundError: a folder that is missing or empty.
        ValueError: the first file without a partner, or the first pair of two sizes.
    """
    if rainy.is_file() and clean.is_file():
        yield from read_clips(rainy, clean)
        return
    group = intensities(rainy)
    for files in matched(numbered(rainy, stem), numbered(clean, stem), rainy, clean):
        yield replace(files.read(), group=group(files.name))


def read_groups(rainy: Path, clean: Path) -> Iterator[Pair]:
    """The pairs of every sub-folder of `rainy`, each a group, sorted.

    A sub-folder's truths are in the one of its name in `clean`, or in `clean` itself for all of them; where
    `derain synthesize` made it, it holds both.

    Raises:
        FileNotFoundError: no sub-folders, or one without images.
        ValueError: see `read_pairs`.
    """
    groups = sorted(folder for folder in rainy.iterdir() if folder.is_dir()) if rainy.is_dir() else []
    if not groups:
        raise FileNotFoundError(f"no sub-folders in {str(rainy)!r}: expected one for each group of rainy images")
    for folder in groups:
        if (folder / "rainy").is_dir():
            pairs = read_pairs(folder / "rainy", folder / "clean")
        else:
            truths = clean / folder.name
            pairs = read_pairs(folder, truths if truths.is_dir() else clean)
        for pair in pairs:
            name = f"{folder.name}/{pair.name}"
            yield replace(pair, name=name, group=folder.name if pair.group == "" else f"{folder.name}, {pair.group}")


def intensities(folder: Path) -> Callable[[str], str]:
    """By name, the rain of a folder's images as the rain.json of `derain synthesize` says: "strength 0.5"; else "".

    A file of that name that `derain synthesize` did not write says nothing of them.
    """
    file = folder.parent / "rain.json"
    try:
        note = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError:
        note = {}
    config = note.get("config") if isinstance(note, dict) and "derain" in note else None
    strength = config.get("strength") if isinstance(config, dict) else ""
    if not (strength is None or isinstance(strength, (int, float))):
        return lambda name: ""
    strengths = note.get("strengths", [])  # JRSRD: N_rain_0, N_rain_1 and so on
    if not (isinstance(strengths, list) and all(isinstance(number, (int, float)) for number in strengths)):
        return lambda name: ""
    if strengths:
        told = {str(number): f"strength {strength:.2g}" for number, strength in enumerate(strengths)}
        return lambda name: told.get(name.rpartition("_")[2], "")
    return lambda name: "strength drawn" if strength is None else f"strength {strength:g}"


def read_clips(rainy: Path, clean: Path) -> Iterator[Pair]:
    """The pairs of two clips, frame by frame.

    Raises:
        ValueError: a clip cannot be opened, they are of unlike size, or one ends before the other.
    """
    clips = (told_if_still(_frames(clip), clip) for clip in (rainy, clean))
    for index, (wet, dry) in enumerate(zip_longest(*clips)):
        if wet is None or dry is None:
            shorter, longer = (rainy, clean) if wet is None else (clean, rainy)
            raise ValueError(f"{shorter} ends after {index} frames, {longer} does not: expected one number of frames")
        if wet.shape != dry.shape:
            raise ValueError(
                f"{rainy} is {_size(wet.shape)} and {clean} {_size(dry.shape)}: expected clips of one size"
            )
        yield Pair(f"{index:06d}", wet, dry)


def stem(file: Path) -> str:
    """A file's key where a pair's files share their name."""
    return file.stem


def numbered(
    folder: Path, key: Callable[[Path], str], beside: Path | None = None, clean: bool = False
) -> dict[str, Path]:
    """The images of a folder by their key; `beside` the same folder, only those called norain, or not, by `clean`."""
    files: dict[str, Path] = {}
    for file in list_images(folder):
        if beside == folder and file.stem.startswith("norain") != clean:
            continue
        name = key(file)
        if files.setdefault(name, file) is not file:
            raise ValueError(f"{file} and {files[name].name} have one name: expected one file a pair; remove one")
    return files


def matched(left: dict[str, Path], right: dict[str, Path], rainy: Path, clean: Path) -> list[PairFiles]:
    """The pairs of two folders' images by their keys; ValueError where one has no partner."""
    for name in sorted(left.keys() ^ right.keys()):
        here, there = (left[name], clean) if name in left else (right[name], rainy)
        raise ValueError(f"{here} has no partner of that name in {there}: expected one file a pair in each folder")
    return [PairFiles(name, left[name], right[name]) for name in sorted(left)]


def check_name(path: Path) -> None:
    """Raise ValueError where a clip's path is not UTF-8: OpenCV would end the process with a segmentation fault."""
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise ValueError(f"{shown}: its name is not UTF-8: rename it") from error


def told_if_still(frames: Iterator[Image], clip: Path) -> Iterator[Image]:
    """The frames as they come; a warning where they begin with STILL times the same one.

    OpenCV from 4.13 on does not convert interlaced frames and does not say so; it gives the one before, or black.
    """
    first = list(islice(frames, STILL))
    if len(first) == STILL and all(np.array_equal(first[0], frame) for frame in first[1:]):
        log.warning(
            "%s: its first %d frames are all the same: if it is interlaced, deinterlace it, as by "
            "`ffmpeg -i … -vf yadif …`: OpenCV from 4.13 on does not convert it", clip, STILL,
        )  # fmt: skip
    yield from chain(first, frames)


def _frames(clip: Path) -> Iterator[Image]:
    check_name(clip)
    capture = cv2.VideoCapture(str(clip.absolute()))
    if not capture.isOpened():
        raise ValueError(f"{clip} cannot be opened as a video clip: copy it again, or re-encode it")
    try:
        while True:
            more, frame = capture.read()
            if not more:
                return
            yield np.ascontiguousarray(frame[..., ::-1], dtype=np.uint8)
    finally:
        capture.release()


def _header_size(file: Path) -> tuple[int, int]:
    """Height and width as the file will be decoded: turned as its EXIF orientation says, where it can be read."""
    try:
        with Header.open(file) as header:
            width, height = header.size
            exif = header.info.get("exif", b"")  # `getexif` decodes the whole of a PNG that has none
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{file} is no image that can be decoded: replace it or take its pair out") from error
    return (width, height) if _turned(exif) else (height, width)


def _turned(content: bytes) -> bool:
    """Whether EXIF says that an image is to be turned by a quarter; broken EXIF says nothing, as to OpenCV."""
    exif = Header.Exif()
    try:
        exif.load(content)
        return int(exif.get(ExifTags.Base.Orientation, 1)) >= 5
    except (SyntaxError, ValueError, TypeError, struct.error):
        return False


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
