"""The networks of the paper and the compact family, each with explicit recurrent state."""

from derain.training.models.prediction import Branch, Prediction
from derain.training.models.registry import build, names, parameter_count, size_multiple

__all__ = ["Branch", "Prediction", "build", "names", "parameter_count", "size_multiple"]
