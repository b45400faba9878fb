"""Naming people of a closed set: accuracy and its mean over people by hand, ties that lose, rows and differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.identification import IdentificationResult, evaluate_identification
from polyface.metrics.result import paired_differences, rows


def test_by_hand() -> None:
    """Person 0: two of three faces right; person 2: none of one; a face that is not labelled is part of nothing."""
    scores = [[3, 1, 0], [5, 1, 4], [0, 1, 0], [1, 2, 0], [0, 9, 0]]
    found = evaluate_identification(scores, [0, 0, 0, 2, -1])
    assert found.correct.tolist() == [True, True, False, False, False]
    assert (found.accuracy, found.person_mean) == (pytest.approx(50), pytest.approx(100 / 3))
    assert (found.n, found.unlabelled, found.classes, found.people) == (4, 1, 3, 2)


def test_one_that_shares_the_highest_score_is_wrong() -> None:
    """A network that answers the same for everybody knows nobody, in whatever place the right one stands."""
    assert evaluate_identification(np.zeros((6, 3)), [0, 1, 2, 0, 1, 2]).accuracy == 0
    assert evaluate_identification([[2, 2, 1], [2, 1, 1]], [0, 0]).accuracy == 50


@given(st.integers(1, 20), st.integers(2, 5), st.integers(0, 1000))
def test_renaming_people_and_moving_scores_up_changes_nothing(n: int, classes: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores, people = draw.integers(0, 5, (n, classes)).astype(float), draw.integers(0, classes, n)
    renamed = draw.permutation(classes)
    moved = np.empty_like(scores)
    moved[:, renamed] = 2 * scores + draw.integers(-3, 3, (n, 1))
    one, other = evaluate_identification(scores, people), evaluate_identification(moved, renamed[people])
    assert (one.accuracy, one.person_mean) == pytest.approx((other.accuracy, other.person_mean))
    np.testing.assert_array_equal(one.correct, other.correct)


def test_the_interval_of_the_mean_over_people_is_wide_where_a_person_has_few_faces() -> None:
    """99 faces of one person, all right; of the other two, one right: the accuracy is sure, the mean is not."""
    people = np.array([0] * 99 + [1] * 2)
    scores = np.eye(2)[people]
    scores[-1] = [1, 0]
    accuracy, mean = rows("ours", {0: evaluate_identification(scores, people)})
    assert accuracy.interval is not None
    assert accuracy.interval[0] > 95
    assert mean.interval == pytest.approx((50, 100))


@pytest.mark.parametrize(
    "scores, people, message",
    [
        (np.zeros(3), [0, 1, 2], r"found \[3\]"),
        (np.zeros((3, 2)), [0, 1], r"int64 \[2\]"),
        (np.zeros((2, 2)), [0.0, 1.0], "float64"),
        (np.zeros((2, 2)), [-1, -1], "no face is labelled"),
        (np.zeros((2, 2)), [0, 2], "a face is of class 2, but there are scores for 2 only"),
        (
            [[0, np.nan], [np.inf, 1], [1, 0]],
            [-1, 0, 1],
            "1 faces have scores that are not finite .the first is face 1",
        ),
    ],
)
def test_what_is_wrong_is_said(scores: Any, people: Any, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        evaluate_identification(scores, people)


def run(right: int, n: int = 100, metric: str = "visual id") -> IdentificationResult:
    """A run that names the first so many of `n` faces, half of them of each of two people."""
    people = np.arange(n) % 2
    scores = np.eye(2)[np.where(np.arange(n) < right, people, 1 - people)]
    return evaluate_identification(scores, people, metric=metric)


def test_rows_are_means_over_seeds() -> None:
    first, second = rows("ours", {3: run(50), 5: run(60)}, published={"visual id": 86.0})
    assert (first.metric, first.mean) == ("visual id", pytest.approx(55))
    assert (second.metric, second.mean) == ("visual id, mean over people", pytest.approx(55))
    assert (first.seeds, first.n, first.published, second.published) == ((3, 5), 100, 86, None)
    assert first.std == pytest.approx(50**0.5)
    assert first.interval is not None
    assert first.interval[0] < 55 < first.interval[1]
    with pytest.raises(PolyfaceError, match="same faces"):
        rows("ours", {3: run(50), 5: run(60, n=80)})


def test_the_difference_is_paired_over_faces() -> None:
    accuracy, mean = paired_differences([run(60)], [run(50)]).values()
    assert accuracy.difference == pytest.approx(10)
    assert accuracy.interval.ends == pytest.approx((4.5, 16), abs=1.5)  # ± 1.96 √(.1 · .9 / 100), in percent
    assert mean.difference == pytest.approx(10)
    assert [*paired_differences([run(50)], [run(60)]).values()][1].difference == pytest.approx(-10)
