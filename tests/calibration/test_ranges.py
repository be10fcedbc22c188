"""Ranges against the same worked out another way."""

import numpy as np
import pytest

from derain.calibration.qdq import rounded
from derain.calibration.ranges import Histogram, Method
from derain.runtime.manifest import Precision


def histogram(*values: np.ndarray) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value.astype(np.float32))
    return made


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, 400_000)


def quantised(values: np.ndarray, limit: float, precision: Precision) -> np.ndarray:
    scale = limit / {Precision.INT8: 127, Precision.FP8: 448}[precision]
    return rounded(values / scale, precision) * scale


def test_minmax_is_the_largest_magnitude_of_all_frames(normal):
    assert histogram(normal, -40 * np.ones(3)).limit(Method.MINMAX, Precision.INT8) == pytest.approx(40)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="holds a value that is not finite"):
        histogram(np.array([1.0, value]))


def test_a_histogram_counts_every_value_however_they_grow(normal):
    made = histogram(np.zeros(7), 0.01 * normal[:1000], normal[1000:], 300 * normal[:50])
    assert made.counts.sum() == 7 + 1000 + len(normal) - 1000 + 50
    everything = np.abs(np.concatenate([np.zeros(7), 0.01 * normal[:1000], normal[1000:], 300 * normal[:50]]))
    expected = np.histogram(everything, len(made.counts), (0, made.end))[0]
    assert np.abs(np.cumsum(expected) - np.cumsum(made.counts)).max() < 0.001 * len(everything)


def test_the_percentile_leaves_one_value_in_a_hundred_thousand(normal):
    values = np.concatenate([normal, [1000.0]])
    limit = histogram(values).limit(Method.PERCENTILE, Precision.INT8)
    assert limit == pytest.approx(np.quantile(np.abs(values), 0.99999), abs=1000 / 2048)
    assert limit < 10


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_mse_is_the_limit_of_the_least_error(normal, precision):
    values = np.concatenate([normal, np.linspace(8, 14, 5)])
    limit = histogram(values).limit(Method.MSE, precision)
    errors = {
        candidate: np.square(quantised(values, candidate, precision) - values).mean()
        for candidate in np.linspace(1, 14, 60)
    }
    reached = np.square(quantised(values, limit, precision) - values).mean()
    assert reached <= 1.03 * min(errors.values())
    if precision is Precision.INT8:  # FP8's levels are as fine for the small whatever the largest
        assert reached < 0.9 * np.square(quantised(values, 14, precision) - values).mean()


def test_entropy_cuts_a_long_thin_tail_and_keeps_an_even_spread(normal):
    tail = np.concatenate([normal, np.linspace(20, 80, 20)])
    assert 2 < histogram(tail).limit(Method.ENTROPY, Precision.INT8) < 20
    even = np.random.default_rng(0).uniform(-5, 5, 200_000)
    assert histogram(even).limit(Method.ENTROPY, Precision.INT8) > 4.5


@pytest.mark.parametrize("method", list(Method))
def test_a_tensor_of_zeros_gets_a_range_all_the_same(method):
    assert histogram(np.zeros(100)).limit(method, Precision.INT8) == 1.0
    constant = histogram(np.full(100, 0.25)).limit(method, Precision.INT8)
    assert constant == pytest.approx(0.25, rel=0.01)


def test_exact_zeros_do_not_move_the_limit_that_entropy_finds(normal):
    alone = histogram(normal).limit(Method.ENTROPY, Precision.INT8)
    padded = histogram(normal, np.zeros(10 * len(normal))).limit(Method.ENTROPY, Precision.INT8)
    assert padded == pytest.approx(alone, rel=0.05)
