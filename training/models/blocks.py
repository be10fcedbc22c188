"""The building blocks every network here shares: residual block, ConvLSTM, 3×3 convolution."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.2
"""Slope of every LeakyReLU for negative inputs; the paper names the function, not the slope."""


class LSTMState(NamedTuple):
    """Recurrent state of a ConvLSTM: hidden and cell, each [B, C, H, W]."""

    hidden: Tensor
    cell: Tensor


def conv3x3(channels_in: int, channels_out: int, dilation: int = 1) -> nn.Conv2d:
    """A 3×3 convolution with bias that keeps the size (zero padding); dilated, its taps lie that many pixels apart."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=dilation, dilation=dilation)


def activation() -> nn.LeakyReLU:
    """The LeakyReLU behind every convolution but a structure's last one."""
    return nn.LeakyReLU(NEGATIVE_SLOPE)


class ResBlock(nn.Module):
    """y = LeakyReLU(x + conv(LeakyReLU(conv(x)))), all [B, C, H, W]."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, dilation)
        self.conv2 = conv3x3(channels, channels, dilation)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on [B, C, H, W]."""
        y: Tensor = self.act(x + self.conv2(self.act(self.conv1(x))))
        return y


class ReluBlock(nn.Module):
    """The residual block of Ren et al. 2019 and Qian et al. 2018: y = ReLU(x + ReLU(conv(ReLU(conv(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on [B, C, H, W]."""
        return torch.relu(x + torch.relu(self.conv2(torch.relu(self.conv1(x)))))


class ConvLSTM(nn.Module):
    """Convolutional LSTM cell (Shi et al. 2015) without peepholes.

    One convolution over [x, h] makes the four gates i, f, g, o of `channels` each; then
    c' = σ(f)·c + σ(i)·tanh(g) and h' = σ(o)·tanh(c').
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gates = conv3x3(channels_in + channels, 4 * channels)

    def zero_state(self, x: Tensor) -> LSTMState:
        """The state before the first step for an input [B, C_in, H, W]: all zeros."""
        zeros = x.new_zeros(x.shape[0], self.channels, x.shape[2], x.shape[3])
        return LSTMState(zeros, zeros)

    def forward(self, x: Tensor, state: LSTMState | None = None) -> LSTMState:
        """One step: x [B, C_in, H, W] and the previous state (None: zeros) give the next; its hidden is the output."""
        if state is None and self.training:
            return self._first(x)
        hidden, cell = self.zero_state(x) if state is None else state
        i, f, g, o = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return LSTMState(torch.sigmoid(o) * torch.tanh(cell), cell)

    def _first(self, x: Tensor) -> LSTMState:
        """The step from zeros without what they make nothing of, h's half of the convolution and the gate f.

        Equal to the bit, gradients too. Only training takes it: what is exported is the loop as it is written, and
        leaving this out is the unroller's work.
        """
        assert self.gates.bias is not None
        weight, bias = (
            torch.cat([part[: self.channels], part[2 * self.channels :]])
            for part in (self.gates.weight[:, : x.shape[1]], self.gates.bias)
        )
        i, g, o = F.conv2d(x, weight, bias, padding=1).chunk(3, dim=1)
        cell = torch.sigmoid(i) * torch.tanh(g)
        return LSTMState(torch.sigmoid(o) * torch.tanh(cell), cell)


def whitening(scale: int) -> tuple[Tensor, Tensor]:
    """Weight [3r², 3r², 1, 1] and bias [3r²] of x ↦ 4·(x − m) + (m − 0.45), m the mean of a colour's r² pixels.

    The pixels of a block are nearly alike, and rain is in how they differ. Left as they are, the first convolutions see
    little but brightness, learn to shift it, and the LSTM gates close before anything else is learnt.
    """
    pixels = scale**2
    same_colour = torch.kron(torch.eye(3), torch.ones(pixels, pixels))
    weight = 4 * torch.eye(3 * pixels) - 3 * same_colour / pixels
    return weight[..., None, None], torch.full((3 * pixels,), -0.45)


class ToBlocks(nn.Module):
    """Frames [B, 3, H, W] as blocks of r×r pixels [B, 3r², H/r, W/r], whitened unless `whiten` is False."""

    weight: Tensor
    bias: Tensor

    def __init__(self, scale: int, whiten: bool = True) -> None:
        super().__init__()
        self.scale, self.whiten = scale, whiten
        if whiten:
            for name, fixed in zip(("weight", "bias"), whitening(scale), strict=True):
                self.register_buffer(name, fixed, persistent=False)  # not among the weights

    def forward(self, rainy: Tensor) -> Tensor:
        """Frames in 0…1, H and W multiples of r."""
        blocks = F.pixel_unshuffle(rainy, self.scale)
        return F.conv2d(blocks, self.weight, self.bias) if self.whiten else blocks


def in_blocks(scale: int) -> tuple[nn.Module, nn.Module]:
    """The ways into whitened blocks of `scale` pixels squared and back to pixels; of 1, both leave what they get."""
    return (ToBlocks(scale), nn.PixelShuffle(scale)) if scale > 1 else (nn.Identity(), nn.Identity())
