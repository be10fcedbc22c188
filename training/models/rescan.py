"""RESCAN of Li et al. 2018, "Recurrent Squeeze-and-Excitation Context Aggregation Net for Single Image Deraining"."""

import torch
from torch import Tensor, nn

from derain.training.models.blocks import activation, conv3x3, in_blocks
from derain.training.models.prediction import Prediction


class SqueezeExcitation(nn.Module):
    """x · σ(W2 ReLU(W1 mean(x))), the mean over the plane, `squeezed` values between: the α-values of rain layers."""

    def __init__(self, channels: int, squeezed: int = 6) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.excite = nn.Conv2d(squeezed, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of [B, C, H, W]."""
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))


class ContextGRU(nn.Module):
    """A layer of the recurrent network: a dilated ConvGRU (eq. 7), squeeze-and-excitation, LeakyReLU.

    z, r = σ(W ⊛ x + U * h), n = tanh(W_n ⊛ x + U_n * (r · h)), (1 - z)·h + z·n; ⊛ is dilated, * is not. The state is
    the layer's output at the step before, behind the LeakyReLU. There is one bias a gate, as in the paper's equation;
    published code has a second one at U, which adds to the first.
    """

    def __init__(self, channels_in: int, channels: int, dilation: int) -> None:
        super().__init__()
        self.channels = channels
        self.inputs = nn.Conv2d(channels_in, 3 * channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.gates = nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1, bias=False)
        self.candidate = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.weigh = SqueezeExcitation(channels)
        self.act = activation()

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """One step: x [B, C_in, H, W] and the state [B, C, H, W] (None: zeros) give the output, which is the next."""
        if state is None:
            state = x.new_zeros(x.shape[0], self.channels, x.shape[2], x.shape[3])
        update, reset, candidate = self.inputs(x).chunk(3, dim=1)
        update_state, reset_state = self.gates(state).chunk(2, dim=1)
        z, r = torch.sigmoid(update + update_state), torch.sigmoid(reset + reset_state)
        n = torch.tanh(candidate + self.candidate(r * state))
        output: Tensor = self.act(self.weigh((1 - z) * state + z * n))
        return output


class RESCAN(nn.Module):
    """Seven layers of 24 channels run `steps` times: R^s = f(O^s), O^{s+1} = O - R^s, O^1 = O the rainy frame.

    Table 1's dilations 1, 1, 2, 4, 8 for the recurrent layers, then a 3×3 convolution with squeeze-and-excitation and a
    1×1 convolution. Of the paper's two frameworks this is the full one, in which every step predicts all of the rain
    and is supervised; of its recurrences the GRU.

    `scale` above 1 is ours, as in `PReNet`.
    """

    def __init__(self, steps: int = 4, width: int = 24, scale: int = 1) -> None:
        super().__init__()
        self.steps, self.scale = steps, scale
        self.to_blocks, self.from_blocks = in_blocks(scale)
        self.layers = nn.ModuleList(
            ContextGRU(3 * scale**2 if layer == 0 else width, width, dilation)
            for layer, dilation in enumerate((1, 1, 2, 4, 8))
        )
        self.conv = conv3x3(width, width)
        self.weigh = SqueezeExcitation(width)
        self.act = activation()
        self.out = nn.Conv2d(width, 3 * scale**2, kernel_size=1)

    def forward(
        self, rainy: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Prediction, tuple[Tensor, ...] | None]:
        """Derain RGB frames [B, 3, H, W] in 0…1; the state is [B, width, H/scale, W/scale] a recurrent layer."""
        predictions: list[Prediction] = []
        image = rainy
        for _ in range(self.steps):
            states: list[Tensor] = []
            x = self.to_blocks(image)
            for index, layer in enumerate(self.layers):
                x = layer(x, None if state is None else state[index])
                states.append(x)
            rain = self.out(self.act(self.weigh(self.conv(x))))
            image = rainy - self.from_blocks(rain)
            predictions.append(Prediction(image, {}))
            state = tuple(states)
        return Prediction(image, {}, tuple(predictions[:-1])), state
