"""The compact family: the DAiAM's idea at 1/r of the resolution, for the edge.

The frame goes through space-to-depth by r, the whole network runs on [B, 3r², H/r, W/r], depth-to-space brings its
residual back and the rainy frame is added. The attention head makes r² channels, so its map keeps full resolution:
shuffled it is S+ [B, 1, H, W], unshuffled it gates the features through a 1×1 convolution.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.training.models.blocks import ConvLSTM, ResBlock, activation, conv3x3
from derain.training.models.dam import DAiAMState, DAMState, Decoder, EncoderState
from derain.training.models.prediction import Branch, Prediction


class CompactEncoder(nn.Module):
    """E at 1/r of the resolution; its attention map has r² channels, one for each pixel of a block."""

    def __init__(self, scale: int, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.conv = conv3x3(4 * scale**2, width)
        self.act = activation()
        self.blocks = nn.Sequential(*(ResBlock(width) for _ in range(3)))
        self.lstm = ConvLSTM(width, width)
        self.head = conv3x3(width, scale**2)

    def forward(self, rainy: Tensor, state: EncoderState | None = None) -> EncoderState:
        """All recurrent steps on the unshuffled frame [B, 3r², H/r, W/r]; attention is [B, r², H/r, W/r]."""
        for _ in range(self.steps):
            attention = None if state is None else state.attention
            if attention is None:
                attention = torch.zeros_like(rainy[:, : self.head.out_channels])
            features = self.blocks(self.act(self.conv(torch.cat([rainy, attention], dim=1))))
            lstm = self.lstm(features, None if state is None else state.lstm)
            state = EncoderState(torch.sigmoid(self.head(lstm.hidden)), lstm)
        assert state is not None
        return state


class CompactBranch(nn.Module):
    """One rain type: the encoder, the gates that carry its full-resolution map onto the features, two decoders."""

    def __init__(
        self, scale: int, encoder_width: int, decoder_width: int, encoder_steps: int, decoder_steps: int
    ) -> None:
        super().__init__()
        pixels = 3 * scale**2
        self.encoder = CompactEncoder(scale, encoder_width, encoder_steps)
        self.gate_heavy = nn.Conv2d(scale**2, encoder_width, kernel_size=1)
        self.gate_light = nn.Conv2d(scale**2, encoder_width, kernel_size=1)
        self.heavy = Decoder(encoder_width + pixels, decoder_width, 5, decoder_steps, channels_out=pixels)
        self.light = Decoder(encoder_width + pixels, decoder_width, 5, decoder_steps, channels_out=pixels)

    def forward(self, rainy: Tensor, state: DAMState | None = None) -> tuple[Branch, list[Tensor], DAMState]:
        """rainy [B, 3r², H/r, W/r]; the branch's maps and images stay at that resolution."""
        encoder = self.encoder(rainy, None if state is None else state.encoder)
        features, attention = encoder.lstm.hidden, encoder.attention
        heavy, heavy_features, heavy_state = self.heavy(
            torch.cat([features * self.gate_heavy(attention), rainy], dim=1), None if state is None else state.heavy
        )
        light, light_features, light_state = self.light(
            torch.cat([features * self.gate_light(1 - attention), rainy], dim=1), None if state is None else state.light
        )
        branch = Branch(attention, heavy, light)
        return branch, [heavy_features, light_features], DAMState(encoder, heavy_state, light_state)


class CompactDAiAM(nn.Module):
    """`daiam-nano`, `daiam-small` and `daiam-edge`: widths 16/16, 16/32 and 32/64 at r = 4."""

    def __init__(
        self,
        encoder_width: int,
        decoder_width: int,
        scale: int = 4,
        encoder_steps: int = 1,
        decoder_steps: int = 1,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.branches = nn.ModuleDict(
            {
                rain: CompactBranch(scale, encoder_width, decoder_width, encoder_steps, decoder_steps)
                for rain in ("streak", "drop")
            }
        )
        pixels = 3 * scale**2
        self.global_decoder = Decoder(4 * decoder_width + pixels, decoder_width, 2, decoder_steps, channels_out=pixels)

    def forward(self, rainy: Tensor, state: DAiAMState | None = None) -> tuple[Prediction, DAiAMState]:
        """Derain RGB frames [B, 3, H, W] in 0…1, H and W multiples of r; `state` continues a video."""
        blocks = F.pixel_unshuffle(rainy, self.scale)
        branches: dict[str, Branch] = {}
        joined: list[Tensor] = []
        states: list[DAMState] = []
        for index, (rain, module) in enumerate(self.branches.items()):
            branch, features, branch_state = module(blocks, None if state is None else state.branches[index])
            branch = branch.with_images(lambda image: rainy + F.pixel_shuffle(image, self.scale))
            branches[rain] = branch._replace(attention=F.pixel_shuffle(branch.attention, self.scale))
            joined += features
            states.append(branch_state)
        residual, _, global_state = self.global_decoder(
            torch.cat([*joined, blocks], dim=1), None if state is None else state.global_decoder
        )
        image = rainy + F.pixel_shuffle(residual, self.scale)
        return Prediction(image, branches), DAiAMState(tuple(states), global_state)
