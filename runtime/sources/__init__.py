"""Sources of frames: one file a kind, registered by URI scheme."""

from derain.runtime.sources import file, folder, gst, pattern, rtsp, shm, v4l2
from derain.runtime.sources.base import Source, open_source, register

__all__ = ["Source", "file", "folder", "gst", "open_source", "pattern", "register", "rtsp", "shm", "v4l2"]
