"""Attribute figures: numbers by hand, oracles, masks, rows, paired differences, and the printed tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyface import tasks
from polyface.data.boxes import Boxes
from polyface.data.crops import CropSpec
from polyface.data.loader import FacePool
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.metrics.attributes import (
    AttributesResult,
    average_precision,
    evaluate_attributes,
    majority_classes,
)
from polyface.metrics.classification import evaluate_classification
from polyface.metrics.resampling import PairedDifference
from polyface.metrics.result import Metric, paired_differences, rows
from polyface.schema import ATTRIBUTES

NAN = math.nan
NAMES = ("Bald", "Male", "Young")
masks = arrays(np.bool_, (20, 3))
seeds = st.integers(0, 2**31)


def faces(
    count: int = 300, seed: int = 0, noise: float = 1.0, rates: tuple[float, ...] = (0.1, 0.4, 0.8), truth_seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, positive, truth): the truth depends on `truth_seed` alone, so seeds are runs over the same faces."""
    truth = np.where(np.random.default_rng(truth_seed).random((count, len(rates))) < rates, 1.0, -1.0)
    scores = truth + noise * np.random.default_rng([seed, 1]).normal(size=truth.shape)
    return scores, scores > 0, truth


def evaluate(*given: np.ndarray, names: tuple[str, ...] = NAMES, **settings: object) -> AttributesResult:
    return evaluate_attributes(*given, names, **settings)  # type: ignore[arg-type]


def interval(result: AttributesResult, resamples: int = 50) -> tuple[float, float]:
    """That of the mean accuracy."""
    found = rows("x", {0: result}, resamples=resamples)[0].interval
    assert found is not None
    return found


def paired_difference(
    a: Sequence[AttributesResult], b: Sequence[AttributesResult], statistic: str = "mean accuracy"
) -> PairedDifference:
    return paired_differences(a, b)[Metric(statistic)]


# --------------------------------------------------------------------------------------------------------- figures


def test_figures_by_hand() -> None:
    """Eight faces lack it, of which six are called so; two have it, of which one is called so."""
    truth = np.array([-1.0] * 8 + [1] * 2)[:, None]
    positive = np.array([False] * 6 + [True] * 2 + [True, False])[:, None]
    result = evaluate(positive * 1.0, positive, truth, names=("Bald",))
    one = result.per_attribute["Bald"]
    assert (one.n, one.positive_rate, one.accuracy, one.floor) == (10, 20, 70, 80)
    assert one.balanced_accuracy == pytest.approx((6 / 8 + 1 / 2) / 2 * 100)
    assert one.f1 == pytest.approx(100 * 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))  # precision 1/3, recall 1/2
    assert (result.n, result.unlabelled, result.accuracy, result.floor) == (10, 0, 70, 80)
    assert (result.never_labelled, result.one_class) == ((), ())


def test_means_are_over_attributes_each_over_its_own_faces() -> None:
    """Bald: 1 of 2 labelled faces right. Male: 4 of 4. So 75 %, not 5 of 6."""
    truth = np.array([[1, 1], [-1, 1], [NAN, -1], [NAN, -1], [NAN, NAN]])
    positive = np.array([[True, True], [True, True], [False, False], [True, False], [True, True]])
    result = evaluate(positive * 1.0, positive, truth, names=("Bald", "Male"))
    assert [one.n for one in result.per_attribute.values()] == [2, 4]
    assert result.accuracy == pytest.approx(75)
    assert (result.n, result.unlabelled) == (4, 1)


