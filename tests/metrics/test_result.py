"""The driver of rows, intervals, groups and differences: by hand on toys, on every kind, and against frozen rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyface.errors import PolyfaceError
from polyface.metrics.groups import groups_of, within
from polyface.metrics.resampling import Bools, Counts, Floats
from polyface.metrics.result import (
    Metric,
    Result,
    Row,
    differences,
    digest,
    paired_differences,
    relative_differences,
    rows,
)

from . import systems
from .systems import MEAN, Toy

NAN = math.nan
FROZEN = json.loads((Path(__file__).parent / "frozen_rows.json").read_text())

KINDS: dict[str, tuple[Callable[..., Result], float, float]] = {
    "landmarks": (systems.landmarks, 1.0, 1.3),
    "attributes": (systems.attributes, 1.0, 1.3),
    "identification": (systems.identification, 0.5, 0.7),
    "verification": (systems.verification, 0.4, 0.6),
    "all pairs": (systems.all_pairs, 0.5, 0.7),
    "retrieval": (systems.retrieval, 0.5, 0.7),
}
SPLITS = ("verification", "retrieval")
LEVELS = {"all pairs": 0.05}  # points: distances are counted by level there, so that areas are nearly exact


def toy(*values: float, **settings: object) -> Toy:
    return Toy(np.array(values, dtype=np.float64), **settings)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- by hand


def test_a_row_by_hand() -> None:
    found = {0: toy(1, 3, NAN, folds=0.5), 4: toy(2, 4, NAN, folds=1.5)}
    metric = Metric("mean", unit="°", n=2, note="of toys", folds="2 folds")
    found = {seed: Toy(one.values, metric, folds=one.folds) for seed, one in found.items()}
    (row,) = rows("x", found, prefix="my ", published={"my mean": 7.0}, note="small")
    assert (row.row, row.metric, row.mean, row.n, row.seeds, row.unit) == ("x", "my mean", 2.5, 2, (0, 4), "°")
    assert row.std == pytest.approx(math.sqrt(0.5))
    assert (row.published, row.note) == (7.0, "small; ± 1.00 over 2 folds; of toys")


def test_the_interval_of_two_units_by_hand() -> None:
    """Of (0, 10) a resample's mean is 0, 5 or 10, by chances of 1/4, 1/2, 1/4."""
    (row,) = rows("x", {0: toy(0, 10)})
    assert row.interval == (0, 10)
    (row,) = rows("x", {0: toy(0, 10)}, level=0.4)
    assert row.interval == (5, 5)
    (row,) = rows("x", {0: toy(0, 10)}, resamples=0)
    assert row.interval is None


def test_the_interval_covers_how_runs_differ() -> None:
    """Runs of 1 and 3 on one face each: 2 ± t(1)·√(2/2), of which a share has no part below 0."""
    (row,) = rows("x", {0: toy(1), 1: toy(3)})
    assert row.interval == pytest.approx((0, 2 + 12.7062), abs=1e-3)
    for metric, low in ((Metric("mean", unit="°"), 2 - 12.7062), (Metric("mean", unit="°", higher_is_better=False), 0)):
        (row,) = rows("x", {0: toy(1, metric=metric), 1: toy(3, metric=metric)})
        assert row.interval == pytest.approx((low, 2 + 12.7062), abs=1e-3)
    (row,) = rows("x", {0: toy(101), 1: toy(103)})  # in percent of something, not of all
    assert row.interval == pytest.approx((102 - 12.7062, 103), abs=1e-3)
    (row,) = rows("x", {0: toy(1), 1: toy(1)})
    assert row.interval == (1, 1)


def test_a_row_says_what_its_interval_is_over() -> None:
    assert [row.over for row in rows("x", {0: toy(0, 10)})] == ["faces only"]
    assert [row.over for row in rows("x", {0: toy(0, 10), 3: toy(1, 10)})] == ["faces and seeds"]
    assert [row.over for row in rows("x", {0: toy(0, 10)}, resamples=0)] == [""]
    splits = {split: toy(1, 2, key=str(split), over="probes") for split in range(2)}
    assert [row.over for row in rows("x", splits, splits=True)] == ["probes and splits"]
    assert [row.over for row in differences("x", "y", {0: splits[0]}, {0: splits[0]})] == ["probes only"]


