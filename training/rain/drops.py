"""Raindrops on the windscreen: a sheet of glass that is independent of the scene behind it.

A drop is a spherical cap with a random contour. Refraction through it shows the scene upside down and in wide angle
(Roser and Geiger 2009; Hao et al. 2019): the pixel at p sees the scene at p' = c - M·(p - c)/r for a drop at c of
radius r, where M is the half-width of its view. Edges and contents are soft: the glass is rendered at half the
resolution and brought up, and the view is sampled from a shrunken scene. A camera near to the glass that focuses on the
scene sees more: a disc of every point of the glass (`lens`).
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.training.rain import counter_rng as rng
from derain.training.rain import lens
from derain.training.rain.frames import Frames, Place


@dataclass(frozen=True)
class Glass:
    """A sheet of wet glass; every field [B, ·, H, W], of the frame's size and `around` pixels on each side.

    Attributes:
        alpha: 0 (dry) to 1 (all that is seen is seen through water), one channel.
        shift: where a pixel looks, (x, y) minus its own position, in pixels, two channels.
        gain: factor on the refracted light (dark rim, bright foot), one channel.
        glint: added light in units of the ambient light (highlights), one channel.
        defocus: the diameter in pixels of the disc that the lens makes of its points, [B]; None: it is in focus.
        around: what is drawn of it around the image, as the lens spreads that into it.
    """

    alpha: Tensor
    shift: Tensor
    gain: Tensor
    glint: Tensor
    defocus: Tensor | None = None
    around: int = 0


@dataclass(frozen=True)
class Size:
    """A class of drops. Radii are pixels in a frame 480 rows high."""

    density: float  # drops in 10,000 pixels at strength 1
    radius: float  # median of the log-normal
    sigma: float  # of the logarithm
    limits: tuple[float, float]
    stretch: tuple[float, float]  # height over width of the contour
    cover: tuple[float, float]  # alpha of a drop's inside


SIZES = (
    Size(density=60.0, radius=1.3, sigma=0.35, limits=(0.7, 3.0), stretch=(0.9, 1.3), cover=(0.35, 0.8)),
    Size(density=11.0, radius=4.5, sigma=0.4, limits=(2.0, 10.0), stretch=(0.9, 1.5), cover=(0.75, 1.0)),
    Size(density=1.7, radius=12.0, sigma=0.35, limits=(6.0, 30.0), stretch=(0.9, 1.7), cover=(0.85, 1.0)),
    Size(density=0.22, radius=5.0, sigma=0.3, limits=(3.0, 9.0), stretch=(4.0, 12.0), cover=(0.6, 0.95)),
)


def make_glass(
    seed: Tensor,
    strength: Tensor,
    scale: Tensor,
    height: int,
    width: int,
    seconds: Tensor | None = None,
    wiper: float | None = None,
    place: Place | None = None,
    defocus: Tensor | None = None,
) -> Glass:
    """Render the drops on each image's windscreen.

    Args:
        seed: int64 [B], one a windscreen.
        strength: [B] in 0..1; a stronger rain keeps the weaker one's drops and adds to them.
        scale: [B], pixels for one pixel of a frame 480 rows high.
        height: rows.
        width: columns.
        seconds: [B], the time; any order of times gives the same glass at the same time. None: time 0.
        wiper: seconds between two sweeps; None: no wiper.
        place: where in the windscreen's picture these rows and columns are; None: they are all of it.
        defocus: [B], the diameter in pixels of the disc that the lens makes of a point of the glass; None: of a point
            a point. The windscreen goes on behind the picture's edges then.
    """
    time = torch.zeros_like(strength) if seconds is None else seconds
    place = Place.whole(seed.numel(), height, width, seed.device) if place is None else place
    around = 0
    if defocus is not None:
        reach = lens.margin(defocus)
        around = int(reach.max())
        place = place.widened(reach, around)
        height, width = height + 2 * around, width + 2 * around
    stamps = [
        _stamps(seed, strength, scale, place, time, wiper, size, 1000 * (number + 1))
        for number, size in enumerate(SIZES)
    ]
    drops = {key: torch.cat([stamp[key] for stamp in stamps]) for key in stamps[0]}
    rows, columns = (height + 1) // 2, (width + 1) // 2
    sheet = _paint(drops, seed.numel(), rows, columns)
    sheet = F.interpolate(sheet, scale_factor=2, mode="bilinear", align_corners=False)[:, :, :height, :width]
    alpha, dx, dy, gain, glint = sheet.unbind(1)
    return Glass(alpha[:, None], torch.stack([dx, dy], 1), gain[:, None], glint[:, None], defocus, around)


def see_through(glass: Glass, scene: Tensor, ambient: Tensor, frames: Frames | None = None) -> Tensor:
    """Return the scene [B, 3, H, W] seen through the glass; `ambient` [B, 3, 1, 1] lights the highlights.

    Drops show the `frames` that the scene is a part of; None: the scene is all there is. Where the glass is dry the
    scene comes out bit by bit.
    """
    frames = Frames.whole(scene) if frames is None else frames
    height, width = glass.alpha.shape[-2:]
    place = frames.place
    columns, rows = place.columns(width) - glass.around, place.rows(height) - glass.around
    across = (2 * (columns[:, None, :] + glass.shift[:, 0]) + 1) / place.width[:, None, None] - 1
    down = (2 * (rows[:, :, None] + glass.shift[:, 1]) + 1) / place.height[:, None, None] - 1
    looks = torch.stack([across, down], -1)
    sample = partial(F.grid_sample, mode="bilinear", padding_mode="reflection", align_corners=False)
    seen = torch.cat([sample(view[None], look[None]) for view, look in zip(frames.views, looks, strict=True)])
    wet = (seen * glass.gain + ambient * glass.glint).clamp(0.0, 1.0)
    if glass.defocus is None:
        return torch.lerp(scene, wet, glass.alpha)
    water = lens.defocus(torch.cat([glass.alpha, glass.alpha * wet], 1), glass.defocus, glass.around)
    return (scene * (1 - water[:, :1]) + water[:, 1:]).clamp(0.0, 1.0)


def _stamps(
    seed: Tensor,
    strength: Tensor,
    scale: Tensor,
    place: Place,
    time: Tensor,
    wiper: float | None,
    size: Size,
    stream: int,
) -> dict[str, Tensor]:
    """Draw the drops of one class: a flat list of contours, in pixels from the place's first."""
    plenty = rng.uniform(seed, stream, low=0.4, high=1.6)
    area = place.height * place.width / scale**2
    # A whole number of drops loses little rain on small crops when the fraction is a chance of one more.
    count = (size.density * 1e-4 * area * plenty * strength**0.85 + rng.uniform(seed, stream + 1)).floor().long()
    count = torch.where(strength > 0, count, 0)
    image, member = rng.ragged(count)
    own = rng.derive(seed[image], stream + 2, member)
    top, left, height, width = place.select(image)
    radius = size.radius * torch.exp(size.sigma * rng.normal(own, 1))
    radius = radius.clamp(*size.limits) * scale[image] * (0.75 + 0.25 * strength[image])
    stretch = size.stretch[0] + (size.stretch[1] - size.stretch[0]) * rng.uniform(own, 2)
    # A drop keeps its column: when it has slid away or was wiped, the next one lands elsewhere in it.
    column = rng.uniform(own, 7) * (width + radius) - 0.5 * radius
    if wiper is None:  # a drop sits, then lets go and slides down, and another one lands in its stead
        period = rng.uniform(own, 3, low=4.0, high=14.0)
        clock = time[image] / period + rng.uniform(own, 4)
        life = clock.floor()
        born = rng.derive(own, 5, life.long())
        age = (clock - life) * period
    else:  # the blade clears the glass from left to right, and drops land again one by one
        period = torch.full_like(column, wiper)
        clock = (time[image] - 0.6 * column / width) / wiper + 0.5
        life = clock.floor()
        born = rng.derive(own, 5, life.long())
        age = (clock - life) * period - rng.uniform(born, 18) * period
    sits = rng.uniform(born, 6, low=0.3, high=1.2) * period
    heavy = (radius / scale[image] / 9.0).clamp(0.0, 1.5)
    slide = heavy * (age - sits).clamp_min(0.0) ** 1.5 * 25.0 * scale[image]
    # Focus: of one lens and one windscreen, so the same for all drops; most cameras see soft drops.
    focus = (0.6 + 4.4 * rng.uniform(seed, 3) ** 2) * scale
    grown = (0.6 + age * 2.0).clamp(0.6, 1.0)
    reach = radius * stretch
    drops = {
        "image": image,
        "x": column - left,
        "y": rng.uniform(born, 8) * (height + reach) - 0.5 * reach + slide - top,
        "rx": radius * grown,
        "ry": reach * grown * (1 + 0.3 * (slide > 0).float()),
        "focus": focus[image],
        "sag": rng.uniform(own, 9, low=0.0, high=0.35),
        "bumps": rng.uniform(own[:, None], 10, torch.arange(3, device=seed.device)[None]),
        "turn": 2 * torch.pi * rng.uniform(own[:, None], 11, torch.arange(3, device=seed.device)[None]),
        "wobble": (stretch > 3).float() * rng.uniform(own, 12, low=0.3, high=1.0),
        "cover": size.cover[0] + (size.cover[1] - size.cover[0]) * rng.uniform(own, 13),
        "view": rng.uniform(own, 14, low=0.5, high=1.0) * 0.5 * torch.minimum(height, width),  # half of its width
        "rim": rng.uniform(own, 15, low=0.15, high=0.6),
        "foot": rng.uniform(own, 16, low=0.05, high=0.45),
        "spark": rng.uniform(own, 17, low=-0.5, high=0.6).clamp_min(0.0),
    }
    landed = torch.nonzero(age >= 0).flatten()
    return {key: value[landed] for key, value in drops.items()}


