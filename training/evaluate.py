"""PSNR and SSIM over pairs of images, in RGB and on the Y channel, as the deraining papers report them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torch.nn import functional as F

from derain.training.data import list_images, read_rgb, to_tensor
from derain.training.models import size_multiple

Image = NDArray[np.uint8]
METRICS = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")


@dataclass(frozen=True)
class Pair:
    """A rainy image and its truth, RGB uint8 [H, W, 3] of one size."""

    name: str
    rainy: Image
    clean: Image


def read_pairs(rainy: Path, clean: Path) -> Iterator[Pair]:
    """The pairs of two folders, matched by file name without its suffix, in sorted order.

    Raises:
        FileNotFoundError: a folder that is missing or empty.
        ValueError: the first file without a partner, or the first pair of two sizes.
    """
    left, right = _by_stem(rainy), _by_stem(clean)
    for stem in sorted(left.keys() ^ right.keys()):
        here, there = (left[stem], clean) if stem in left else (right[stem], rainy)
        raise ValueError(f"{here} has no partner of that name in {there}: expected one file a pair in each folder")
    for stem in sorted(left):
        pair = Pair(stem, read_rgb(left[stem]), read_rgb(right[stem]))
        if pair.rainy.shape != pair.clean.shape:
            sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pair.rainy, pair.clean)]
            raise ValueError(f"{left[stem]} is {sizes[0]} and {right[stem]} {sizes[1]}: expected one size a pair")
        yield pair


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in list_images(folder):
        if files.setdefault(file.stem, file) is not file:
            raise ValueError(f"{file} and {files[file.stem].name} have one name: expected one file a pair; remove one")
    return files


def luma(image: Image) -> NDArray[np.float64]:
    """Y of BT.601 in limited range, 16…235, unrounded: the "Y channel" of the deraining papers (MATLAB's rgb2ycbcr)."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return image @ weights + 16  # type: ignore[no-any-return]


def score(image: Image, truth: Image) -> dict[str, float]:
    """Each of `METRICS`: PSNR in dB with a peak of 255, SSIM of Wang et al. 2004 (Gaussian window, σ = 1.5)."""
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    y, y_truth = luma(image), luma(truth)
    with np.errstate(divide="ignore"):  # equal images have an infinite PSNR
        return {
            "psnr_rgb": float(peak_signal_noise_ratio(truth, image, data_range=255)),
            "ssim_rgb": float(structural_similarity(truth, image, channel_axis=2, **gaussian)),
            "psnr_y": float(peak_signal_noise_ratio(y_truth, y, data_range=255)),
            "ssim_y": float(structural_similarity(y_truth, y, **gaussian)),
        }


def evaluate(derain: Callable[[Image], Image], pairs: Iterable[Pair]) -> dict[str, Any]:
    """Score the rainy and the derained image of every pair.

    Returns {metric: {"input": mean, "output": mean}} for each of `METRICS` and "images", a list with every pair's name
    and scores.
    """
    images = [
        {"name": pair.name, "input": score(pair.rainy, pair.clean), "output": score(derain(pair.rainy), pair.clean)}
        for pair in pairs
    ]
    means = {
        metric: {side: float(np.mean([image[side][metric] for image in images])) for side in ("input", "output")}  # type: ignore[index]
        for metric in METRICS
    }
    return {**means, "images": images}


def derain_with(network: nn.Module) -> Callable[[Image], Image]:
    """A function that derains one RGB uint8 image of any size with a network, padding it to the network's multiple."""
    multiple = size_multiple(network)

    def derain(image: Image) -> Image:
        height, width = image.shape[:2]
        x = F.pad(to_tensor(image)[None], (0, -width % multiple, 0, -height % multiple), mode="replicate")
        with torch.inference_mode():
            clean = network(x)[0].image[0, :, :height, :width]
        return (clean.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()  # type: ignore[no-any-return]

    return derain