def test_rows_of_one_seed_from_before_are_known_too() -> None:
    old = Row("x", "mean", 1.0, seeds=(0,), interval=(0.0, 2.0))
    assert old.only == "faces only"
    assert replace(old, over="people only").only == "people only"
    assert [replace(old, **change).only for change in ({"seeds": (0, 1)}, {"seeds": ()}, {"interval": None})] == [
        ""
    ] * 3
    assert replace(old, seeds=(0, 1), over="faces and seeds").only == ""


def test_what_is_not_defined_in_every_run_has_no_row() -> None:
    assert rows("x", {0: toy(1), 1: toy(NAN)}) == []
    assert differences("x", "y", {0: toy(1)}, {0: toy(NAN)}) == []


def test_units_that_one_run_cannot_judge_are_in_no_draw_but_in_the_others_figure() -> None:
    (row,) = rows("x", {0: toy(2, 2, 2), 1: toy(2, 2, NAN)})
    assert (row.mean, row.interval) == (2, (2, 2))
    _, (one,) = (rows("x", {0: result}) for result in (toy(1, 1, 7), toy(1, 1, NAN)))
    assert one.interval == (1, 1)


def test_metrics_say_what_is_done_with_them() -> None:
    plain, floor, dear = Metric("a"), Metric("b", trained=False, resampled=False), Metric("c", resampled=False)
    part = Metric("a", part="left", compared=False)
    runs: dict[int, Result] = {
        seed: Toy(np.array([1.0, 2.0]) + seed, metrics=[plain, floor, dear, part]) for seed in (0, 1)
    }
    found = {row.key: row for row in rows("x", runs, published={"a": 1.0})}
    assert list(found) == [("x", "a"), ("x", "b"), ("x", "c"), ("x: left", "a")]
    assert found["x", "a"].interval is not None
    assert (found["x", "b"].mean, found["x", "b"].std, found["x", "b"].seeds) == (1.5, None, ())
    assert (found["x", "c"].interval, found["x", "c"].std) == (None, pytest.approx(math.sqrt(0.5)))
    assert (found["x", "a"].published, found["x: left", "a"].published) == (1.0, None)
    assert [row.metric for row in differences("x", "y", runs, runs)] == ["a"]


def test_a_difference_by_hand() -> None:
    """Faces 1 and 2: a is better by 1 and by 3; face 3 is judged in one run only, face 4 in none."""
    a, b = {0: toy(1, 2, 9, NAN), 7: toy(5, 5, 5, 5)}, {0: toy(2, 5, NAN, NAN)}
    (row,) = differences("A", "B", a, b)
    assert (row.row, row.metric, row.mean, row.n, row.seeds) == ("A minus B", "mean", -2, 2, (0,))
    assert row.interval == (-3, -1)
    assert row.note == "paired bootstrap over faces only; the interval excludes 0"


def test_equal_seeds_are_compared_with_each_other() -> None:
    """Three networks that differ widely, of which every face is better by 0.05: so is every pair of one seed."""
    faces = np.random.default_rng(0).normal(50, 10, size=40)
    a = {seed: Toy(faces + shift) for seed, shift in enumerate((0.0, 1.0, 2.0))}
    b = {seed: Toy(one.values + 0.05) for seed, one in a.items()}
    (row,) = differences("A", "B", a, dict(reversed(b.items())))
    assert (row.mean, row.interval) == (pytest.approx(-0.05), pytest.approx((-0.05, -0.05)))
    assert (row.seeds, row.over) == ((0, 1, 2), "faces and seeds")
    with pytest.raises(PolyfaceError, match="seed by seed: 3 results of a for 2 of b"):
        paired_differences(list(a.values()), list(b.values())[:2])


