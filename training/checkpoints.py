"""Training checkpoints without pickles: one safetensors file, its tensors beside the rest of the tree as JSON.

Lightning hands over a tree of dictionaries, lists, numbers, strings and tensors. The tensors go into the file as such,
every bit of them and their strides; the tree goes into the file's metadata with a reference in each tensor's place.
"""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from derain.training.atomic import write_bytes

TENSOR, TUPLE, ITEMS = "__tensor__", "__tuple__", "__items__"
"""What stands in JSON for a tensor (with its number and strides), a tuple, a dictionary whose keys are no strings."""


def pack(tree: Any, tensors: dict[str, Tensor], where: str = "checkpoint") -> Any:
    """The tree as JSON knows it; its tensors are added to `tensors`, on the CPU and contiguous.

    Raises:
        ValueError: a tensor that holds a value that is not finite.
        TypeError: something that is neither of JSON nor a tensor; it would have to be pickled.
    """
    if isinstance(tree, Tensor):
        if tree.is_floating_point() and not torch.isfinite(tree).all():
            raise ValueError(
                f"{where} is no longer finite, so it is not saved and the checkpoint before it is kept: "
                "lower optimiser.learning_rate"
            )
        key = str(len(tensors))
        tensors[key] = tree.detach().cpu().contiguous().clone()
        return {TENSOR: key, "stride": None if tree.is_contiguous() else list(tree.stride())}
    if isinstance(tree, dict):
        if all(isinstance(key, str) for key in tree):
            return {key: pack(value, tensors, f"{where}.{key}") for key, value in tree.items()}
        return {ITEMS: [[key, pack(value, tensors, f"{where}.{key}")] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        items = [pack(value, tensors, f"{where}.{index}") for index, value in enumerate(tree)]
        return {TUPLE: items} if isinstance(tree, tuple) else items
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise TypeError(f"{where} is a {type(tree).__name__}, expected a tensor or what JSON knows")


def unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """What `pack` was given; tensors have their strides back, so that the arithmetic on them is the same."""
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if TENSOR in tree:
        tensor, stride = tensors[tree[TENSOR]], tree["stride"]
        if stride is None:
            return tensor
        return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
    if TUPLE in tree:
        return tuple(unpack(value, tensors) for value in tree[TUPLE])
    if ITEMS in tree:
        return {key: unpack(value, tensors) for key, value in tree[ITEMS]}
    return {key: unpack(value, tensors) for key, value in tree.items()}


def save_checkpoint(tree: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; the one before it is kept until this one is whole (see `write_bytes`, `pack`)."""
    tensors: dict[str, Tensor] = {}
    packed = json.dumps(pack(tree, tensors))
    write_bytes(path, save(tensors, {"tree": packed, "iteration": str(tree["global_step"])}))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree `save_checkpoint` wrote.

    Raises:
        ValueError: the file is not one of them.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            tree = json.loads((file.metadata() or {})["tree"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise _unreadable(path, error) from error
    return dict(unpack(tree, tensors))


def iterations_done(path: Path) -> int:
    """How many iterations a checkpoint has behind it; 0 where there is none.

    Raises:
        ValueError: the file is no checkpoint.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            return int((file.metadata() or {})["iteration"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}): copy it again, or start the run anew")


class SafetensorsCheckpointIO(CheckpointIO):
    """Lightning's door to the functions above."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write what the trainer dumped."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it back, on the CPU; Lightning moves it."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the file."""
        Path(path).unlink(missing_ok=True)
