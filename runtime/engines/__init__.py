"""Engines: one file a backend, registered by name, the same four verbs each: open, warm up, infer, close."""

from derain.runtime.engines import onnxruntime, tensorrt
from derain.runtime.engines.base import Engine, available, create, limitations, precisions, register

__all__ = ["Engine", "available", "create", "limitations", "onnxruntime", "precisions", "register", "tensorrt"]
