"""Regression figures: by hand, against scipy and scikit-learn, on the circle, under masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr

from polyface.errors import PolyfaceError
from polyface.metrics.regression import RegressionResult, evaluate_regression
from polyface.metrics.resampling import resampled_counts
from polyface.metrics.result import Metric, differences, paired_differences, rows

NAN = math.nan
ERROR, R2, R = Metric("mean absolute error"), Metric("R²"), Metric("correlation")
numbers = arrays(np.float64, 15, elements=st.floats(-90, 90).map(lambda x: round(x, 2)))


def system(noise: float, seed: int = 0, count: int = 200) -> RegressionResult:
    truth = np.random.default_rng(0).uniform(0, 80, count)
    return evaluate_regression(truth + noise * np.random.default_rng([seed, 1]).normal(size=count), truth, unit="years")


def test_figures_by_hand() -> None:
    """Errors 1, 0, 1 and 2, of squares 6; those of the labels about their mean of 2½ are 5."""
    result = evaluate_regression([2, 2, 2, 2], [1, 2, 3, 4])
    assert result.errors.tolist() == [1, 0, 1, 2]
    assert result.figure(ERROR) == 1
    assert result.figure(R2) == pytest.approx(1 - 6 / 5)
    assert math.isnan(result.figure(R))  # it always says the same
    assert evaluate_regression([2, 4, 6, 8], [1, 2, 3, 4]).figure(R) == pytest.approx(1)
    assert evaluate_regression([3, 2, 1], [1, 2, 3]).figure(R) == pytest.approx(-1)


def test_the_first_metric_selects_and_lower_is_better() -> None:
    error, *others = system(5).metrics
    assert (error.name, error.unit, error.higher_is_better, error.n) == ("mean absolute error", "years", False, 200)
    assert [(one.name, one.unit, one.higher_is_better) for one in others] == [
        ("R²", "", True),
        ("correlation", "", True),
    ]


@given(numbers, numbers, st.integers(0, 99))
def test_scipy_and_scikit_learn_agree_on_every_resample(predicted: np.ndarray, truth: np.ndarray, seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    result = evaluate_regression(predicted, truth)
    counts = next(resampled_counts(15, 3, seed))
    found = result.at(counts, [ERROR, R2, R])
    for place, times in enumerate(counts):
        y, p = np.repeat(truth, times), np.repeat(predicted, times)
        assert found[ERROR][place] == pytest.approx(metrics.mean_absolute_error(y, p))
        if np.ptp(y) == 0:
            assert math.isnan(found[R2][place])
            continue
        assert found[R2][place] == pytest.approx(metrics.r2_score(y, p), rel=1e-6, abs=1e-6)
        if np.ptp(p) == 0:
            assert math.isnan(found[R][place])
        elif min(np.ptp(y), np.ptp(p)) > 0.1:
            assert found[R][place] == pytest.approx(pearsonr(y, p).statistic, abs=1e-6)


def test_errors_on_the_circle_by_hand() -> None:
    result = evaluate_regression([359, -179, 90, 10], [1, 179, -90, 370], circular=True, unit="°")
    assert result.errors == pytest.approx([2, 2, 180, 0])
    assert result.figure(ERROR) == 46


@given(numbers, numbers, st.integers(-3, 3), st.floats(-360, 360))
def test_whole_turns_and_a_common_turn_change_nothing_on_the_circle(
    predicted: np.ndarray, truth: np.ndarray, turns: int, turn: float
) -> None:
    figures = [
        [evaluate_regression(p, y, circular=True).figure(metric) for metric in (ERROR, R2)]
        for p, y in ((predicted, truth), (predicted + 360 * turns, truth), (predicted + turn, truth + turn))
    ]
    assert figures[1] == pytest.approx(figures[0], rel=1e-6, abs=1e-6, nan_ok=True)
    assert figures[2] == pytest.approx(figures[0], rel=1e-4, abs=1e-4, nan_ok=True)


@given(numbers, numbers)
def test_the_circular_figures_are_their_definitions(predicted: np.ndarray, truth: np.ndarray) -> None:
    result = evaluate_regression(predicted, truth, circular=True)
    y, p = np.deg2rad(truth), np.deg2rad(predicted)
    means = [math.atan2(np.sin(a).sum(), np.cos(a).sum()) for a in (y, p)]
    sines = [np.sin(a - mean) for a, mean in zip((y, p), means, strict=True)]
    if min(np.ptp(truth), np.ptp(predicted)) > 0.1:
        varied = (1 - np.cos(y - means[0])).sum()
        assert result.figure(R2) == pytest.approx(1 - (1 - np.cos(y - p)).sum() / varied, rel=1e-6, abs=1e-6)
        expected = (sines[0] * sines[1]).sum() / math.sqrt((sines[0] ** 2).sum() * (sines[1] ** 2).sum())
        assert result.figure(R) == pytest.approx(expected, abs=1e-6)


def test_small_angles_are_numbers() -> None:
    truth = np.random.default_rng(0).normal(scale=0.5, size=50)
    predicted = truth + np.random.default_rng(1).normal(scale=0.2, size=50)
    one, other = (evaluate_regression(predicted, truth, circular=circular) for circular in (False, True))
    for metric in (ERROR, R2, R):
        assert other.figure(metric) == pytest.approx(one.figure(metric), rel=1e-3)


@given(numbers, numbers, arrays(np.bool_, 15).filter(np.any), st.booleans())
def test_unlabelled_faces_have_no_influence(
    predicted: np.ndarray, truth: np.ndarray, mask: np.ndarray, circular: bool
) -> None:
    masked = evaluate_regression(np.where(mask, predicted, NAN), np.where(mask, truth, NAN), circular=circular)
    alone = evaluate_regression(predicted[mask], truth[mask], circular=circular)
    assert (masked.n, masked.unlabelled) == (mask.sum(), 15 - mask.sum())
    for a, b in zip(rows("x", {0: masked}, resamples=20), rows("x", {0: alone}, resamples=20), strict=True):
        assert a.mean == pytest.approx(b.mean, abs=1e-9)
        assert a.interval == pytest.approx(b.interval, abs=1e-9)


def test_rows_and_differences_come_from_the_driver() -> None:
    good, bad = ({seed: system(noise, seed) for seed in range(3)} for noise in (4.0, 8.0))
    error, r2, correlation = rows("age", good, published={"mean absolute error": 3.1})
    assert (error.unit, error.published, error.seeds, error.n) == ("years", 3.1, (0, 1, 2), 200)
    assert error.mean == pytest.approx(4 * math.sqrt(2 / math.pi), rel=0.1)
    assert 0.9 < r2.mean < correlation.mean < 1
    for row in (error, r2, correlation):
        assert row.interval is not None
        assert row.interval[0] < row.mean < row.interval[1]
    found = {row.metric: row for row in differences("good", "bad", good, bad)}
    assert found["mean absolute error"].mean < 0 < found["R²"].mean
    assert all("excludes 0" in row.note for row in found.values())
    assert paired_differences([good[0]], [good[0]])[ERROR].interval.ends == (0, 0)


def test_the_error_curve_is_the_share_of_faces_within_an_error() -> None:
    (section,) = evaluate_regression([1, 5, 2], [1, 2, 3], unit="years").sections()
    (curves,) = section.blocks
    x, y = curves.curves[""]  # type: ignore[union-attr]
    assert x.tolist() == [0, 1, 3]
    assert y.tolist() == pytest.approx([100 / 3, 200 / 3, 100])


@pytest.mark.parametrize(
    "predicted, truth, message",
    [
        ([1, 2], [NAN, NAN], "no face is labelled with a number"),
        ([1, 2], [1, 2, 3], r"predictions \[2\] and true numbers \[3\]"),
        ([1, math.inf], [1, 2], "1 faces .*first is face 1.*diverged"),
    ],
)
def test_misuse_is_explained(predicted: list[float], truth: list[float], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        evaluate_regression(predicted, truth)