def test_average_precision_by_hand() -> None:
    """Found at ranks 1 and 3: precisions 1 and 2/3, each worth half of the recall."""
    assert average_precision([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert average_precision([0.5] * 4, [True, False, False, False]) == pytest.approx(25)  # nothing is ranked
    assert average_precision([3, 2, 1, 0], [True, True, False, False]) == pytest.approx(100)
    assert math.isnan(average_precision([0.1, 0.2], [True, True]))
    assert math.isnan(average_precision([0.1, 0.2], [False, False]))


def naive_average_precision(scores: list[int], has: list[bool]) -> float:
    """Σ (R_i − R_{i−1}) P_i, word for word."""
    total, before = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        called = [so for score, so in zip(scores, has, strict=True) if score >= level]
        recall = sum(called) / sum(has)
        total += (recall - before) * sum(called) / len(called)
        before = recall
    return 100 * total


labelled_scores = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30)


@given(labelled_scores)
def test_average_precision_is_its_definition_ties_included(pairs: list[tuple[int, bool]]) -> None:
    scores, has = [score for score, _ in pairs], [so for _, so in pairs]
    assume(any(has) and not all(has))
    assert average_precision(scores, has) == pytest.approx(naive_average_precision(scores, has))
    assert average_precision(np.exp(scores), has) == pytest.approx(average_precision(scores, has))  # only ranks count


@given(seeds)
def test_torchmetrics_agrees(seed: int) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    scores, _, truth = faces(40, seed, truth_seed=seed)
    positive = scores > 0.4
    result = evaluate(scores, positive, truth)
    for k, one in enumerate(result.per_attribute.values()):
        has, said = torch.from_numpy(truth[:, k] > 0), torch.from_numpy(positive[:, k])
        if not has.any() or has.all():
            continue
        chances = torch.from_numpy(scores[:, k]).sigmoid()  # its thresholds are probabilities
        assert one.average_precision == pytest.approx(100 * metrics.binary_average_precision(chances, has.int()).item())
        assert one.f1 == pytest.approx(100 * metrics.binary_f1_score(said.int(), has.int()).item(), rel=1e-5)
        assert one.accuracy == pytest.approx(100 * metrics.binary_accuracy(said.int(), has.int()).item(), rel=1e-5)


@given(seeds)
def test_one_attribute_is_a_classification_of_two_classes(seed: int) -> None:
    """The same faces are resampled, so the intervals are equal as well."""
    scores, positive, truth = faces(60, seed, rates=(0.3,), truth_seed=seed)
    result = evaluate(scores, positive, truth, names=("Male",))
    other = evaluate_classification(positive[:, 0].astype(int), (truth[:, 0] > 0).astype(int), ("no", "yes"))
    assert result.accuracy == pytest.approx(other.accuracy)
    assert result.balanced_accuracy == pytest.approx(other.balanced_accuracy)
    assert result.floor == pytest.approx(other.floor)
    assert interval(result) == pytest.approx(rows("x", {0: other}, resamples=50)[0].interval)


# ----------------------------------------------------------------------------------------------------------- masks


@given(masks, seeds)
def test_unknown_labels_have_no_influence(mask: np.ndarray, seed: int) -> None:
    """Each attribute's figures are those of its labelled faces alone, whatever is said of the others."""
    scores, positive, truth = faces(20, seed, truth_seed=seed)
    assume(mask.any())
    wild = np.where(mask, scores, NAN)
    flipped = np.where(mask, positive, ~positive)
    result = evaluate(wild, flipped, np.where(mask, truth, NAN))
    for k, name in enumerate(NAMES):
        rows = mask[:, k]
        one = result.per_attribute[name]
        assert one.n == rows.sum()
        if rows.any():
            alone = evaluate(*(a[rows][:, [k]] for a in (scores, positive, truth)), names=(name,))
            np.testing.assert_equal(vars(one), vars(alone.per_attribute[name]))  # NaN figures are equal here
    known = [one.accuracy for one in result.per_attribute.values() if one.n]
    assert result.accuracy == pytest.approx(np.mean(known))
    assert result.unlabelled == (~mask.any(1)).sum()
    assert result.n + result.unlabelled == 20


@given(st.permutations(range(3)), masks, seeds)
def test_the_order_of_attributes_does_not_matter(order: list[int], mask: np.ndarray, seed: int) -> None:
    assume(mask.any())
    scores, positive, truth = faces(20, seed, truth_seed=seed)
    truth = np.where(mask, truth, NAN)
    plain = evaluate(scores, positive, truth)
    moved = evaluate(scores[:, order], positive[:, order], truth[:, order], names=tuple(NAMES[i] for i in order))
    for name in NAMES:
        np.testing.assert_equal(vars(moved.per_attribute[name]), vars(plain.per_attribute[name]))
    for field in ("accuracy", "balanced_accuracy", "f1", "average_precision", "floor"):
        assert getattr(moved, field) == pytest.approx(getattr(plain, field), nan_ok=True)
    assert interval(moved) == pytest.approx(interval(plain))
    assert set(moved.one_class) == set(plain.one_class)


@pytest.mark.parametrize("everybody", [1, -1])
def test_an_attribute_of_one_class_or_none_is_named_and_left_out_of_means(everybody: int) -> None:
    scores, positive, truth = faces(50)
    truth[:, 0] = everybody  # is bald, or not
    truth[:, 2] = NAN  # nobody is known to be young
    result = evaluate(scores, positive, truth)
    bald, male, young = result.per_attribute.values()
    assert (result.one_class, result.never_labelled) == (("Bald",), ("Young",))
    assert (bald.positive_rate, bald.floor) == (50 * (1 + everybody), 100)
    assert bald.accuracy == pytest.approx(100 * (positive[:, 0] == (everybody > 0)).mean())
    assert all(map(math.isnan, (bald.balanced_accuracy, bald.f1, bald.average_precision)))
    assert young.n == 0
    assert all(math.isnan(value) for key, value in vars(young).items() if key != "n")
    assert result.accuracy == pytest.approx((bald.accuracy + male.accuracy) / 2)
    assert result.floor == pytest.approx((100 + male.floor) / 2)
    assert (result.balanced_accuracy, result.f1) == pytest.approx((male.balanced_accuracy, male.f1))
    assert result.average_precision == pytest.approx(male.average_precision)


def test_figures_that_no_attribute_defines_are_nan_without_an_interval() -> None:
    scores, positive, truth = faces(30)
    result = evaluate(scores, positive, np.ones_like(truth))
    assert result.one_class == NAMES
    assert math.isnan(result.f1)
    assert [row.metric for row in rows("x", {0: result})] == [
        "mean accuracy",
        "majority class",
        *["accuracy"] * 3,
    ]


# ----------------------------------------------------------------------------------------------- floors, intervals


def test_majority_classes_by_hand() -> None:
    truth = np.array([[1, 1, NAN, -1], [1, -1, NAN, NAN], [-1, NAN, NAN, NAN]])
    np.testing.assert_array_equal(majority_classes(truth), [1, -1, NAN, -1])  # a tie says no


def test_the_floor_is_of_the_training_majority_where_it_is_given() -> None:
    scores, positive, truth = faces(200)
    own = evaluate(scores, positive, truth)
    assert own.majority_of == "evaluated faces"
    rates = (truth > 0).mean(0)
    assert own.floor == pytest.approx(100 * np.maximum(rates, 1 - rates).mean())
    training = evaluate(scores, positive, truth, majority=[-1, 1, 1])
    assert training.majority_of == "training faces"
    assert training.floor == pytest.approx(100 * np.mean([1 - rates[0], rates[1], rates[2]]))
    assert training.floor < own.floor
    with pytest.raises(PolyfaceError, match="majority class of Male is nan"):
        evaluate(scores, positive, truth, majority=[-1, NAN, 1])
    with pytest.raises(PolyfaceError, match="3 classes"):
        evaluate(scores, positive, truth, majority=[-1, 1])


def test_the_interval_of_the_mean_is_that_of_a_ratio_of_means() -> None:
    """Against a bootstrap written out: draw faces, score each attribute over its labelled ones, average."""
    scores, positive, truth = faces(150)
    truth[np.random.default_rng(3).random(truth.shape) < 0.5] = NAN
    generator = np.random.default_rng(9)
    drawn = []
    for _ in range(2000):
        rows = generator.integers(150, size=150)
        right = np.where(np.isnan(truth[rows]), NAN, (truth[rows] > 0) == positive[rows])
        drawn.append(100 * np.nanmean(right, axis=0).mean())
    result = evaluate(scores, positive, truth)
    low, high = interval(result, 2000)
    np.testing.assert_allclose((low, high), np.quantile(drawn, [0.025, 0.975]), atol=0.4)
    assert low < result.accuracy < high


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s, p, t: (s, p, np.full_like(t, NAN)), "no face is labelled with any attribute"),
        (lambda s, p, t: (s[:5], p, t), r"scores \[5, 3\].*must all be \[faces, 3\]"),
        (lambda s, p, t: (s[:, :2], p[:, :2], t[:, :2]), r"\[faces, 3\]"),
        (lambda s, p, t: (s, p * 1, t), "positive must be bool"),
        (lambda s, p, t: (s, p, np.maximum(t, 0)), "must be -1, 1 or NaN .unknown., found 0"),
        (lambda s, p, t: (np.where(np.arange(9)[:, None] == 4, NAN, s), p, t), "1 faces .*first is face 4.*diverged"),
    ],
)
def test_misuse_is_explained(change, message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        evaluate(*change(*faces(9)))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ rows


def test_rows_summarise_seeds_for_the_results_file() -> None:
    results = {seed: evaluate(*faces(200, seed)) for seed in (0, 1, 2)}
    found = rows("DMM-CNN", results, published={"mean accuracy": 91.70}, note="small")
    by_key = {row.key: row for row in found}
    assert [row.key for row in found] == [
        *(("DMM-CNN", m) for m in ("mean accuracy", "mean balanced accuracy", "mean F1", "mean AP", "majority class")),
        *((f"DMM-CNN: {name}", "accuracy") for name in NAMES),
    ]
    mean = by_key["DMM-CNN", "mean accuracy"]
    values = [result.accuracy for result in results.values()]
    assert (mean.mean, mean.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (mean.n, mean.seeds, mean.unit, mean.published, mean.note) == (200, (0, 1, 2), "%", 91.70, "small")
    assert mean.interval is not None
    assert mean.interval[0] < mean.mean < mean.interval[1]
    assert by_key["DMM-CNN", "mean F1"].published is None
    assert by_key["DMM-CNN", "mean AP"].mean == pytest.approx(np.mean([r.average_precision for r in results.values()]))
    floor = by_key["DMM-CNN", "majority class"]
    assert (floor.mean, floor.std, floor.seeds) == (results[0].floor, None, ())
    assert "evaluated faces" in floor.note
    bald = by_key["DMM-CNN: Bald", "accuracy"]
    assert bald.mean == pytest.approx(np.mean([r.per_attribute["Bald"].accuracy for r in results.values()]))
    assert bald.interval is not None
    assert bald.interval[0] < bald.mean < bald.interval[1]


def test_rows_name_what_they_leave_out() -> None:
    scores, positive, truth = faces(50)
    truth[:, 0], truth[:, 2], truth[:5] = 1, NAN, NAN
    found = {row.key: row for row in rows("x", {0: evaluate(scores, positive, truth)}, resamples=20)}
    assert found["x", "mean accuracy"].note == "5 faces without any label; left out, no face labelled: Young"
    assert found["x", "mean accuracy"].std is None
    for metric in ("mean balanced accuracy", "mean F1", "mean AP"):
        assert found["x", metric].note.endswith("no face labelled: Young; left out, only one class: Bald")
    assert ("x: Young", "accuracy") not in found
    assert found["x: Bald", "accuracy"].n == 45
    assert found["x", "majority class"].note.endswith("Young")


def test_rows_of_other_faces_or_attributes_are_not_averaged() -> None:
    first, other = evaluate(*faces(30)), evaluate(*faces(30, truth_seed=5))
    with pytest.raises(PolyfaceError, match="same faces"):
        rows("x", {0: first, 1: other})
    with pytest.raises(PolyfaceError, match="same figures"):
        rows("x", {0: first, 1: evaluate(*faces(30), names=("Bald", "Male", "Chubby"))})
    with pytest.raises(PolyfaceError, match="one result per seed"):
        rows("x", {})


# ---------------------------------------------------------------------------------------------- paired differences


def test_a_paired_difference_is_sharper_than_the_two_intervals() -> None:
    scores, positive, truth = faces(400)
    better = np.where(np.random.default_rng(1).random(truth.shape) < 0.03, truth > 0, positive)
    a, b = evaluate(scores, better, truth), evaluate(scores, positive, truth)
    found = paired_difference([a], [b])
    assert found.difference == pytest.approx(a.accuracy - b.accuracy)
    assert 0 < found.interval.low < found.difference < found.interval.high
    assert np.ptp(found.interval.ends) < 0.5 * np.ptp(interval(a, 1000))
    assert (found.n, found.runs) == (400, 1)
    swapped = paired_difference([b], [a])
    assert swapped.difference == pytest.approx(-found.difference)
    assert swapped.interval.ends == pytest.approx((-found.interval.high, -found.interval.low))
    same = paired_difference([a], [a])
    assert (same.difference, same.interval.ends) == (0, (0, 0))


def test_seeds_widen_the_paired_interval() -> None:
    generator = np.random.default_rng(2)
    scores, _, truth = faces(300)
    luck = [0.02, 0.10, 0.18, 0.26, 0.34]  # how often each training run is wrong

    def runs() -> list[AttributesResult]:
        wrong = [generator.random(truth.shape) < share for share in luck]
        return [evaluate(scores, (truth > 0) ^ one, truth) for one in wrong]

    a, b = runs(), runs()[::-1]  # the luckiest of one is the least lucky of the other
    one, several = paired_difference(a[2:3], b[2:3]), paired_difference(a, b)
    assert several.runs == 5
    assert np.ptp(several.interval.ends) > 2 * np.ptp(one.interval.ends)
    spread = np.std(2 * (np.array(luck) - luck[2]), ddof=1)  # of the differences, seed by seed
    assert np.ptp(several.interval.ends) == pytest.approx(100 * 2 * 2.776 * spread / math.sqrt(5), rel=0.2)


def test_other_statistics_and_unlabelled_faces() -> None:
    scores, positive, truth = faces(200)
    truth[::4] = NAN
    a, b = evaluate(scores, positive, truth), evaluate(scores, scores > 1.0, truth)
    found = paired_difference([a], [b], statistic="mean F1")
    assert found.difference == pytest.approx(a.f1 - b.f1)
    assert (found.n, a.unlabelled) == (150, 50)
    balanced = paired_difference([a], [b], statistic="mean balanced accuracy")
    assert balanced.difference == pytest.approx(a.balanced_accuracy - b.balanced_accuracy)
    assert balanced.interval.low < balanced.difference < balanced.interval.high


def test_differences_that_mean_nothing_are_refused() -> None:
    a = evaluate(*faces(30))
    with pytest.raises(PolyfaceError, match="same faces"):
        paired_difference([a], [evaluate(*faces(30, truth_seed=8))])
    with pytest.raises(PolyfaceError, match="a result of each system"):
        paired_difference([a], [])
    alone = evaluate(*faces(30)[:2], np.ones((30, 3)))
    assert list(paired_differences([alone], [alone])) == [Metric("mean accuracy")]  # the others are defined for none


# --------------------------------------------------------------------------------------------- evaluated on a table


def test_answers_are_evaluated_as_they_were_given(tmp_path: Path) -> None:
    """Against a pool's labels, by the thresholds of the answers: the task's own may have moved on since."""
    said = {"Bald": [1, -1, None, -1], "Male": [1, -1, -1, None]}
    picture = np.full((40, 40, 3), 128, np.uint8)
    records = [
        Record(picture, str(i), f"{i}.png", {"attributes": [said.get(name, [None] * 4)[i] for name in ATTRIBUTES]})
        for i in range(4)
    ]
    write_table(records, tmp_path / "t.parquet")
    task = tasks.build("traits", {"kind": "attributes", "attributes": ["Male", "Bald"], "thresholds": [0.5, 0.0]})
    boxes = Boxes(np.tile(np.float32([5, 5, 35, 35]), (4, 1)), np.zeros(0, int))
    pool = FacePool([(FaceTable.open(tmp_path / "t.parquet"), boxes, 1.0)], CropSpec(size=40, channels=1), {"x": task})
    scores = torch.tensor([[0.1, 0.6], [-0.2, 0.4], [0.3, 0.4], [0.2, 0.9]])  # Bald above 0, Male above 0.5
    answer = task.decode(scores, torch.eye(2, 3).repeat(4, 1, 1), 40)
    again = tasks.build("traits", {"kind": "attributes", "attributes": ["Bald", "Male"]})
    result = again.evaluate(answer, pool.table)
    assert isinstance(result, AttributesResult)
    bald, male = result.per_attribute["Bald"], result.per_attribute["Male"]
    assert (bald.n, bald.accuracy) == (3, pytest.approx(200 / 3))
    assert (male.n, male.accuracy) == (3, 100)
    assert bald.average_precision == pytest.approx(50)
    assert result.accuracy == pytest.approx(250 / 3)
    assert replace(result, positive=answer["positive"]) == result


def test_some_attributes_alone_are_evaluated_as_if_there_were_no_others() -> None:
    """Whatever their order; an unknown name is refused."""
    random = np.random.default_rng(0)
    scores, truth = random.normal(size=(50, 4)), random.choice([-1.0, 1.0, np.nan], (50, 4))
    whole = evaluate_attributes(scores, scores > 0, truth, list("abcd"))
    some = evaluate_attributes(scores[:, [3, 1]], scores[:, [3, 1]] > 0, truth[:, [3, 1]], ["d", "b"])
    found = whole.among(["d", "b"])
    figures = [[(metric.name, metric.part, one.figure(metric)) for metric in one.metrics] for one in (found, some)]
    assert figures[0] == figures[1]
    assert [row.interval for row in rows("x", {0: found})] == [row.interval for row in rows("x", {0: some})]
    assert found.key not in {whole.key, whole.among(["b"]).key}
    with pytest.raises(PolyfaceError, match="'e'"):
        whole.among(["e"])
