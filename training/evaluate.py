"""PSNR and SSIM over pairs of images, in RGB and on the Y channel, as the deraining papers report them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torch.nn import functional as F

from derain.training.data import to_tensor
from derain.training.models import size_multiple
from derain.training.panels import Tile, attention_tiles
from derain.training.readers import Image, Pair, read_groups, read_pairs

__all__ = [
    "METRICS",
    "Image",
    "Pair",
    "derain_with",
    "evaluate",
    "look_with",
    "luma",
    "read_groups",
    "read_pairs",
    "score",
    "summarise",
]

SSIM_WINDOW = 11
"""Rows and columns of the Gaussian window, cut at 3.5 σ."""

METRICS = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")


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


def _scorable(pair: Pair) -> Pair:
    height, width = pair.clean.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        least = f"{SSIM_WINDOW}x{SSIM_WINDOW}"
        raise ValueError(f"{pair.name} is {width}x{height}: SSIM wants {least} at least, take it out")
    return pair


def evaluate(derain: Callable[[Image], Image], pairs: Iterable[Pair]) -> dict[str, Any]:
    """Score the rainy and the derained image of every pair.

    Returns {metric: {"input": mean, "output": mean}} for each of `METRICS`; "images", a list with every pair's name,
    group and scores; and "groups", the means and the "count" of each group, where the pairs have any.

    Raises ValueError with the pair's name where `derain` refuses it, or it is too small for SSIM.
    """
    return summarise(
        [
            {
                "name": pair.name,
                "group": pair.group,
                "input": score(pair.rainy, pair.clean),
                "output": score(_derained(pair, derain), pair.clean),
            }
            for pair in map(_scorable, pairs)
        ]
    )


def _derained(pair: Pair, derain: Callable[[Image], Image]) -> Image:
    try:
        return derain(pair.rainy)
    except ValueError as error:
        raise ValueError(f"{pair.name}: {error}") from error


def summarise(images: list[dict[str, Any]]) -> dict[str, Any]:
    """What `evaluate` returns, of the scores of every image."""
    groups = {
        group: {**_means(members), "count": len(members)}
        for group in dict.fromkeys(image["group"] for image in images)
        if group and (members := [image for image in images if image["group"] == group])
    }
    return {**_means(images), "images": images, **({"groups": groups} if groups else {})}


def _means(images: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        metric: {side: float(np.mean([image[side][metric] for image in images])) for side in ("input", "output")}
        for metric in METRICS
    }


def derain_with(network: nn.Module, device: str = "cpu") -> Callable[[Image], Image]:
    """A function that derains one RGB uint8 image of any size with a network, padding it to the network's multiple."""
    look = look_with(network, device)
    return lambda image: look(image)[0]


def look_with(network: nn.Module, device: str = "cpu") -> Callable[[Image], tuple[Image, list[Tile]]]:
    """As `derain_with`, with the attention maps beside the derained image; the network runs on `device`."""
    multiple = size_multiple(network)
    network.to(device)

    def look(image: Image) -> tuple[Image, list[Tile]]:
        height, width = image.shape[:2]
        x = F.pad(to_tensor(image)[None].to(device), (0, -width % multiple, 0, -height % multiple), mode="replicate")
        with torch.inference_mode():
            prediction = network(x)[0]
        clean = prediction.image[0, :, :height, :width]
        maps = [Tile(tile.caption, tile.image[:, :height, :width]) for tile in attention_tiles(prediction)]
        return (clean.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy(), maps

    return look
