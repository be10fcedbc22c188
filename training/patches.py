"""Batches of random patches in rain that depend on (seed, iteration) alone, shared between processes and workers.

Rain is rendered where patches are cut, by the loader's workers beside a GPU: a batch's thousands of small operations
would keep the GPU itself waiting for each of them.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from derain.training.data import to_tensor
from derain.training.rain import RainConfig, RainyBatch, render
from derain.training.rain.frames import SHRUNK, Frames, Place
from derain.training.rain.scene import item_seeds, soft_mask
from derain.training.readers import Image, ImageFile, Pair, PairFiles

SHARED = Path("/dev/shm")
MIB = 2**20
BYTES_A_PIXEL = 4 * (3 + 3 + 3 + 1 + 1)
"""Of a `RainyBatch`: three images and two masks in FP32."""


class Crop(NamedTuple):
    """A square of an image, perhaps mirrored."""

    image: int
    top: int
    left: int
    side: int
    flipped: bool


class Patches(IterableDataset[RainyBatch]):
    """Batches of `batch` patches in rain, for iterations start … stop − 1, of images of the given shapes.

    Batch i depends on (seed, i) alone, so a resumed run sees what an uninterrupted one would have seen. A patch is a
    random crop of a random image at a random scale of 0.6 to 1 (never below the patch), flipped half of the time.
    Process `rank` of `world` cuts its own share of the batch, the rank-th of `world` equal slices. `names` are the
    images', for errors.

    Raises:
        ValueError: an image is smaller than the patch, or the batch cannot be shared evenly.
    """

    def __init__(
        self,
        shapes: list[tuple[int, ...]],
        batch: int,
        patch: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        *,
        names: Sequence[str] = (),
    ) -> None:
        too_small = [index for index, shape in enumerate(shapes) if min(shape[:2]) < patch]
        if too_small:
            first = too_small[0]
            height, width = shapes[first][:2]
            name = names[first] if names else f"image {first}"
            raise ValueError(
                f"{name} is {width}x{height}, smaller than the patch of {patch}, and so are {len(too_small)} of "
                f"{len(shapes)} images: lower data.patch, or take them out"
            )
        self.shapes, self.batch, self.patch, self.seed, self.start, self.stop = shapes, batch, patch, seed, start, stop
        self.own = own_share(batch, rank, world)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[RainyBatch]:
        for iteration in worker_share(self.start, self.stop):
            random = np.random.default_rng((self.seed, iteration))
            crops = [draw_crop(random, self.shapes, self.patch) for _ in range(self.batch)]
            yield self.cut_batch(crops[self.own], iteration)

    def cut_batch(self, crops: list[Crop], iteration: int) -> RainyBatch:
        """The batch that crops make, this process's share of an iteration's."""
        raise NotImplementedError


class RenderedPatches(Patches):
    """Patches of clean images, in memory as RGB uint8 [H, W, 3] or in files, under rendered rain."""

    def __init__(self, images: Sequence[Image | ImageFile], rain: RainConfig, *arguments: Any, **named: Any) -> None:
        super().__init__([image.shape for image in images], *arguments, **named)
        self.images, self.rain = images, rain

    def cut_batch(self, crops: list[Crop], iteration: int) -> RainyBatch:
        """As `render` makes it of the clean patches, each as a part of its frame."""
        drawn = [self.images[crop.image] for crop in crops]
        images = [image.read() if isinstance(image, ImageFile) else image for image in drawn]
        cuts = [to_tensor(cut(image, crop, self.patch)) for image, crop in zip(images, crops, strict=True)]
        seeds = rain_seeds(self.seed, iteration, self.batch)[self.own]
        return render(torch.stack(cuts), seeds, self.rain, frames=frames_of(images, crops, self.patch))


class PairPatches(Patches):
    """Patches of real pairs, one crop through rainy, drops only and clean.

    A pair that lies in files is decoded when a crop of it is due: a set may be larger than the memory.
    """

    def __init__(self, pairs: Sequence[Pair | PairFiles], *arguments: Any, **named: Any) -> None:
        super().__init__([pair.shape for pair in pairs], *arguments, names=[pair.name for pair in pairs], **named)
        self.pairs = pairs

    def cut_batch(self, crops: list[Crop], iteration: int) -> RainyBatch:
        """As `paired` makes it of the three."""
        cuts = [self._cut(self.pairs[crop.image].read(), crop) for crop in crops]
        return paired([torch.stack(images) for images in zip(*cuts, strict=True)])

    def _cut(self, pair: Pair, crop: Crop) -> list[Tensor]:
        drops = pair.clean if pair.drops is None else pair.drops
        return [to_tensor(cut(image, crop, self.patch)) for image in (pair.rainy, drops, pair.clean)]


def rain_seeds(seed: int, iteration: int, batch: int) -> Tensor:
    """The seeds of a batch's rain, int64 [batch]."""
    return item_seeds(torch.Generator().manual_seed(seed * 1_000_003 + iteration), batch)


