"""The weights a network has before its training."""

import math

from torch import nn

from derain.training.models.blocks import NEGATIVE_SLOPE, ConvLSTM, ReluBlock, ResBlock
from derain.training.models.dam import Decoder, Encoder
from derain.training.models.differential import DifferentialModule
from derain.training.models.prenet import PReNet
from derain.training.models.qian import AttentiveRecurrentNet, ContextualAutoencoder
from derain.training.models.rescan import RESCAN, ContextGRU, SqueezeExcitation

OPEN = 3.0
"""The bias before a σ that is to start near 1, at 0.95: a differential module's A (its B starts at 0.05, with less than
nothing), and RESCAN's excitation."""

RAIN_COVER = 0.1
"""The share of a frame that rain covers, about; where attention starts."""


def initialise(model: nn.Module, init: str) -> None:
    """Weights before training.

    "gaussian": the paper's N(0, 0.01²). "he": He et al. 2015 for the leaky slope, Glorot's for gates;
    the second convolution of a residual block and the last one to an image start small, so that a block starts
    near its skip and a residual network near the rainy image. Attention heads start at the share of a frame that rain
    covers: starting at a half, the way down saturates the LSTM before them, and the map stays dead. LSTM gates start
    open, their biases at 1, and the candidate's weights doubled, so that one step from zeros lets the signal through.
    So do RESCAN's update gates, at 2, and its excitations: halved twice in each of its layers, none would be left.
    A differential module starts as a plain chain, its maps A near 1 and B near 0: halves of both would dim the image
    that the next stage begins with, and adds its residual to.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if init == "gaussian":
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, ConvLSTM):
            input_gate, forget_gate, candidate, output_gate = range(4)
            biases, weights = module.gates.bias.data.chunk(4), module.gates.weight.data.chunk(4)  # type: ignore[union-attr]
            if init == "he":
                nn.init.xavier_normal_(module.gates.weight)
                weights[candidate].mul_(2)
                biases[input_gate].fill_(1)
                biases[output_gate].fill_(1)
            biases[forget_gate].fill_(1)
        elif isinstance(module, ContextGRU) and init == "he":
            for convolution in (module.inputs, module.gates, module.candidate):
                nn.init.xavier_normal_(convolution.weight)
            update, _, candidate = range(3)
            module.inputs.weight.data.chunk(3)[candidate].mul_(2)
            module.inputs.bias.data.chunk(3)[update].fill_(2)  # type: ignore[union-attr]
        elif isinstance(module, SqueezeExcitation) and init == "he":
            nn.init.constant_(module.excite.bias, OPEN)  # type: ignore[arg-type]
        elif isinstance(module, (ResBlock, ReluBlock)) and init == "he":
            module.conv2.weight.data.mul_(0.1)
        elif isinstance(module, DifferentialModule) and init == "he":
            nn.init.constant_(module.filter_a.conv3.bias, OPEN)  # type: ignore[arg-type]
            nn.init.constant_(module.filter_b.conv3.bias, -OPEN)  # type: ignore[arg-type]
        elif isinstance(module, (Decoder, PReNet, RESCAN)) and init == "he":
            module.out.weight.data.mul_(0.1)
        elif isinstance(module, ContextualAutoencoder) and init == "he":
            for convolution in (module.out_quarter, module.out_half, module.out):
                convolution.weight.data.mul_(0.1)
        elif isinstance(module, (Encoder, AttentiveRecurrentNet)) and module.head is not None and init == "he":
            nn.init.constant_(module.head.bias, math.log(RAIN_COVER / (1 - RAIN_COVER)))  # type: ignore[arg-type]
