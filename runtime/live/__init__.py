"""The live page: what a run shows to a browser, and the server that shows it."""

from derain.runtime.live.server import LiveServer
from derain.runtime.live.view import LiveView

__all__ = ["LiveServer", "LiveView"]
