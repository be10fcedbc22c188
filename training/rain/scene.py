"""Rain over clean images: configuration, composition and the exact soft masks."""

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from derain.training.rain import counter_rng as rng
from derain.training.rain.drops import Glass, make_glass, see_through
from derain.training.rain.frames import Frames, Place
from derain.training.rain.streaks import Wind, draw_wind, opacity

MASK_FULL = 0.5
"""A mean change of this size over the three channels (of 1) makes a mask 1; smaller changes scale linearly."""

NEAREST_ROW = 0.1
"""How near to the horizon, in heights of the frame, depth still grows; about six times the depth of the bottom row."""


FRAME_ROWS = 512
"""Rows over which the veil's mean is taken, whatever the frame has."""


Diameter = Annotated[float, Field(ge=0.0, le=100.0)]


class RainConfig(BaseModel):
    """What rain to render.

    Attributes:
        kinds: `streaks`, `drops`, `both`, or `mixed`: per image, both (70 %), streaks only or drops only.
        strength: 0 (none), 0.25 (drizzle), 0.5 (moderate) to 1 (heavy); None draws 0.05..1 uniformly per image.
        dry: where the strength is drawn, the share of images that get none.
        style: of the streaks; `mixed` draws one per image (physical 50 %, noise 25 %, sharp 25 %).
        frame_height: rows of the frame that the images are crops of; streaks and drops grow with it.
        wiper: seconds between two sweeps of the wiper in a clip; None: no wiper. Stills are not wiped.
        scale_jitter: per image, sizes are multiplied by up to this factor or its inverse.
        defocus: the disc that the lens, focused far away, makes of a point of the windscreen: its diameter in pixels of
            a frame 480 rows high, which is the aperture's, times the focal length in pixels, divided by the distance
            from lens to glass. Two numbers: drawn between them for each image, small ones more often (uniform in the
            square root). 0: drops are as sharp as they are drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: Literal["streaks", "drops", "both", "mixed"] = "mixed"
    strength: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    dry: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    style: Literal["mixed", "physical", "noise", "sharp"] = "mixed"
    frame_height: Annotated[int, Field(ge=16)] = 480
    wiper: Annotated[float, Field(ge=0.8)] | None = None
    scale_jitter: Annotated[float, Field(ge=1.0, le=4.0)] = 1.4
    defocus: Diameter | tuple[Diameter, Diameter] = 0.0

    @field_validator("defocus")
    @classmethod
    def _rising(cls, value: float | tuple[float, float]) -> float | tuple[float, float]:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError(f"expected the smaller diameter first, as [{value[1]:g}, {value[0]:g}]")
        return value


class RainyBatch(NamedTuple):
    """Images [B, 3, H, W] and soft masks [B, 1, H, W], all in 0..1.

    Attributes:
        rainy: streaks over `drops_only`, as in the paper's JRSRD.
        drops_only: the clean image through a wet windscreen.
        clean: the input.
        mask_streak: mean over the channels of |rainy - drops_only|, divided by MASK_FULL and clamped to 1.
        mask_drop: the same of |drops_only - clean|.
    """

    rainy: Tensor
    drops_only: Tensor
    clean: Tensor
    mask_streak: Tensor
    mask_drop: Tensor


class Weather(NamedTuple):
    """What an image's rain is drawn with and what outlives a frame of a clip: per-image values [B]."""

    seed: Tensor
    streak_strength: Tensor
    drop_strength: Tensor
    scale: Tensor
    wind: Wind
    defocus: Tensor | None

    def repeat(self, count: int) -> "Weather":
        """The same weather, of one image, for `count` frames."""
        every = torch.zeros(count, dtype=torch.int64, device=self.seed.device)
        own = (self.seed[every], self.streak_strength[every], self.drop_strength[every], self.scale[every])
        return Weather(*own, self.wind.select(every), None if self.defocus is None else self.defocus[every])


