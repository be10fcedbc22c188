"""A windscreen out of focus: discs for points, all of the water, dry glass left alone."""

import math

import pytest
import torch
from pydantic import ValidationError

from derain.training.rain import RainConfig, RainyClip, render
from derain.training.rain.drops import Glass, make_glass, see_through
from derain.training.rain.frames import Frames
from derain.training.rain.lens import defocus, margin
from derain.training.rain.scene import draw_weather, item_seeds


def scene(batch: int = 4, height: int = 96, width: int = 128) -> torch.Tensor:
    """Waves, so that what a drop shows is not what it hides."""
    y, x = torch.meshgrid(torch.arange(height) / 9.0, torch.arange(width) / 7.0, indexing="ij")
    return (0.5 + 0.3 * torch.stack([torch.sin(x), torch.cos(y), torch.sin(x + y)]))[None].repeat(batch, 1, 1, 1)


@pytest.mark.parametrize("diameter", [5.0, 12.0, 21.5])
def test_a_point_becomes_a_disc_of_that_diameter(diameter: float) -> None:
    given = torch.tensor([diameter])
    around = int(margin(given))
    layer = torch.zeros(1, 2, 60 + 2 * around, 80 + 2 * around)
    layer[:, :, around + 30, around + 40] = torch.tensor([1.0, 0.25])
    seen = defocus(layer, given, around)
    assert seen.shape == (1, 2, 60, 80)
    weight = seen[0, 0]
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-4)
    distance = torch.hypot(torch.arange(60.0)[:, None] - 30, torch.arange(80.0)[None] - 40)
    assert weight[distance > diameter / 2 + 0.5].abs().max() == 0
    inside = weight[distance < diameter / 2 - 0.5]
    torch.testing.assert_close(inside, torch.full_like(inside, 4 / (math.pi * diameter**2)), rtol=0.06, atol=0)
    torch.testing.assert_close(seen[0, 1], 0.25 * weight)


def test_out_of_focus_drops_are_soft_and_all_of_their_water_stays() -> None:
    seeds, scale = torch.arange(30), torch.ones(30)
    sharp = make_glass(seeds, torch.full((30,), 0.3), scale, 128, 160)
    soft = make_glass(seeds, torch.full((30,), 0.3), scale, 128, 160, defocus=torch.full((30,), 16.0))
    black, white = torch.zeros(30, 3, 128, 160), torch.ones(30, 3, 128, 160)

    def cover(glass: Glass) -> torch.Tensor:
        """The share of the scene that is not seen, whatever is seen instead."""
        light = torch.zeros(30, 3, 1, 1)
        frames = Frames.whole(black)
        return 1 - (see_through(glass, white, light, frames) - see_through(glass, black, light, frames))[:, 0]

    wet, blurred = cover(sharp), cover(soft)
    assert float(blurred.mean()) == pytest.approx(float(wet.mean()), rel=0.15)
    # Moved by a pixel, a disc gains what lies under half of its rim: at most its diameter's share of its area, 0.08.
    assert blurred.diff(dim=2).max() < 0.09 and wet.diff(dim=2).max() > 0.3
    # The windscreen goes on behind the picture's edges, from where discs reach into it.
    edges = (blurred[:, :3], blurred[:, -3:], blurred[:, :, :3], blurred[:, :, -3:])
    assert all(edge.mean() > 0.75 * blurred.mean() for edge in edges)
    assert all(edge.mean() < 1.3 * blurred.mean() for edge in edges)


def test_a_margin_holds_its_disc_and_is_even() -> None:
    diameters = torch.linspace(0.01, 60.0, 500)
    assert (margin(diameters) >= diameters / 2 + 0.5).all() and (margin(diameters) <= diameters / 2 + 3).all()
    assert (margin(diameters) % 2 == 0).all() and margin(torch.zeros(1)) == 0


def test_glass_in_focus_beside_glass_that_is_not_looks_as_by_itself() -> None:
    seeds, strength, clean, light = torch.arange(2), torch.full((2,), 0.7), scene(2), torch.ones(2, 3, 1, 1)
    alone = make_glass(seeds, strength, torch.ones(2), 96, 128)
    beside = make_glass(seeds, strength, torch.ones(2), 96, 128, defocus=torch.tensor([0.0, 20.0]))
    sharp, mixed = see_through(alone, clean, light), see_through(beside, clean, light)
    # But at the outermost pixels, where the glass, drawn at half the size, cannot look over the edge by itself.
    torch.testing.assert_close(sharp[0, :, 1:-1, 1:-1], mixed[0, :, 1:-1, 1:-1], rtol=0, atol=1e-4)
    assert not torch.allclose(sharp[1], mixed[1], atol=0.05)


def test_dry_glass_shows_the_scene_bit_by_bit() -> None:
    clean = scene()
    assert torch.equal(render(clean, 5, RainConfig(kinds="both", defocus=12.0), 0.0).rainy, clean)
    light = render(clean, 5, RainConfig(kinds="drops", frame_height=96, defocus=6.0), 0.05)
    touched = (light.rainy != clean).any(1)
    assert 0.01 < touched.float().mean() < 0.99
    assert torch.equal(light.mask_drop[:, 0] > 0, touched)


def test_the_lens_changes_drops_and_not_streaks() -> None:
    clean = scene()
    for kinds, same in (("streaks", True), ("drops", False)):
        sharp, soft = (
            render(clean, 5, RainConfig(kinds=kinds, strength=0.7, defocus=disc)).rainy for disc in (0.0, 12.0)
        )
        assert torch.equal(sharp, soft) == same


def test_two_diameters_are_drawn_between_with_the_frames_scale() -> None:
    seeds = item_seeds(1, 4000)
    weather = draw_weather(seeds, RainConfig(defocus=(4.0, 24.0), frame_height=960, scale_jitter=1.5))
    assert weather.defocus is not None
    drawn = weather.defocus / weather.scale
    assert 4.0 <= drawn.min() < 4.01 and 23.8 < drawn.max() <= 24.0
    assert float(drawn.median()) == pytest.approx(9.0, abs=0.5)  # the smaller ones more often
    assert draw_weather(seeds, RainConfig(defocus=(0.0, 0.0))).defocus is None
    one = draw_weather(seeds, RainConfig(defocus=8.0, frame_height=960, scale_jitter=1.0)).defocus
    assert one is not None and torch.equal(one, torch.full_like(one, 16.0))


def test_a_frame_of_a_clip_is_the_same_whether_rendered_alone_or_in_order() -> None:
    config = RainConfig(kinds="drops", strength=0.7, defocus=(2.0, 20.0))
    whole, alone = RainyClip(4, config).render(scene(5), 0), RainyClip(4, config).render(scene(1), 3)
    assert torch.allclose(whole.rainy[3], alone.rainy[0], atol=2e-3)
    assert not torch.allclose(whole.rainy, RainyClip(4, RainConfig(kinds="drops", strength=0.7)).render(scene(5), 0)[0])


@pytest.mark.parametrize("wrong", [-1.0, 101.0, float("nan"), (8.0, 2.0), (1.0,), "far"])
def test_what_is_no_diameter_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="defocus"):
        RainConfig.model_validate({"defocus": wrong})
