"""To try a pipeline or an integration without a network: an engine that fails on cue, an observer of functions."""

import time
from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np

from derain.runtime.bundle import Bundle
from derain.runtime.engines import Engine
from derain.runtime.frames import Image
from derain.runtime.observers import Observer


class Fault(StrEnum):
    """What a `ScriptedEngine` does with a frame instead of inverting it."""

    RAISE = "raise"
    OUT_OF_MEMORY = "out of memory"
    SLOW = "slow"
    BLACK = "black"
    FROZEN = "frozen"
    WRONG_SHAPE = "wrong shape"


class Calls(Observer):
    """An observer made of functions: `Calls(on_frame=…, on_drop=…, on_unused=…, on_status=…)`, any of them."""

    def __init__(self, **calls: Callable[..., object]) -> None:
        vars(self).update(calls)


class ScriptedEngine(Engine):
    """Not registered, made directly. Returns 255 - frame, or does what `script` says for a frame by its number.

    Numbers count from 0 over all openings. Fault.SLOW takes `slow_s`. `refusals` is how many of the openings after the
    first fail, as they do while an engine's file is away. Warming up costs no number. `openings` counts the openings
    that went well.
    """

    package = "numpy"
    extra = "cpu"
    name = "scripted"

    def __init__(
        self, bundle: Bundle, script: Mapping[int, Fault] | None = None, slow_s: float = 0.2, refusals: int = 0
    ) -> None:
        super().__init__(bundle)
        self.openings = 0
        self._slow_s, self._refusals = slow_s, refusals
        self._script = {} if script is None else script
        self._number = 0
        self._last: Image | None = None

    def warm_up(self, frames: int = 3) -> None:
        """There is nothing to warm."""

    def _open(self) -> None:
        if self.openings and self._refusals:
            self._refusals -= 1
            raise FileNotFoundError(f"{self.bundle.path}: no such file")
        self.openings += 1

    def _infer(self, tensor: Image) -> Image:
        fault = self._script.get(self._number)
        self._number += 1
        if fault is Fault.RAISE:
            raise RuntimeError("an illegal memory access was encountered")
        if fault is Fault.OUT_OF_MEMORY:
            raise MemoryError("4096 MB asked for")
        if fault is Fault.SLOW:
            time.sleep(self._slow_s)
        if fault is Fault.BLACK:
            return np.zeros_like(tensor)
        if fault is Fault.WRONG_SHAPE:
            return tensor[:, 1:]
        if fault is Fault.FROZEN and self._last is not None:
            return self._last
        self._last = 255 - tensor
        return self._last

    def _close(self) -> None:
        self._last = None