def paired(images: Sequence[Tensor]) -> RainyBatch:
    """Real pairs as rendered rain comes: rainy, drops only, clean [B, 3, H, W], and the masks of their differences."""
    rainy, drops_only, clean = images
    return RainyBatch(rainy, drops_only, clean, soft_mask(rainy, drops_only), soft_mask(drops_only, clean))


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


def frames_of(images: Sequence[Image], crops: Sequence[Crop], patch: int) -> Frames:
    """What rain needs of the images that crops are of, in pixels of the patches that the crops shrink to."""
    places, light, views = [], [], []
    for image, crop in zip(images, crops, strict=True):
        height, width = (round(side * patch / crop.side) for side in image.shape[:2])
        top, left = (round(first * patch / crop.side) for first in (crop.top, crop.left))
        places.append((top, width - left - patch if crop.flipped else left, height, width))
        light.append(np.stack(cv2.meanStdDev(image))[..., 0] / 255)
        view = cv2.resize(image, (-(-width // SHRUNK), -(-height // SHRUNK)), interpolation=cv2.INTER_AREA)
        views.append(to_tensor(np.array(view[:, ::-1] if crop.flipped else view, np.uint8)))
    mean, deviation = torch.from_numpy(np.asarray(light, np.float32)).unbind(1)
    return Frames(Place(*torch.tensor(places).unbind(1)), mean, deviation, views)


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


def refuse_little_shared_memory(workers: int, batch: int, patch: int) -> None:
    """Raise OSError where the batches that workers have ready would not fit into shared memory: they would hang.

    Containers have 64 MiB of it if nothing is said.
    """
    if not workers or not SHARED.is_dir():
        return
    ready = workers * 2 * batch * BYTES_A_PIXEL * patch**2  # PyTorch keeps two batches a worker
    room = os.statvfs(SHARED)
    free = room.f_bavail * room.f_frsize
    if ready > free:
        raise OSError(
            f"{SHARED} has {free / MIB:.0f} MiB free, the batches of machine.workers={workers} take {ready / MIB:.0f}: "
            "lower machine.workers, or give the container more (docker run --shm-size 2g)"
        )


def _leave_signals_to_the_run(_: int) -> None:
    """A terminal, `timeout` or a scheduler sends them to all processes; a run reaches no checkpoint without workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class ResumableLoader(DataLoader[Any]):
    """Batches of the iterations that a run has yet to do; Lightning keeps its state in the checkpoint.

    `done` says how many iterations the run has behind it. The length is that of the whole run.
    """

    def __init__(self, batches: IterableDataset[Any], workers: int, done: Callable[[], int]) -> None:
        pinned = workers > 0 and torch.accelerator.is_available()
        super().__init__(
            batches,
            None,
            num_workers=workers,
            pin_memory=pinned,
            worker_init_fn=_leave_signals_to_the_run,
            multiprocessing_context="fork" if workers else None,  # all share one copy of the decoded images
            persistent_workers=workers > 0,  # Lightning ends such workers, however a run ends
        )
        self.batches, self.done = batches, done

    def __len__(self) -> int:
        return int(self.batches.stop)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, int]:
        """How far the run is."""
        return {"iteration": self.done()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin behind the iterations that are done."""
        self.batches.start = state["iteration"]  # type: ignore[attr-defined]
