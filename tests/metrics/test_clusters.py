"""Units that belong together, results over the same units told together, and folds that are one result."""

from __future__ import annotations

import numpy as np
import pytest

from polyface.errors import PolyfaceError
from polyface.metrics.classification import evaluate_classification
from polyface.metrics.clusters import clustered, together
from polyface.metrics.folds import pooled
from polyface.metrics.groups import within
from polyface.metrics.result import Metric, differences, rows

from .systems import identification, retrieval

PERSON = np.array(["ann", "ann", "bob", "bob", "bob", "cid"])
TRUTH, GUESS = np.array([0, 1, 0, 1, 1, -1]), np.array([0, 0, 0, 1, 0, 1])


def classes(guess: np.ndarray = GUESS):
    return evaluate_classification(guess, TRUTH, ("no", "yes"))


def test_whole_people_are_drawn() -> None:
    """ann has 1 of 2 right, bob 2 of 3, and cid's one face is not labelled."""
    people = clustered(classes(), PERSON, "people")
    accuracy = people.metrics[0]
    assert (people.units, people.over) == (3, "people")
    assert people.figure(accuracy) == pytest.approx(60)
    assert people.defined(accuracy).tolist() == [True, True, False]
    draws = np.array([[1, 1, 0], [2, 0, 0], [0, 2, 0], [3, 1, 0]], np.int32)
    assert people.at(draws, [accuracy])[accuracy] == pytest.approx([60, 50, 200 / 3, 100 * 5 / 9])
    of_bob = within(people, np.array([False, True, False]))
    assert of_bob.figure(accuracy) == pytest.approx(200 / 3)


def test_each_unit_its_own_cluster_changes_nothing() -> None:
    whole = identification(0)
    alone = clustered(whole, np.arange(whole.units), "faces")
    assert [(r.metric, r.mean, r.interval) for r in rows("a", {0: alone})] == [
        (r.metric, r.mean, r.interval) for r in rows("a", {0: whole})
    ]


def test_faces_of_a_person_that_go_together_widen_the_interval() -> None:
    """30 people of 20 faces each, all of which are told rightly or wrongly at once."""
    people = np.repeat(np.arange(30), 20)
    right = (people % 3 == 0).astype(int)
    found = evaluate_classification(right, np.ones(600, int), ("no", "yes"))
    (faces, *_), (over_people, *_) = rows("a", {0: found}), rows("a", {0: clustered(found, people, "people")})
    width, wide = (row.interval[1] - row.interval[0] for row in (faces, over_people))
    assert wide == pytest.approx(width * 20**0.5, rel=0.25)
    assert over_people.over == "people only"


def test_results_over_the_same_units_are_told_together() -> None:
    one = clustered(classes(), PERSON, "people")
    other = clustered(classes(1 - GUESS), PERSON, "people")
    both = together({"": one, "pose": other})
    named = {metric.name: both.figure(metric) for metric in both.metrics}
    assert named == pytest.approx(
        {
            "accuracy": 60,
            "balanced accuracy": 200 / 3,
            "majority class": 60,
            "pose": 40,
            "pose balanced accuracy": 100 / 3,
            "pose majority class": 60,
        }
    )
    draws = np.array([[2, 1, 0]], np.int32)
    pose = Metric("pose")
    assert both.at(draws, [pose])[pose] == other.at(draws, [Metric("accuracy")])[Metric("accuracy")]
    with pytest.raises(PolyfaceError, match="pose is not over the same people as what it is told with"):
        together({"": one, "pose": classes()})
    with pytest.raises(PolyfaceError, match="two figures would be called accuracy"):
        together({"": one, "accuracy": other})


def test_folds_are_one_result_over_all_units() -> None:
    first, second = retrieval(0), retrieval(1)
    both = pooled([first, second])
    metric = both.metrics[0]
    assert both.units == first.units + second.units
    assert metric.n == first.n + second.n
    assert both.figure(metric) == pytest.approx((first.figure(metric) + second.figure(metric)) / 2)
    counts = np.random.default_rng(0).integers(0, 3, (4, both.units)).astype(np.int32)
    apart = [
        fold.at(part, [metric])[metric] for fold, part in zip((first, second), np.split(counts, 2, 1), strict=True)
    ]
    assert both.at(counts, [metric])[metric] == pytest.approx(np.mean(apart, 0))
    assert pooled([first]) is first
    with pytest.raises(PolyfaceError, match="the same figures"):
        pooled([first, identification(0)])


def test_folds_are_compared_fold_by_fold() -> None:
    better = {run: pooled([retrieval(2 * run, 0.1), retrieval(2 * run + 1, 0.1)]) for run in range(3)}
    worse = {run: pooled([retrieval(2 * run, 0.9), retrieval(2 * run + 1, 0.9)]) for run in range(3)}
    (row, *_) = differences("a", "b", better, worse)
    assert row.mean > 0
    assert row.interval[0] > 0
    assert row.seeds == (0, 1, 2)
