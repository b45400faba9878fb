"""Bootstrap intervals, summaries over seeds and result rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import (
    Interval,
    percentile_interval,
    ratio,
    resampled_counts,
    summarise,
)

values = arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 100))


def means(sample: np.ndarray, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    counts = np.concatenate(list(resampled_counts(len(sample), resamples, seed)))
    return np.asarray(counts @ sample / len(sample))


@given(values, st.integers(0, 5))
def test_the_interval_contains_the_mean(sample: np.ndarray, seed: int) -> None:
    interval = percentile_interval(means(sample, 400, seed))
    assert interval.low <= sample.mean() + 1e-9
    assert interval.high >= sample.mean() - 1e-9


@given(st.integers(1, 40), st.integers(0, 5))
def test_as_many_units_are_drawn_as_there_are(units: int, seed: int) -> None:
    counts = np.concatenate(list(resampled_counts(units, 30, seed)))
    assert counts.shape == (30, units)
    assert (counts.sum(1) == units).all()
    assert counts.min() >= 0


@given(arrays(np.bool_, 12).filter(np.any), st.integers(0, 5))
def test_units_that_are_left_out_are_never_drawn(kept: np.ndarray, seed: int) -> None:
    """The others are drawn as if they were all there is."""
    counts = np.concatenate(list(resampled_counts(kept, 20, seed)))
    assert not counts[:, ~kept].any()
    np.testing.assert_array_equal(counts[:, kept], np.concatenate(list(resampled_counts(int(kept.sum()), 20, seed))))


def test_the_interval_shrinks_with_n_as_the_standard_error_does() -> None:
    sample = np.random.default_rng(0).normal(size=6400)
    few, many = (percentile_interval(means(one)) for one in (sample[:400], sample))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.2)
    expected = 2 * 1.96 * sample.std() / math.sqrt(len(sample))
    assert many.high - many.low == pytest.approx(expected, rel=0.1)


def test_a_seed_fixes_the_resamples_and_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.random.default_rng(2).random(30)
    whole = means(sample, 64, seed=7)
    monkeypatch.setattr("polyface.metrics.resampling._CHUNK", 30 * 5)
    np.testing.assert_allclose(means(sample, 64, seed=7), whole)
    assert not np.allclose(means(sample, 64, seed=8), whole)


def test_a_higher_level_widens_the_interval() -> None:
    sample = np.random.default_rng(3).random(100)
    narrow, wide = (percentile_interval(means(sample), level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.5, 0.99)


def test_percentiles_by_hand_with_undefined_resamples_left_out() -> None:
    interval = percentile_interval([math.nan, *range(101), math.nan], level=0.9)
    assert interval.ends == pytest.approx((5, 95))
    assert Interval(1, 2).ends == (1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(resampled_counts(0)), "no face"),
        (lambda: list(resampled_counts(1, 0)), "resamples"),
        (lambda: percentile_interval([math.nan]), "too few faces"),
        (lambda: percentile_interval([1.0], level=95), "between 0 and 1"),
        (lambda: summarise([]), "no value"),
        (lambda: summarise([1.0, math.nan]), "finite"),
    ],
)
def test_what_cannot_be_computed_says_so(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(PolyfaceError, match=message):
        call()


def test_summary_over_seeds_by_hand() -> None:
    summary = summarise([7.0, 8.0, 9.0])
    assert (summary.mean, summary.std, summary.count) == (8.0, 1.0, 3)
    assert summarise([7.0]).std is None


def test_ratio_is_nan_only_where_the_denominator_is_zero() -> None:
    np.testing.assert_array_equal(ratio([1, 2, 0], [2, 0, 4]), [0.5, math.nan, 0.0])
