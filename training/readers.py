"""Pairs of rainy and clean pictures on disk, in the layouts that the deraining data sets come in.

Which part of a set is for training and which for testing is fixed by the name of its folder or list: see `SPLITS`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as Header

from derain.training.data import PairsConfig, list_images, read_rgb

Image = NDArray[np.uint8]

SPLITS: dict[str, dict[str, tuple[str, ...]]] = {
    # Qian et al. 2018, real drops: train/data/N_rain.png beside train/gt/N_clean.png; 861 pairs, test_a 58, test_b 249
    "qian": {"train": ("train",), "test": ("test_a",), "test_b": ("test_b",)},
    # Yang et al. 2017, Rain100H and Rain100L: rain/X2/norain-Nx2.png beside norain/norain-N.png as published;
    # rainy/rain-N.png or rain-N.png beside norain-N.png as PReNet repacked it; input and target or gt by others
    "rain100": {
        "train": ("rain_data_train_Heavy", "rain_data_train_Light", "RainTrainH", "RainTrainL", "train"),
        "test": ("rain_data_test_Heavy", "rain_heavy_test", "rain_data_test_Light", "Rain100H", "Rain100L", "test"),
    },
    # Quan et al. 2021: gt, raindrop, rainstreak, rainstreak_raindrop; real: N.png in each; rendered: [pie-]norain-N,
    # [pie-]rd-N, [pie-]rain-N, [pie-]rd-rain-N.png
    "rainds": {"train": ("train_set", "train"), "test": ("test_set", "test")},
    # Wang et al. 2019, SPA-Data: a list with a line "/rainy/path /clean/path" a pair, both below the list's folder
    "spa": {"train": ("real_world.txt",), "test": ("real_test_1000.txt",)},
}
"""For each layout, what its splits may be called on disk; "folders" and "clips" have one part and no split."""


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


def find_pairs(root: Path, config: PairsConfig) -> list[PairFiles]:
    """The pairs of a set that lies in files of their own (not "clips"), sorted by name.

    Raises:
        FileNotFoundError: the set or its split is not there.
        ValueError: the first file without a partner.
    """
    place = _split_place(root / config.path, config)
    pairs = _FINDERS[config.layout](place, config)
    return sorted(pairs, key=lambda pair: pair.name)


def list_set(root: Path, config: PairsConfig) -> list[Pair] | list[PairFiles]:
    """The pairs of any set, to be read at random: files that are decoded when used, or a clip's frames, in memory."""
    return list(read_set(root, config)) if config.layout == "clips" else find_pairs(root, config)


def read_set(root: Path, config: PairsConfig) -> Iterator[Pair]:
    """The pairs of any set, decoded one by one; errors as `find_pairs` and `read_pairs`."""
    if config.layout != "clips":
        for files in find_pairs(root, config):
            yield files.read()
        return
    clips = [_one_clip(root / config.path, name) for name in ("rainy", "clean")]
    for pair in read_clips(*clips):
        yield Pair(pair.name, pair.rainy, pair.clean, pair.rainy if config.kind == "drops" else pair.clean)


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
    for files in _match(_numbered(rainy, _stem), _numbered(clean, _stem), rainy, clean):
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
    if strengths := note.get("strengths"):  # JRSRD: N_rain_0, N_rain_1 and so on
        told = {str(number): f"strength {strength:.2g}" for number, strength in enumerate(strengths)}
        return lambda name: told.get(name.rpartition("_")[2], "")
    return lambda name: "strength drawn" if strength is None else f"strength {strength:g}"


def read_clips(rainy: Path, clean: Path) -> Iterator[Pair]:
    """The pairs of two clips, frame by frame.

    Raises:
        ValueError: a clip cannot be opened, they are of unlike size, or one ends before the other.
    """
    for index, (wet, dry) in enumerate(zip_longest(_frames(rainy), _frames(clean))):
        if wet is None or dry is None:
            shorter, longer = (rainy, clean) if wet is None else (clean, rainy)
            raise ValueError(f"{shorter} ends after {index} frames, {longer} does not: expected one number of frames")
        if wet.shape != dry.shape:
            raise ValueError(
                f"{rainy} is {_size(wet.shape)} and {clean} {_size(dry.shape)}: expected clips of one size"
            )
        yield Pair(f"{index:06d}", wet, dry)


def _split_place(place: Path, config: PairsConfig) -> Path:
    names = SPLITS.get(config.layout, {}).get(config.split)
    if config.layout not in SPLITS:
        return place
    if names is None:
        raise ValueError(f"layout {config.layout!r} has no split {config.split!r}: {sorted(SPLITS[config.layout])}")
    others = {name for split in SPLITS[config.layout].values() for name in split} - set(names)
    if place.name in names:
        return place
    if place.name in others:
        raise ValueError(f"{place} is not the {config.split} split of layout {config.layout!r}: expected {names[0]!r}")
    for name in names:
        found = sorted(file for file in place.rglob(name) if not others & set(file.relative_to(place).parts))
        if found:
            return found[0]
    raise FileNotFoundError(f"no {' or '.join(names)} in {str(place)!r}: expected the layout {config.layout!r}")


