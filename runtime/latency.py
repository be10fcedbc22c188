"""Latency by stage, as percentiles, in memory that does not grow with the run."""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

BITS = 9
"""Bits kept of each duration. Buckets are at most 1/256 of their value wide, so a percentile is within 0.2 %."""

LONGEST = 1 << 50  # ns, 13 days


class Percentiles(BaseModel):
    """Latency percentiles of one stage, in milliseconds."""

    model_config = ConfigDict(frozen=True)

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Histogram:
    """Durations in ns, counted in buckets whose width grows with the value (the scheme of HdrHistogram).

    A duration of more than 9 bits keeps its highest 9, so `shift * 256 + (ns >> shift)` numbers the buckets without
    gaps. The total and the maximum are exact.
    """

    def __init__(self) -> None:
        octaves = LONGEST.bit_length() - BITS
        self._counts: npt.NDArray[np.int64] = np.zeros((octaves + 2) << (BITS - 1), np.int64)
        self.count = self.total = self.longest = 0

    def add(self, ns: int) -> None:
        """Count one duration, 0 to 13 days; one beyond counts as that end."""
        ns = min(max(ns, 0), LONGEST)
        shift = max(ns.bit_length() - BITS, 0)
        self._counts[(shift << (BITS - 1)) + (ns >> shift)] += 1
        self.count += 1
        self.total += ns
        self.longest = max(self.longest, ns)

    def quantile(self, share: float) -> float:
        """The duration in ns that `share` of all stay below, linear between neighbours as in numpy."""
        if share >= 1:
            return self.longest
        rank = share * (self.count - 1)
        below = np.cumsum(self._counts)
        neighbours = np.searchsorted(below, (int(rank), min(int(rank) + 1, self.count - 1)), side="right")
        low, high = (self._middle(int(bucket)) for bucket in neighbours)
        return min(low + (high - low) * (rank - int(rank)), self.longest)

    def percentiles(self) -> Percentiles:
        """In milliseconds."""
        p50, p90, p99, p999, longest = (self.quantile(share) / 1e6 for share in (0.5, 0.9, 0.99, 0.999, 1))
        return Percentiles(p50=p50, p90=p90, p99=p99, p999=p999, max=longest)

    @staticmethod
    def _middle(bucket: int) -> float:
        shift = max((bucket >> (BITS - 1)) - 1, 0)
        return ((bucket - (shift << (BITS - 1))) << shift) + ((1 << shift) - 1) / 2


class Latency:
    """Durations by stage; what is not to count, such as warm-up, is not added."""

    def __init__(self) -> None:
        self._stages: dict[str, Histogram] = {}

    def add(self, stage: str, ns: int) -> None:
        """Record one duration, ns."""
        self._stages.setdefault(stage, Histogram()).add(ns)

    def total(self, stage: str) -> int:
        """The sum of a stage's durations, ns."""
        return self._stages[stage].total if stage in self._stages else 0

    def summary(self) -> dict[str, Percentiles]:
        """Each recorded stage's percentiles, within 0.2 %; the maximum is exact."""
        return {stage: histogram.percentiles() for stage, histogram in self._stages.items()}
