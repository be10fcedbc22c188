"""Rain over still images: strength, seeds, masks, and what a drop shows."""

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from derain.training.rain import MASK_FULL, RainConfig, render
from derain.training.rain.drops import Glass, make_glass, see_through
from derain.training.rain.frames import Frames
from derain.training.rain.scene import draw_weather, item_seeds
from derain.training.rain.streaks import STYLES


def scene(batch: int = 4, height: int = 96, width: int = 128) -> Tensor:
    """A bright sky over a dark striped road: procedural, with edges and flat parts."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    road = 0.25 + 0.15 * torch.sin(40 * x + 7 * y)
    image = torch.where(y < 0.4, 0.75 - 0.2 * y, road)
    return torch.stack([image, 0.9 * image, 0.8 * image + 0.1])[None].repeat(batch, 1, 1, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean()))


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_renders_the_same_rain_and_another_seed_another(style: str) -> None:
    config = RainConfig(kinds="both", strength=0.7, style=style)
    first, again, other = (render(scene(), seed, config) for seed in (3, 3, 4))
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one, two)
        assert one is first.clean or not torch.equal(one, three)


def test_a_generator_renders_new_rain_at_each_call_and_repeats_after_reseeding() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (render(scene(), generator).rainy for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, render(scene(), generator.manual_seed(1)).rainy)


@pytest.mark.parametrize("style", STYLES)
def test_strength_zero_returns_the_clean_image_bit_by_bit(style: str) -> None:
    clean = torch.rand(3, 3, 61, 85, generator=torch.Generator().manual_seed(0))
    batch = render(clean, 5, RainConfig(kinds="both", style=style), strength=0.0)
    assert torch.equal(batch.rainy, clean)
    assert torch.equal(batch.drops_only, clean)
    assert batch.mask_streak.count_nonzero() == 0
    assert batch.mask_drop.count_nonzero() == 0


@pytest.mark.parametrize("size", [(16, 16), (61, 85), (112, 112), (40, 200)])
def test_images_and_masks_stay_within_zero_and_one_at_any_size(size: tuple[int, int]) -> None:
    clean = torch.rand(8, 3, *size, generator=torch.Generator().manual_seed(0)).round()
    for strength in (0.05, 1.0):
        for name, image in render(clean, 2, strength=strength)._asdict().items():
            assert torch.isfinite(image).all(), name
            assert image.min() >= 0 and image.max() <= 1, name
            assert image.shape == (8, 1 if name.startswith("mask") else 3, *size)


def test_masks_are_the_change_on_their_fixed_scale() -> None:
    batch = render(scene(), 9, RainConfig(kinds="both", strength=1.0))
    streak = ((batch.rainy - batch.drops_only).abs().mean(1, keepdim=True) / MASK_FULL).clamp(max=1)
    drop = ((batch.drops_only - batch.clean).abs().mean(1, keepdim=True) / MASK_FULL).clamp(max=1)
    assert torch.equal(batch.mask_streak, streak)
    assert torch.equal(batch.mask_drop, drop)
    assert streak.max() > 0.2 and drop.max() > 0.2


def test_each_kind_leaves_the_other_kinds_mask_empty() -> None:
    streaks = render(scene(), 9, RainConfig(kinds="streaks", strength=0.8))
    assert streaks.mask_drop.count_nonzero() == 0 and streaks.mask_streak.max() > 0.2
    assert torch.equal(streaks.drops_only, streaks.clean)
    drops = render(scene(), 9, RainConfig(kinds="drops", strength=0.8))
    assert drops.mask_streak.count_nonzero() == 0 and drops.mask_drop.max() > 0.2
    assert torch.equal(drops.drops_only, drops.rainy)


def test_drops_leave_dry_glass_untouched() -> None:
    drops = render(scene(), 9, RainConfig(kinds="drops", strength=0.25))
    dry = drops.mask_drop == 0
    assert 0.3 < dry.float().mean() < 1
    assert torch.equal((drops.rainy * dry), (drops.clean * dry))


@pytest.mark.parametrize(("kinds", "style"), [("drops", "mixed"), ("both", "mixed"), *(("streaks", s) for s in STYLES)])
def test_psnr_falls_as_the_rain_grows(kinds: str, style: str) -> None:
    clean = scene(12)
    config = RainConfig(kinds=kinds, style=style)
    quality = [psnr(render(clean, 1, config, strength).rainy, clean) for strength in (0.05, 0.25, 0.5, 0.75, 1.0)]
    assert all(weak > strong + 0.3 for weak, strong in pairwise(quality)), quality


def test_the_training_mix_holds_every_kind_and_every_strength() -> None:
    batch = render(torch.full((64, 3, 48, 48), 0.4), 0)
    streaks, drops = (mask.flatten(1).amax(1) > 0.02 for mask in (batch.mask_streak, batch.mask_drop))
    assert (streaks & drops).float().mean() > 0.4
    assert (streaks & ~drops).any() and (drops & ~streaks).any()


def test_a_share_of_the_images_stays_dry_where_the_strength_is_drawn_and_the_others_have_the_rain_they_had() -> None:
    seeds = item_seeds(3, 400)
    wet, mixed = (draw_weather(seeds, RainConfig(kinds="both", dry=share)) for share in (0.0, 0.1))
    dry = mixed.streak_strength == 0
    assert 20 < dry.sum() < 60 and wet.streak_strength.min() >= 0.05
    assert torch.equal(dry, mixed.drop_strength == 0)
    assert torch.equal(mixed.streak_strength[~dry], wet.streak_strength[~dry])
    for given in ({"strength": 0.5}, {}):
        config = RainConfig(kinds="both", dry=1.0, **given)
        told = draw_weather(seeds, config, None if given else 0.5)
        assert bool((told.streak_strength == 0.5).all())
    image = scene(1)
    assert torch.equal(render(image, 3, RainConfig(dry=1.0)).rainy, image)


def test_an_image_does_not_change_with_its_neighbours_in_the_batch() -> None:
    clean, seeds = scene(6), torch.arange(6) * 977
    config = RainConfig(kinds="both")
    together = render(clean, seeds, config)
    for number in range(6):
        alone = render(clean[number : number + 1], seeds[number : number + 1], config)
        # Vectorised and scalar exponentials round differently; what may differ is that, and not a streak.
        assert torch.allclose(together.rainy[number], alone.rainy[0], atol=2e-3)


def test_a_drop_shows_the_scene_upside_down_and_mirrored() -> None:
    height, width = 96, 128
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width)[None].expand(height, width)
    ramps = torch.stack([y, x, torch.zeros_like(x)])[None]
    seeds = torch.arange(40)
    glass = make_glass(seeds, torch.ones(40), torch.full((40,), 2.0), height, width)
    # Only refraction: without the rim's shading and the highlights.
    bare = Glass(glass.alpha, glass.shift, torch.ones_like(glass.gain), torch.zeros_like(glass.glint))
    seen = see_through(bare, ramps.repeat(40, 1, 1, 1), torch.ones(40, 3, 1, 1))
    # Inside a drop, neighbours downwards look upwards: the ramp runs against the scene's in most of the water.
    inside = (bare.alpha[:, 0, 1:, 1:] > 0.95) & (bare.alpha[:, 0, :-1, :-1] > 0.95)
    assert inside.float().mean() > 0.02
    # Water that looks back from beyond the frame sees it reflected there; leave that out.
    rows = torch.arange(height)[:, None] + bare.shift[:, 1]
    columns = torch.arange(width)[None] + bare.shift[:, 0]
    within = (rows > 4) & (rows < height - 5) & (columns > 4) & (columns < width - 5)
    inside &= within[:, 1:, 1:] & within[:, :-1, :-1]
    down = (seen[:, 0, 1:, 1:] - seen[:, 0, :-1, 1:])[inside]
    right = (seen[:, 1, 1:, 1:] - seen[:, 1, 1:, :-1])[inside]
    assert (down < 0).float().mean() > 0.8
    assert (right < 0).float().mean() > 0.8
    dry = (bare.alpha == 0)[:, 0, 1:, 1:] & (bare.alpha == 0)[:, 0, :-1, 1:]
    assert ((seen[:, 0, 1:, 1:] - seen[:, 0, :-1, 1:])[dry] > 0).all()


def test_rain_grows_with_the_frame_it_is_a_crop_of() -> None:
    small, large = (
        make_glass(torch.tensor([5]), torch.ones(1), torch.tensor([scale]), 128, 128).alpha for scale in (0.5, 2.0)
    )
    drops = [cv2.connectedComponents((alpha[0, 0].numpy() > 0.5).astype(np.uint8))[0] for alpha in (small, large)]
    assert drops[0] > 4 * drops[1] > 4


def test_a_strength_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        render(scene(), 0, strength=1.5)
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        render(scene(1), 0, strength=torch.tensor([float("nan")]))
    with pytest.raises(ValidationError):
        RainConfig(strength=-0.1)
    with pytest.raises(ValidationError):
        RainConfig(wind=3)


def test_bytes_in_place_of_floats_are_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="div\\(255\\)"):
        render(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0)


@pytest.mark.parametrize("height", [96, 480])
@pytest.mark.parametrize(
    "look", [{"style": "physical"}, {"style": "sharp"}, {"style": "physical", "defocus": (0.0, 24.0)}]
)
def test_a_part_of_a_frame_has_the_rain_that_the_frame_has_there(look: dict[str, Any], height: int) -> None:
    """But for its outermost pixels, where the glass, which is drawn at half the size, cannot look over the edge."""
    frame, seeds = scene(4, height, 2 * height), torch.arange(4)
    config = RainConfig(kinds="both", frame_height=height, **look)
    whole = render(frame, seeds, config, 0.8)
    tops, lefts = torch.tensor([0, 20, height - 64, 32]), torch.tensor([0, 2 * height - 80, 40, 30])
    here = [(slice(None), slice(top, top + 64), slice(left, left + 80)) for top, left in zip(tops, lefts, strict=True)]
    frames = Frames.whole(frame)
    frames = frames._replace(place=frames.place._replace(top=tops, left=lefts))
    cut = torch.stack([image[window] for image, window in zip(frame, here, strict=True)])
    part = render(cut, seeds, config, 0.8, frames)
    for own, frames_own in zip(part, whole, strict=True):
        same = torch.stack([image[window] for image, window in zip(frames_own, here, strict=True)])
        torch.testing.assert_close(own[..., 1:-1, 1:-1], same[..., 1:-1, 1:-1], rtol=0, atol=1e-4)
    assert (part.rainy - cut).abs().mean() > 0.01


def test_noise_on_a_part_of_a_frame_is_as_strong_as_on_the_frame() -> None:
    frame, seeds = scene(24, 96, 128), torch.arange(24)
    config, frames = RainConfig(kinds="streaks", style="noise", frame_height=96), Frames.whole(frame)
    whole = render(frame, seeds, config, 0.5).mask_streak[..., 32:64, 48:80].mean()
    place = frames.place._replace(top=frames.place.top + 32, left=frames.place.left + 48)
    part = render(frame[..., 32:64, 48:80], seeds, config, 0.5, frames._replace(place=place)).mask_streak.mean()
    assert part == pytest.approx(float(whole), rel=0.1)


def test_drops_on_a_part_of_a_frame_show_the_frame_and_its_light() -> None:
    frame, seeds = scene(2, 96, 96), torch.arange(2)
    clean = frame[..., 32:64, 32:64]
    lit, dark = (
        frames._replace(place=frames.place._replace(top=frames.place.top + 32, left=frames.place.left + 32))
        for frames in (Frames.whole(frame), Frames.whole(0.3 * frame))
    )
    assert torch.equal(render(clean, seeds, RainConfig(kinds="both"), 0.0, lit).rainy, clean)
    assert render(clean, seeds, frames=dark).rainy.mean() < render(clean, seeds, frames=lit).rainy.mean() - 0.01