def _paint(drops: dict[str, Tensor], batch: int, rows: int, columns: int) -> Tensor:
    """Stamp the drops into a sheet [B, 5, rows, columns] at half resolution: alpha, shift x, y, gain, glint."""
    rx, ry = drops["rx"] * 0.5, drops["ry"] * 0.5
    x, y = drops["x"] * 0.5 - 0.25, drops["y"] * 0.5 - 0.25
    soft = drops["focus"] * 0.5
    reach_x, reach_y = (1.35 + drops["wobble"]) * rx + 0.5 * soft + 1.0, 1.6 * ry + 0.5 * soft + 1.0
    left, top = (x - reach_x).floor().long().clamp(0, columns), (y - reach_y).floor().long().clamp(0, rows)
    right = (x + reach_x).ceil().long().clamp(-1, columns - 1)
    bottom = (y + reach_y).ceil().long().clamp(-1, rows - 1)
    wide, high = (right - left + 1).clamp_min(0), (bottom - top + 1).clamp_min(0)
    drop, point = rng.ragged(wide * high)
    sheet = torch.zeros(batch * rows * columns, 5, device=rx.device)
    sheet[:, 3] = 1.0
    if drop.numel() == 0:
        return sheet.view(batch, rows, columns, 5).permute(0, 3, 1, 2)
    row = torch.div(point, wide[drop], rounding_mode="floor")
    column = point - row * wide[drop] + left[drop]
    row = row + top[drop]
    of = {key: value[drop] for key, value in drops.items() if key not in ("x", "y", "rx", "ry", "image", "focus")}
    qx, qy = (column - x[drop]), (row - y[drop])
    qx = (qx + of["wobble"] * rx[drop] * torch.sin(2.5 * qy / rx[drop] * 0.3)) / rx[drop]
    qy = qy / ry[drop]
    # Gravity: the foot hangs lower than the head, and the head is narrower.
    qy = torch.where(qy > 0, qy / (1 + of["sag"]), qy)
    qx = qx * (1 - 0.35 * of["sag"] * qy.clamp(-1, 1))
    theta = torch.atan2(qy, qx)
    bumps = sum(
        a * of["bumps"][:, k] * torch.cos((k + 2) * theta + of["turn"][:, k]) for k, a in enumerate((0.14, 0.08, 0.05))
    )
    rho = torch.sqrt(qx * qx + qy * qy) / (1 + bumps)
    small = torch.minimum(rx, ry)[drop]
    alpha = ((1 - rho) * small / soft[drop].clamp_min(1.0) + 0.5).clamp(0.0, 1.0)
    alpha = alpha * alpha * (3 - 2 * alpha)
    cap = (1 - rho * rho).clamp_min(0.0) * small
    # The highest water wins a pixel, ties go to the later point: one integer maximum, the same on every device.
    key = (alpha * 1023).long() << 50 | (cap * 64).long().clamp_max((1 << 16) - 1) << 34
    key = key | torch.arange(drop.numel(), device=rx.device)
    pixel = (drops["image"][drop] * rows + row) * columns + column
    best = torch.full((batch * rows * columns,), -1, dtype=torch.int64, device=rx.device)
    best.scatter_reduce_(0, pixel, key, "amax")
    hit = torch.nonzero(best >= 0).flatten()
    winner = best[hit] & ((1 << 34) - 1)
    bend = 1 + 0.5 * rho * rho  # rays bend more towards the rim
    ux, uy = qx.clamp(-1.5, 1.5) * bend, qy.clamp(-1.5, 1.5) * bend
    view = of["view"]
    away_x, away_y = (column - x[drop]) * 2.0, (row - y[drop]) * 2.0
    edge = (rho.clamp_max(1.2)) ** 4
    gain = (1 - of["rim"] * edge * (0.65 - 0.35 * qy)) * (1 + of["foot"] * qy.clamp(-1, 1))
    spot = torch.exp(-(((qx + 0.3) / 0.22) ** 2) - ((qy + 0.4) / 0.18) ** 2)
    fields = torch.stack([alpha * of["cover"], -view * ux - away_x, -view * uy - away_y, gain, of["spark"] * spot], -1)
    sheet[hit] = fields[winner]
    return sheet.view(batch, rows, columns, 5).permute(0, 3, 1, 2)