def _qian(place: Path, _: PairsConfig) -> list[PairFiles]:
    rainy, clean = place / "data", place / "gt"
    found = _match(_numbered(rainy, _number), _numbered(clean, _number), rainy, clean)
    return [PairFiles(pair.name, pair.rainy, pair.clean, pair.rainy) for pair in found]


def _rain100(place: Path, _: PairsConfig) -> list[PairFiles]:
    rainy = next((place / name for name in ("rain/X2", "rain", "rainy", "input") if (place / name).is_dir()), place)
    clean = next((place / name for name in ("norain", "target", "gt") if (place / name).is_dir()), place)
    left, right = _numbered(rainy, _number, beside=clean), _numbered(clean, _number, beside=rainy, clean=True)
    return [PairFiles(pair.name, pair.rainy, pair.clean, pair.clean) for pair in _match(left, right, rainy, clean)]


def _rainds(place: Path, _: PairsConfig) -> list[PairFiles]:
    def scene(file: Path) -> str:
        return ("pie-" if file.stem.startswith("pie-") else "") + _number(file)

    clean = _numbered(place / "gt", scene)
    pairs = []
    only = _numbered(place / "raindrop", scene)
    for kind in ("raindrop", "rainstreak", "rainstreak_raindrop"):
        for pair in _match(_numbered(place / kind, scene), clean, place / kind, place / "gt"):
            drops = {"raindrop": pair.rainy, "rainstreak": pair.clean}.get(kind) or only[pair.name]
            pairs.append(PairFiles(f"{kind}/{pair.name}", pair.rainy, pair.clean, drops))
    return pairs


def _spa(place: Path, _: PairsConfig) -> list[PairFiles]:
    pairs = []
    for number, line in enumerate(place.read_text().splitlines(), 1):
        files = [place.parent / part.lstrip("/") for part in line.split()]
        if len(files) != 2:
            raise ValueError(f"{place}, line {number} is {line!r}: expected the rainy file and the clean one")
        for file in files:
            if not file.is_file():
                raise ValueError(f"{place}, line {number} names {file}, which is not there: fetch it or drop the line")
        pairs.append(PairFiles(str(files[0].relative_to(place.parent)), files[0], files[1], files[1]))
    return pairs


def _folders(place: Path, config: PairsConfig) -> list[PairFiles]:
    """`derain synthesize`'s own: rainy and clean, and drops where it made them."""
    rainy, clean = (_numbered(place / name, _stem) for name in ("rainy", "clean"))
    drops = _numbered(place / "drops", _stem) if (place / "drops").is_dir() else None
    pairs = []
    for pair in _match(rainy, clean, place / "rainy", place / "clean"):
        if drops is not None and pair.name not in drops:
            raise ValueError(f"{pair.rainy} has no partner of that name in {place / 'drops'}: expected one in each")
        known = pair.rainy if config.kind == "drops" else pair.clean
        pairs.append(PairFiles(pair.name, pair.rainy, pair.clean, known if drops is None else drops[pair.name]))
    return pairs


_FINDERS: dict[str, Callable[[Path, PairsConfig], list[PairFiles]]] = {
    "qian": _qian,
    "rain100": _rain100,
    "rainds": _rainds,
    "spa": _spa,
    "folders": _folders,
}


def _stem(file: Path) -> str:
    return file.stem


def _number(file: Path) -> str:
    """The first number of a name: 7 of 7_rain, rain-007, norain-7x2."""
    found = re.search(r"\d+", file.stem)
    if found is None:
        raise ValueError(f"{file} has no number in its name: expected one that says which pair it is of")
    return str(int(found[0]))


def _numbered(
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


def _match(left: dict[str, Path], right: dict[str, Path], rainy: Path, clean: Path) -> list[PairFiles]:
    for name in sorted(left.keys() ^ right.keys()):
        here, there = (left[name], clean) if name in left else (right[name], rainy)
        raise ValueError(f"{here} has no partner of that name in {there}: expected one file a pair in each folder")
    return [PairFiles(name, left[name], right[name]) for name in sorted(left)]


def _one_clip(folder: Path, name: str) -> Path:
    found = sorted(file for file in folder.glob(f"{name}.*") if file.is_file())
    if len(found) != 1:
        raise FileNotFoundError(f"{len(found)} files {str(folder / name)!r}.*: expected one clip of that name")
    return found[0]


def _frames(clip: Path) -> Iterator[Image]:
    capture = cv2.VideoCapture(str(clip))
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
    """Height and width as the file will be decoded: turned as its EXIF orientation says."""
    try:
        with Header.open(file) as header:
            width, height = header.size
            exif = Header.Exif()  # `getexif` decodes the whole of a PNG that has none
            if "exif" in header.info:
                exif.load(header.info["exif"])
            turned = exif.get(ExifTags.Base.Orientation, 1) >= 5
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} is no image that can be decoded: replace it or take its pair out") from error
    return (width, height) if turned else (height, width)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
