"""The terminal, or what stdout and stderr were sent to instead."""

import logging
import os

from rich import console
from rich.logging import RichHandler


class Console(console.Console):
    """Rich's, but where nobody reads any more (`derain … | head -1`) the rest is unsaid and the work goes on.

    Rich's own would end the thread that spoke, such as the one that reads the camera.
    """

    def on_broken_pipe(self) -> None:  # noqa: D102
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # what is buffered yet fails no exit
        os.close(nowhere)


def log_handler() -> logging.Handler:
    """Log messages to stderr: in colour on a terminal, elsewhere one line each, which can be searched."""
    terminal = Console(stderr=True)
    if terminal.is_terminal:
        return RichHandler(console=terminal, show_path=False, show_time=False)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    return handler
