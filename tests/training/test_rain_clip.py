"""Rain in time: streaks are new, drops stay, every frame stands alone."""

import pytest
import torch
from torch import Tensor

from derain.training.rain import RainConfig, RainyClip


def frames(count: int) -> Tensor:
    """A flat grey scene: what moves in the rainy frames is the rain."""
    ramp = torch.linspace(0.1, 0.7, 96)[:, None].expand(96, 128)
    return ramp.expand(count, 3, 96, 128)


def test_streaks_are_new_in_every_frame() -> None:
    batch = RainyClip(1, RainConfig(kinds="streaks", strength=0.6)).render(frames(3), 0)
    first, second, third = (mask - mask.mean() for mask in batch.mask_streak)
    for one, two in ((first, second), (second, third)):
        assert float((one * two).sum() / (one.norm() * two.norm())) < 0.5


def test_drops_stay_from_frame_to_frame_and_change_over_seconds() -> None:
    batch = RainyClip(1, RainConfig(kinds="drops", strength=0.8), fps=25).render(
        frames(3), torch.tensor([0, 1, 25 * 60])
    )
    start, next_frame, minute = batch.mask_drop

    def likeness(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    assert likeness(start, next_frame) > 0.9
    assert not torch.equal(start, next_frame)
    assert likeness(start, minute) < 0.8


def test_a_frame_is_the_same_whether_rendered_alone_or_in_order() -> None:
    config = RainConfig(kinds="both", strength=0.7, style="physical")
    whole = RainyClip(4, config).render(frames(5), 0)
    alone = RainyClip(4, config).render(frames(1), 3)
    assert torch.allclose(whole.rainy[3], alone.rainy[0], atol=2e-3)
    assert torch.equal(whole.rainy, RainyClip(4, config).render(frames(5), 0).rainy)


def test_the_wiper_clears_the_glass() -> None:
    # One sweep each 4 s; the blade crosses the left edge at 2 s, 6 s, … (the clip starts between two sweeps).
    clip = RainyClip(2, RainConfig(kinds="drops", strength=1.0, wiper=4.0), fps=10)
    wet = clip.glass(torch.tensor([19, 28]), 96, 128).alpha
    assert wet[0].mean() > 0.05
    assert wet[1].mean() < 0.5 * wet[0].mean()


def test_a_clip_without_speed_or_with_too_few_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="fps is 0"):
        RainyClip(1, fps=0)
    with pytest.raises(ValueError, match="one number a frame"):
        RainyClip(1).render(frames(2), torch.tensor([0]))
