"""What the streaks and the veil owe to physics: perspective, exposure, accumulation with depth, the paper's noise."""

import pytest
import torch
from torch import Tensor

from derain.training.patches import rain_seeds
from derain.training.rain import RainConfig, counter_rng, render
from derain.training.rain.scene import FRAME_ROWS, accumulated
from derain.training.rain.streaks import STYLES, Wind, opacity, sparks

IMAGES, HEIGHT, WIDTH = 16, 240, 320


def streaks(
    style: str = "physical", strength: float = 0.5, forward: float = 0.0, exposure: float = 1.0, scale: float = 1.0
) -> Tensor:
    """Streaks falling straight down, [16, 240, 320], the vanishing point in the middle at two fifths of the height."""
    strengths, angle, forwards, exposures, scales = (
        torch.full((IMAGES,), value) for value in (strength, 0.0, forward, exposure, scale)
    )
    vanishing = torch.tensor([0.5, 0.4]).repeat(IMAGES, 1)
    wind = Wind(angle, vanishing, forwards, exposures, scales, torch.full((IMAGES,), STYLES[style]))
    return opacity(torch.arange(IMAGES) * 977 + 5, strengths, wind, HEIGHT, WIDTH)[:, 0]


def lean(image: Tensor) -> float:
    """How far to the right streaks fall, in pixels a row: lines are across their gradients."""
    across = image[:, 1:-1, 2:] - image[:, 1:-1, :-2]
    down = image[:, 2:, 1:-1] - image[:, :-2, 1:-1]
    return -float((across * down).sum() / across.square().sum())


def length(image: Tensor) -> float:
    """The rows over which an image looks like itself: the integral of its autocorrelation down the columns."""
    image = image - image.mean((1, 2), keepdim=True)
    alike = [(image[:, lag:] * image[:, : HEIGHT - lag]).mean() for lag in range(60)]
    return float(sum(alike) / alike[0])


def test_streaks_diverge_from_the_vanishing_point_when_driving_forward():
    driving, standing = streaks(forward=1.0), streaks()
    left, middle, right = driving[..., :120], driving[..., 120:200], driving[..., 200:]
    assert lean(left) < -0.1 and lean(right) > 0.1
    assert abs(lean(middle)) < 0.05
    assert max(abs(lean(standing[..., part])) for part in (slice(0, 120), slice(200, 320))) < 0.05


@pytest.mark.parametrize("style", STYLES)
def test_a_longer_exposure_draws_longer_streaks(style):
    short, middle, long = (length(streaks(style, 0.1, exposure=exposure)) for exposure in (0.6, 1.0, 1.5))
    assert 1.2 * short < middle < long / 1.2


def test_a_shorter_exposure_draws_streaks_that_hide_more_and_takes_as_much_water():
    short, middle, long = (streaks("physical", 0.1, exposure=exposure) for exposure in (0.5, 0.8, 1.5))
    brightest = [float(image.flatten().kthvalue(int(image.numel() * 0.998)).values) for image in (short, middle, long)]
    assert brightest[0] > 1.2 * brightest[1] > 1.2**2 * brightest[2]
    assert float(short.mean()) == pytest.approx(float(long.mean()), rel=0.15)


@pytest.mark.parametrize("style", STYLES)
def test_streaks_grow_with_the_scale_and_not_with_its_square(style):
    half, whole = (length(streaks(style, 0.1, exposure=0.8, scale=scale)) for scale in (0.5, 1.0))
    assert whole / half == pytest.approx(2, rel=0.3)


def test_the_noise_that_streaks_are_blurred_from_covers_20_to_60_percent_of_an_image():
    shares = [float(sparks(torch.tensor(7), strength, 400, 400).float().mean()) for strength in (0.0, 0.25, 0.5, 1.0)]
    assert shares == pytest.approx([0.2, 0.3, 0.4, 0.6], abs=0.005)


def test_the_veil_is_thickest_at_the_horizon_thinner_towards_the_bottom_row_and_has_its_mean():
    mean, horizon = torch.tensor([0.05, 0.2, 0.2]), torch.tensor([0.4, 0.4, 0.25])
    rows = (torch.arange(FRAME_ROWS) + 0.5) / FRAME_ROWS
    veil = accumulated(mean, horizon, rows.expand(3, -1))
    torch.testing.assert_close(accumulated(mean, horizon, rows[None, 50:60].expand(3, -1)), veil[:, 50:60])
    torch.testing.assert_close(veil.mean(1), mean, rtol=0, atol=1e-6)
    assert (veil.diff(dim=1) <= 0).all()
    assert torch.equal(veil[:, :1].expand(-1, 20), veil[:, :20])  # far is as far above the horizon
    assert (veil[:, 0] > 3 * veil[:, -1]).all()
    assert (veil[1] > veil[0]).all()
    assert veil[2, 204] < veil[1, 204]  # a higher horizon: that row is nearer
    depth = torch.log1p(-veil[1]) / torch.log1p(-veil[1, -1])  # β cancels: the depth of a flat road, bottom row 1
    torch.testing.assert_close(depth[308:], (rows[-1] - 0.4) / (rows[308:] - 0.4), rtol=1e-3, atol=0)


def test_rain_hides_more_at_the_horizon_than_at_the_bottom_row_and_more_the_stronger_it_is():
    clean = torch.full((48, 3, 64, 64), 0.1)
    changes = []
    for strength in (0.5, 1.0):
        mask = render(clean, 1, RainConfig(kinds="streaks", style="physical", strength=strength)).mask_streak
        rows = mask.mean((0, 1, 3))
        far, near = float(rows[:24].mean()), float(rows[-12:].mean())
        assert far > 1.3 * near
        changes.append((far, near))
    (far, near), (farther, nearer) = changes
    assert farther > 1.5 * far and nearer > 1.1 * near


@pytest.mark.parametrize("style", STYLES)
def test_rain_is_the_same_under_autocast(style):
    clean = torch.rand(4, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    config = RainConfig(kinds="both", strength=0.8, style=style)
    plain = render(clean, 3, config)
    with torch.autocast("cpu", torch.bfloat16):
        within = render(clean, 3, config)
    for one, two in zip(plain, within, strict=True):
        assert two.dtype == torch.float32 and torch.equal(one, two)


def test_the_rain_of_an_iteration_is_drawn_on_the_cpu_whatever_the_default_device():
    seeds = rain_seeds(2, 5, batch=3)
    with torch.device("meta"):  # a device on which nothing has a value, and no generator
        assert torch.equal(rain_seeds(2, 5, batch=3), seeds)
    assert seeds.dtype == torch.int64 and len(set(seeds.tolist())) == 3
    assert not set(rain_seeds(2, 6, batch=3).tolist()) & set(seeds.tolist())


def test_a_number_drawn_by_a_plain_index_is_that_of_the_same_index_in_a_tensor():
    seeds = torch.tensor([0, 1, 2**32 - 1])
    for index in (0, 1, 7, 2**31, 2**40):
        for stream in (0, 21, 0x1021):
            assert torch.equal(
                counter_rng.derive(seeds, stream, index), counter_rng.derive(seeds, stream, torch.tensor(index))
            )
