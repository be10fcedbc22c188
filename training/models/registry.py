"""Every network by name: `build("daiam-edge", decoder_steps=2)`."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from derain.training.models.compact import CompactDAiAM
from derain.training.models.dam import DAiAM, Encoder
from derain.training.models.differential import MultiStage
from derain.training.models.prenet import PReNet
from derain.training.models.qian import AttentiveRecurrentNet, Qian
from derain.training.models.rescan import RESCAN

PEERS = ("rescan", "prenet", "qian", "qian-prenet", "prenet-qian")
"""What the paper compares with (Table 6)."""

_STEPS = ("encoder_steps", "decoder_steps")
_PEERS_STEPS = {
    "rescan": ("steps",),
    "prenet": ("steps",),
    "prenet-nano": ("steps",),
    "qian": ("steps",),
    "qian-prenet": (),
    "prenet-qian": (),
}
"""Options of the networks whose recurrent steps are not set by _STEPS."""

_JOINT = ("streak", "drop")
_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def _register(name: str, builder: Callable[..., nn.Module], **fixed: Any) -> None:
    _BUILDERS[name] = lambda **options: builder(**fixed, **options)


def _stages(count: int, differential: bool, rain_types: tuple[str, ...], **options: Any) -> MultiStage:
    return MultiStage([DAiAM(rain_types, **options) for _ in range(count)], differential)


def _nano_stages(stages: int = 2, differential: bool = True, **options: Any) -> MultiStage:
    return MultiStage([_BUILDERS["daiam-nano"](**options) for _ in range(stages)], differential)


def _qian_prenet(residual: bool = False) -> MultiStage:
    return MultiStage([Qian(residual=residual), PReNet()], differential=False)


def _prenet_qian(residual: bool = False) -> MultiStage:
    return MultiStage([PReNet(), Qian(residual=residual)], differential=False)


# The paper's family (Table 7). A DAM sees both rains as one type, "rain".
_register("dam-zero", DAiAM, rain_types=("rain",), attention="zero")
_register("dam-odd", DAiAM, rain_types=("rain",), attention="odd")
_register("dam-dual", DAiAM, rain_types=("rain",), attention="dual")
_register("d-dam", _stages, count=2, differential=True, rain_types=("rain",))
_register("daiam", DAiAM, rain_types=_JOINT)
_register("daiam-daiam", _stages, count=2, differential=False, rain_types=_JOINT)
_register("d-daiam", _stages, count=2, differential=True, rain_types=_JOINT)
_register("d-daiam-3", _stages, count=3, differential=True, rain_types=_JOINT)

# The compact family, ours.
_register("daiam-nano", CompactDAiAM, encoder_width=16, decoder_width=16, rain_types=_JOINT)
_register("daiam-small", CompactDAiAM, encoder_width=16, decoder_width=32, rain_types=_JOINT)
_register("daiam-edge", CompactDAiAM, encoder_width=32, decoder_width=64, rain_types=_JOINT)

# The paper's comparison in the compact design, for machines without a GPU (training/configs/comparison-nano.yaml).
_register("dam-nano", CompactDAiAM, encoder_width=16, decoder_width=16, rain_types=("rain",))
_register("d-daiam-nano", _nano_stages)
_register("prenet-nano", PReNet, width=16, scale=4)

# The networks that the paper compares with (Table 6), and two of them in a row.
_register("rescan", RESCAN)
_register("prenet", PReNet)
_register("qian", Qian)
_register("qian-prenet", _qian_prenet)
_register("prenet-qian", _prenet_qian)


def names() -> list[str]:
    """The names `build` knows."""
    return list(_BUILDERS)


def step_options(name: str) -> tuple[str, ...]:
    """The options of a network that set its recurrent steps; none where they cannot be chosen."""
    return _PEERS_STEPS.get(name, _STEPS)


def build(name: str, **options: Any) -> nn.Module:
    """A new network with random weights.

    Every network maps (rainy [B, 3, H, W] in 0…1, state or None) to (`Prediction`, state); H and W are multiples of
    `size_multiple(network)`. Options, where the network has them: encoder_steps, decoder_steps, residual, attention; a
    compact one's: encoder_steps, decoder_steps, head, context, whiten, attention; a peer's: steps, residual;
    `d-daiam-nano`'s also stages and differential.

    Raises:
        ValueError: an unknown name, an option the network does not have, or steps that are none.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model {name!r} is unknown, known are: {', '.join(names())}")
    for option in ("encoder_steps", "decoder_steps", "steps", "stages"):
        steps = options.get(option, 1)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"model {name!r}: {option} is {steps!r}, expected a whole number of at least 1")
    try:
        return _BUILDERS[name](**options)
    except TypeError as error:
        fault = str(error).partition("() ")[2]
        raise ValueError(f"model {name!r} does not take these options: it {fault}: leave that out") from error


def size_multiple(model: nn.Module) -> int:
    """What frame width and height must be a multiple of: the `scale` to which its parts go down, 1 for most."""
    return math.lcm(*(int(getattr(module, "scale", 1)) for module in model.modules()))


def recurrent_steps(model: nn.Module) -> tuple[int, int]:
    """Recurrent steps on one frame: the most of any part that draws maps (an encoder), and of any other part."""
    steps = {True: 1, False: 1}
    for module in model.modules():
        draws_maps = isinstance(module, (Encoder, AttentiveRecurrentNet))
        steps[draws_maps] = max(steps[draws_maps], int(getattr(module, "steps", 1)))
    return steps[True], steps[False]


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
