"""Rows of verification, and paired differences of two systems."""

from __future__ import annotations

import numpy as np
import pytest

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.verification import (
    paired_difference,
    verification_rows,
)

from .verifying import evaluate, system

# ------------------------------------------------------------------------------------------------------------ rows


def test_rows_summarise_seeds_for_the_results_file() -> None:
    results = {seed: evaluate(*system(300, seed), folds=5) for seed in (0, 1, 2)}
    rows = verification_rows("Dynamic", results, published={"verification": 94.92}, note="small", resamples=200)
    assert [row.metric for row in rows] == ["verification", "AUC", "EER", "VAL@0.1%", "VAL@1%"]
    for row in rows:
        values = [result.figures[row.metric].value for result in results.values()]
        assert (row.mean, row.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert row.interval is not None
        assert row.interval[0] < row.mean < row.interval[1]
        assert (row.row, row.n, row.seeds, row.unit) == ("Dynamic", 300, (0, 1, 2), "%")
    assert (rows[0].published, rows[1].published) == (94.92, None)
    spread = np.mean([result.accuracy.std for result in results.values() if result.accuracy.std is not None])
    assert rows[0].note == f"small; ± {spread:.2f} over 5 folds"


def test_rows_of_a_threshold_from_elsewhere() -> None:
    result = evaluate(*system(100), calibration=system(50, 3, truth_seed=1), fars=(1,))
    rows = {row.metric: row for row in verification_rows("dlib", {0: result}, prefix="across ", resamples=0)}
    assert list(rows) == ["across verification", "across AUC", "across EER", "across VAL@1%"]
    assert rows["across VAL@1%"].note == "thresholds of 50 other pairs"
    assert (rows["across AUC"].note, rows["across AUC"].std, rows["across AUC"].interval) == ("", None, None)


def test_rows_of_other_pairs_are_averaged_only_as_splits() -> None:
    results = {split: evaluate(*system(200, split, truth_seed=split)) for split in range(3)}
    with pytest.raises(PolyfaceError, match="same pairs"):
        verification_rows("Dynamic", results)
    rows = verification_rows("Dynamic", results, prefix="within ", splits=True, resamples=100)
    values = [result.auc.value for result in results.values()]
    assert (rows[1].metric, rows[1].mean) == ("within AUC", pytest.approx(np.mean(values)))
    with pytest.raises(PolyfaceError, match="VAL@0.1%.*by 10 folds.*by 5 folds"):
        verification_rows("x", {0: results[0], 1: evaluate(*system(200), folds=5)})
    with pytest.raises(PolyfaceError, match="one result per seed"):
        verification_rows("x", {})


# ---------------------------------------------------------------------------------------------- paired differences


@pytest.mark.parametrize("statistic, sign", [("verification", 1), ("AUC", 1), ("EER", -1), ("VAL@5%", 1)])
def test_a_paired_difference_of_two_systems(statistic: str, sign: int) -> None:
    """b is a with some noise added: errors in common, so that the difference is sharper than of unrelated systems."""
    distances, same = system(600)
    noisy = distances + 0.2 * np.random.default_rng(5).normal(size=600)
    a, b = (evaluate(d, same, fars=(5,), resamples=300) for d in (distances, noisy))
    found = paired_difference([a], [b], statistic=statistic, resamples=300)
    figures = [one.figures[statistic] for one in (a, b)]
    assert found.difference == pytest.approx(figures[0].value - figures[1].value)
    assert found.interval.low < found.difference < found.interval.high
    assert sign * found.difference > 0
    widths = [np.ptp(figure.interval.ends) for figure in figures if figure.interval]
    assert len(widths) == 2
    assert np.ptp(found.interval.ends) < 0.75 * np.hypot(*widths)
    assert (found.n, found.excluded, found.seeds) == (600, 0, (1, 1))
    swapped = paired_difference([b], [a], statistic=statistic, resamples=300)
    assert swapped.interval.ends == pytest.approx((-found.interval.high, -found.interval.low))
    same_again = paired_difference([a], [a], statistic=statistic, resamples=50)
    assert (same_again.difference, same_again.p_value) == (0, 1)


def test_seeds_widen_the_paired_interval() -> None:
    noises = [0.2, 0.4, 0.6, 0.8]
    a, b = ([evaluate(*system(300, seed, noise)) for seed, noise in enumerate(noises)] for _ in range(2))
    one, several = paired_difference(a[:1], b[:1], statistic="AUC"), paired_difference(a, b, statistic="AUC")
    assert several.seeds == (4, 4)
    assert np.ptp(several.interval.ends) > np.ptp(one.interval.ends) + 5


def test_splits_are_compared_one_by_one() -> None:
    """Splits of very different difficulty: b is worse on each by about as much, which only pairing shows."""
    a, b = [], []
    for split, noise in enumerate([0.2, 0.4, 0.6, 0.8]):
        distances, same = system(300, split, noise, truth_seed=split)
        a.append(evaluate(distances, same))
        b.append(evaluate(distances + 0.3 * np.random.default_rng(split).normal(size=300), same))
    found = paired_difference(a, b, statistic="AUC", splits=True)
    each = [x.auc.value - y.auc.value for x, y in zip(a, b, strict=True)]
    assert found.difference == pytest.approx(np.mean(each))
    assert (found.seeds, found.n) == ((4, 4), 1200)
    assert found.interval.low > 0
    with pytest.raises(PolyfaceError, match="4 results of a for 3 of b"):
        paired_difference(a, b[:3], splits=True)
    with pytest.raises(PolyfaceError, match="same pairs"):
        paired_difference(a, b[::-1], splits=True)
    with pytest.raises(PolyfaceError, match="same pairs"):
        paired_difference(a, b)


def test_differences_that_mean_nothing_are_refused() -> None:
    result = evaluate(*system(100))
    with pytest.raises(PolyfaceError, match="'VAL@1': did you mean 'VAL@1%'"):
        paired_difference([result], [result], statistic="VAL@1")
    with pytest.raises(PolyfaceError, match="a result of each system"):
        paired_difference([result], [])
    with pytest.raises(PolyfaceError, match="same FARs"):
        paired_difference([result], [evaluate(*system(100), fars=(5,))])


# ----------------------------------------------------------------------------------------------------------- plots