def item_seeds(seed: int | Tensor | torch.Generator, batch: int, device: torch.device | str = "cpu") -> Tensor:
    """One int64 seed an image: from a number, from a generator (which moves on), or as given [B].

    A generator of the CPU gives the same seeds for every device.

    Raises:
        ValueError: a seed tensor has not one value an image.
    """
    if isinstance(seed, torch.Generator):
        return torch.randint(0, 1 << 32, (batch,), generator=seed, device=seed.device).to(device)
    if isinstance(seed, Tensor):
        if seed.shape != (batch,) or seed.dtype != torch.int64:
            raise ValueError(
                f"seed is {seed.dtype} {tuple(seed.shape)}, expected int64 ({batch},): one seed an image; "
                "or pass an int or a torch.Generator"
            )
        return seed.to(device)
    high, low = (seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF
    root = rng.mix(torch.tensor(low, device=device) + rng.mix(torch.tensor(high, device=device)))
    return rng.derive(root, 1, torch.arange(batch, device=device))


def draw_weather(seed: Tensor, config: RainConfig, strength: Tensor | float | None = None) -> Weather:
    """Draw each image's rain from its seed [B]; `strength` ([B] or one number) goes before the configuration's.

    Raises:
        ValueError: a strength is outside 0..1.
    """
    chosen = config.strength if strength is None else strength
    if chosen is None:
        power = rng.uniform(seed, 11, low=0.05, high=1.0) * (rng.uniform(seed, 14) >= config.dry)
    else:
        power = torch.as_tensor(chosen, dtype=torch.float32, device=seed.device).expand(seed.shape)
        if not bool(((power >= 0) & (power <= 1)).all()):
            raise ValueError(f"strength {chosen} is outside 0..1: 0 is no rain, 0.5 moderate, 1 heavy")
    pick = rng.uniform(seed, 12)
    if config.kinds == "mixed":
        with_streaks, with_drops = (pick < 0.85), (pick < 0.70) | (pick >= 0.85)
    else:
        with_streaks = torch.full_like(pick, config.kinds != "drops", dtype=torch.bool)
        with_drops = torch.full_like(pick, config.kinds != "streaks", dtype=torch.bool)
    jitter = config.scale_jitter ** rng.uniform(seed, 13, low=-1.0, high=1.0)
    scale = config.frame_height / 480.0 * jitter
    wind = draw_wind(seed, config.style, scale)
    return Weather(seed, power * with_streaks, power * with_drops, scale, wind, _draw_defocus(seed, config, scale))


def _draw_defocus(seed: Tensor, config: RainConfig, scale: Tensor) -> Tensor | None:
    low, high = config.defocus if isinstance(config.defocus, tuple) else (config.defocus, config.defocus)
    return (low + (high - low) * rng.uniform(seed, 15) ** 2) * scale if high else None


def render(
    clean: Tensor,
    seed: int | Tensor | torch.Generator,
    config: RainConfig | None = None,
    strength: Tensor | float | None = None,
    frames: Frames | None = None,
) -> RainyBatch:
    """Render rain over clean images, on their device.

    Each image is a function of its own pixels and its own seed: it does not change with its neighbours in the batch.

    Args:
        clean: float [B, 3, H, W] in 0..1.
        seed: a number, a `torch.Generator`, or int64 [B], one an image. The same seeds give the same rain.
        config: what rain; None: the training mix.
        strength: [B] or one number in 0..1, instead of the configuration's.
        frames: what the images are parts of: they get the rain that the frames have there, to a rounding. But noise is
            drawn anew, as it is the same everywhere, and the glass, of half the resolution, is sampled a pixel aside
            where an image begins at an odd row or column. None: the images are frames.

    Raises:
        ValueError: the images have another shape or type, or a strength is outside 0..1.
    """
    check_images(clean)
    config = RainConfig() if config is None else config
    seeds = item_seeds(seed, clean.shape[0], clean.device)
    weather = draw_weather(seeds, config, strength)
    frames = Frames.whole(clean) if frames is None else frames
    size = (clean.shape[-2], clean.shape[-1])
    glass = make_glass(
        rng.derive(seeds, 21),
        weather.drop_strength,
        weather.scale,
        *size,
        place=frames.place,
        defocus=weather.defocus,
    )
    return compose(clean, weather, glass, rng.derive(seeds, 22), frames)


def compose(
    clean: Tensor, weather: Weather, glass: Glass | Tensor, streak_seed: Tensor, frames: Frames | None = None
) -> RainyBatch:
    """Put the glass before the scene and the streaks of `streak_seed` [B] over both.

    In place of a rendered `glass`, photographs through wet glass [B, 3, H, W] may stand, as in the paper's JRSRD.
    `frames` as for `render`.
    Autocast is for the network around it: streaks turned in half precision would lie elsewhere.
    """
    with torch.no_grad(), torch.autocast(clean.device.type, enabled=False):
        frames = Frames.whole(clean) if frames is None else frames
        height, width = clean.shape[-2:]
        light = ambient_light(frames.mean, frames.deviation, weather.seed)
        drops_only = see_through(glass, clean, light, frames) if isinstance(glass, Glass) else glass
        water = opacity(streak_seed, weather.streak_strength, weather.wind, height, width, frames.place)
        rainy = _light_streaks(drops_only, water, light, weather, frames.place)
        return RainyBatch(rainy, drops_only, clean, soft_mask(rainy, drops_only), soft_mask(drops_only, clean))


def soft_mask(rainy: Tensor, clean: Tensor) -> Tensor:
    """|rainy - clean|, mean over the channels, on the fixed scale MASK_FULL: [B, 1, H, W] in 0..1.

    The scale is fixed and not the image's own maximum, so that light rain keeps a light mask.
    """
    return ((rainy - clean).abs().mean(1, keepdim=True) / MASK_FULL).clamp_max(1.0)


def ambient_light(mean: Tensor, deviation: Tensor, seed: Tensor) -> Tensor:
    """The light that water carries into the picture [B, 3, 1, 1]: a drop gathers almost the whole sky, so it is
    brighter and greyer than the scene behind it (Garg and Nayar), whose channels' mean and deviation are [B, 3].
    """
    bright = mean + 1.6 * deviation
    grey = bright.mean(1, keepdim=True)
    factor = rng.uniform(seed, 31, low=0.9, high=1.2)[:, None]
    return ((0.75 * grey + 0.25 * bright) * factor).clamp(0.25, 1.0)[..., None, None]


def _light_streaks(scene: Tensor, water: Tensor, light: Tensor, weather: Weather, place: Place) -> Tensor:
    """Veil, then streaks: I = B·(1 - (1 - q)·a) + a·L; q = 0 blends the background away, q = 1 only adds light."""
    seed = weather.seed
    rows, columns = place.rows(scene.shape[-2]), place.columns(scene.shape[-1])
    ends = ((side - 1).clamp_min(1)[:, None] for side in (place.height, place.width))
    mean = weather.streak_strength**1.5 * rng.uniform(seed, 32, low=0.0, high=0.22)
    depth = accumulated(mean, weather.wind.vanishing[:, 1], (rows + 0.5) / place.height[:, None])
    clouds = _clouds(seed, *(line / last for line, last in zip((rows, columns), ends, strict=True)))
    veil = clouds * depth[:, None, :, None]
    hazy = torch.lerp(scene, 0.9 * light.expand_as(scene), veil)
    adding = rng.uniform(seed, 34, low=0.0, high=1.0)[:, None, None, None]
    return (hazy * (1 - (1 - adding) * water) + water * light).clamp(0.0, 1.0)


def _clouds(seed: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Slow clouds in far rain that no longer resolves into streaks, [B, 1, h, w], at rows and columns in 0..1."""
    clouds = rng.uniform(seed[:, None], 33, torch.arange(16, device=seed.device)[None], 0.5, 1.5).view(-1, 1, 4, 4)
    shape = (rows.shape[0], rows.shape[1], columns.shape[1])
    places = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
    return F.grid_sample(clouds, 2 * places - 1, mode="bilinear", padding_mode="border", align_corners=True)


def accumulated(mean: Tensor, horizon: Tensor, rows: Tensor) -> Tensor:
    """The veil of rows, 1 - exp(-β·depth): rain that accumulates with depth (Garg and Nayar 2007).

    The depth of a row is that of a flat road, 1 / (row - horizon) with rows from 0 (top) to 1, and 1 / NEAREST_ROW at
    the horizon and above it. β is the one that gives the veil its mean.

    Args:
        mean: [B] in 0..1, the veil's mean over the rows of the frame.
        horizon: [B], the vanishing point's row in units of the height.
        rows: [B, h] in 0..1, the rows that are asked for.

    Returns:
        [B, h] in 0..1; 0 where the mean is 0.
    """

    def depth(row: Tensor) -> Tensor:
        return 1 / (row - horizon[:, None]).clamp_min(NEAREST_ROW)

    every = depth((torch.arange(FRAME_ROWS, device=mean.device) + 0.5) / FRAME_ROWS)
    # The mean is a concave function of β, so Newton's steps from 0 rise to the solution without passing it.
    beta = torch.zeros_like(mean)
    for _ in range(5):
        clear = torch.exp(-beta[:, None] * every)
        beta = beta + (mean - 1 + clear.mean(1)) / (clear * every).mean(1)
    return 1 - torch.exp(-beta[:, None] * depth(rows))


def check_images(clean: Tensor) -> None:
    """Raise ValueError unless `clean` is float [B, 3, H, W]."""
    if clean.ndim != 4 or clean.shape[1] != 3 or not clean.is_floating_point():
        raise ValueError(
            f"clean images are {clean.dtype} {tuple(clean.shape)}, expected float [B, 3, H, W] in 0..1: "
            "convert bytes with .float().div(255)"
        )
