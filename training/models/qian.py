"""The generator of Qian et al. 2018, "Attentive Generative Adversarial Network for Raindrop Removal"."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.training.models.blocks import ConvLSTM, LSTMState, ReluBlock, conv3x3, in_blocks
from derain.training.models.prediction import Branch, Prediction

START = 0.5
"""The attention map before the first step."""


class AttentionState(NamedTuple):
    """State of the attentive-recurrent network: its last map [B, scale², H, W] in 0…1 and its LSTM's."""

    attention: Tensor
    lstm: LSTMState


class AttentiveRecurrentNet(nn.Module):
    """Each step sees [frame, last map] and draws the next: conv 4→32, five residual blocks, ConvLSTM, conv 32→1, σ.

    The paper asks for maps in 0…1 without saying how; a sigmoid does it. It supervises every step's map, a later one
    more (θ^{N-t}, θ = 0.8); here the last is supervised, as the one protocol does with every network's.
    Of frames in blocks of `scale` pixels squared the map is in blocks too.
    """

    def __init__(self, steps: int = 4, width: int = 32, blocks: int = 5, scale: int = 1) -> None:
        super().__init__()
        self.steps, self.values = steps, scale**2
        self.conv = conv3x3(4 * self.values, width)
        self.blocks = nn.Sequential(*(ReluBlock(width) for _ in range(blocks)))
        self.lstm = ConvLSTM(width, width)
        self.head = conv3x3(width, self.values)

    def forward(self, rainy: Tensor, state: AttentionState | None = None) -> AttentionState:
        """All recurrent steps on rainy [B, 3·scale², H, W]."""
        for _ in range(self.steps):
            attention, lstm = (torch.full_like(rainy[:, : self.values], START), None) if state is None else state
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

    def __init__(self, width: int = 64, scale: int = 1) -> None:
        super().__init__()
        colours, w1, w2, w4 = 3 * scale**2, width, 2 * width, 4 * width
        self.enter = nn.Conv2d(4 * scale**2, w1, kernel_size=5, padding=2)
        self.down = _chain(_down(w1, w2), conv3x3(w2, w2))
        self.bottom = _chain(
            _down(w2, w4),
            *(conv3x3(w4, w4) for _ in range(2)),
            *(conv3x3(w4, w4, dilation) for dilation in (2, 4, 8, 16)),
            *(conv3x3(w4, w4) for _ in range(2)),
        )
        self.up_half = conv3x3(w4, w2)
        self.mix_half = conv3x3(w2, w2)
        self.up_full = conv3x3(w2, w1)
        self.mix_full = conv3x3(w1, w1 // 2)
        self.out_quarter, self.out_half = conv3x3(w4, colours), conv3x3(w2, colours)
        self.out = conv3x3(w1 // 2, colours)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, 4·scale², H, W], H and W multiples of 4; images [B, 3·scale², ·, ·] at a quarter, half and all of the
        resolution.
        """
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

    `blocks` above 1 is ours, as `PReNet`'s `scale`: maps and images come back through depth-to-space.
    """

    def __init__(self, steps: int = 4, residual: bool = False, width: int = 64, blocks: int = 1) -> None:
        super().__init__()
        self.residual, self.scale = residual, 4 * blocks
        self.to_blocks, self.from_blocks = in_blocks(blocks)
        self.attentive = AttentiveRecurrentNet(steps, width // 2, scale=blocks)
        self.autoencoder = ContextualAutoencoder(width, blocks)

    def forward(self, rainy: Tensor, state: AttentionState | None = None) -> tuple[Prediction, AttentionState]:
        """Derain RGB frames [B, 3, H, W] in 0…1, H and W multiples of `scale`; `state` continues a video."""
        seen = self.to_blocks(rainy)
        state = self.attentive(seen, state)
        parts = self.autoencoder(torch.cat([seen, state.attention], dim=1))
        coarse_and_full = [self.from_blocks(part) for part in parts]
        images = [F.interpolate(image, size=rainy.shape[-2:], mode="nearest") for image in coarse_and_full[:-1]]
        images.append(coarse_and_full[-1])
        if self.residual:
            images = [rainy + image for image in images]
        *coarse, image = images
        branch = Branch(self.from_blocks(state.attention))
        return Prediction(image, {"rain": branch}, tuple(Prediction(i, {}) for i in coarse)), state


def _chain(*convolutions: nn.Conv2d) -> nn.Sequential:
    """Convolutions with a ReLU behind each."""
    return nn.Sequential(*(module for convolution in convolutions for module in (convolution, nn.ReLU())))


def _down(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
