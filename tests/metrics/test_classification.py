"""Classification figures: numbers by hand, masks, floors and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyface.errors import PolyfaceError
from polyface.metrics.classification import evaluate_classification
from polyface.metrics.result import differences, rows

LABELS = ("no", "yes")
classes = arrays(np.int64, 30, elements=st.integers(0, 2))


def test_figures_by_hand() -> None:
    """Eight "no", of which six are called so; two "yes", of which one is."""
    truth = [0] * 8 + [1] * 2
    predicted = [0] * 6 + [1] * 2 + [1, 0]
    result = evaluate_classification(predicted, truth, LABELS)
    assert result.accuracy == pytest.approx(70)
    assert result.recall == pytest.approx((75, 50))
    assert result.balanced_accuracy == pytest.approx(62.5)
    assert (result.floor, result.majority) == (80, "no")
    assert result.confusion == ((6, 2), (1, 1))
    assert (result.n, result.unlabelled) == (10, 0)


def test_the_floor_answers_the_most_frequent_true_class() -> None:
    result = evaluate_classification([1, 1, 1], [0, 0, 1], LABELS)
    assert result.majority == "no"
    assert result.floor == pytest.approx(200 / 3)


def test_the_floor_may_come_from_the_training_labels() -> None:
    result = evaluate_classification([0, 0, 1], [0, 0, 1], LABELS, majority="yes")
    assert result.majority == "yes"
    assert result.floor == pytest.approx(100 / 3)
    with pytest.raises(PolyfaceError, match="'maybe' is none of no, yes"):
        evaluate_classification([0], [0], LABELS, majority="maybe")


@given(classes, classes, arrays(np.bool_, 30).filter(np.any), classes)
def test_unlabelled_faces_have_no_influence(
    predicted: np.ndarray, truth: np.ndarray, mask: np.ndarray, other: np.ndarray
) -> None:
    names = ("a", "b", "c")
    by_mask = evaluate_classification(
        np.where(mask, predicted, other), np.where(mask, truth, other), names, labelled=mask
    )
    by_index = evaluate_classification(predicted, np.where(mask, truth, -1), names)
    chosen = evaluate_classification(predicted[mask], truth[mask], names)
    assert by_mask.key == by_index.key
    np.testing.assert_equal(by_mask.recall, by_index.recall)  # NaN recalls are equal here
    assert [(row.mean, row.interval) for row in rows("x", {0: by_mask}, resamples=20)] == [
        (row.mean, row.interval) for row in rows("x", {0: chosen}, resamples=20)
    ]
    assert by_mask.unlabelled == (~mask).sum()
    np.testing.assert_equal(by_mask.confusion, chosen.confusion)
    assert by_mask.accuracy == chosen.accuracy
    assert sum(map(sum, by_mask.confusion)) == by_mask.n == mask.sum()


def test_an_absent_class_has_no_recall_and_does_not_weigh_on_the_balance() -> None:
    result = evaluate_classification([0, 1, 1], [0, 0, 1], ("a", "b", "c"))
    assert math.isnan(result.recall[2])
    assert result.balanced_accuracy == pytest.approx(75)


@given(classes)
def test_a_perfect_predictor_scores_everything(truth: np.ndarray) -> None:
    result = evaluate_classification(truth, truth, ("a", "b", "c"))
    assert result.accuracy == result.balanced_accuracy == 100
    assert [row.interval for row in rows("x", {0: result}, resamples=50)] == [(100, 100), (100, 100), None]
    assert result.floor <= 100


def test_intervals_surround_the_figures() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random(500) < 0.2).astype(int)
    predicted = np.where(generator.random(500) < 0.8, truth, 1 - truth)
    accuracy, balanced, floor = rows("x", {0: evaluate_classification(predicted, truth, LABELS)})
    assert accuracy.interval is not None
    assert balanced.interval is not None
    assert accuracy.interval[0] < accuracy.mean < accuracy.interval[1]
    assert balanced.interval[0] < balanced.mean < balanced.interval[1]
    p = accuracy.mean / 100
    assert np.ptp(accuracy.interval) == pytest.approx(200 * 1.96 * math.sqrt(p * (1 - p) / 500), rel=0.15)
    # Half of the balance rests on the rarer class, so it is less certain.
    assert np.ptp(balanced.interval) > np.ptp(accuracy.interval)
    assert (floor.metric, floor.note, floor.interval, floor.seeds) == ("majority class", "always no", None, ())


def test_rows_and_differences_of_several_runs() -> None:
    """b calls one more of four wrongly: a is better by 25 %, and surely so."""
    truth = [0, 0, 1, 1] * 20
    a, b = evaluate_classification(truth, truth, LABELS), evaluate_classification([0, 1, 1, 1] * 20, truth, LABELS)
    (accuracy, *_) = rows("x", {0: a, 1: b})
    assert (accuracy.mean, accuracy.seeds) == (87.5, (0, 1))
    assert accuracy.interval is not None
    found = {row.metric: row for row in differences("a", "b", {0: a}, {0: b})}
    assert list(found) == ["accuracy", "balanced accuracy"]
    assert found["accuracy"].mean == 25
    assert found["accuracy"].note.endswith("excludes 0")


def test_the_confusion_is_shown_with_its_recall() -> None:
    (section,) = evaluate_classification([0, 1, 1, 0], [0, 1, 0, -1], ("no", "yes", "odd")).sections()
    (table,) = section.blocks
    assert table.rows == [  # type: ignore[union-attr]
        ["no", "2", "50.00", "1", "1", "0"], ["yes", "1", "100.00", "0", "1", "0"], ["odd", "0", "–", "0", "0", "0"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([0, 0], [-1, -1], "no face is labelled"),
        ([0], [0, 1], "1 predictions do not match 2"),
        ([2, 0], [0, 1], "predictions hold class 2"),
        ([0, 0], [0, 5], "true labels hold class 5"),
        ([-1, 0], [0, 1], "negative class index"),
        ([0.2, 0.7], [0, 1], "class indices"),
    ],
)
def test_misuse_is_explained(predicted: list[int], truth: list[int], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        evaluate_classification(predicted, truth, LABELS)


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(PolyfaceError, match="mask"):
        evaluate_classification([0, 1], [0, 1], LABELS, labelled=[True])


def test_of_many_people_the_most_frequent_mistakes_are_shown() -> None:
    """A matrix of 20,000 people would take 3 GB, and nobody reads it."""
    people = [f"person {number}" for number in range(20_000)]
    truth = np.array([5] * 4 + [19_999] * 3 + [7, -1])
    predicted = np.array([6, 6, 6, 5] + [19_999, 2, 2] + [8, 9])
    result = evaluate_classification(predicted, truth, people)
    assert (result.recall[5], result.recall[7]) == (25, 0)
    assert result.balanced_accuracy == pytest.approx((25 + 100 / 3 + 0) / 3)
    (section,) = result.sections()
    (table,) = section.blocks
    assert table.rows == [
        ["person 5", "4", "person 6", "3"],
        ["person 19999", "3", "person 2", "2"],
        ["person 7", "1", "person 8", "1"],
    ]
    assert table.caption == "The 3 most frequent mistakes of 20,000 classes."
    (accuracy, balanced, _) = rows("x", {0: result}, resamples=20)
    assert (accuracy.mean, balanced.mean) == (result.accuracy, result.balanced_accuracy)
    with pytest.raises(PolyfaceError) as told:
        evaluate_classification([0], [-1], people)
    assert len(str(told.value)) < 300
