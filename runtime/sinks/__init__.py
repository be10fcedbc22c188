"""Sinks for frames: one file a kind, registered by URI scheme."""

from derain.runtime.sinks import display, file, folder, mjpeg, null, shm
from derain.runtime.sinks.base import Sink, open_sink, register

__all__ = ["Sink", "display", "file", "folder", "mjpeg", "null", "open_sink", "register", "shm"]
