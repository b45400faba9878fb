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
    difference_of_runs,
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


# ------------------------------------------------------------------------------------------------ paired differences


def compared(a: list[float], b: list[float], difference: float = 1.0) -> float:
    """The p-value of one run each, whose resampled figures are these."""
    one, other = (np.array(side, float)[:, None] for side in (a, b))
    return difference_of_runs(one, other, difference, n=5).p_value


def test_the_p_value_is_twice_the_share_on_the_rarer_side_of_zero() -> None:
    """49 of 999 resamples are not above zero: 2 · (1 + 49) / (1 + 999) = 0.1, whichever system is called the first."""
    a, b = [1.0] * 950 + [-1.0] * 49, [0.0] * 999
    assert compared(a, b) == pytest.approx(0.1)
    assert compared(b, a) == pytest.approx(0.1)
    assert compared([1.0] * 999, b) == pytest.approx(2 / 1000)  # never 0: no more is known than the resamples say
    assert compared([1.0, -1.0] * 50, [0.0] * 100) == 1  # and never above 1


def test_equal_figures_count_on_both_sides() -> None:
    """9 of 19 resamples are equal: 2 · (1 + 9) / 20."""
    assert compared([1.0] * 10 + [0.0] * 9, [0.0] * 19) == 1
    assert compared([1.0] * 16 + [1e-12] * 3, [0.0] * 19) == pytest.approx(0.4)


def test_runs_are_drawn_for_each_side_by_itself() -> None:
    """Runs of a say 1 or 3, those of b 0 or 2: differences of −1, 1 and 3 in the means of two runs drawn each."""
    a, b = np.tile([1.0, 3.0], (4000, 1)), np.tile([0.0, 2.0], (4000, 1))
    found = difference_of_runs(a, b, 1.0, n=5)
    assert found.interval.ends == (-1, 3)
    # means of a are 1, 2, 3 with 1/4, 1/2, 1/4, of b 0, 1, 2 likewise: a − b ≤ 0 where (1, 1), (1, 2) or (2, 2)
    assert found.p_value == pytest.approx(2 * (1 / 8 + 1 / 16 + 1 / 8), abs=0.03)
    assert (found.difference, found.n, found.seeds) == (1, 5, (2, 2))
