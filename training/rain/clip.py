"""Rain in time: streaks are new in every frame, drops stay on the glass, slide and are wiped; the scene moves."""

import torch
from torch import Tensor

from derain.training.rain import counter_rng as rng
from derain.training.rain.drops import Glass, make_glass
from derain.training.rain.scene import RainConfig, RainyBatch, check_images, compose, draw_weather, item_seeds


class RainyClip:
    """The rain of one drive. It has no memory: any frame can be rendered at any time, and always comes out the same."""

    def __init__(
        self,
        seed: int,
        config: RainConfig | None = None,
        fps: float = 25.0,
        strength: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Draw the weather of the drive.

        Raises:
            ValueError: `fps` is not positive, or the strength is outside 0..1.
        """
        if not fps > 0:
            raise ValueError(f"fps is {fps}, expected a positive number of frames a second")
        self.config = RainConfig() if config is None else config
        self.fps = fps
        self._seed = item_seeds(seed, 1, device)
        self._weather = draw_weather(self._seed, self.config, strength)

    def glass(self, index: Tensor, height: int, width: int) -> Glass:
        """The windscreen at the frames `index` (int64 [B])."""
        weather = self._weather.repeat(index.numel())
        seed = rng.derive(weather.seed, 21)
        seconds = index.to(torch.float32) / self.fps
        return make_glass(
            seed,
            weather.drop_strength,
            weather.scale,
            height,
            width,
            seconds,
            self.config.wiper,
            defocus=weather.defocus,
        )

    def render(self, clean: Tensor, index: int | Tensor) -> RainyBatch:
        """Rain over frames of the clip.

        Args:
            clean: float [B, 3, H, W] in 0..1.
            index: the frames' numbers, int64 [B]; or the number of the first, the others following it.

        Raises:
            ValueError: the frames have another shape or type, or there are not as many numbers as frames.
        """
        check_images(clean)
        frames = clean.shape[0]
        if isinstance(index, int):
            index = torch.arange(index, index + frames, device=clean.device)
        if index.shape != (frames,):
            raise ValueError(f"index is {tuple(index.shape)}, expected ({frames},): one number a frame")
        weather = self._weather.repeat(frames)
        streaks = rng.derive(rng.derive(weather.seed, 22), 1, index)
        return compose(clean, weather, self.glass(index, *clean.shape[-2:]), streaks)
