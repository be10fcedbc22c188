"""A compact student learns from a larger teacher's image and attention maps besides the truth (Hinton et al. 2015)."""

import hashlib
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from derain.training.losses import LossConfig, image_loss
from derain.training.models import Prediction, size_multiple
from derain.training.models.weights import load, resolve


class DistillConfig(BaseModel):
    """The teacher, by the name or path of its weights, and the weights of the two terms it adds to the loss.

    They go with the scale of the loss: `output` is against 1 for L_global, `attention` against 1 for α.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    teacher: str
    output: float = Field(1.0, ge=0)
    attention: float = Field(10.0, ge=0)


class Teacher:
    """A trained network that is asked and never taught; no part of the module it teaches, its state or its average."""

    def __init__(self, config: DistillConfig, student: nn.Module, patch: int) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError, ValueError: no such weights, a patch the teacher does not take, or no common rain type.
        """
        self.config = config
        self.network = load(config.teacher).network.requires_grad_(False)
        multiple = size_multiple(self.network)
        if patch % multiple:
            raise ValueError(
                f"data.patch is {patch}, expected a multiple of {multiple} for {config.teacher!r} to see it"
            )
        taught, teaching = rain_types(student, patch), rain_types(self.network, patch)
        if config.attention and not taught & teaching:
            raise ValueError(
                f"distill.attention is {config.attention}, but the network has maps of {sorted(taught) or 'nothing'} "
                f"and {config.teacher!r} of {sorted(teaching) or 'nothing'}: set it to 0"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self  # the moving average copies the module, and needs no teacher of its own

    @torch.no_grad()
    def __call__(self, rainy: Tensor) -> Prediction:
        """The teacher's view of rainy [B, 3, H, W], on its device."""
        prediction: Prediction = self.network.to(rainy.device)(rainy)[0]
        return prediction

    def terms(self, student: Prediction, rainy: Tensor, loss: LossConfig) -> dict[str, Tensor]:
        """The image against the teacher's, as `loss` measures it against the truth, and the maps against its maps.

        Named "distill_output", "distill_attention" (the mean squared errors of the S+ of all common rain types) and
        "distill", output·L_output + α·attention·L_attention.
        """
        teacher = self(rainy)
        output = image_loss(student.image, teacher.image.clamp(0, 1).to(student.image.dtype), loss.image)
        attention = student.image.new_zeros(())
        for rain in student.branches.keys() & teacher.branches.keys():
            ours, theirs = student.branches[rain].attention, teacher.branches[rain].attention
            if ours is not None and theirs is not None:
                attention = attention + F.mse_loss(ours, theirs.to(ours.dtype))
        total = self.config.output * output + loss.alpha * self.config.attention * attention
        return {"distill_output": output, "distill_attention": attention, "distill": total}


@torch.no_grad()
def rain_types(network: nn.Module, patch: int) -> set[str]:
    """The rain types of which a network draws maps, as it says itself of a black patch of that many pixels a side."""
    branches = network(torch.zeros(1, 3, patch, patch))[0].branches
    return {rain for rain, branch in branches.items() if branch.attention is not None}


def teacher_digest(config: DistillConfig | None) -> str | None:
    """The SHA-256 of the teacher's weights file; a resumed run must have the same."""
    if config is None or config.teacher.startswith("random:"):
        return None
    return hashlib.sha256(resolve(config.teacher).read_bytes()).hexdigest()
