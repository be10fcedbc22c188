"""How far a tensor's values reach: histograms of magnitudes over frames, and four ways to cut them.

Symmetric ranges, -limit…limit, as TensorRT wants them. ONNX Runtime's own collectors hold every tensor of every frame
and write to the terminal; a histogram whose bins double in width as values grow needs one pass and a few kilobytes.
"""

from collections.abc import Callable
from enum import StrEnum

import numpy as np
import onnx
from numpy.typing import NDArray

from derain.calibration.qdq import MAX_LEVEL, rounded
from derain.export.probe import tensors
from derain.runtime.frames import Image
from derain.runtime.manifest import Precision

BINS = 2048
PERCENTILE = 99.999
LEVELS = 128
"""Even levels of magnitude that entropy is computed for: INT8's."""


class Method(StrEnum):
    """How a range is cut."""

    MINMAX = "minmax"
    """Nothing is cut."""
    PERCENTILE = "percentile"
    """99.999 % of the values stay."""
    ENTROPY = "entropy"
    """The least Kullback-Leibler divergence between the values and their quantised selves (Migacz, GTC 2017)."""
    MSE = "mse"
    """The least mean squared error: rounding inside against clipping outside."""


class Histogram:
    """Counts of a tensor's magnitudes in BINS bins from 0 to `end`, which doubles until it holds every value."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.end = 0.0
        self.peak = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count more values, of any shape. Raises ValueError where one is not finite."""
        magnitudes = np.abs(values).ravel()
        peak = float(magnitudes.max(initial=0.0))
        if not np.isfinite(peak):
            raise ValueError("holds a value that is not finite")
        self.peak = max(self.peak, peak)
        if self.end == 0.0 and peak > 0:
            self.end = peak
            self.counts[0] += self.counts[1:].sum()
        while 0 < self.end < peak:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.end *= 2
        self.counts += np.histogram(magnitudes, BINS, (0.0, self.end or 1.0))[0]

    def limit(self, method: Method, precision: Precision) -> float:
        """The range by `method`, in the tensor's unit; 1 for a tensor that is all zeros."""
        if self.peak == 0:
            return 1.0
        return float(min(self.peak, _CUTS[method](self, precision)))


def histograms(model: onnx.ModelProto, names: list[str], frames: list[Image]) -> dict[str, Histogram]:
    """The histogram of each tensor over all frames; every recurrent step has tensors, so histograms, of its own."""
    collected = {name: Histogram() for name in names}
    for name, value in tensors(model, names, frames):
        try:
            collected[name].add(value)
        except ValueError as error:
            raise ValueError(
                f"tensor {name!r} {error} in FP32: expected weights of a network that converged"
            ) from error
    return collected


def _percentile(histogram: Histogram, precision: Precision) -> float:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    last = int(np.searchsorted(share, PERCENTILE / 100))
    return (last + 1) * histogram.end / BINS


def _mse(histogram: Histogram, precision: Precision) -> float:
    values = (np.arange(BINS) + 0.5) * histogram.end / BINS
    limits = histogram.peak * np.linspace(0.1, 1.0, 91)
    scale = limits[:, None] / MAX_LEVEL[precision]
    errors = (histogram.counts * (rounded(values / scale, precision) * scale - values) ** 2).sum(1)
    return float(limits[errors.argmin()])


def _entropy(histogram: Histogram, precision: Precision) -> float:
    """In even levels, which FP8's are not: there MSE is the better guide."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]  # exact zeros, which any range keeps, would outweigh the rest
    ends = np.arange(LEVELS, BINS + 1, 8)
    return float(ends[np.argmin([_divergence(counts, int(end)) for end in ends])] * histogram.end / BINS)


def _divergence(counts: NDArray[np.float64], end: int) -> float:
    """KL(P‖Q): P the counts up to `end` with the rest in the last bin, Q the same through LEVELS levels."""
    kept = counts[:end]
    clipped = kept.copy()
    clipped[-1] += counts[end:].sum()
    level = np.arange(end) * LEVELS // end
    there = kept > 0
    spread = np.bincount(level, kept) / np.maximum(np.bincount(level, there), 1)
    quantised = np.where(there, spread[level], 0.0)
    p, q = clipped / clipped.sum(), quantised / max(quantised.sum(), 1e-12)
    both = (p > 0) & (q > 0)
    missing = p[(p > 0) & (q == 0)].sum()  # infinite in theory; a heavy cost that stays comparable
    return float((p[both] * np.log(p[both] / q[both])).sum() + 10 * missing)


_CUTS: dict[Method, Callable[[Histogram, Precision], float]] = {
    Method.MINMAX: lambda histogram, precision: histogram.peak,
    Method.PERCENTILE: _percentile,
    Method.ENTROPY: _entropy,
    Method.MSE: _mse,
}
