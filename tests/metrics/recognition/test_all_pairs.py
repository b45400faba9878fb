"""All pairs of two kinds of faces: numbers by hand, its definitions word for word, people resampled, rows, plots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.all_pairs import (
    AllPairsResult,
    _folds_of_people,
    evaluate_all_pairs,
)
from polyface.metrics.recognition.pairs import auc, equal_error_rate, roc
from polyface.metrics.resampling import PairedDifference, resampled_counts
from polyface.metrics.result import Metric, paired_differences, rows

seeds = st.integers(0, 2**31)
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]

# Angles of three people's first faces 0°, 100°, 270° and second ones 40°, 190°, 285°, between them (in degrees):
ANGLES = np.array([[40, 170, 75], [60, 90, 175], [130, 80, 15]])
HAND = 2 - 2 * np.cos(np.deg2rad(ANGLES))
THREE = np.array(["ann", "bob", "cid"])


def system(people: int = 12, faces: int = 40, noise: float = 0.5, seed: int = 0, truth_seed: int = 0) -> Drawn:
    """(distances, first people, second people): who is on a face depends on `truth_seed` alone."""
    who = np.random.default_rng(truth_seed)
    names = np.array([f"p{i:02}" for i in range(people)])
    first, second = (names[np.append(np.arange(people), who.integers(people, size=faces - people))] for _ in range(2))
    spread = np.random.default_rng([seed, 1]).normal(size=(faces, faces))
    return np.where(first[:, None] == second, 1.0, 1.8) + noise * spread, first, second


def paired_difference(
    a: Sequence[AllPairsResult], b: Sequence[AllPairsResult], statistic: str = "AUC", **settings: int
) -> PairedDifference:
    return paired_differences(a, b, **settings)[Metric(statistic)]  # type: ignore[arg-type]


def test_three_people_by_hand() -> None:
    """Same 15, 40, 90; different 60, 75, 80, 130, 170, 175. Each person's threshold is the closest different pair of
    the two others: 80 for ann's 40, 75 for bob's 90, 60 for cid's 15."""
    found = evaluate_all_pairs(HAND, THREE, THREE)
    assert (found.n, found.same, found.folds, found.people) == (9, 3, 3, ("ann", "bob", "cid"))
    assert found.auc.value == pytest.approx(100 * 15 / 18)  # 90 is farther than three different pairs
    assert found.eer.value == pytest.approx(100 / 3)
    assert sorted(found.val[1.0].folds) == [0, 100, 100]
    assert found.figures["VAL@0.1%"].value == pytest.approx(200 / 3)
    far, val = found.rates
    np.testing.assert_allclose(far, np.array([1, 2, 3, 3, 4, 5, 6]) * 100 / 6)
    np.testing.assert_allclose(val, np.array([2, 2, 2, 3, 3, 3, 3]) * 100 / 3)


@given(seeds, st.integers(3, 14))
@settings(max_examples=20)
def test_the_definition_word_for_word(seed: int, people: int) -> None:
    """Of every fold: accept as many pairs as can be while at most a share of the others' different pairs is."""
    distances, first, second = system(people, people + 5, seed=seed, truth_seed=seed)
    distances = distances.round(1)  # many are equal
    found = evaluate_all_pairs(distances, first, second, fars=(7,), seed=seed)
    codes = [np.unique(names, return_inverse=True)[1] for names in (first, second)]
    fold_of = _folds_of_people(*codes, 10, seed)
    val = []
    for fold in range(found.folds):
        mine, others = [], []
        for i, a in enumerate(codes[0]):
            for j, b in enumerate(codes[1]):
                if a == b and fold_of[a] == fold:
                    mine.append(distances[i, j])
                if a != b and fold not in (fold_of[a], fold_of[b]):
                    others.append(distances[i, j])
        allowed = [t for t in [-np.inf, *mine, *others] if np.mean(np.array(others) <= t) <= 0.07 + 1e-12]
        val.append(100 * np.mean(np.array(mine) <= max(allowed)))
    assert found.val[7].folds == pytest.approx(val)
    same = first[:, None] == second
    assert found.auc.value == pytest.approx(auc(distances.ravel(), same.ravel()))
    assert found.eer.value == pytest.approx(equal_error_rate(distances.ravel(), same.ravel()))


