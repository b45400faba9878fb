"""Figures of ages: by hand, against scikit-learn, 1-off never below exact, intervals, what is labelled in part."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyface.errors import PolyfaceError
from polyface.metrics.age import NEAR, YEARS, AgeResult, evaluate_ages
from polyface.metrics.groups import within
from polyface.metrics.resampling import resampled_counts
from polyface.metrics.result import Metric, differences, rows

GROUPS = ("0-2", "3-7", "8-14", "15+")
NAN = math.nan
EXACT, BALANCED = Metric("accuracy"), Metric("balanced accuracy")
places = arrays(np.int64, 12, elements=st.integers(0, 3))


def system(noise: float, seed: int = 0, count: int = 120) -> AgeResult:
    truth = np.random.default_rng(0).integers(0, 20, count)
    years = np.clip(truth + noise * np.random.default_rng([seed, 1]).normal(size=count), 0, None)
    edges = (3, 8, 15)
    return evaluate_ages(np.digitize(years, edges), np.digitize(truth, edges), GROUPS, years, truth)


def test_figures_by_hand() -> None:
    """Of five faces in groups two are told exactly, four within one; of three with years the errors are 1, 0 and 5."""
    result = evaluate_ages(
        [0, 1, 2, 3, 0, 0], [0, 2, 2, 1, 1, -1], GROUPS, [1, 5, 9, 20, 2, 9], [2, NAN, NAN, 20, NAN, 4]
    )
    assert result.figure(EXACT) == 40
    assert result.figure(NEAR) == 80
    assert result.figure(YEARS) == 2
    assert result.figure(BALANCED) == pytest.approx(100 * (1 + 0 + 1 / 2) / 3)
    assert [(metric.name, metric.n, metric.unit) for metric in result.metrics] == [
        ("accuracy", 5, "%"),
        ("1-off", 5, "%"),
        ("years error", 3, "years"),
        ("balanced accuracy", 5, "%"),
        ("majority class", 5, "%"),
    ]
    assert result.n == 6
    assert result.defined(EXACT).tolist() == [True] * 5 + [False]
    assert result.defined(YEARS).tolist() == [True, False, False, True, False, True]
    assert [section.title for section in result.sections()] == ["by class", "error curve"]


def test_without_years_there_is_no_error_in_years() -> None:
    result = evaluate_ages([0, 1], [0, 2], GROUPS, [1, 5], [NAN, NAN])
    assert [metric.name for metric in result.metrics] == ["accuracy", "1-off", "balanced accuracy", "majority class"]
    assert (result.figure(EXACT), result.figure(NEAR)) == (50, 100)
    with pytest.raises(PolyfaceError, match="no face is labelled with one of 0-2, 3-7, 8-14, 15.: nothing to evaluate"):
        evaluate_ages([0, 1], [-1, -1], GROUPS, [1, 5], [3, 4])


@given(places, places, st.integers(0, 99))
def test_one_off_is_never_below_exact_on_any_draw(predicted: np.ndarray, truth: np.ndarray, seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    result = evaluate_ages(predicted, truth, GROUPS, predicted, truth)
    counts = next(resampled_counts(12, 5, seed))
    found = result.at(counts, [EXACT, NEAR, YEARS])
    assert (found[NEAR] >= found[EXACT]).all()
    for place, times in enumerate(counts):
        a, b = np.repeat(predicted, times), np.repeat(truth, times)
        assert found[EXACT][place] == pytest.approx(100 * metrics.accuracy_score(b, a))
        assert found[NEAR][place] == pytest.approx(100 * (np.abs(a - b) <= 1).mean())
        assert found[YEARS][place] == pytest.approx(metrics.mean_absolute_error(b, a))


def test_rows_intervals_and_differences_follow() -> None:
    good, bad = {seed: system(3, seed) for seed in (0, 1)}, {seed: system(9, seed) for seed in (0, 1)}
    found = {row.metric: row for row in rows("good", good, prefix="age ", resamples=200)}
    assert list(found) == [
        "age accuracy",
        "age 1-off",
        "age years error",
        "age balanced accuracy",
        "age majority class",
    ]
    for name in ("age accuracy", "age 1-off", "age years error"):
        low, high = found[name].interval or (0, 0)
        assert low < found[name].mean < high
    told = {row.metric: row.mean for row in differences("good", "bad", good, bad, resamples=200)}
    assert told["accuracy"] > 0
    assert told["years error"] < 0


def test_figures_of_a_group_are_those_of_its_faces() -> None:
    result, old = system(3), np.arange(120) % 2 == 0
    part = within(result, old)
    chosen = evaluate_ages(
        result.groups.predicted[old], result.groups.truth[old], GROUPS,
        result.years.predicted[old], result.years.truth[old],  # type: ignore[union-attr]
    )  # fmt: skip
    for metric in (EXACT, NEAR, YEARS, BALANCED):
        assert part.figure(metric) == pytest.approx(chosen.figure(metric))


def test_results_of_other_labels_are_not_averaged() -> None:
    first = evaluate_ages([0, 1], [0, 1], GROUPS, [1, 5], [1, 5])
    for other in (
        evaluate_ages([0, 1], [0, 1], GROUPS, [1, 5], [1, 6]),
        evaluate_ages([0, 1], [0, 2], GROUPS, [1, 5], [1, 5]),
    ):
        assert first.key != other.key