def test_splits_are_compared_one_by_one() -> None:
    """By 1 in every split, however different the splits are: the interval is a point."""
    a = [toy(*range(5 * split, 5 * split + 5), key=str(split)) for split in range(3)]
    b = [Toy(one.values + 1, key=one.key) for one in a]
    found = paired_differences(a, b, splits=True)[MEAN]
    assert found.interval.ends == pytest.approx((-1, -1))
    assert (found.n, found.runs) == (15, 3)
    (row,) = rows("x", dict(enumerate(a)), splits=True)
    assert row.mean == 7
    with pytest.raises(PolyfaceError, match="same faces"):
        rows("x", dict(enumerate(a)))
    with pytest.raises(PolyfaceError, match="same faces"):
        paired_differences(a, b[::-1], splits=True)
    with pytest.raises(PolyfaceError, match="3 results of a for 2 of b"):
        paired_differences(a, b[:2], splits=True)


def test_relative_differences_by_hand() -> None:
    """Failures of 20 instead of 25, and of 30 instead of 40: by 20 and by 25 % fewer."""
    of = Metric("failure rate", relative=True)
    a, b = ({seed: toy(value, metric=of) for seed, value in enumerate(values)} for values in ((20, 30, 7), (25, 40)))
    (row,) = relative_differences("A", "B", a, b)
    assert (row.row, row.metric, row.mean, row.seeds) == ("A minus B", "relative failure rate", -22.5, (0, 1))
    assert row.std == pytest.approx(np.std([-20, -25], ddof=1))
    assert relative_differences("A", "B", a, b | {1: toy(0, metric=of)}) == []
    assert relative_differences("A", "B", {0: toy(1)}, {0: toy(2)}) == []
    assert relative_differences("A", "B", {0: a[0]}, {1: b[1]}) == []


def test_results_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(PolyfaceError, match="x: give one result per seed"):
        rows("x", {})
    with pytest.raises(PolyfaceError, match="a result of each system"):
        paired_differences([toy(1)], [])
    with pytest.raises(PolyfaceError, match="same faces in the same order, by the same protocol"):
        rows("x", {0: toy(1), 1: toy(1, key="other")})
    with pytest.raises(PolyfaceError, match="same figures, found mean and left mean"):
        rows("x", {0: toy(1), 1: toy(1, metric=Metric("mean", part="left"))})
    assert differences("x", "y", {0: toy(1)}, {1: toy(1)}) == []


def test_keys_tell_arrays_apart() -> None:
    assert digest([1.0, NAN]) == digest(np.array([1.0, -NAN]))
    assert len({digest(*one) for one in ([[1, 2]], [[1], [2]], [[1, 2], 3], [["a"]], [np.array(["a", None])], [])}) == 6


# --------------------------------------------------------------------------------------------------------- groups


def test_groups_come_in_the_order_given_and_leave_out_who_has_no_label() -> None:
    found = groups_of(["right", "odd", None, "left", "right"], ("left", "frontal", "right"))
    assert {label: mask.tolist() for label, mask in found.items()} == {
        "left": [False, False, False, True, False],
        "right": [True, False, False, False, True],
        "odd": [False, True, False, False, False],
    }


def test_figures_of_a_group_by_hand() -> None:
    result = within(toy(1, 3, NAN, 8), np.array([True, True, True, False]))
    (row,) = rows("x: left", {0: result})
    assert (row.mean, row.n) == (2, 2)
    assert row.interval == (1, 3)
    twice = within(result, np.array([False, True, True, True]))
    assert twice.figure(MEAN) == 3
    assert rows("x", {0: within(result, np.array([False, False, True, False]))}) == []
    with pytest.raises(PolyfaceError, match=r"a group of \[2\] faces for a result over 4"):
        within(result, np.array([True, False]))
    with pytest.raises(PolyfaceError, match="same faces"):
        rows("x", {0: result, 1: within(toy(1, 3, NAN, 8), np.array([True, False, True, False]))})


