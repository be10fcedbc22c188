"""Which parts of their frames images are: the rain is the frame's, and only the part is drawn."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SHRUNK = 4
"""How much smaller the picture is that drops show: a drop squeezes a wide view into a few pixels, so that shrinking is
defocus and anti-aliasing in one."""


class Place(NamedTuple):
    """Where in its frame an image's first pixel is, and how large that frame is: int64 [B] each, in pixels."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    @classmethod
    def whole(cls, batch: int, height: int, width: int, device: torch.device) -> "Place":
        """Of images that are frames themselves."""
        zero = torch.zeros(batch, dtype=torch.int64, device=device)
        return cls(zero, zero, zero + height, zero + width)

    def select(self, which: Tensor) -> "Place":
        """The same for the images numbered `which`."""
        return Place(*(value[which] for value in self))

    def widened(self, own: Tensor, drawn: int) -> "Place":
        """Of images `drawn` pixels wider on each side, in frames that are `own` ([B]) pixels wider on each side."""
        return Place(self.top + own - drawn, self.left + own - drawn, self.height + 2 * own, self.width + 2 * own)

    def rows(self, count: int) -> Tensor:
        """The rows of `count` rows in the frame: [B, count]."""
        return self.top[:, None] + torch.arange(count, device=self.top.device)

    def columns(self, count: int) -> Tensor:
        """The columns of `count` columns in the frame: [B, count]."""
        return self.left[:, None] + torch.arange(count, device=self.left.device)


class Frames(NamedTuple):
    """What the rain on images takes from the frames they are parts of.

    Attributes:
        place: where the images lie in them.
        mean: of the frames' channels, [B, 3].
        deviation: the standard deviation of the frames' channels, [B, 3].
        views: the frames SHRUNK times smaller, B pictures [3, h, w], which drops show.
    """

    place: Place
    mean: Tensor
    deviation: Tensor
    views: Sequence[Tensor] | Tensor

    @classmethod
    def whole(cls, images: Tensor) -> "Frames":
        """Of images [B, 3, H, W] that are frames themselves."""
        place = Place.whole(images.shape[0], images.shape[-2], images.shape[-1], images.device)
        views = F.avg_pool2d(images, SHRUNK, SHRUNK, ceil_mode=True, count_include_pad=False)
        return cls(place, images.mean((2, 3)), images.std((2, 3), correction=0), views)
