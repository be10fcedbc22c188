"""What a configuration trains on and validates on: clean frames to render rain over, or real pairs."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.training.config import TrainConfig
from derain.training.data import (
    DataConfig,
    PairsConfig,
    held_out_files,
    list_images,
    read_rgb,
    refuse_test_only,
    to_tensor,
    training_files,
)
from derain.training.layouts import find_pairs, list_set
from derain.training.patches import PairPatches, Patches, RenderedPatches
from derain.training.rain import RainConfig
from derain.training.readers import Image, Pair, PairFiles, decoded

log = logging.getLogger(__name__)

MOST_TALLER = 1.5
"""Times that images may be taller, or less tall, than the frames whose rain is rendered over them, or the rain's
`scale_jitter`, where that is more."""

TEST_SCENES = "rain100/clean"
"""Clean test images that other sets may hold too: the training half of Rain100H shares scenes with its test half."""


@dataclass(frozen=True)
class Dataset:
    """The files of a run, found but not yet read; of `pairs`, the real ones to train on, clips are."""

    data: DataConfig
    train: list[Path]
    test: list[Path]
    pairs: list[Pair | PairFiles]

    def names(self) -> dict[str, list[str]]:
        """Every training and held-out file by its name below the data's root."""
        root = self.data.root
        return {
            part: [str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files]
            for part, files in (("train", self.train), ("test", self.test))
        }

    def patches(self, config: TrainConfig, rank: int, world: int) -> Patches:
        """The batches of the whole run; clean frames are decoded now as far as the memory asked for holds them, the
        others and pairs when their turn comes.
        """
        optimiser = config.optimiser
        arguments = (optimiser.batch, config.data.patch, config.seed, 0, optimiser.iterations, rank, world)
        if not self.data.pairs:
            images = list(decoded(self.train, self.data.memory_gib * 2**30))
            _tell_of_other_heights([image.shape[0] for image in images], config.rain)
            return RenderedPatches(images, config.rain, *arguments, names=list(map(str, self.train)))
        return PairPatches(self.pairs, *arguments)

    def frames(self, rank: int, world: int) -> Sequence[tuple[int, Any]]:
        """This process's held-out frames with their numbers: clean [3, H, W], or rainy, drops only and clean.

        They are decoded when their turn comes; of pairs the headers are compared now. ValueError where a process would
        have none: Lightning lets it pass validation over, and the others wait for its sums.
        """
        validated = self.data.validation_pairs
        pictures = self.test if validated is None else list_set(self.data.root, validated)
        if len(pictures) < world:
            key = "data.validation" if validated is None else "data.validation_pairs"
            raise ValueError(
                f"{len(pictures)} held-out pictures for {world} processes, expected one each or more: add some "
                f"({key}), or lower machine.devices or machine.nodes"
            )
        own: list[tuple[int, Any]] = [
            (index, picture) for index, picture in enumerate(pictures) if index % world == rank
        ]
        return HeldOutFrames(own) if validated is None else HeldOutPairs(own)


def _tell_of_other_heights(heights: list[int], rain: RainConfig) -> None:
    """Warn where no rain would be as small, or as large, as a camera of the images' size sees it."""
    median, expected = sorted(heights)[len(heights) // 2], rain.frame_height
    most = max(MOST_TALLER, rain.scale_jitter)
    if not 1 / most < median / expected < most:
        log.warning(
            "rain.frame_height is %d, half of the images have %d rows or more: streaks and drops are rendered %.2g "
            "times as large as there; expected rain.frame_height: %d",
            expected, median, expected / median, median,
        )  # fmt: skip


class HeldOutFrames(Sequence[tuple[int, Any]]):
    """Numbered clean frames as tensors [3, H, W] in 0…1, decoded each time they are asked for."""

    def __init__(self, files: list[tuple[int, Path]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: Any) -> Any:
        index, file = self.files[place]
        return index, to_tensor(read_rgb(file))


class HeldOutPairs(Sequence[tuple[int, Any]]):
    """Numbered pairs as tensors (rainy, drops only, clean) [3, H, W] in 0…1, decoded each time they are asked for."""

    def __init__(self, pairs: list[tuple[int, Pair | PairFiles]]) -> None:
        for _, pair in pairs:
            _ = pair.shape
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: Any) -> Any:
        index, files = self.pairs[place]
        pair = files.read()
        return index, tuple(to_tensor(image) for image in (pair.rainy, _drops(pair), pair.clean))


def find_dataset(data: DataConfig) -> Dataset:
    """The files a configuration names.

    Raises:
        FileNotFoundError: a folder that is missing or empty.
        ValueError: something that is for testing only, or validated on, is among what would be trained on.
    """
    for one in data.pairs:
        refuse_test_only(data, str(one.path), "data.pairs")
        if one.split != "train":
            raise ValueError(f"data.pairs names the split {one.split!r} of {str(one.path)!r}: train on 'train'")
    pairs, train = _pairs_to_train_on(data) if data.pairs else ([], training_files(data))
    test = held_out_files(data) if data.validation_pairs is None else _files(data.root, data.validation_pairs)
    if both := {file.resolve() for file in train} & {file.resolve() for file in test}:
        raise ValueError(f"{min(both)} would be both trained and validated on: name another set")
    return Dataset(data, train, test, pairs)


def without_test_scenes(pairs: list[Pair | PairFiles], root: Path) -> list[Pair | PairFiles]:
    """The pairs whose clean image is none of `TEST_SCENES`, where those are at hand."""
    if not (root / TEST_SCENES).is_dir():
        return pairs
    scenes = [read_rgb(file) for file in list_images(root / TEST_SCENES)]
    sizes, tested = {scene.shape for scene in scenes}, {_digest(scene) for scene in scenes}
    kept = [pair for pair in pairs if pair.shape not in sizes or _digest(pair.truth()) not in tested]
    if len(kept) < len(pairs):
        log.warning(
            "left out %d of %d pairs: their scenes are among %s", len(pairs) - len(kept), len(pairs), TEST_SCENES
        )
    if not kept:
        raise ValueError(f"every pair shows a scene of {TEST_SCENES}, which is for testing only: name another set")
    return kept


def _pairs_to_train_on(data: DataConfig) -> tuple[list[Pair | PairFiles], list[Path]]:
    """The pairs, without any that is for testing, and their files; of clips the files that they are frames of."""
    pairs = without_test_scenes([pair for one in data.pairs for pair in list_set(data.root, one)], data.root)
    files = [file for pair in pairs if isinstance(pair, PairFiles) for file in (pair.rainy, pair.clean)]
    return pairs, files + [file for one in data.pairs if one.layout == "clips" for file in _files(data.root, one)]


def _files(root: Path, pairs: PairsConfig) -> list[Path]:
    if pairs.layout == "clips":
        return sorted(file for file in (root / pairs.path).glob("*.*") if file.stem in ("rainy", "clean"))
    return [file for pair in find_pairs(root, pairs) for file in (pair.rainy, pair.clean)]


def _digest(image: Image) -> bytes:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()


def _drops(pair: Pair) -> Image:
    return pair.clean if pair.drops is None else pair.drops
