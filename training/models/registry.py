"""Every network by name: `build("daiam-edge", decoder_steps=2)`."""

from collections.abc import Callable
from typing import Any

from torch import nn

from derain.training.models.compact import CompactDAiAM
from derain.training.models.dam import DAiAM
from derain.training.models.differential import MultiStage

_JOINT = ("streak", "drop")
_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def _register(name: str, builder: Callable[..., nn.Module], **fixed: Any) -> None:
    _BUILDERS[name] = lambda **options: builder(**fixed, **options)


def _stages(count: int, differential: bool, rain_types: tuple[str, ...], **options: Any) -> MultiStage:
    return MultiStage([DAiAM(rain_types, **options) for _ in range(count)], differential)


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
_register("daiam-nano", CompactDAiAM, encoder_width=16, decoder_width=16)
_register("daiam-small", CompactDAiAM, encoder_width=16, decoder_width=32)
_register("daiam-edge", CompactDAiAM, encoder_width=32, decoder_width=64)


def names() -> list[str]:
    """The names `build` knows."""
    return list(_BUILDERS)


def build(name: str, **options: Any) -> nn.Module:
    """A new network with random weights.

    Every network maps (rainy [B, 3, H, W] in 0…1, state or None) to (`Prediction`, state); H and W are multiples of
    `size_multiple(network)`. Options, where the network has them: encoder_steps, decoder_steps, residual, attention.

    Raises:
        ValueError: an unknown name, an option the network does not have, or steps that are none.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown model {name!r}: expected one of {', '.join(names())}")
    for option in ("encoder_steps", "decoder_steps"):
        steps = options.get(option, 1)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"model {name!r}: {option} is {steps!r}, expected a whole number of at least 1")
    try:
        return _BUILDERS[name](**options)
    except TypeError as error:
        raise ValueError(f"model {name!r} does not take these options: {error}") from error


def size_multiple(model: nn.Module) -> int:
    """What frame width and height must be a multiple of: the compact family's scale r, else 1."""
    return int(getattr(model, "scale", 1))


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
