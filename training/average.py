"""The mean of several runs' weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from derain.training.models import build
from derain.training.models.registry import default_options
from derain.training.models.weights import Trained, load, save_weights

LEAST_ALIKE = 0.75
"""The cosine between the convolutions of two runs, below which they did not begin from one another: stages of the
networks that ship stand at 0.90 to 0.99, runs from the same random weights (one seed) at 0.52, from others at 0."""


def average(weights: Sequence[str], out: Path) -> None:
    """Write the mean of the weights of runs that began from one another, as fp16, with what each says of itself.

    Fine-tuned weights and those they began from lie in one valley of the loss: their mean keeps what each learnt, on
    data that only one of them saw (Wortsman et al. 2022, "Model soups").

    Args:
        weights: two or more safetensors files or shipped names.
        out: the file to write, by atomic rename.

    Raises:
        FileNotFoundError, ValueError: fewer than two, weights that `load` refuses, unlike networks, or runs that did
            not begin from one another, whose mean is no better than random weights.
    """
    if len(weights) < 2:
        raise ValueError(f"{len(weights)} weights to average: expected at least 2")
    runs = [load(name) for name in weights]
    first = runs[0]
    for name, run in zip(weights, runs, strict=True):
        if run.name != first.name or _whole(run) != _whole(first):
            raise ValueError(
                f"{name} is a {run.name!r} with options {run.options}, {weights[0]} a {first.name!r} with "
                f"{first.options}: average runs of one network"
            )
    states = [run.network.state_dict() for run in runs]
    for name, state in zip(weights[1:], states[1:], strict=True):
        if (alike := _alike(states[0], state)) < LEAST_ALIKE:
            raise ValueError(
                f"{weights[0]} and {name} did not begin from one another (the cosine between their convolutions is "
                f"{alike:.2f}, expected {LEAST_ALIKE} or more), so their mean is good for nothing: train one from the "
                "other's weights (`network: {start: …}`)"
            )
    network = build(first.name, **first.options)
    network.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    notes = {"mean_of": json.dumps([run.notes for run in runs])}
    save_weights(out, network, first.name, first.options, torch.float16, **notes)


def _alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The cosine between two networks' convolution kernels, taken as one vector, in [-1, 1]."""
    a, b = (torch.cat([value.flatten() for value in state.values() if value.ndim == 4]) for state in (first, second))
    return float(torch.cosine_similarity(a, b, dim=0))


def _whole(run: Trained) -> dict[str, Any]:
    """A network's options with those it leaves at their defaults."""
    return default_options(run.name) | run.options
