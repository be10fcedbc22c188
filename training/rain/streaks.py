"""Rain streaks: how much of each pixel's exposure falling water took up.

A drop that falls through the exposure T draws a streak whose length is fall speed x T x focal length / distance and
whose opacity is τ/T, the part of the exposure for which it is before a pixel (Garg and Nayar, "Vision and rain", 2007):
a short exposure draws short streaks that hide what is behind them. Near drops draw long, wide and rare streaks, far
ones short, thin and dense ones; wind tilts them all, and the car's own speed makes them fan out from the vanishing
point. Three styles:

* `physical`  depth layers of single streaks with soft profiles;
* `noise`     the paper's protocol for JRSRD: thresholded noise of 20 % to 60 %, motion-blurred;
* `sharp`     bright long lines from several directions, the look of Rain100H.

What comes out is light-independent (opacities); `scene.py` lights it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.training.rain import counter_rng as rng
from derain.training.rain.frames import Place

PHYSICAL, NOISE, SHARP = 0, 1, 2
STYLES = {"physical": PHYSICAL, "noise": NOISE, "sharp": SHARP}

# Opacities are summed as integers of this step: integer sums do not depend on their order, so a GPU's atomics give the
# same picture on every run.
_FIXED_POINT = 1 << 16

_SUPPORT = 2.4  # a streak's profile is cut here, in standard deviations
_TAIL = math.exp(-0.5 * _SUPPORT**2)

SHORTEST, LONGEST = 0.4, 1.6
"""Exposures, in units of the one that the layers' lengths and opacities are of."""


@dataclass(frozen=True)
class Layer:
    """Streaks of one depth. Lengths and widths are pixels in a frame 480 rows high."""

    density: float  # streaks in 10,000 pixels at strength 1
    length: tuple[float, float]
    width: tuple[float, float]  # standard deviation of the profile across the streak
    opacity: tuple[float, float]  # at the streak's middle, at strength 1 and exposure 1
    fan: float  # how strongly forward driving bends the direction away from the vanishing point
    spread: float  # standard deviation of the direction, radians


PHYSICAL_LAYERS = (
    Layer(density=90.0, length=(6, 16), width=(0.45, 0.65), opacity=(0.12, 0.42), fan=0.3, spread=0.06),
    Layer(density=20.0, length=(16, 40), width=(0.6, 0.95), opacity=(0.2, 0.6), fan=0.7, spread=0.04),
    Layer(density=3.0, length=(25, 110), width=(0.9, 2.6), opacity=(0.15, 0.9), fan=1.2, spread=0.03),
)
SHARP_LAYERS = (
    Layer(density=24.0, length=(20, 80), width=(0.45, 0.8), opacity=(0.25, 0.75), fan=0.0, spread=0.015),
    Layer(density=9.0, length=(30, 110), width=(0.5, 1.6), opacity=(0.25, 0.9), fan=0.0, spread=0.03),
    Layer(density=4.0, length=(25, 110), width=(0.8, 3.0), opacity=(0.2, 0.9), fan=0.0, spread=0.06),
)


@dataclass(frozen=True)
class Wind:
    """What all streaks of an image share, one value an image: [B] each.

    `angle` is the direction of fall from straight down in radians, positive to the right; `vanishing` [B, 2] is the
    point (x, y) in units of the image's size that streaks fan out from, `forward` how strongly (0: a standing car);
    `exposure` scales every length and, inversely, the opacity of physical streaks; `scale` is pixels for one pixel
    of a frame 480 rows high.
    """

    angle: Tensor
    vanishing: Tensor
    forward: Tensor
    exposure: Tensor
    scale: Tensor
    style: Tensor

    def select(self, which: Tensor) -> "Wind":
        """The same for the images numbered `which`."""
        return Wind(*(value[which] for value in vars(self).values()))


def draw_wind(seed: Tensor, style: str, scale: Tensor) -> Wind:
    """Draw the weather of each image from its seed [B]; `style` is one of STYLES or `mixed`."""
    pick = rng.uniform(seed, 1)
    if style == "mixed":
        kind = torch.where(pick < 0.5, PHYSICAL, torch.where(pick < 0.75, NOISE, SHARP))
    else:
        kind = torch.full_like(pick, STYLES[style], dtype=torch.int64)
    vanishing = torch.stack([rng.uniform(seed, 4, low=0.3, high=0.7), rng.uniform(seed, 5, low=0.25, high=0.5)], -1)
    driving = (rng.uniform(seed, 6) < 0.5).float()
    return Wind(
        angle=0.30 * rng.normal(seed, 2).clamp(-2.5, 2.5),
        vanishing=vanishing,
        forward=driving * rng.uniform(seed, 7, low=0.2, high=1.2),
        exposure=torch.exp(rng.uniform(seed, 3, low=math.log(SHORTEST), high=math.log(LONGEST))),
        scale=scale,
        style=kind,
    )


