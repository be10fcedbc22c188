"""Rendered rain: streaks in the air, raindrops on the windscreen, both in time, with exact soft masks."""

from derain.training.rain.clip import RainyClip
from derain.training.rain.scene import MASK_FULL, RainConfig, RainyBatch, render

__all__ = ["MASK_FULL", "RainConfig", "RainyBatch", "RainyClip", "render"]
