"""PReNet, the progressive recurrent network of Ren et al. 2019, "Progressive Image Deraining Networks"."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from derain.training.models.blocks import ConvLSTM, LSTMState, ReluBlock, conv3x3
from derain.training.models.prediction import Prediction


class PReNetState(NamedTuple):
    """State after a step: its image x^t [B, 3, H, W] and its LSTM's."""

    image: Tensor
    lstm: LSTMState


class PReNet(nn.Module):
    """A shallow ResNet that runs `steps` times with one set of weights.

    x^t = y + f_out(f_res(s^t)), s^t = f_recurrent(s^{t-1}, f_in([y, x^{t-1}])), x^0 = y: f_in a convolution 6→32 and
    ReLU, f_recurrent a ConvLSTM of 32, f_res five residual blocks, f_out a convolution 32→3. Adding y is the residual
    output that the paper found better than the direct one. It supervises the last step alone, and so do we.
    """

    def __init__(self, steps: int = 6, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.steps = steps
        self.conv = conv3x3(6, width)
        self.lstm = ConvLSTM(width, width)
        self.blocks = nn.Sequential(*(ReluBlock(width) for _ in range(blocks)))
        self.out = conv3x3(width, 3)

    def step(self, rainy: Tensor, state: PReNetState | None) -> PReNetState:
        """One recurrent step on rainy [B, 3, H, W]."""
        image, lstm = (rainy, None) if state is None else state
        lstm = self.lstm(torch.relu(self.conv(torch.cat([rainy, image], dim=1))), lstm)
        return PReNetState(rainy + self.out(self.blocks(lstm.hidden)), lstm)

    def forward(self, rainy: Tensor, state: PReNetState | None = None) -> tuple[Prediction, PReNetState]:
        """Derain RGB frames [B, 3, H, W] in 0…1; `state` continues a video, None starts one."""
        for _ in range(self.steps):
            state = self.step(rainy, state)
        assert state is not None
        return Prediction(state.image, {}), state
