"""PReNet, the progressive recurrent network of Ren et al. 2019, "Progressive Image Deraining Networks"."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from derain.training.models.blocks import ConvLSTM, LSTMState, ReluBlock, conv3x3, in_blocks
from derain.training.models.prediction import Prediction


class PReNetState(NamedTuple):
    """State after a step: its image x^t [B, 3, H, W] and its LSTM's, at 1/`scale` of the resolution."""

    image: Tensor
    lstm: LSTMState


class PReNet(nn.Module):
    """A shallow ResNet that runs `steps` times with one set of weights.

    x^t = y + f_out(f_res(s^t)), s^t = f_recurrent(s^{t-1}, f_in([y, x^{t-1}])), x^0 = y: f_in a convolution 6→32 and
    ReLU, f_recurrent a ConvLSTM of 32, f_res five residual blocks, f_out a convolution 32→3. Adding y is the residual
    output that the paper found better than the direct one. It supervises the last step alone, and so do we.

    `scale` above 1 is ours, for a comparison with the compact family: it sees whitened blocks of that many pixels
    squared, as they do, and its image comes back through depth-to-space.
    """

    def __init__(self, steps: int = 6, width: int = 32, blocks: int = 5, scale: int = 1) -> None:
        super().__init__()
        self.steps, self.scale = steps, scale
        self.to_blocks, self.from_blocks = in_blocks(scale)
        self.conv = conv3x3(6 * scale**2, width)
        self.lstm = ConvLSTM(width, width)
        self.blocks = nn.Sequential(*(ReluBlock(width) for _ in range(blocks)))
        self.out = conv3x3(width, 3 * scale**2)

    def step(self, rainy: Tensor, state: PReNetState | None) -> PReNetState:
        """One recurrent step on rainy [B, 3, H, W]."""
        image, lstm = (rainy, None) if state is None else state
        seen = torch.cat([self.to_blocks(rainy), self.to_blocks(image)], dim=1)
        lstm = self.lstm(torch.relu(self.conv(seen)), lstm)
        return PReNetState(rainy + self.from_blocks(self.out(self.blocks(lstm.hidden))), lstm)

    def forward(self, rainy: Tensor, state: PReNetState | None = None) -> tuple[Prediction, PReNetState]:
        """Derain RGB frames [B, 3, H, W] in 0…1; `state` continues a video, None starts one."""
        for _ in range(self.steps):
            state = self.step(rainy, state)
        assert state is not None
        return Prediction(state.image, {}), state
