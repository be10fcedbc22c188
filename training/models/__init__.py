"""The networks of the paper, the compact family and the paper's peers, each with explicit recurrent state."""

from derain.training.models.prediction import Branch, Prediction
from derain.training.models.registry import (
    COMPACT_PEERS,
    PEERS,
    build,
    names,
    parameter_count,
    recurrent_steps,
    size_multiple,
)

__all__ = [
    "COMPACT_PEERS",
    "PEERS",
    "Branch",
    "Prediction",
    "build",
    "names",
    "parameter_count",
    "recurrent_steps",
    "size_multiple",
]