@given(seeds)
@settings(max_examples=20)
def test_folds_share_people_out_and_leave_strangers_among_the_others(seed: int) -> None:
    first, second = np.array([0, 1, 2, 3, 4, 4, 9]), np.array([0, 1, 2, 3, 4, 7, 7])
    fold_of = _folds_of_people(first, second, 4, seed)
    assert np.flatnonzero(fold_of < 0).tolist() == [5, 6, 7, 8, 9]
    assert sorted(np.bincount(fold_of[fold_of >= 0])) == [1, 1, 1, 2]


def test_the_order_of_faces_is_of_no_account() -> None:
    distances, first, second = system()
    rows, columns = (np.random.default_rng(seed).permutation(40) for seed in (1, 2))
    moved = evaluate_all_pairs(distances[np.ix_(rows, columns)], first[rows], second[columns])
    found = evaluate_all_pairs(distances, first, second)
    assert moved == found
    np.testing.assert_array_equal(moved.counts, found.counts)


def test_perfect_distances_give_100_and_so_does_every_resample() -> None:
    distances, first, second = system(noise=0.01)
    found = evaluate_all_pairs(distances, first, second)
    assert [figure.value for figure in found.figures.values()] == [100, 100, 100]
    for row in rows("x", {0: found}, resamples=50):
        assert row.interval == pytest.approx((100, 100))


def test_rates_lie_on_the_curve_of_all_pairs() -> None:
    distances, first, second = system(30, 300, seed=3)
    far, val = evaluate_all_pairs(distances, first, second).rates
    curve = roc(distances.ravel(), (first[:, None] == second).ravel())
    assert len(far) > 500
    assert (np.diff(far) >= 0).all()
    assert (np.diff(val) >= 0).all()
    points = {(round(x, 9), round(y, 9)) for x, y in zip(*curve, strict=True)}
    assert {(round(x, 9), round(y, 9)) for x, y in zip(far, val, strict=True)} <= points
    assert (far[-1], val[-1]) == (100, 100)


def test_resampled_figures_are_those_of_people_drawn_with_their_faces() -> None:
    """Against a bootstrap written out, in which a person's copies are compared with themselves alone and stay in their
    fold, whose threshold is picked on the others."""
    distances, first, second = system(12, 40)
    found = evaluate_all_pairs(distances, first, second, fars=(5,))
    counts = np.concatenate(list(resampled_counts(12, 40, 7)))
    drawn = found.at(counts, found.metrics)
    for which, times in enumerate(counts):
        kept: list[tuple[float, int, int]] = []
        for i, a in enumerate(int(name[1:]) for name in first):
            for j, b in enumerate(int(name[1:]) for name in second):
                kept += [(distances[i, j], a, b)] * int(times[a] * (1 if a == b else times[b]))
        values, a, b = (np.array(column) for column in zip(*kept, strict=True))
        assert drawn[Metric("AUC")][which] == pytest.approx(auc(values, a == b), abs=0.1)
        val = []
        for fold in range(found.folds):
            inside = [found.fold_of[people.astype(int)] == fold for people in (a, b)]
            mine, others = values[(a == b) & inside[0]], np.sort(values[(a != b) & ~inside[0] & ~inside[1]])
            if len(mine):
                val.append(100 * (mine < others[int(0.05 * len(others) + 1e-9)]).mean())
        assert drawn[Metric("VAL@5%")][which] == pytest.approx(np.mean(val), abs=1.5)


def test_resamples_without_a_different_pair_are_left_out() -> None:
    (row, *_) = rows("x", {0: evaluate_all_pairs(HAND, THREE, THREE)}, resamples=300)
    assert row.interval is not None  # of three people drawn, all are the same one in a ninth of cases
    assert 0 <= row.interval[0] < row.mean < row.interval[1] <= 100


# ------------------------------------------------------------------------------------------------ rows, differences


def runs(noise: float, count: int = 3, people: int = 20) -> dict[int, AllPairsResult]:
    return {seed: evaluate_all_pairs(*system(people, 80, noise, seed)) for seed in range(count)}


