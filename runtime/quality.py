"""How near frames are to the truth."""

import logging
import re
from itertools import chain
from pathlib import Path

import numpy as np

from derain.runtime.frames import Frame, Image, to_bgr
from derain.runtime.manifest import FrameSpec
from derain.runtime.observers import Observer
from derain.runtime.psnr import psnr
from derain.runtime.records import FrameRecord
from derain.runtime.sources import Source
from derain.runtime.sources.folder import images_of

log = logging.getLogger(__name__)

EQUAL = 100.0
"""dB told for frames that are equal, whose PSNR has no end."""


def warn_of_other_names(frames: Path | None, truth: Path | None) -> None:
    """Warn where the images of two folders are numbered apart: they are paired in their order, whatever their names."""
    if frames is None or truth is None or not frames.is_dir() or not truth.is_dir():
        return
    for one, other in zip(images_of(frames), images_of(truth), strict=False):
        if re.findall("[0-9]+", one.stem) != re.findall("[0-9]+", other.stem):
            log.warning("%s is compared with %s: expected a truth of the same name", one, other)
            return


class TruthComparison(Observer):
    """PSNR in RGB of raw and presented frames against the truth, a bgr8 source; `add` takes its next frame.

    Its first frame is read at once: ValueError where the truth is of another size.
    """

    def __init__(self, truth: Source, input_spec: FrameSpec, output_spec: FrameSpec) -> None:
        self._truth = truth
        frames = iter(truth)
        self._frames = chain([first] if (first := next(frames, None)) is not None else [], frames)
        self._unmatched = 0
        self._input, self._output = input_spec, output_spec
        self._psnr: list[tuple[float, float]] = []

    def add(self, image: Image, clean: Image) -> None:
        """Compare a frame's camera bytes and the engine's output, as long as the truth lasts."""
        truth = next(self._frames, None)
        if truth is None:
            self._unmatched += 1
            return
        raw = psnr(to_bgr(image, self._input), truth.image)
        self._psnr.append((raw, psnr(to_bgr(clean, self._output), truth.image)))

    def on_frame(self, record: FrameRecord, frame: Frame, shown: Image) -> None:
        """Compare a presented frame."""
        self.add(frame.image, shown)

    def mean(self) -> dict[str, float | None]:
        """The mean over frames in dB, `input` and `output`, where an equal one counts as EQUAL; None if all are equal.

        ValueError where the truth ended before the last frame, or goes on after it.
        """
        if self._unmatched:
            seen = len(self._psnr)
            raise ValueError(
                f"{self._truth.location}: the truth has {seen} frames, the source {seen + self._unmatched}: align them"
            )
        if next(self._frames, None) is not None:
            seen = len(self._psnr)
            raise ValueError(f"{self._truth.location}: the truth has more than the source's {seen} frames: align them")
        return {
            name: None if np.isinf(values).all() else float(np.mean(np.minimum(values, EQUAL)))
            for name, values in zip(("input", "output"), np.transpose(self._psnr), strict=True)
        }
