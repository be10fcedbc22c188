"""The lens that sees the windscreen: focused far away, it makes a disc of every point of the glass."""

import torch
from torch import Tensor

FAINTEST = 1e-4
"""A weight under this is rounding of the transform: what is dry stays dry."""


def margin(diameter: Tensor) -> Tensor:
    """How many pixels around an image reach into it, int64 [B]: even, as the glass is drawn at half the resolution."""
    return 2 * (diameter / 4 + 0.5).ceil().long() * (diameter > 0)


def defocus(layer: Tensor, diameter: Tensor, around: int) -> Tensor:
    """Spread every point of a layer over a disc, the circle of confusion.

    A thin lens of aperture A and focal length f, focused far away, makes a disc of diameter A·f / d of a point at the
    distance d; the discs of all points add up.

    Args:
        layer: [B, C, H + 2·around, W + 2·around], its first channel a weight and the others multiplied by it.
        diameter: [B], of the disc, in pixels.
        around: pixels of the layer on each side of the image; at least the largest `margin`.

    Returns:
        [B, C, H, W]; 0 where the weight is under FAINTEST.
    """
    height, width = layer.shape[-2:]
    distance = torch.hypot(_from_first(height, layer)[:, None], _from_first(width, layer)[None])
    disc = (diameter[:, None, None] / 2 + 0.5 - distance).clamp(0.0, 1.0)
    disc = disc / disc.sum((1, 2), keepdim=True)
    spectrum: Tensor = torch.fft.rfft2(layer) * torch.fft.rfft2(disc)[:, None]
    spread: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    seen = spread[..., around : height - around, around : width - around]
    return seen * (seen[:, :1] > FAINTEST)


def _from_first(count: int, like: Tensor) -> Tensor:
    """How far each pixel of a line is from the first, or from the one after the last: the transform's lines repeat."""
    steps = torch.arange(count, dtype=torch.float32, device=like.device)
    return torch.minimum(steps, count - steps)
