"""Every network by name: `build("daiam-edge", decoder_steps=2)`."""

import inspect
import math
from collections.abc import Callable
from functools import partial
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

COMPACT_PEERS = tuple(f"{name}-nano" for name in PEERS)
"""The same in the compact design."""

_STEPS = ("encoder_steps", "decoder_steps")
_PEERS_STEPS = {
    "rescan": ("steps",),
    "prenet": ("steps",),
    "qian": ("steps",),
    "qian-prenet": (),
    "prenet-qian": (),
}
"""Options of the peers, full or compact, whose recurrent steps are not set by _STEPS."""

_JOINT = ("streak", "drop")
_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def _register(name: str, builder: Callable[..., nn.Module], **fixed: Any) -> None:
    _BUILDERS[name] = partial(builder, **fixed)


def _stages(stage: Callable[..., nn.Module], stages: int = 2, differential: bool = True, **options: Any) -> MultiStage:
    return MultiStage([stage(**options) for _ in range(stages)], differential)


def _qian_prenet(qian: Callable[..., Qian], prenet: Callable[..., PReNet], residual: bool = False) -> MultiStage:
    return MultiStage([qian(residual=residual), prenet()], differential=False)


def _prenet_qian(qian: Callable[..., Qian], prenet: Callable[..., PReNet], residual: bool = False) -> MultiStage:
    return MultiStage([prenet(), qian(residual=residual)], differential=False)


# The paper's family (Table 7). A DAM sees both rains as one type, "rain".
_register("dam-zero", DAiAM, rain_types=("rain",), attention="zero")
_register("dam-odd", DAiAM, rain_types=("rain",), attention="odd")
_register("dam-dual", DAiAM, rain_types=("rain",), attention="dual")
_register("d-dam", _stages, stage=partial(DAiAM, rain_types=("rain",)), stages=2, differential=True)
_register("daiam", DAiAM, rain_types=_JOINT)
_register("daiam-daiam", _stages, stage=_BUILDERS["daiam"], stages=2, differential=False)
_register("d-daiam", _stages, stage=_BUILDERS["daiam"], stages=2, differential=True)
_register("d-daiam-3", _stages, stage=_BUILDERS["daiam"], stages=3, differential=True)

# The compact family, ours.
_register("daiam-nano", CompactDAiAM, encoder_width=16, decoder_width=16, rain_types=_JOINT)
_register("daiam-small", CompactDAiAM, encoder_width=16, decoder_width=32, rain_types=_JOINT)
_register("daiam-edge", CompactDAiAM, encoder_width=32, decoder_width=64, rain_types=_JOINT)

# The paper's comparison in the compact design, for machines without a GPU (training/configs/comparison-nano.yaml).
_register("dam-nano", CompactDAiAM, encoder_width=16, decoder_width=16, rain_types=("rain",))
_register("d-daiam-nano", _stages, stage=_BUILDERS["daiam-nano"])
_register("rescan-nano", RESCAN, width=16, scale=4)
_register("prenet-nano", PReNet, width=16, scale=4)
_register("qian-nano", Qian, width=32, blocks=4)
_register("qian-prenet-nano", _qian_prenet, qian=_BUILDERS["qian-nano"], prenet=_BUILDERS["prenet-nano"])
_register("prenet-qian-nano", _prenet_qian, qian=_BUILDERS["qian-nano"], prenet=_BUILDERS["prenet-nano"])

# The networks that the paper compares with (Table 6), and two of them in a row.
_register("rescan", RESCAN, width=24, scale=1)
_register("prenet", PReNet)
_register("qian", Qian, width=64, blocks=1)
_register("qian-prenet", _qian_prenet, qian=Qian, prenet=PReNet)
_register("prenet-qian", _prenet_qian, qian=Qian, prenet=PReNet)


def names() -> list[str]:
    """The names `build` knows."""
    return list(_BUILDERS)


def step_options(name: str) -> tuple[str, ...]:
    """The options of a network that set its recurrent steps; none where they cannot be chosen."""
    return _PEERS_STEPS.get(name.removesuffix("-nano"), _STEPS)


def default_options(name: str) -> dict[str, Any]:
    """Every option that a network has, and what it is where none is given; what is part of its name is none."""
    return _defaults(_BUILDERS[name])


def _defaults(builder: Callable[..., nn.Module]) -> dict[str, Any]:
    fixed = getattr(builder, "keywords", {})
    parameters = inspect.signature(builder).parameters.values()
    own = {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in fixed}
    return own | _defaults(fixed["stage"]) if "stage" in fixed else own


def build(name: str, **options: Any) -> nn.Module:
    """A new network with random weights.

    Every network maps (rainy [B, 3, H, W] in 0…1, state or None) to (`Prediction`, state); H and W are multiples of
    `size_multiple(network)`. Options, where the network has them: encoder_steps, decoder_steps, residual, attention; a
    compact one's: encoder_steps, decoder_steps, head, context, whiten, attention; a peer's: steps, residual;
    `d-daiam-nano`'s also stages and differential.

    Raises:
        ValueError: an unknown name, an option the network does not have, or one whose value is none of its.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model {name!r} is unknown, known are: {', '.join(names())}")
    known = default_options(name)
    for option, value in options.items():
        if option not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"model {name!r} has no option {option!r}, it has {has}: leave it out")
        kind = type(known[option])
        if kind is bool and type(value) is not bool:
            raise ValueError(f"model {name!r}: {option} is {value!r}, expected true or false")
        if kind is int and (type(value) is not int or value < 1):  # a bool is an int to Python
            raise ValueError(f"model {name!r}: {option} is {value!r}, expected a whole number of at least 1")
    return _BUILDERS[name](**options)


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
