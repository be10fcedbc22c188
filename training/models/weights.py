"""Weights as safetensors: self-describing, never a pickle.

The file's metadata holds the model's name and options, so that `load` rebuilds the network it belongs to.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import nn

from derain.training.atomic import write_bytes
from derain.training.models.registry import build, names

SHIPPED = Path(__file__).resolve().parent.parent / "weights"
"""The weights that come with derain; a bare model name means the file of that name here."""

CHECKSUMS = SHIPPED / "SHA256SUMS"
"""Of all shipped weights, as `sha256sum` writes and checks them."""


def save_weights(
    path: Path, model: nn.Module, name: str, options: dict[str, Any], dtype: torch.dtype, **notes: str
) -> None:
    """Write the model's parameters as `dtype` with everything `load` needs.

    The file appears by atomic rename. `notes` are free strings kept beside the name and options (seed, dataset, …).

    Raises:
        ValueError: a value that is not finite, or too large for `dtype`; the file before is kept.
        OSError: as `write_bytes`.
    """
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{path} is left as it was: {key} is not finite any more: lower optimiser.learning_rate")
    metadata = {"model": name, "options": json.dumps(options, sort_keys=True), **notes}
    write_bytes(path, _in_order(save(tensors, metadata)))


def resolve(weights: str) -> Path:
    """The file meant by a path or by the name of shipped weights, which must be as they were shipped.

    Raises:
        FileNotFoundError: neither a file nor the name of shipped weights.
        ValueError: shipped weights that have changed since, or that have no checksum.
    """
    path = Path(weights)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{weights}.safetensors"
    if shipped.is_file():
        _check_shipped(shipped)
        return shipped
    known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.safetensors"))) or "none"
    if weights in names():
        raise FileNotFoundError(
            f"no weights ship for model {weights!r} (shipped: {known}): train it with `derain train`, "
            f"or name it with random weights as `random:{weights}`"
        )
    if (path / "manifest.json").is_file() and (path / "weights.safetensors").is_file():
        raise FileNotFoundError(f"{weights} is a bundle: name the weights in it, {path / 'weights.safetensors'}")
    if (path / "weights.safetensors").is_file():
        raise FileNotFoundError(f"{weights} is a run's folder: name its weights, {path / 'weights.safetensors'}")
    raise FileNotFoundError(f"no weights file {weights!r}: expected a .safetensors file or a shipped name ({known})")


def _check_shipped(file: Path) -> None:
    lines = (line.split(maxsplit=1) for line in CHECKSUMS.read_text().splitlines())
    sums = {name: digest for digest, name in lines}
    found, expected = hashlib.sha256(file.read_bytes()).hexdigest(), sums.get(file.name, "none")
    if found != expected:
        raise ValueError(
            f"{file}: SHA-256 is {found[:12]}…, {CHECKSUMS.name} has {expected[:12]} for it: install derain again, "
            "or name weights of your own by their path"
        )


@dataclass(frozen=True)
class Trained:
    """A network in FP32 evaluation mode with what its weights file says of it."""

    network: nn.Module
    name: str
    options: dict[str, Any]
    notes: dict[str, str]
    file: Path | None
    """None for `random:NAME`."""
    content: bytes | None = None
    """Of the file when it was read: a run that is training may write another at any time."""

    @property
    def runs(self) -> list[dict[str, str]]:
        """What each run behind the weights says of itself: one, or all that went into a mean, and into means of it."""
        return _runs(self.notes)


def load(weights: str, **overrides: Any) -> Trained:
    """Rebuild a network from a weights file, a shipped name, or `random:NAME` (random weights of seed 0).

    `overrides` replace options the file names, such as the number of recurrent steps; the tensors must still fit.

    Raises:
        FileNotFoundError: see `resolve`.
        ValueError: see `resolve`; not a safetensors file, made by something else, tensors that do not fit the
            named architecture, or are not finite.
    """
    if weights.startswith("random:"):
        name = weights.removeprefix("random:")
        torch.manual_seed(0)
        return Trained(build(name, **overrides).eval(), name, overrides, {}, None)
    path = resolve(weights)
    try:
        content = path.read_bytes()
        tensors = {key: tensor.float() for key, tensor in load_tensors(content).items()}
        notes = _metadata(content)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): get a whole copy of it") from error
    if "model" not in notes:
        raise ValueError(
            f"{path} does not say which model it belongs to: expected metadata 'model', found "
            f"{sorted(notes) or 'none'}; write it with `derain train`"
        )
    name = notes.pop("model")
    try:
        options = {**json.loads(notes.pop("options", "{}")), **overrides}
        network = build(name, **options).eval()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a network of this version: {error}") from error
    _check_fit(network, tensors, path, name)
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: tensor {key!r} is not finite: expected weights of a run that converged")
    network.load_state_dict(tensors)
    return Trained(network, name, options, notes, path, content)


def _runs(notes: dict[str, str]) -> list[dict[str, str]]:
    if "mean_of" not in notes:
        return [notes]
    return [run for part in json.loads(notes["mean_of"]) for run in _runs(part)]


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """What a file says of its tensors and of itself, JSON behind its length in 8 bytes; and where it ends."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end


def _metadata(content: bytes) -> dict[str, str]:
    """The strings beside the tensors."""
    return dict(_header(content)[0].get("__metadata__") or {})


def _in_order(content: bytes) -> bytes:
    """The same file with its notes sorted: safetensors shuffles them, and equal runs would leave unlike files."""
    header, end = _header(content)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[end:]


def _check_fit(network: nn.Module, tensors: dict[str, torch.Tensor], path: Path, name: str) -> None:
    expected = network.state_dict()
    for key in sorted(expected.keys() | tensors.keys()):
        seen = tuple(tensors[key].shape) if key in tensors else "missing"
        wanted = tuple(expected[key].shape) if key in expected else "no such tensor"
        if seen != wanted:
            raise ValueError(
                f"{path} does not fit model {name!r}: tensor {key!r} is {seen}, expected {wanted}; "
                f"use weights that were trained as {name!r}"
            )