def opacity(seed: Tensor, strength: Tensor, wind: Wind, height: int, width: int, place: Place | None = None) -> Tensor:
    """Render the streaks of a batch.

    Args:
        seed: int64 [B]; a new one for every frame of a clip.
        strength: [B] in 0..1; a stronger rain keeps the weaker one's streaks and adds to them (noise: most of them).
        wind: the weather, which outlives the frame.
        height: rows.
        width: columns.
        place: where in the frame these rows and columns are; None: they are all of it. Noise is the same everywhere.

    Returns:
        Opacity [B, 1, height, width] in 0..1.
    """
    canvas = torch.zeros(seed.numel(), height, width, device=seed.device)
    place = Place.whole(seed.numel(), height, width, seed.device) if place is None else place
    for style in (PHYSICAL, NOISE, SHARP):
        which = torch.nonzero((wind.style == style) & (strength > 0)).flatten()
        if which.numel() == 0:
            continue
        part = (seed[which], strength[which], wind.select(which), height, width)
        canvas[which] = _noise(*part) if style == NOISE else _lines(*part, place.select(which))
    return canvas.unsqueeze(1)


class _Streaks(NamedTuple):
    """N streaks [N]: middle and length in pixels, unit direction, profile and opacity."""

    x: Tensor
    y: Tensor
    dx: Tensor
    dy: Tensor
    length: Tensor
    sigma: Tensor
    glow: Tensor


def _lines(seed: Tensor, strength: Tensor, wind: Wind, height: int, width: int, place: Place) -> Tensor:
    """Layers of single streaks [B, H, W]: each a soft capsule drawn into its own bounding band."""
    total = torch.zeros(seed.numel() * height * width, dtype=torch.int32, device=seed.device)
    sharp = bool(wind.style[0] == SHARP)
    for number, layer in enumerate(SHARP_LAYERS if sharp else PHYSICAL_LAYERS):
        stream = 100 * (number + 1)
        margin = 0.6 * layer.length[1] * wind.scale * wind.exposure
        area = (place.height + 2 * margin) * (place.width + 2 * margin) / wind.scale**2
        plenty = rng.uniform(seed, stream, low=0.6, high=1.4)
        count = (layer.density * 1e-4 * area * plenty * strength**0.75).long()
        image, member = rng.ragged(count)
        if image.numel() == 0:
            continue
        own = seed[image]
        scale, around, here = wind.scale[image], margin[image], place.select(image)
        x = rng.uniform(own, stream + 1, member) * (here.width + 2 * around) - around
        y = rng.uniform(own, stream + 2, member) * (here.height + 2 * around) - around
        # Drop sizes: many small, few big; a big drop is brighter and wider together.
        size = rng.uniform(own, stream + 3, member) ** 2
        length = _between(layer.length, rng.uniform(own, stream + 4, member)) * scale * wind.exposure[image]
        sigma = (_between(layer.width, size) * scale).clamp_min(0.4)
        glow = _between(layer.opacity, 0.5 * size + 0.5 * rng.uniform(own, stream + 5, member))
        glow = glow * (0.55 + 0.45 * strength[image])
        if not sharp:
            glow = glow / wind.exposure[image]
        angle = wind.angle[image] + layer.spread * rng.normal(own, stream + 6, member)
        if sharp and number > 0:  # several directions cross
            angle = angle + 0.35 * rng.normal(seed, stream + 8).clamp(-2, 2)[image]
        dx, dy = torch.sin(angle), torch.cos(angle)
        away = torch.stack([x / here.width, y / here.height], -1) - wind.vanishing[image]
        bend = layer.fan * wind.forward[image]
        dx, dy = dx + bend * away[:, 0], dy + bend * away[:, 1]
        speed = torch.sqrt(dx * dx + dy * dy).clamp_min(0.3)
        streaks = _Streaks(x - here.left, y - here.top, dx / speed, dy / speed, length * speed, sigma, glow)
        _draw(total, image * (height * width), streaks, height, width)
    return (total.view(-1, height, width).float() / _FIXED_POINT).clamp_max(1.0)


