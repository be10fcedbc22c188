"""Weights as safetensors: self-describing, never a pickle.

The file's metadata holds the model's name and options, so that `load` rebuilds the network it belongs to.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from derain.training.models.registry import build, names

SHIPPED = Path(__file__).resolve().parent.parent / "weights"
"""The weights that come with derain; a bare model name means the file of that name here."""


def save_weights(path: Path, model: nn.Module, name: str, options: dict[str, Any], dtype: torch.dtype, **notes: str) -> str:
    """Write the model's parameters as `dtype` with everything `load` needs; returns the file's SHA-256.

    The file appears by atomic rename. `notes` are free strings kept beside the name and options (seed, dataset, …).
    """
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    metadata = {"model": name, "options": json.dumps(options, sort_keys=True), **notes}
    data = save(tensors, metadata)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)  # noqa: PTH105 (Path.replace is the same call; os.replace says what matters here)
    return hashlib.sha256(data).hexdigest()


def resolve(weights: str) -> Path:
    """The file meant by a path or by the name of shipped weights.

    Raises:
        FileNotFoundError: neither a file nor the name of shipped weights.
    """
    path = Path(weights)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{weights}.safetensors"
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.safetensors"))) or "none"
    if weights in names():
        raise FileNotFoundError(
            f"no weights ship for model {weights!r} (shipped: {known}): train it with `derain train`, "
            f"or name it with random weights as `random:{weights}`"
        )
    raise FileNotFoundError(f"no weights file {weights!r}: expected a .safetensors file or a shipped name ({known})")


def load(weights: str) -> tuple[nn.Module, dict[str, str]]:
    """Rebuild a network in FP32 evaluation mode from a weights file, a shipped name, or `random:NAME` (seed 0).

    Returns the network and the file's metadata, which always holds "model" and "options" (JSON).

    Raises:
        FileNotFoundError: see `resolve`.
        ValueError: not a safetensors file, made by something else, or tensors that do not fit the named architecture.
    """
    if weights.startswith("random:"):
        name = weights.removeprefix("random:")
        torch.manual_seed(0)
        return build(name).eval(), {"model": name, "options": "{}"}
    path = resolve(weights)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): get a whole copy of it") from error
    if "model" not in metadata:
        raise ValueError(f"{path} does not say which model it belongs to: expected metadata 'model', found {sorted(metadata)}; write it with `derain train`")
    return load_state(metadata["model"], json.loads(metadata.get("options", "{}")), tensors, str(path)), metadata


def load_state(name: str, options: dict[str, Any], tensors: dict[str, torch.Tensor], origin: str) -> nn.Module:
    """Build `name` with `options` and fill it with tensors that must fit exactly; errors name `origin`."""
    model = build(name, **options).eval()
    expected = model.state_dict()
    for key in sorted(expected.keys() | tensors.keys()):
        seen = tuple(tensors[key].shape) if key in tensors else "nothing"
        wanted = tuple(expected[key].shape) if key in expected else "no such tensor"
        if seen != wanted:
            raise ValueError(
                f"{origin} does not fit model {name!r}: tensor {key!r} is {seen}, expected {wanted}; "
                f"use weights trained for {name!r} with options {options}"
            )
    model.load_state_dict(tensors)
    return model
