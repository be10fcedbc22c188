"""Percentiles of latencies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.runtime.latency import Histogram, Latency


def test_percentiles_are_numpys_in_milliseconds_within_a_500th_and_the_maximum_is_exact():
    durations = np.random.default_rng(0).integers(1_000, 50_000_000, 5000)
    latency = Latency()
    for ns in durations.tolist():
        latency.add("inference", ns)
    seen = latency.summary()["inference"]
    expected = np.percentile(durations / 1e6, [50, 90, 99, 99.9, 100])
    np.testing.assert_allclose([seen.p50, seen.p90, seen.p99, seen.p999], expected[:4], rtol=0.002)
    assert seen.max == durations.max() / 1e6
    assert latency.total("inference") == durations.sum()


def test_stages_are_apart_and_one_without_durations_is_not_reported():
    latency = Latency()
    latency.add("capture", 1_000_000)
    latency.add("present", 3_000_000)
    assert latency.total("inference") == 0
    summary = latency.summary()
    assert set(summary) == {"capture", "present"}
    assert summary["present"].p50 == pytest.approx(3.0)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.floats(0, 1))
def test_any_quantile_of_any_durations_is_numpys_within_a_500th(durations, share):
    histogram = Histogram()
    for ns in durations:
        histogram.add(ns)
    assert histogram.quantile(share) == pytest.approx(np.quantile(durations, share), rel=0.002, abs=0.5)
    assert (histogram.count, histogram.total) == (len(durations), sum(durations))


def test_memory_does_not_grow_with_the_number_of_durations():
    histogram = Histogram()
    before = histogram._counts.nbytes
    for ns in range(0, 10**9, 10**5):
        histogram.add(ns)
    assert histogram._counts.nbytes == before < 100_000


@pytest.mark.parametrize(("ns", "told"), [(-5, 0), (2**60, 2**50)])
def test_a_duration_of_another_clock_counts_as_the_end_it_lies_beyond(ns, told):
    histogram = Histogram()
    histogram.add(ns)
    assert (histogram.count, histogram.longest) == (1, told)
