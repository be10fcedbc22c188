import numpy as np
import pytest

from derain.runtime.latency import Latency


def test_percentiles_are_numpys_in_milliseconds():
    durations = np.random.default_rng(0).integers(1_000, 50_000_000, 5000)
    latency = Latency()
    for ns in durations.tolist():
        latency.add("inference", ns)
    seen = latency.summary()["inference"]
    expected = np.percentile(durations / 1e6, [50, 90, 99, 99.9, 100])
    np.testing.assert_allclose([seen.p50, seen.p90, seen.p99, seen.p999, seen.max], expected)
    assert latency.total("inference") == durations.sum()


def test_stages_are_apart_and_one_without_durations_is_not_reported():
    latency = Latency()
    latency.add("capture", 1_000_000)
    latency.add("present", 3_000_000)
    assert latency.total("inference") == 0
    summary = latency.summary()
    assert set(summary) == {"capture", "present"}
    assert summary["present"].p50 == pytest.approx(3.0)
