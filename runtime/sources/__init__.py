"""Sources of frames: one file a kind, registered by URI scheme."""

from derain.runtime.sources import file, folder, pattern, v4l2
from derain.runtime.sources.base import Source, open_source, register

__all__ = ["Source", "file", "folder", "open_source", "pattern", "register", "v4l2"]
