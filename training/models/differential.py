"""The differential-driven module and the multi-stage networks built with it, section 3.5 of the paper."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.training.models.blocks import activation
from derain.training.models.prediction import Prediction


class FilterNet(nn.Module):
    """Three 2×2 convolutions ending in a sigmoid: a difference image [B, 3, H, W] gives a soft map [B, 1, H, W].

    A 2×2 kernel has no centre; padding right and bottom, then left and top, then right and bottom again keeps the
    size and leaves the map half a pixel off its input, the least that three such kernels can do.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=2)
        self.conv2 = nn.Conv2d(width, width, kernel_size=2)
        self.conv3 = nn.Conv2d(width, 1, kernel_size=2)
        self.act = activation()

    def forward(self, difference: Tensor) -> Tensor:
        """Map a difference in -1…1 to weights in 0…1."""
        x = self.act(self.conv1(F.pad(difference, (0, 1, 0, 1))))
        x = self.act(self.conv2(F.pad(x, (1, 0, 1, 0))))
        return torch.sigmoid(self.conv3(F.pad(x, (0, 1, 0, 1))))


class DifferentialModule(nn.Module):
    """I_f = I_o^t ⊗ A + w · (I_i ⊗ B) (eq. 14), A from (I_o^t - I_i) and B from (I_o^t - I_o^{t-1}); w = 0.5."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = weight
        self.filter_a = FilterNet()
        self.filter_b = FilterNet()

    def forward(self, rainy: Tensor, output: Tensor, previous: Tensor) -> Tensor:
        """All [B, 3, H, W]: the rainy input, this stage's output, and the stage's before (the rainy input at first)."""
        a = self.filter_a(output - rainy)
        b = self.filter_b(output - previous)
        fused: Tensor = output * a + self.weight * (rainy * b)
        return fused


class MultiStage(nn.Module):
    """D-DAiAM and D-DAM (`differential=True`) or any two networks in a row (`False`): DAiAM-DAiAM, Qian et al.→PReNet.

    A stage's raw, unclamped image goes on: into the differential module, whose I_f is the next stage's rainy input
    (eq. 14), or straight into the next stage. I_o^0 is the rainy input. Each stage has weights of its own, and its
    image is trained (eq. 15).
    """

    def __init__(self, stages: Sequence[nn.Module], differential: bool = True) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.differential = nn.ModuleList(DifferentialModule() for _ in stages[1:]) if differential else None

    def forward(self, rainy: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Prediction, tuple[Any, ...]]:
        """Derain RGB frames [B, 3, H, W] in 0…1; the state is a tuple of the stages' own."""
        x = previous = rainy
        predictions: list[Prediction] = []
        states: list[Any] = []
        for index, stage in enumerate(self.stages):
            prediction, stage_state = stage(x, None if state is None else state[index])
            predictions += (*prediction.earlier, prediction)
            states.append(stage_state)
            if index + 1 < len(self.stages):
                output = prediction.image
                x = output if self.differential is None else self.differential[index](rainy, output, previous)
                previous = output
        last = predictions[-1]
        return Prediction(last.image, last.branches, tuple(predictions[:-1])), tuple(states)
