"""The Dual Attention Model (DAM) and the Dual Attention-in-Attention Model (DAiAM), sections 3.1 to 3.4 of the paper.

Every module is a function of its input and its recurrent state and returns the next state: nothing hides in `self`.
The number of recurrent steps on one frame is `encoder_steps` and `decoder_steps`; 1 reproduces the paper's cost.
A state that is passed in continues a video: the first step on the new frame starts from it instead of from zeros.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from derain.training.models.blocks import ConvLSTM, LSTMState, ResBlock, activation, conv3x3
from derain.training.models.prediction import Branch, Prediction

Attention = Literal["zero", "odd", "dual"]
"""Table 7: no attention map, the heavy map S+ only, or both maps."""


class EncoderState(NamedTuple):
    """State of the encoder: the last attention maps [B, maps, H, W] (None without attention) and its LSTM's."""

    attention: Tensor | None
    lstm: LSTMState


class DAMState(NamedTuple):
    """State of one DAM's encoder and its two decoders."""

    encoder: EncoderState
    heavy: LSTMState
    light: LSTMState


class Encoder(nn.Module):
    """E (Table 1): conv, 3 ResBlocks, ConvLSTM, and the attention head S+ = σ(W * F + b) (eq. 1).

    Each step sees the rainy image of `pixels` channels with the previous step's attention maps (zeros at first) behind
    them, as in Qian et al. 2018. With `maps=0` there is neither head nor map. `dilations`: those of the ResBlocks.
    """

    def __init__(self, pixels: int, width: int, steps: int, maps: int, dilations: Sequence[int] = (1, 1, 1)) -> None:
        super().__init__()
        self.steps = steps
        self.conv = conv3x3(pixels + maps, width)
        self.act = activation()
        self.blocks = nn.Sequential(*(ResBlock(width, dilation) for dilation in dilations))
        self.lstm = ConvLSTM(width, width)
        self.head = conv3x3(width, maps) if maps else None

    def step(self, rainy: Tensor, state: EncoderState | None) -> EncoderState:
        """One recurrent step on rainy [B, pixels, H, W]; F is the new LSTM state's hidden [B, width, H, W]."""
        attention, lstm = (None, None) if state is None else state
        if self.head is None:
            return EncoderState(None, self.lstm(self.blocks(self.act(self.conv(rainy))), lstm))
        if attention is None:
            attention = torch.zeros_like(rainy[:, : self.head.out_channels])
        features = self.blocks(self.act(self.conv(torch.cat([rainy, attention], dim=1))))
        lstm = self.lstm(features, lstm)
        return EncoderState(torch.sigmoid(self.head(lstm.hidden)), lstm)

    def forward(self, rainy: Tensor, state: EncoderState | None = None) -> EncoderState:
        """All recurrent steps on rainy [B, pixels, H, W]; attention is [B, maps, H, W]."""
        for _ in range(self.steps):
            state = self.step(rainy, state)
        assert state is not None
        return state


