"""The mean of several runs' weights."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from derain.training.models import build
from derain.training.models.checkpoint import load, save_weights


def average(weights: Sequence[str], out: Path) -> None:
    """Write the mean of the weights of runs that began from one another, as fp16, with what each says of itself.

    Fine-tuned weights and those they began from lie in one valley of the loss: their mean keeps what each learnt, on
    data that only one of them saw (Wortsman et al. 2022, "Model soups").

    Args:
        weights: two or more safetensors files or shipped names.
        out: the file to write, by atomic rename.

    Raises:
        FileNotFoundError, ValueError: fewer than two, weights that `load` refuses, or unlike networks.
    """
    if len(weights) < 2:
        raise ValueError(f"{len(weights)} weights to average: expected at least 2")
    runs = [load(name) for name in weights]
    first = runs[0]
    for name, run in zip(weights, runs, strict=True):
        if (run.name, run.options) != (first.name, first.options):
            raise ValueError(
                f"{name} is a {run.name!r} with options {run.options}, {weights[0]} a {first.name!r} with "
                f"{first.options}: average runs of one network"
            )
    states = [run.network.state_dict() for run in runs]
    network = build(first.name, **first.options)
    network.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    notes = {"mean_of": json.dumps([run.notes for run in runs])}
    save_weights(out, network, first.name, first.options, torch.float16, **notes)
