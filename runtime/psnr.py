"""Peak signal-to-noise ratio of 8-bit pictures, and what the graphs of each precision must reach."""

import math
from collections.abc import Sequence

import numpy as np

from derain.runtime.frames import Image
from derain.runtime.manifest import Precision

MIN_PSNR = {Precision.FP32: 60.0, Precision.FP16: 50.0, Precision.INT8: 30.0, Precision.FP8: 30.0}
"""dB that a graph's or an engine's output must reach against the FP32 network's."""

MAX_ABS_DIFF = {Precision.FP32: 1, Precision.FP16: 8}
"""Grey levels that a byte of it may differ: a fault at the frame's border hardly changes its PSNR. INT8 and FP8 may
differ by any."""

MAX_SHARE = 0.25
"""Of the network's own change of a rainy frame, as mean squared error: what INT8 and FP8 may add. 30 dB alone would
pass a graph that gives back the frame as it came; sound graphs of our networks stay under 0.01."""

ROUNDING = 1.0
"""Squared grey levels of error that always pass: a network may change a frame by no more."""


def mse(seen: Image | Sequence[Image], expected: Image | Sequence[Image]) -> float:
    """Mean squared difference in squared grey levels, over all bytes of two uint8 pictures of one shape, or of two
    sequences of such pictures, pooled."""
    pairs = [(seen, expected)] if isinstance(seen, np.ndarray) else zip(seen, expected, strict=True)
    return float(np.mean([np.square(a.astype(np.int32) - b, dtype=np.float64).mean() for a, b in pairs]))


def psnr(seen: Image | Sequence[Image], expected: Image | Sequence[Image]) -> float:
    """10·log10(255² / `mse`), in dB; infinite where they are equal."""
    return decibels(mse(seen, expected))


def decibels(error: float) -> float:
    """The PSNR in dB of a mean squared error in squared grey levels; infinite for none."""
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def most_8_bit_error(expected: Image | Sequence[Image], rainy: Image | Sequence[Image]) -> float:
    """The mean squared error that INT8 and FP8 may have where the FP32 network makes `expected` of `rainy`."""
    return max(ROUNDING, MAX_SHARE * mse(expected, rainy))


def max_abs_diff(seen: Image, expected: Image) -> int:
    """The largest difference of two uint8 pictures of one shape, in grey levels."""
    return int(np.abs(seen.astype(np.int16) - expected).max())


def finite_or_none(value: float) -> float | None:
    """For JSON, which has no infinity: None for the PSNR of equal pictures."""
    return value if math.isfinite(value) else None