@given(arrays(np.float64, 20, elements=st.floats(-50, 50)), arrays(np.int64, 20, elements=st.integers(0, 3)))
def test_groups_partition_the_figures(values: np.ndarray, labels: np.ndarray) -> None:
    whole = Toy(values)
    parts = [within(whole, mask) for mask in groups_of([str(label) for label in labels]).values()]
    counts = [one.metrics[0].n for one in parts]
    assert sum(filter(None, counts)) == 20
    mean = sum(n * one.figure(MEAN) for n, one in zip(counts, parts, strict=True) if n) / 20
    assert mean == pytest.approx(whole.figure(MEAN), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_group_of_everybody_is_everybody(kind: str) -> None:
    result = KINDS[kind][0](0)
    everybody = within(result, np.ones(result.units, dtype=bool))
    for metric in everybody.metrics:
        assert everybody.figure(metric) == pytest.approx(result.figure(metric), abs=LEVELS.get(kind))
    whole, group = ({row.key: row for row in rows("x", {0: one}, resamples=50)} for one in (result, everybody))
    assert all(whole[key].interval == group[key].interval for key in group)


def test_thresholds_are_picked_on_everybody_and_judged_on_the_group() -> None:
    """Folds of alternate pairs; at a FAR of 50 % both accept what is below 6, whatever the group holds."""
    from polyface.metrics.recognition.verification import evaluate_verification

    distances = [1.0, 1, 4, 4, 7, 7, 5, 5, 6, 6]
    same = [True] * 6 + [False] * 4
    result = evaluate_verification(distances, same, folds=[0, 1] * 5, fars=(50,))
    val = Metric("VAL@50%")
    assert result.figure(val) == pytest.approx(200 / 3)
    near, far = (np.array([True] * 4 + [near] * 2 + [True] * 4) for near in (False, True))
    assert within(result, near).figure(val) == 100
    assert within(result, far).figure(val) == pytest.approx(200 / 3)
    only = np.arange(10) < 6  # no different pair at all: the threshold is still everybody's
    assert within(result, only).figure(val) == pytest.approx(200 / 3)


def test_all_pairs_of_a_group_keep_the_thresholds_of_all() -> None:
    result = systems.all_pairs(0)
    judged = np.arange(result.units) < 5
    counts = np.ones((1, result.units), np.int32)
    val, area = Metric("VAL@5%"), Metric("AUC")
    assert sorted(result.fold_of.tolist()) == list(range(10))  # each person is a fold, so that halves weigh the same
    halves = [result.at(counts, [val], half)[val][0] for half in (judged, ~judged)]
    assert np.mean(halves) == pytest.approx(result.figure(val))
    alone = result.at((counts * judged).astype(np.int32), [area])[area][0]
    assert result.at(counts, [area], judged)[area][0] == pytest.approx(alone)


# ----------------------------------------------------------------------------------------------------- properties


@given(
    arrays(np.float64, (2, 12), elements=st.floats(-50, 50, width=16) | st.just(NAN)),
    st.permutations(range(12)),
)
@settings(max_examples=30)
def test_permuting_units_together_changes_no_figure(values: np.ndarray, order: list[int]) -> None:
    a, b = (Toy(one) for one in values)
    moved = [Toy(one[order]) for one in values]
    before, after = rows("x", {0: a, 1: b}, resamples=20), rows("x", dict(enumerate(moved)), resamples=20)
    assert [row.mean for row in before] == pytest.approx([row.mean for row in after], abs=1e-9)
    assert [row.std for row in before] == pytest.approx([row.std for row in after], abs=1e-9)
    one, other = (differences("x", "y", {0: x}, {0: y}, resamples=20) for x, y in ((a, b), moved))
    assert [row.mean for row in one] == pytest.approx([row.mean for row in other], abs=1e-9)
    assert [row.n for row in one] == [row.n for row in other]


@pytest.mark.parametrize("kind", KINDS)
def test_a_system_does_not_differ_from_itself(kind: str) -> None:
    make, noise, _ = KINDS[kind]
    a = make(0, noise)
    for metric, found in paired_differences([a], [a], resamples=40).items():
        assert (found.difference, found.interval.ends) == (0, (0, 0)), metric


@pytest.mark.parametrize("kind", KINDS)
def test_one_metric_alone_is_as_among_all(kind: str) -> None:
    """Its row, its difference and their intervals; a name that no metric has is in no row."""
    make, noise, other = KINDS[kind]
    a, b = {0: make(0, noise)}, {0: make(1, other)}
    whole, apart = rows("x", a, resamples=40), differences("x", "y", a, b, resamples=40)
    for name in {row.metric for row in whole}:
        assert rows("x", a, resamples=40, wanted=name) == [row for row in whole if row.metric == name]
        alone = differences("x", "y", a, b, resamples=40, wanted=name)
        assert alone == [row for row in apart if row.metric == name]
    assert rows("x", a, wanted="no such") == differences("x", "y", a, b, wanted="no such") == []


@pytest.mark.parametrize("kind", KINDS)
def test_differences_change_sign_with_their_sides(kind: str) -> None:
    make, *noises = KINDS[kind]
    a, b = (make(0, noise) for noise in noises)
    one, other = paired_differences([a], [b], resamples=60), paired_differences([b], [a], resamples=60)
    for metric, found in one.items():
        assert found.difference == pytest.approx(-other[metric].difference)
        low, high = other[metric].interval.ends
        assert found.interval.ends == pytest.approx((-high, -low))


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_every_unit_once(kind: str) -> None:
    result = KINDS[kind][0](1)
    for metric in result.metrics:
        if metric.resampled:
            once = result.defined(metric)[None].astype(np.int32)
            assert result.at(once, [metric])[metric] == pytest.approx([result.figure(metric)], abs=LEVELS.get(kind))
            twice = result.at(2 * once, [metric])[metric]
            assert twice == pytest.approx([result.figure(metric)], abs=LEVELS.get(kind)), metric


# ---------------------------------------------------------------------------------------------------- frozen rows


@pytest.mark.parametrize("name", [*KINDS, *(f"{kind} of splits" for kind in SPLITS)])
def test_rows_are_what_they_have_been(name: str) -> None:
    """Means, deviations and numbers of three runs of every kind, and intervals of the first: as they were before there
    was one driver, but for VAL of all pairs, whose resamples have folds as well since."""
    kind, splits = name.removesuffix(" of splits"), name.endswith("splits")
    make, *noises = KINDS[kind]
    a, b = ({seed: make(seed, noise, seed) if splits else make(seed, noise) for seed in range(3)} for noise in noises)
    found = {row.key: row for row in rows("x", a, splits=splits, resamples=1)}
    first = {row.key: row for row in rows("x", {0: a[0]}, resamples=200)}
    for row, metric, mean, std, n, interval in FROZEN[name]:
        one = found.pop((row, metric))
        assert (one.mean, one.std, one.n) == (close(mean), close(std), n), metric
        assert first[row, metric].interval == close(interval), metric
    assert not found
    paired = paired_differences(list(a.values()), list(b.values()), splits=splits, resamples=1)
    intervals = paired_differences([a[0]], [b[0]], resamples=200)
    for metric, value, n, low, high in FROZEN[f"{name} minus"]:
        one = paired.pop(Metric(metric))
        assert (one.difference, one.n) == (close(value), n), metric
        assert intervals[Metric(metric)].interval.ends == close((low, high)), metric
    assert not paired


def close(value: object) -> object:
    if value is None:
        return None
    return pytest.approx(tuple(value) if isinstance(value, list | tuple) else value, rel=1e-6, abs=1e-7)


# ------------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": NAN},
        {"mean": None},
        {"mean": True},
        {"std": math.inf},
        {"published": "7"},
        {"row": ""},
        {"metric": ""},
        {"interval": (2.0, 1.0)},
        {"interval": (1.0, NAN)},
        {"interval": (1.0,)},
    ],
)
def test_a_row_refuses_what_no_file_may_hold(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"row": "FLD", "metric": "mean error", "mean": 7.5, "interval": (7.0, 8.0)}
    assert Row(**good).key == ("FLD", "mean error")  # type: ignore[arg-type]
    with pytest.raises(PolyfaceError, match="result row"):
        Row(**(good | wrong))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- undefined draws


def test_a_figure_that_no_resample_defines_has_neither_interval_nor_difference() -> None:
    @dataclass(frozen=True)
    class Whole(Toy):
        """Defined of every unit once, and of nothing else."""

        def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
            return {metric: np.where((counts == 1).all(1), 7.0, NAN) for metric in wanted}

    result = Whole(np.arange(30.0))
    (row,) = rows("x", {0: result}, resamples=50)
    assert (row.mean, row.interval) == (14.5, None)
    assert differences("x", "y", {0: result}, {0: result}, resamples=50) == []
