"""The generator of Qian et al. 2018, "Attentive Generative Adversarial Network for Raindrop Removal"."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.training.models.blocks import ConvLSTM, LSTMState, ReluBlock, conv3x3
from derain.training.models.prediction import Branch, Prediction

START = 0.5
"""The attention map before the first step."""


class AttentionState(NamedTuple):
    """State of the attentive-recurrent network: its last map [B, 1, H, W] in 0…1 and its LSTM's."""

    attention: Tensor
    lstm: LSTMState


class AttentiveRecurrentNet(nn.Module):
    """Each step sees [frame, last map] and draws the next: conv 4→32, five residual blocks, ConvLSTM, conv 32→1, σ.

    The paper asks for maps in 0…1 without saying how; a sigmoid does it. It supervises every step's map, a later one
    more (θ^{N-t}, θ = 0.8); here the last is supervised, as the one protocol does with every network's.
    """

    def __init__(self, steps: int = 4, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.steps = steps
        self.conv = conv3x3(4, width)
        self.blocks = nn.Sequential(*(ReluBlock(width) for _ in range(blocks)))
        self.lstm = ConvLSTM(width, width)
        self.head = conv3x3(width, 1)

    def forward(self, rainy: Tensor, state: AttentionState | None = None) -> AttentionState:
        """All recurrent steps on rainy [B, 3, H, W]."""
        for _ in range(self.steps):
            attention, lstm = (torch.full_like(rainy[:, :1], START), None) if state is None else state
            features = self.blocks(torch.relu(self.conv(torch.cat([rainy, attention], dim=1))))
            lstm = self.lstm(features, lstm)
            state = AttentionState(torch.sigmoid(self.head(lstm.hidden)), lstm)
        assert state is not None
        return state


class ContextualAutoencoder(nn.Module):
    """Sixteen convolutions with ReLU from [frame, map] to an image, down to 1/4 of the resolution and back.

    Four of them are dilated by 2, 4, 8 and 16; two skips carry features of full and half resolution past the bottom.
    Widths 64, 128, 256 and a first kernel of 5×5, which the paper's figure leaves open. Each step up doubles the pixels
    and convolves 3×3; with transposed convolutions of 4×4 the network would have 6.24 M parameters, so it has 5.96 M,
    nearer to the 6.00 M that are reported of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, 64, kernel_size=5, padding=2)
        self.down = _chain(_down(64, 128), conv3x3(128, 128))
        self.bottom = _chain(
            _down(128, 256),
            *(conv3x3(256, 256) for _ in range(2)),
            *(nn.Conv2d(256, 256, kernel_size=3, padding=step, dilation=step) for step in (2, 4, 8, 16)),
            *(conv3x3(256, 256) for _ in range(2)),
        )
        self.up_half = conv3x3(256, 128)
        self.mix_half = conv3x3(128, 128)
        self.up_full = conv3x3(128, 64)
        self.mix_full = conv3x3(64, 32)
        self.out_quarter, self.out_half, self.out = conv3x3(256, 3), conv3x3(128, 3), conv3x3(32, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, 4, H, W], H and W multiples of 4; images [B, 3, ·, ·] at a quarter, half and all of the resolution."""
        at_full = torch.relu(self.enter(x))
        at_half = self.down(at_full)
        bottom = self.bottom(at_half)
        half = torch.relu(self.mix_half(torch.relu(self.up_half(_double(bottom))) + at_half))
        full = torch.relu(self.mix_full(torch.relu(self.up_full(_double(half))) + at_full))
        return self.out_quarter(bottom), self.out_half(half), self.out(full)


class Qian(nn.Module):
    """The generator: the map of the attentive-recurrent network leads the contextual autoencoder.

    Its coarse images are trained besides the last (the paper's multi-scale loss): enlarged by repeating pixels, their
    squared error has the gradient of that against the averaged truth. Its one map is of all rain. No discriminator and
    no perceptual loss: the comparison trains every network alike. `residual` adds the rainy frame to every image, as in
    `DAiAM`; the paper does not.
    """

    scale = 4

    def __init__(self, steps: int = 4, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.attentive = AttentiveRecurrentNet(steps)
        self.autoencoder = ContextualAutoencoder()

    def forward(self, rainy: Tensor, state: AttentionState | None = None) -> tuple[Prediction, AttentionState]:
        """Derain RGB frames [B, 3, H, W] in 0…1, H and W multiples of 4; `state` continues a video."""
        state = self.attentive(rainy, state)
        coarse_and_full = self.autoencoder(torch.cat([rainy, state.attention], dim=1))
        images = [F.interpolate(image, size=rainy.shape[-2:], mode="nearest") for image in coarse_and_full[:-1]]
        images.append(coarse_and_full[-1])
        if self.residual:
            images = [rainy + image for image in images]
        *coarse, image = images
        return Prediction(image, {"rain": Branch(state.attention)}, tuple(Prediction(i, {}) for i in coarse)), state


def _chain(*convolutions: nn.Conv2d) -> nn.Sequential:
    """Convolutions with a ReLU behind each."""
    return nn.Sequential(*(module for convolution in convolutions for module in (convolution, nn.ReLU())))


def _down(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
