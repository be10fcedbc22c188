"""Latency by stage, as percentiles."""

from array import array
from collections import defaultdict

import numpy as np
from pydantic import BaseModel, ConfigDict


class Percentiles(BaseModel):
    """Of one stage, in milliseconds."""

    model_config = ConfigDict(frozen=True)

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Latency:
    """Records nanoseconds by stage; what is not to count, such as warm-up, is not added."""

    def __init__(self) -> None:
        self._stages: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))

    def add(self, stage: str, ns: int) -> None:
        """Record one duration."""
        self._stages[stage].append(ns)

    def total(self, stage: str) -> int:
        """The sum of a stage's durations, ns."""
        return sum(self._stages[stage])

    def summary(self) -> dict[str, Percentiles]:
        """Each recorded stage's percentiles, linear between neighbours as in numpy."""
        return {stage: _percentiles(durations) for stage, durations in self._stages.items() if durations}


def _percentiles(durations: "array[int]") -> Percentiles:
    p50, p90, p99, p999, longest = np.percentile(np.asarray(durations) / 1e6, (50, 90, 99, 99.9, 100)).tolist()
    return Percentiles(p50=p50, p90=p90, p99=p99, p999=p999, max=longest)