class Decoder(nn.Module):
    """D_heavy, D_light and D_global (Tables 2 and 3): conv, ConvLSTM, ResBlocks, conv to an RGB image.

    `dilations`: those of the ResBlocks, one each; none given, all are 1.
    """

    def __init__(
        self,
        channels_in: int,
        width: int = 64,
        blocks: int = 5,
        steps: int = 1,
        channels_out: int = 3,
        dilations: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.steps = steps
        self.conv = conv3x3(channels_in, width)
        self.act = activation()
        self.lstm = ConvLSTM(width, width)
        self.blocks = nn.Sequential(*(ResBlock(width, dilation) for dilation in dilations or [1] * blocks))
        self.out = conv3x3(width, channels_out)

    def step(self, x: Tensor, state: LSTMState | None) -> tuple[Tensor, Tensor, LSTMState]:
        """One recurrent step on x [B, channels_in, H, W]: image, the features before the last convolution, state."""
        state = self.lstm(self.act(self.conv(x)), state)
        features = self.blocks(state.hidden)
        return self.out(features), features, state

    def forward(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, Tensor, LSTMState]:
        """All recurrent steps; image and features are the last step's."""
        image, features, state = self.step(x, state)
        for _ in range(self.steps - 1):
            image, features, state = self.step(x, state)
        return image, features, state


class DAMBranch(nn.Module):
    """E, D_heavy and D_light for one rain type: the part of a DAM before its global decoder."""

    def __init__(
        self,
        attention: Attention = "dual",
        encoder_width: int = 32,
        decoder_width: int = 64,
        encoder_steps: int = 1,
        decoder_steps: int = 1,
    ) -> None:
        super().__init__()
        if attention not in get_args(Attention):
            raise ValueError(f"attention is {attention!r}, expected one of {', '.join(get_args(Attention))}")
        self.attention = attention
        self.encoder = Encoder(3, encoder_width, encoder_steps, maps=int(attention != "zero"))
        self.heavy = Decoder(encoder_width + 3, decoder_width, blocks=5, steps=decoder_steps)
        self.light = Decoder(encoder_width + 3, decoder_width, blocks=5, steps=decoder_steps)

    def forward(self, rainy: Tensor, state: DAMState | None = None) -> tuple[Branch, list[Tensor], DAMState]:
        """rainy [B, 3, H, W] gives the branch's images, its features [F+, F-] of decoder_width each, and its state.

        F+_att = F ⊗ S+ and F-_att = F ⊗ S- (eqs. 3 and 4). DAM(odd) leaves the light decoder's features
        unattended and DAM(zero) both, so that the three differ in nothing but their maps.
        """
        encoder = self.encoder(rainy, None if state is None else state.encoder)
        features, attention = encoder.lstm.hidden, encoder.attention
        heavy_in = features if attention is None else features * attention
        light_in = features * (1 - attention) if attention is not None and self.attention == "dual" else features
        heavy, heavy_features, heavy_state = self.heavy(
            torch.cat([heavy_in, rainy], dim=1), None if state is None else state.heavy
        )
        light, light_features, light_state = self.light(
            torch.cat([light_in, rainy], dim=1), None if state is None else state.light
        )
        branch = Branch(attention, heavy, light)
        return branch, [heavy_features, light_features], DAMState(encoder, heavy_state, light_state)


class DAiAMState(NamedTuple):
    """State of a DAM (one branch) or a DAiAM (two): its branches' and its global decoder's."""

    branches: tuple[DAMState, ...]
    global_decoder: LSTMState


class DAiAM(nn.Module):
    """Parallel DAM branches, one for each rain type, joined by one global decoder (eq. 8, Fig. 5).

    Two branches ("streak", "drop") make the DAiAM, one ("rain", "streak" or "drop") a DAM.
    `residual` adds the rainy image to every decoder's image; the paper does not.
    """

    def __init__(
        self,
        rain_types: tuple[str, ...] = ("streak", "drop"),
        attention: Attention = "dual",
        encoder_width: int = 32,
        decoder_width: int = 64,
        encoder_steps: int = 1,
        decoder_steps: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.branches = nn.ModuleDict(
            {
                rain: DAMBranch(attention, encoder_width, decoder_width, encoder_steps, decoder_steps)
                for rain in rain_types
            }
        )
        joined = 2 * decoder_width * len(rain_types) + 3
        self.global_decoder = Decoder(joined, decoder_width, blocks=2, steps=decoder_steps)

    def forward(self, rainy: Tensor, state: DAiAMState | None = None) -> tuple[Prediction, DAiAMState]:
        """Derain RGB frames [B, 3, H, W] in 0…1; `state` continues a video, None starts one."""
        branches: dict[str, Branch] = {}
        joined: list[Tensor] = []
        branch_states: list[DAMState] = []
        for index, (rain, module) in enumerate(self.branches.items()):
            branch, features, branch_state = module(rainy, None if state is None else state.branches[index])
            branches[rain] = branch.with_images(rainy.add) if self.residual else branch
            joined += features
            branch_states.append(branch_state)
        image, _, global_state = self.global_decoder(
            torch.cat([*joined, rainy], dim=1), None if state is None else state.global_decoder
        )
        image = rainy + image if self.residual else image
        return Prediction(image, branches), DAiAMState(tuple(branch_states), global_state)
