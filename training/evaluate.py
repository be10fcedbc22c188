"""Scores over pairs of images: of each, of each group and of all."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from derain.training.data import to_tensor
from derain.training.models import size_multiple
from derain.training.panels import Tile, attention_tiles
from derain.training.readers import Image, Pair
from derain.training.scores import EQUAL, METRICS, SSIM_WINDOW, score


def _scorable(pair: Pair) -> Pair:
    height, width = pair.clean.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        least = f"{SSIM_WINDOW}x{SSIM_WINDOW}"
        raise ValueError(f"{pair.name} is {width}x{height}: SSIM wants {least} at least, take it out")
    return pair


def evaluate(derain: Callable[[Image], Image], pairs: Iterable[Pair]) -> dict[str, Any]:
    """Score the rainy and the derained image of every pair.

    Returns {metric: {"input": mean, "output": mean}} for each of `METRICS`, where the infinite PSNR of an equal pair
    counts as `EQUAL` unless all are; "images", a list with every pair's name,
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
    def mean(metric: str, side: str) -> float:
        values = [image[side][metric] for image in images]
        return float(np.mean(values if np.isinf(values).all() else np.minimum(values, EQUAL)))

    return {metric: {side: mean(metric, side) for side in ("input", "output")} for metric in METRICS}


def derain_with(network: nn.Module, device: str = "cpu") -> Callable[[Image], Image]:
    """A function that derains one RGB uint8 image of any size with a network, padding it to the network's multiple.

    It raises ValueError where what comes out is not finite.
    """
    look = derainer_with_maps(network, device)
    return lambda image: look(image)[0]


def derainer_with_maps(network: nn.Module, device: str = "cpu") -> Callable[[Image], tuple[Image, list[Tile]]]:
    """As `derain_with`, with the attention maps beside the derained image; the network runs on `device`."""
    multiple = size_multiple(network)
    network.to(device)

    def look(image: Image) -> tuple[Image, list[Tile]]:
        height, width = image.shape[:2]
        x = F.pad(to_tensor(image)[None].to(device), (0, -width % multiple, 0, -height % multiple), mode="replicate")
        with torch.inference_mode():
            prediction = network(x)[0]
        clean = prediction.image[0, :, :height, :width]
        if not clean.isfinite().all():
            raise ValueError("the derained image is not finite: the weights are too large, or its run did not converge")
        maps = [Tile(tile.caption, tile.image[:, :height, :width]) for tile in attention_tiles(prediction)]
        return (clean.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy(), maps

    return look
