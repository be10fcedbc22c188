"""`test://rain?width=640&height=360&frames=60&fps=30&seed=0`: a moving pattern under moving streaks, made here.

`test://clean?…` is the same pattern without the streaks: the truth to compare with. It tries a pipeline where there is
no footage; how well a network derains it says nothing about real rain.
"""

from collections.abc import Iterator
from urllib.parse import parse_qsl

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from derain.runtime.bundle import FrameSpec
from derain.runtime.faults import first_fault
from derain.runtime.frames import Image
from derain.runtime.sources.base import Source, register


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    frames: int = Field(default=60, ge=1)
    fps: float = Field(default=30, gt=0)
    seed: int = Field(default=0, ge=0)


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
        self._seed, self._count = options.seed, options.frames
        self._rain = kind == "rain"

    def _images(self) -> Iterator[Image]:
        rng = np.random.default_rng(self._seed)
        width, height = self.width, self.height
        coarse = rng.integers(20, 200, (6, 10, 3), np.uint8)
        scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        scene[np.arange(height) // 2 % 12 == 0] = (
            40  # edges to keep, in pairs of rows, which share their chroma in nv12
        )
        starts = rng.uniform(0, 1, (60, 2)) * (width, height)
        length, step = max(height // 8, 2), max(height // 7, 1)
        for index in range(self._count):
            image = np.roll(scene, 2 * index, axis=1)
            if self._rain:
                mask = np.zeros((height, width, 1), np.uint8)
                for x, y in starts.astype(int):
                    top = (int(y) + index * step) % height
                    cv2.line(mask, (int(x), top), (int(x) - length // 5, top + length), 110, 1, cv2.LINE_AA)
                image = cv2.add(image, cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR))
            yield self._from_bgr(image, self.location)
