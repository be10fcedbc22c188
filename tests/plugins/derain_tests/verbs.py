"""`derain VERB …` in this process, and what it left on a terminal."""

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Answer:
    """What a verb left on a terminal, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def fault(self) -> str:
        """The one line on stderr that told it; anything else fails the test."""
        assert self.status == 1, (self.status, self.err)
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.err + self.out
        assert "unexpected" not in lines[0]
        return lines[0].removeprefix("error: ")

    @property
    def told(self) -> str:
        """What it printed on the way to success; anything else fails the test."""
        assert self.status == 0, (self.status, self.err)
        return self.out


def strict_json(path: Path) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


@contextmanager
def without_pytests_ears() -> Iterator[None]:
    """Logs and warnings as in a process of their own: they go to stderr, and no level is left from tests before."""
    root, derain = logging.getLogger(), logging.getLogger("derain")
    handlers, levels = root.handlers[:], (root.level, derain.level)
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    derain.setLevel(logging.NOTSET)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda *warning: sys.stderr.write(warnings.formatwarning(*warning[:4]))
            yield
    finally:
        root.handlers[:] = handlers
        for logger, level in zip((root, derain), levels, strict=True):
            logger.setLevel(level)


@pytest.fixture
def derain(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs `derain ARGUMENTS…` through main(), with the file descriptors captured: C++ libraries write to them too."""

    def run(*arguments: object) -> Answer:
        from derain.cli.main import main

        monkeypatch.setattr(sys, "argv", ["derain", *map(str, arguments)])
        capfd.readouterr()
        try:
            with without_pytests_ears():
                main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        except Exception:  # as the interpreter would
            traceback.print_exc()
            status = 1
        captured = capfd.readouterr()
        return Answer(status, captured.out, captured.err)

    return run
