"""The layouts that the deraining data sets come in.

Which part of a set is for training and which for testing is fixed by the name of its folder or list: see `SPLITS`.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from derain.training.data import PairsConfig
from derain.training.readers import Pair, PairFiles, matched, numbered, read_clips, stem

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


def find_pairs(root: Path, config: PairsConfig) -> list[PairFiles]:
    """The pairs of a set that lies in files of their own (not "clips"), sorted by name.

    Raises:
        FileNotFoundError: the set or its split is not there.
        ValueError: the first file without a partner, or several that may be the split.
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
    found = [
        file for name in names for file in sorted(place.rglob(name)) if not others & set(file.relative_to(place).parts)
    ]
    if not found:
        raise FileNotFoundError(f"no {' or '.join(names)} in {str(place)!r}: expected the layout {config.layout!r}")
    first = found[0]
    apart = [file for file in found if not (file.is_relative_to(first) or first.is_relative_to(file))]
    if apart:
        several = ", ".join(str(file.relative_to(place)) for file in (first, *apart))
        raise ValueError(
            f"{place} holds {several}, expected one {config.split} split of layout {config.layout!r}: name one of them "
            "as `path`, or each as a set of its own"
        )
    return first


def _qian(place: Path, _: PairsConfig) -> list[PairFiles]:
    rainy, clean = place / "data", place / "gt"
    found = matched(numbered(rainy, _number), numbered(clean, _number), rainy, clean)
    return [PairFiles(pair.name, pair.rainy, pair.clean, pair.rainy) for pair in found]


def _rain100(place: Path, _: PairsConfig) -> list[PairFiles]:
    rainy = next((place / name for name in ("rain/X2", "rain", "rainy", "input") if (place / name).is_dir()), place)
    clean = next((place / name for name in ("norain", "target", "gt") if (place / name).is_dir()), place)
    left, right = numbered(rainy, _number, beside=clean), numbered(clean, _number, beside=rainy, clean=True)
    return [PairFiles(pair.name, pair.rainy, pair.clean, pair.clean) for pair in matched(left, right, rainy, clean)]


def _rainds(place: Path, _: PairsConfig) -> list[PairFiles]:
    def scene(file: Path) -> str:
        return ("pie-" if file.stem.startswith("pie-") else "") + _number(file)

    clean = numbered(place / "gt", scene)
    pairs = []
    only = numbered(place / "raindrop", scene)
    for kind in ("raindrop", "rainstreak", "rainstreak_raindrop"):
        for pair in matched(numbered(place / kind, scene), clean, place / kind, place / "gt"):
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
    rainy, clean = (numbered(place / name, stem) for name in ("rainy", "clean"))
    drops = numbered(place / "drops", stem) if (place / "drops").is_dir() else None
    pairs = []
    for pair in matched(rainy, clean, place / "rainy", place / "clean"):
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


def _number(file: Path) -> str:
    """The first number of a name: 7 of 7_rain, rain-007, norain-7x2."""
    found = re.search(r"\d+", file.stem)
    if found is None:
        raise ValueError(f"{file} has no number in its name: expected one that says which pair it is of")
    return str(int(found[0]))


def _one_clip(folder: Path, name: str) -> Path:
    found = sorted(file for file in folder.glob(f"{name}.*") if file.is_file())
    if len(found) != 1:
        raise FileNotFoundError(f"{len(found)} files {str(folder / name)!r}.*: expected one clip of that name")
    return found[0]