def test_rows_summarise_seeds() -> None:
    results = runs(0.5)
    found = rows("Dynamic", results, prefix="across ", published={"across AUC": 98.7}, note="half")
    assert [row.metric for row in found] == ["across AUC", "across VAL@0.1%", "across VAL@1%"]
    for row in found:
        values = [result.figures[row.metric.removeprefix("across ")].value for result in results.values()]
        assert (row.mean, row.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert row.interval is not None
        assert (row.row, row.n, row.seeds, row.unit) == ("Dynamic", 6400, (0, 1, 2), "%")
    assert found[0].interval is not None
    assert found[0].interval[0] < found[0].mean < found[0].interval[1]
    assert (found[0].published, found[0].note) == (98.7, "half; interval over people")
    assert "over 10 folds of people" in found[2].note
    assert all(row.interval is None for row in rows("x", results, resamples=0))


def test_a_paired_difference_is_sharper_than_both() -> None:
    distances, first, second = system(20, 80, 0.5)
    noisy = distances + 0.2 * np.random.default_rng(5).normal(size=distances.shape)
    a, b = (evaluate_all_pairs(one, first, second) for one in (distances, noisy))
    found = paired_difference([a], [b])
    assert found.difference == pytest.approx(a.auc.value - b.auc.value)
    assert 0 < found.interval.low < found.difference < found.interval.high
    (row, *_) = rows("a", {0: a})
    assert row.interval is not None
    assert np.ptp(found.interval.ends) < np.ptp(row.interval)
    assert (found.n, found.runs) == (6400, 1)
    nothing = paired_difference([a], [a], statistic="VAL@1%", resamples=50)
    assert (nothing.difference, nothing.interval.ends) == (0, (0, 0))


def test_splits_have_people_of_their_own_and_are_compared_one_by_one() -> None:
    noises = [0.3, 0.5, 0.7]
    a, b = [], []
    for split, noise in enumerate(noises):
        distances, first, second = system(15 + split, 60, noise, split, split)
        a.append(evaluate_all_pairs(distances, first, second))
        b.append(evaluate_all_pairs(distances + 0.3 * (first[:, None] == second), first, second))
    found = paired_difference(a, b, splits=True, resamples=200)
    assert found.difference == pytest.approx(np.mean([x.auc.value - y.auc.value for x, y in zip(a, b, strict=True)]))
    assert (found.runs, found.n) == (3, 3 * 3600)
    assert found.interval.low > 0
    found = rows("x", dict(enumerate(a)), splits=True, resamples=50)
    assert found[0].seeds == (0, 1, 2)
    with pytest.raises(PolyfaceError, match="same people"):
        rows("x", dict(enumerate(a)))
    with pytest.raises(PolyfaceError, match="same people"):
        paired_difference(a, b[::-1], splits=True)
    with pytest.raises(PolyfaceError, match="3 results of a for 2 of b"):
        paired_difference(a, b[:2], splits=True)


@pytest.mark.parametrize(
    "first, second, change, message",
    [
        (["a", "b", "a"], ["a", "b", "d"], {}, "2 people are on faces of both kinds: three are needed"),
        (["a", "b"], ["a", "b", "c"], {}, r"distances must be \[2, 3 faces\], found \[3, 3\]"),
        (["a", "b", "c"], ["a", "b", "c"], {"folds": 1}, "folds must be at least 2, not 1"),
    ],
)
def test_bad_input_is_explained(first: list[str], second: list[str], change: dict[str, int], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        evaluate_all_pairs(HAND, first, second, **change)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_differences_that_mean_nothing_are_refused() -> None:
    found = evaluate_all_pairs(HAND, THREE, THREE)
    with pytest.raises(PolyfaceError, match="a result of each system"):
        paired_difference([found], [])
    with pytest.raises(PolyfaceError, match="by the same protocol"):
        paired_difference([found], [evaluate_all_pairs(HAND, THREE, THREE, fars=(5,))])
    with pytest.raises(PolyfaceError, match="one result per seed"):
        rows("x", {})
