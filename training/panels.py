"""Pictures side by side: what goes in, what comes out, the truth, and where the network looks."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derain.training.models import Prediction

BAR = 18
"""Rows of the caption above a tile."""


class Tile(NamedTuple):
    """A captioned picture: RGB [3, H, W] or a map [1, H, W], in 0…1."""

    caption: str
    image: Tensor


def attention_tiles(prediction: Prediction, item: int = 0) -> list[Tile]:
    """S+ of every rain type that the network has a map of."""
    return [
        Tile(f"S+ {rain}", branch.attention[item].detach().float())
        for rain, branch in prediction.branches.items()
        if branch.attention is not None
    ]


def panel(rows: list[list[Tile]]) -> NDArray[np.uint8]:
    """Rows of captioned tiles as one RGB picture uint8; shorter rows and smaller tiles leave the rest black.

    Raises:
        ValueError: there is nothing to show.
    """
    if not rows or not all(rows):
        raise ValueError("a panel of no pictures: expected at least one image to show")
    strips = []
    for row in rows:
        height = max(tile.image.shape[-2] for tile in row)
        strips.append(np.hstack([_draw(tile, height) for tile in row]))
    width = max(strip.shape[1] for strip in strips)
    return np.vstack([np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips])


def _draw(tile: Tile, height: int) -> NDArray[np.uint8]:
    values = (tile.image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    image = values.expand(3, -1, -1).permute(1, 2, 0).numpy()
    drawn = np.zeros((height + BAR, image.shape[1], 3), np.uint8)
    drawn[BAR : BAR + image.shape[0]] = image
    caption = tile.caption.encode("ascii", "backslashreplace").decode()  # all that OpenCV's letters can write
    cv2.putText(drawn, caption, (3, BAR - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn
