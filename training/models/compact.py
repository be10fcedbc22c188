"""The compact family: the DAiAM's idea at 1/r of the resolution, for the edge.

The frame goes through space-to-depth by r, the whole network runs on [B, 3r², H/r, W/r], depth-to-space brings its
residual back and the rainy frame is added. The attention head makes r² channels, so its map keeps full resolution:
shuffled it is S+ [B, 1, H, W], unshuffled it gates the features through a 1×1 convolution. Its plain form makes one
channel, and S+ is blocks of r×r pixels.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derain.training.models.blocks import ToBlocks
from derain.training.models.dam import Attention, DAiAMState, DAMState, Decoder, Encoder
from derain.training.models.prediction import Branch, Prediction

Head = Literal["shuffled", "plain"]
"""The attention map of r² channels, one for each pixel of a block, or of one channel for all of them."""

Context = Literal["none", "encoders", "global"]
"""Which residual blocks are dilated: they see further with the same weights and multiply-accumulates."""

ENCODER_DILATIONS, GLOBAL_DILATIONS = (1, 2, 4), (2, 4)


class CompactBranch(nn.Module):
    """One rain type: the encoder, the gates that carry its map onto the features, two decoders.

    `attention` as in `DAMBranch`: "odd" leaves the light decoder's features without a gate, "zero" both.
    """

    def __init__(
        self,
        scale: int,
        encoder_width: int,
        decoder_width: int,
        encoder_steps: int,
        decoder_steps: int,
        head: Head,
        context: Context,
        attention: Attention,
    ) -> None:
        super().__init__()
        pixels = 3 * scale**2
        maps = 0 if attention == "zero" else scale**2 if head == "shuffled" else 1
        dilations = ENCODER_DILATIONS if context == "encoders" else (1, 1, 1)
        self.encoder = Encoder(pixels, encoder_width, encoder_steps, maps, dilations)
        self.gate_heavy = nn.Conv2d(maps, encoder_width, kernel_size=1) if attention != "zero" else None
        self.gate_light = nn.Conv2d(maps, encoder_width, kernel_size=1) if attention == "dual" else None
        self.heavy = Decoder(encoder_width + pixels, decoder_width, 5, decoder_steps, channels_out=pixels)
        self.light = Decoder(encoder_width + pixels, decoder_width, 5, decoder_steps, channels_out=pixels)

    def forward(self, rainy: Tensor, state: DAMState | None = None) -> tuple[Branch, list[Tensor], DAMState]:
        """rainy [B, 3r², H/r, W/r]; the branch's maps and images stay at that resolution."""
        encoder = self.encoder(rainy, None if state is None else state.encoder)
        features, attention = encoder.lstm.hidden, encoder.attention
        heavy_in = features if self.gate_heavy is None else features * self.gate_heavy(attention)
        light_in = features if self.gate_light is None else features * self.gate_light(1 - attention)
        heavy, heavy_features, heavy_state = self.heavy(
            torch.cat([heavy_in, rainy], dim=1), None if state is None else state.heavy
        )
        light, light_features, light_state = self.light(
            torch.cat([light_in, rainy], dim=1), None if state is None else state.light
        )
        branch = Branch(attention, heavy, light)
        return branch, [heavy_features, light_features], DAMState(encoder, heavy_state, light_state)


class CompactDAiAM(nn.Module):
    """`daiam-nano`, `daiam-small` and `daiam-edge`: widths 16/16, 16/32 and 32/64 at r = 4.

    With one of `rain_types` it is a compact DAM. `whiten`: the blocks go through `whitening` before anything sees them;
    False is for comparison, and so is any `attention` but "dual".

    Raises:
        ValueError: a `head`, a `context` or an `attention` that is none of theirs.
    """

    def __init__(
        self,
        encoder_width: int,
        decoder_width: int,
        scale: int = 4,
        encoder_steps: int = 1,
        decoder_steps: int = 1,
        head: Head = "shuffled",
        context: Context = "none",
        whiten: bool = True,
        attention: Attention = "dual",
        rain_types: tuple[str, ...] = ("streak", "drop"),
    ) -> None:
        super().__init__()
        choices = (("head", head, Head), ("context", context, Context), ("attention", attention, Attention))
        for option, value, kind in choices:
            if value not in get_args(kind):
                raise ValueError(f"{option} is {value!r}, expected one of {', '.join(get_args(kind))}")
        self.scale = scale
        self.to_blocks = ToBlocks(scale, whiten)
        steps = encoder_steps, decoder_steps
        self.branches = nn.ModuleDict(
            {
                rain: CompactBranch(scale, encoder_width, decoder_width, *steps, head, context, attention)
                for rain in rain_types
            }
        )
        pixels = 3 * scale**2
        dilations = GLOBAL_DILATIONS if context == "global" else ()
        joined = 2 * decoder_width * len(rain_types) + pixels
        self.global_decoder = Decoder(joined, decoder_width, 2, decoder_steps, channels_out=pixels, dilations=dilations)

    def forward(self, rainy: Tensor, state: DAiAMState | None = None) -> tuple[Prediction, DAiAMState]:
        """Derain RGB frames [B, 3, H, W] in 0…1, H and W multiples of r; `state` continues a video."""
        blocks = self.to_blocks(rainy)
        branches: dict[str, Branch] = {}
        joined: list[Tensor] = []
        states: list[DAMState] = []
        for index, (rain, module) in enumerate(self.branches.items()):
            branch, features, branch_state = module(blocks, None if state is None else state.branches[index])
            branch = branch.with_images(lambda image: rainy + F.pixel_shuffle(image, self.scale))
            if branch.attention is not None:
                # One channel, repeated, is shuffled to its nearest-neighbour enlargement.
                maps = branch.attention.expand(-1, self.scale**2, -1, -1)
                branch = branch._replace(attention=F.pixel_shuffle(maps, self.scale))
            branches[rain] = branch
            joined += features
            states.append(branch_state)
        residual, _, global_state = self.global_decoder(
            torch.cat([*joined, blocks], dim=1), None if state is None else state.global_decoder
        )
        image = rainy + F.pixel_shuffle(residual, self.scale)
        return Prediction(image, branches), DAiAMState(tuple(states), global_state)
