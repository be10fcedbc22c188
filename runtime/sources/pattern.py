"""`test://rain?width=640&height=360&frames=60&fps=30&seed=0`: a moving pattern under moving streaks, made here.

`test://clean?…` is the same pattern without the streaks: the truth to compare with. It tries a pipeline where there is
no footage; how well a network derains it says nothing about real rain.

With `live=1` it behaves as a camera does: frames come at `fps` whether they are wanted or not. And it can fail on cue,
once: `unplug=N` raises OSError at frame N and for `outage` seconds after it, `stall=N` hangs that long at frame N, and
from frame N until `outage` seconds are over `resize=N` delivers frames of half the size, `truncate=N` JPEGs cut short.
"""

import itertools
import math
import time
from collections.abc import Iterator
from typing import Self
from urllib.parse import parse_qsl

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from derain.runtime.faults import first_fault
from derain.runtime.frames import Image
from derain.runtime.manifest import FrameSpec
from derain.runtime.sources.base import BROKEN, Source, register
from derain.runtime.sources.coded import decode


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    frames: int = Field(default=60, ge=1)
    fps: float = Field(default=30, gt=0)
    seed: int = Field(default=0, ge=0)
    live: bool = False
    unplug: int | None = Field(default=None, ge=1)
    stall: int | None = Field(default=None, ge=1)
    resize: int | None = Field(default=None, ge=1)
    truncate: int | None = Field(default=None, ge=1)
    outage: float = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _only_a_camera_fails(self) -> Self:
        if not self.live and (self.unplug or self.stall or self.resize or self.truncate):
            raise ValueError("unplug, stall, resize and truncate are faults of a camera: add live=1")
        return self


@register("test")
class Pattern(Source):
    """The same frames for the same options: a texture that scrolls, under streaks that fall."""

    def __init__(self, location: str, spec: FrameSpec) -> None:
        super().__init__(f"test://{location}", spec)
        kind, _, query = location.partition("?")
        if kind not in ("rain", "clean"):
            raise ValueError(f"{self.location}: pattern {kind!r} is unknown, known are: clean, rain")
        try:
            options = _Options.model_validate({"width": spec.width, "height": spec.height} | dict(parse_qsl(query)))
        except ValidationError as error:
            known = ", ".join(_Options.model_fields)
            raise ValueError(f"{self.location}: {first_fault(error)}; known keys: {known}") from error
        self.width, self.height = options.width, options.height
        self.fps, self.frames = options.fps, options.frames
        self.live = options.live
        self._rain = kind == "rain"
        self._options = options
        self._start_ns = time.monotonic_ns()
        self._next = 0
        self._outage_over_ns = -math.inf

    def reopened(self) -> "Pattern":
        """The rest of the frames, with the fault behind it; OSError while the outage lasts."""
        if time.monotonic_ns() < self._outage_over_ns:
            raise OSError(f"{self.location}: no such camera")
        again = Pattern(self.location.removeprefix("test://"), self.spec)
        again._options = self._options.model_copy(update={"unplug": None, "stall": None})
        again._start_ns, again._next, again._fitted = self._start_ns, self._next, self._fitted
        again._outage_over_ns = self._outage_over_ns
        return again

    def _images(self) -> Iterator[Image]:
        if not self.live:
            yield from (self._from_bgr(image, self.location) for image in self._pictures())
            return
        for image in itertools.islice(self._pictures(), self._next, None):
            due_ns = self._start_ns + self._next * 1e9 / self._options.fps
            time.sleep(max(due_ns - time.monotonic_ns(), 0) / 1e9)
            delivered = self._with_faults(image)
            yield BROKEN if delivered is None else self._from_bgr(delivered, self.location)

    def _with_faults(self, image: Image) -> Image | None:
        index, options = self._next, self._options
        self._next += 1
        if index in (options.unplug, options.stall, options.resize, options.truncate):
            self._outage_over_ns = time.monotonic_ns() + options.outage * 1e9
        if index == options.unplug:
            raise OSError(f"{self.location}: unplugged")
        if index == options.stall:
            time.sleep(options.outage)
        if time.monotonic_ns() < self._outage_over_ns:
            if options.resize is not None and index >= options.resize:
                return image[::2, ::2]
            if options.truncate is not None and index >= options.truncate:
                jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                return decode(jpeg[: len(jpeg) * 2 // 3])
        return image

    def _pictures(self) -> Iterator[Image]:
        """BGR [H, W, 3]."""
        rng = np.random.default_rng(self._options.seed)
        width, height = self.width, self.height
        coarse = rng.integers(20, 200, (6, 10, 3), np.uint8)
        scene = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
        # edges to keep, in pairs of rows, which share their chroma in nv12
        scene[np.arange(height) // 2 % 12 == 0] = 40
        starts = rng.uniform(0, 1, (60, 2)) * (width, height)
        length, step = max(height // 8, 2), max(height // 7, 1)
        for index in range(self._options.frames):
            image: Image = np.roll(scene, 2 * index, axis=1)
            if self._rain:
                mask = np.zeros((height, width, 1), np.uint8)
                for x, y in starts.astype(int):
                    top = (int(y) + index * step) % height
                    cv2.line(mask, (int(x), top), (int(x) - length // 5, top + length), 110, 1, cv2.LINE_AA)
                image = np.asarray(cv2.add(image, cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR)), np.uint8)
            yield image
