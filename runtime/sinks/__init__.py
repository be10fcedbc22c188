"""Sinks for frames: one file a kind, registered by URI scheme."""

from derain.runtime.sinks import file, folder, null
from derain.runtime.sinks.base import Sink, open_sink, register

__all__ = ["Sink", "file", "folder", "null", "open_sink", "register"]