def _draw(total: Tensor, base: Tensor, streaks: _Streaks, height: int, width: int) -> None:
    """Add N capsules to the flat canvas `total`, streak n to the image that begins at `base[n]`.

    A streak walks its major axis pixel by pixel, in a ragged enumeration, so that short streaks cost little; across it,
    all streaks of a layer take the same few pixels.
    """
    steep = streaks.dy.abs() >= streaks.dx.abs()
    along = torch.where(steep, streaks.dy, streaks.dx)
    cross = torch.where(steep, streaks.dx, streaks.dy)
    middle = torch.where(steep, streaks.y, streaks.x)
    beside = torch.where(steep, streaks.x, streaks.y)
    limit, other = torch.where(steep, height, width), torch.where(steep, width, height)
    extent = 0.5 * streaks.length * along.abs() + streaks.sigma
    aside = 0.5 * streaks.length * cross.abs() + 3 * streaks.sigma
    first = (middle - extent).ceil().long().clamp_min(0)
    last = torch.minimum((middle + extent).floor().long(), limit - 1)
    seen = (last >= first) & (beside + aside >= 0) & (beside - aside <= other - 1)
    keep = torch.nonzero(seen).flatten()
    if keep.numel() == 0:
        return
    streak, step = rng.ragged((last - first + 1)[keep])
    streak = keep[streak]
    major = first[streak] + step
    along, cross, sigma, half = along[streak], cross[streak], streaks.sigma[streak], 0.5 * streaks.length[streak]
    run = major - middle[streak]
    line = beside[streak] + run * cross / along
    nearest = line.round()
    reach = int((_SUPPORT * sigma / along.abs() + 0.5).max().ceil())
    offset = torch.arange(-reach, reach + 1, device=total.device)
    gap = (nearest - line)[:, None] + offset
    # Coordinates along (u) and across (v) the streak of a pixel beside the line.
    u = (run / along)[:, None] + gap * cross[:, None]
    v = gap * (along / sigma)[:, None]
    taper = (1.0 - (u / half[:, None]).square_()).clamp_min_(0.0).sqrt_()
    # A profile that ends at _SUPPORT: else a wider streak elsewhere in the batch would lengthen this one's tails.
    profile = v.square_().mul_(-0.5).exp_().sub_(_TAIL).clamp_min_(0.0)
    value = taper.mul_(profile).mul_((streaks.glow[streak] * (_FIXED_POINT / (1 - _TAIL)))[:, None])
    minor = nearest.long()[:, None] + offset
    upright = steep[streak]
    outside = (minor < 0) | (minor >= other[streak, None])
    near = torch.where(upright, 1, width)[:, None]
    index = (base[streak] + major * torch.where(upright, width, 1))[:, None] + minor * near
    value.masked_fill_(outside, 0.0)
    index.masked_fill_(outside, 0)
    total.index_add_(0, index.flatten(), value.to(torch.int32).flatten())


def noise_level(strength: float) -> float:
    """The share of cells that hold a spark of the noise: 20 % to 60 %, the paper's for JRSRD."""
    return 0.2 + 0.4 * strength


def sparks(seed: Tensor, strength: float, rows: int, columns: int) -> Tensor:
    """The thresholded noise of one image before it is blurred: int32 [rows, columns], 1 for a spark and else 0."""
    return rng.bits(seed, 52, rows * columns, below=noise_level(strength)).view(rows, columns)


def _noise(seed: Tensor, strength: Tensor, wind: Wind, height: int, width: int) -> Tensor:
    """The paper's protocol [B, H, W]: noise of 20 % to 60 %, motion-blurred, levels stretched."""
    # Image by image: canvases differ in size, and a common one would tie an image to its neighbours.
    each = (seed, strength.tolist(), wind.angle.tolist(), wind.exposure.tolist(), wind.scale.tolist())
    images = []
    for own, power, angle, exposure, scale in zip(*each, strict=True):
        level = noise_level(power)
        length = min(max(round(float(rng.uniform(own, 50, low=10.0, high=32.0)) * exposure), 4), 96)  # in grains
        grain = max(float(rng.uniform(own, 51, low=0.75, high=1.4)) * scale, 0.7)
        side = int((height**2 + width**2) ** 0.5 / grain) + 4
        # Integer sums, again for the same picture on every device.
        spark = sparks(own, power, side + length, side)
        sums = F.pad(torch.cumsum(spark, 0, dtype=torch.int32), (0, 0, 1, 0))
        mean = (sums[length:-1] - sums[: -length - 1]).float() / length
        # Levels: keep what stands out of the grey; more of it the stronger the rain.
        deviation = (level * (1 - level) / length) ** 0.5
        rain = ((mean - level) / deviation - (1.2 - 0.9 * power)).clamp_min_(0.0) * 0.33
        cos, sin, half = math.cos(angle), math.sin(angle), 0.5 * side * grain
        turn = torch.tensor([[width * cos, -height * sin, 0.0], [width * sin, height * cos, 0.0]]) * (0.5 / half)
        grid = F.affine_grid(turn[None], [1, 1, height, width], align_corners=False).to(seed.device)
        turned = F.grid_sample(rain[None, None], grid, align_corners=False)[0, 0]
        images.append((turned * (0.5 + 0.5 * power)).clamp_(0.0, 0.95))
    return torch.stack(images)


def _between(limits: tuple[float, float], part: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * part
