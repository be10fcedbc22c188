"""What every network returns beside its recurrent state."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Branch(NamedTuple):
    """A network's view of one rain type.

    attention: S+ [B, 1, H, W] in 0…1, high where this rain is heavy; S- = 1 - S+ (eq. 2). None in DAM(zero).
    heavy, light: the images of D_heavy and D_light, [B, 3, H, W] (eqs. 6 and 7). None where a map is all there is.
    """

    attention: Tensor | None
    heavy: Tensor | None = None
    light: Tensor | None = None

    def with_images(self, change: Callable[[Tensor], Tensor]) -> "Branch":
        """The branch with its images changed."""
        heavy, light = (None if image is None else change(image) for image in (self.heavy, self.light))
        return Branch(self.attention, heavy, light)


class Prediction(NamedTuple):
    """A derained image and what the training losses look at.

    image: [B, 3, H, W], RGB; unclamped, so that losses keep their gradient. Clamp to 0…1 to show it.
    branches: a `Branch` for each rain type: "streak", "drop", or "rain" (a lone DAM, Qian et al.'s network); empty for
        networks without any.
    earlier: the predictions of earlier stages, first stage first (D-DAiAM, eq. 15), and whatever else is trained.
    """

    image: Tensor
    branches: dict[str, Branch]
    earlier: tuple["Prediction", ...] = ()
