"""Rows of verification, and paired differences of two systems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.verification import VerificationResult
from polyface.metrics.resampling import PairedDifference
from polyface.metrics.result import Metric, paired_differences, rows

from .verifying import evaluate, system


def paired_difference(
    a: Sequence[VerificationResult], b: Sequence[VerificationResult], statistic: str = "verification", **settings: int
) -> PairedDifference:
    return paired_differences(a, b, **settings)[Metric(statistic)]  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ rows


def test_rows_summarise_seeds_for_the_results_file() -> None:
    results = {seed: evaluate(*system(300, seed), folds=5) for seed in (0, 1, 2)}
    found = rows("Dynamic", results, published={"verification": 94.92}, note="small", resamples=200)
    assert [row.metric for row in found] == ["verification", "AUC", "EER", "VAL@0.1%", "VAL@1%"]
    for row in found:
        values = [result.figures[row.metric].value for result in results.values()]
        assert (row.mean, row.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert row.interval is not None
        assert row.interval[0] < row.mean < row.interval[1]
        assert (row.row, row.n, row.seeds, row.unit) == ("Dynamic", 300, (0, 1, 2), "%")
    assert (found[0].published, found[1].published) == (94.92, None)
    spread = np.mean([result.accuracy.std for result in results.values() if result.accuracy.std is not None])
    assert found[0].note == f"small; ± {spread:.2f} over 5 folds"


def test_rows_of_a_threshold_from_elsewhere() -> None:
    result = evaluate(*system(100), calibration=system(50, 3, truth_seed=1), fars=(1,))
    found = {row.metric: row for row in rows("dlib", {0: result}, prefix="across ", resamples=0)}
    assert list(found) == ["across verification", "across AUC", "across EER", "across VAL@1%"]
    assert found["across VAL@1%"].note == "thresholds of 50 other pairs"
    assert (found["across AUC"].note, found["across AUC"].std, found["across AUC"].interval) == ("", None, None)


def test_rows_of_other_pairs_are_averaged_only_as_splits() -> None:
    results = {split: evaluate(*system(200, split, truth_seed=split)) for split in range(3)}
    with pytest.raises(PolyfaceError, match="same pairs"):
        rows("Dynamic", results)
    found = rows("Dynamic", results, prefix="within ", splits=True, resamples=100)
    values = [result.auc.value for result in results.values()]
    assert (found[1].metric, found[1].mean) == ("within AUC", pytest.approx(np.mean(values)))
    with pytest.raises(PolyfaceError, match="same pairs in the same order, by the same protocol"):
        rows("x", {0: results[0], 1: evaluate(*system(200), folds=5)})
    with pytest.raises(PolyfaceError, match="one result per seed"):
        rows("x", {})


# ---------------------------------------------------------------------------------------------- paired differences


@pytest.mark.parametrize("statistic, sign", [("verification", 1), ("AUC", 1), ("VAL@5%", 1)])
def test_a_paired_difference_of_two_systems(statistic: str, sign: int) -> None:
    """b is a with some noise added: errors in common, so that the difference is sharper than of unrelated systems."""
    distances, same = system(600)
    noisy = distances + 0.2 * np.random.default_rng(5).normal(size=600)
    a, b = (evaluate(d, same, fars=(5,)) for d in (distances, noisy))
    found = paired_difference([a], [b], statistic=statistic, resamples=300)
    figures = [one.figures[statistic] for one in (a, b)]
    assert found.difference == pytest.approx(figures[0].value - figures[1].value)
    assert found.interval.low < found.difference < found.interval.high
    assert sign * found.difference > 0
    both = [row for one in (a, b) for row in rows("x", {0: one}, resamples=300) if row.metric == statistic]
    widths = [np.ptp(row.interval) for row in both if row.interval]
    assert len(widths) == 2
    assert np.ptp(found.interval.ends) < 0.75 * np.hypot(*widths)
    assert (found.n, found.runs) == (600, 1)
    swapped = paired_difference([b], [a], statistic=statistic, resamples=300)
    assert swapped.interval.ends == pytest.approx((-found.interval.high, -found.interval.low))
    same_again = paired_difference([a], [a], statistic=statistic, resamples=50)
    assert (same_again.difference, same_again.interval.ends) == (0, (0, 0))


def test_seeds_widen_the_paired_interval() -> None:
    """Each seed of b is worse by another amount."""
    a = [evaluate(*system(300, seed)) for seed in range(4)]
    b = [evaluate(*system(300, seed, noise)) for seed, noise in enumerate([0.4, 0.6, 0.8, 1.0])]
    one, several = paired_difference(a[:1], b[:1], statistic="AUC"), paired_difference(a, b, statistic="AUC")
    assert (one.runs, several.runs) == (1, 4)
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
    assert (found.runs, found.n) == (4, 1200)
    assert found.interval.low > 0
    with pytest.raises(PolyfaceError, match="4 results of a for 3 of b"):
        paired_difference(a, b[:3], splits=True)
    with pytest.raises(PolyfaceError, match="same pairs"):
        paired_difference(a, b[::-1], splits=True)
    with pytest.raises(PolyfaceError, match="same pairs"):
        paired_difference(a, b)


def test_differences_that_mean_nothing_are_refused() -> None:
    result = evaluate(*system(100))
    assert Metric("EER") not in paired_differences([result], [result])
    with pytest.raises(PolyfaceError, match="a result of each system"):
        paired_difference([result], [])
    with pytest.raises(PolyfaceError, match="by the same protocol"):
        paired_difference([result], [evaluate(*system(100), fars=(5,))])
