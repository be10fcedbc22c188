"""Batches of random patches that depend on (seed, iteration) alone, shared between processes and loader workers."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from derain.training.data import to_tensor
from derain.training.readers import Pair


class Crop(NamedTuple):
    """A square of an image, perhaps mirrored."""

    image: int
    top: int
    left: int
    side: int
    flipped: bool


class CleanPatches(IterableDataset[Any]):
    """Batches [batch, 3, patch, patch] in 0…1 for iterations start … stop − 1.

    Batch i depends on (seed, i) alone, so a resumed run sees what an uninterrupted one would have seen. A patch is a
    random crop of a random image at a random scale of 0.6 to 1 (never below the patch), flipped half of the time.
    Process `rank` of `world` cuts its own share of the batch, the rank-th of `world` equal slices.
    """

    def __init__(
        self,
        images: list[NDArray[np.uint8]],
        batch: int,
        patch: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        too_small = [image.shape[:2] for image in images if min(image.shape[:2]) < patch]
        if too_small:
            raise ValueError(
                f"an image of {too_small[0]} pixels is smaller than the patch of {patch}: lower data.patch"
            )
        self.images, self.batch, self.patch, self.seed, self.start, self.stop = images, batch, patch, seed, start, stop
        self.shapes = [image.shape for image in images]
        self.own = own_share(batch, rank, world)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Any]:
        for iteration in worker_share(self.start, self.stop):
            random = np.random.default_rng((self.seed, iteration))
            crops = [draw_crop(random, self.shapes, self.patch) for _ in range(self.batch)]
            yield self._batch(crops[self.own])

    def _batch(self, crops: list[Crop]) -> Any:
        return stack(self.images, crops, self.patch)


class PairPatches(CleanPatches):
    """As `CleanPatches`, of pairs: batches (rainy, drops only, clean), one crop through all three."""

    def __init__(self, pairs: list[Pair], *args: int, **kwargs: int) -> None:
        super().__init__([pair.clean for pair in pairs], *args, **kwargs)
        self.rainy = [pair.rainy for pair in pairs]
        self.drops = [pair.clean if pair.drops is None else pair.drops for pair in pairs]

    def _batch(self, crops: list[Crop]) -> Any:
        return tuple(stack(images, crops, self.patch) for images in (self.rainy, self.drops, self.images))


def draw_crop(random: np.random.Generator, shapes: list[tuple[int, ...]], patch: int) -> Crop:
    """A crop that shrinks to the patch: of a random image, place and scale."""
    image = int(random.integers(len(shapes)))
    height, width = shapes[image][:2]
    scale = max(random.uniform(0.6, 1.0), patch / min(height, width))
    side = min(round(patch / scale), height, width)
    top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
    return Crop(image, top, left, side, bool(random.random() < 0.5))


def cut(image: NDArray[np.uint8], crop: Crop, patch: int) -> NDArray[np.uint8]:
    """The patch [patch, patch, 3] that a crop makes."""
    square = image[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    if crop.flipped:
        square = square[:, ::-1]
    if crop.side != patch:
        return np.asarray(cv2.resize(square, (patch, patch), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(square)


def stack(images: list[NDArray[np.uint8]], crops: list[Crop], patch: int) -> Tensor:
    """The patches [B, 3, patch, patch] in 0…1 of crops."""
    return torch.stack([to_tensor(cut(images[crop.image], crop, patch)) for crop in crops])


def own_share(batch: int, rank: int, world: int) -> slice:
    """Which of a batch's items are for process `rank` of `world`.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """
    if batch % world:
        raise ValueError(f"optimiser.batch is {batch}, expected a multiple of the {world} processes that share it")
    return slice(rank * batch // world, (rank + 1) * batch // world)


def worker_share(start: int, stop: int) -> range:
    """The iterations that this loader worker prepares; PyTorch takes the workers' batches in turn."""
    worker = get_worker_info()
    return range(start, stop) if worker is None else range(start + worker.id, stop, worker.num_workers)


class ResumableLoader(DataLoader[Any]):
    """Batches of the iterations that a run has yet to do; Lightning keeps its state in the checkpoint.

    `done` says how many iterations the run has behind it. The length is that of the whole run.
    """

    def __init__(self, batches: IterableDataset[Any], workers: int, done: Callable[[], int]) -> None:
        super().__init__(batches, batch_size=None, num_workers=workers, pin_memory=workers > 0)
        self.batches, self.done = batches, done

    def __len__(self) -> int:
        return int(self.batches.stop)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, int]:
        """How far the run is."""
        return {"iteration": self.done()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin behind the iterations that are done."""
        self.batches.start = state["iteration"]  # type: ignore[attr-defined]
