"""How well attributes are told: accuracy, balanced accuracy, F1 and average precision, each by itself and on average.

Every attribute has its own mask. All figures but average precision follow from four counts (faces that have or lack the
attribute, and how many of each are called so), so one routine gives them for all attributes, runs and resamples. An
attribute that is rare is called right by always saying no: therefore the majority class stands beside every accuracy,
and balanced accuracy, F1 and average precision beside that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError, nearest
from polyface.metrics.resampling import (
    Floats,
    Interval,
    PairedDifference,
    Row,
    difference_of_runs,
    over_runs,
    percentile_interval,
    ratio,
    resampled_means,
    summarise,
)

Bools = NDArray[np.bool_]

_FIELDS = {"mean accuracy": "accuracy", "mean balanced accuracy": "balanced_accuracy", "mean F1": "f1"}
"""The means that counts alone give, with the field of a result that holds each."""


@dataclass(frozen=True)
class AttributeResult:
    """One attribute over its `n` labelled faces, of which `positive_rate` have it; all rates in percent.

    All are NaN without a labelled face. `balanced_accuracy` (mean recall of both classes), `f1` (of the positive class)
    and `average_precision` compare two classes: they are NaN where the labelled faces are all of one.
    """

    n: int
    positive_rate: float
    accuracy: float
    floor: float
    balanced_accuracy: float
    f1: float
    average_precision: float


@dataclass(frozen=True)
class AttributesResult:
    """Attributes over the `n` faces that are labelled for any of them; rates in percent, means over attributes.

    An attribute whose figure is NaN is left out of that figure's mean: those of `never_labelled` out of all,
    those of `one_class` out of all but accuracy and floor. A mean over none is NaN, its interval None. `floor` is what
    always answering each attribute's majority class scores; `majority_of` says whose majority: "training faces" or
    "judged faces" (which bounds the former from above). Intervals are over faces. `positive` (as called) and `truth`
    (±1, NaN where unknown) are [N, K] in the order given; `unlabelled` of these faces are part of nothing.
    """

    n: int
    unlabelled: int
    accuracy: float
    balanced_accuracy: float
    f1: float
    average_precision: float
    floor: float
    majority_of: str
    accuracy_interval: Interval | None
    balanced_accuracy_interval: Interval | None
    f1_interval: Interval | None
    never_labelled: tuple[str, ...]
    one_class: tuple[str, ...]
    per_attribute: dict[str, AttributeResult]
    positive: Bools = field(repr=False, compare=False)
    truth: Floats = field(repr=False, compare=False)


def average_precision(scores: ArrayLike, has: ArrayLike) -> float:
    """Area under precision over recall as a step function, Σ (R_i − R_{i−1}) P_i over the distinct scores from the
    highest down, in percent; faces of equal score [N] enter together. NaN unless some faces have it and some lack it.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(has, dtype=bool)
    if positive.all() or not positive.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)  # of each run of equal scores
    found = positive[order].cumsum()[last]
    return float(100 * (np.diff(found, prepend=0) * found / (last + 1)).sum() / found[-1])


def majority_classes(truth: ArrayLike) -> Floats:
    """The more frequent of −1 and 1 for each attribute of `truth` [N, K] (−1 on a tie): [K], NaN without a label."""
    known = np.asarray(truth, dtype=np.float64)
    labelled = ~np.isnan(known)
    more = np.where(np.where(labelled, known, 0).sum(0) > 0, 1.0, -1.0)
    return np.where(labelled.any(0), more, np.nan)


def _columns(positive: Bools, truth: Floats) -> Floats:
    """Per face of called [runs, N, K] and true [N, K] attributes: has it, lacks it, and for each run has it and is
    called so, lacks it and is called so: [N, 2 + 2·runs, K]."""
    has, lacks = truth > 0, truth < 0
    return np.stack([has, lacks, *(has & positive), *(lacks & ~positive)], axis=1).astype(np.float64)


def _figures(counts: Floats) -> dict[str, Floats]:
    """Percentages [..., runs, K] of every attribute, from sums or means over faces of `_columns`."""
    runs = counts.shape[-2] // 2 - 1
    has, lacks = counts[..., :1, :], counts[..., 1:2, :]
    hits, rejections = counts[..., 2 : 2 + runs, :], counts[..., 2 + runs :, :]
    balanced = (ratio(hits, has) + ratio(rejections, lacks)) / 2
    f1 = ratio(2 * hits, hits + has + lacks - rejections)
    figures = (ratio(hits + rejections, has + lacks), balanced, np.where(np.isnan(balanced), np.nan, f1))
    return {name: 100 * values for name, values in zip(_FIELDS, figures, strict=True)}


def _mean(values: Floats) -> Floats:
    """The mean over the last axis, NaN left out; NaN if all are."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def _resampled(positive: Bools, truth: Floats, resamples: int, seed: int) -> dict[str, Floats]:
    """`_figures` [resamples, runs, K] over faces drawn with replacement."""
    columns = _columns(positive, truth)
    means = resampled_means(columns.reshape(len(columns), -1), resamples, seed)
    return _figures(means.reshape(resamples, *columns.shape[1:]))


def _interval(figures: Floats, level: float) -> Interval | None:
    return None if np.isnan(figures).all() else percentile_interval(figures, level)


def _checked(
    scores: ArrayLike, positive: ArrayLike, truth: ArrayLike, attributes: Sequence[str]
) -> tuple[Floats, Bools, Floats]:
    values, known = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    called = np.asarray(positive)
    if not (values.shape == called.shape == known.shape and known.ndim == 2 and known.shape[1] == len(attributes)):
        raise PolyfaceError(
            f"scores {list(values.shape)}, positive {list(called.shape)} and truth {list(known.shape)} must all be "
            f"[faces, {len(attributes)}], a column for each of the attributes named"
        )
    if called.dtype != bool:
        raise PolyfaceError(f"positive must be bool, one answer a face and attribute, not {called.dtype}")
    labelled = ~np.isnan(known)
    if (wrong := known[labelled & (np.abs(known) != 1)]).size:
        raise PolyfaceError(f"true attributes must be -1, 1 or NaN (unknown), found {wrong[0]:g}")
    if not labelled.any():
        raise PolyfaceError("no face is labelled with any attribute: nothing to evaluate")
    bad = np.flatnonzero((labelled & ~np.isfinite(values)).any(1))
    if bad.size:
        raise PolyfaceError(
            f"{bad.size} faces have scores that are not finite (the first is face {bad[0]}): the network diverged"
        )
    return values, called, known


def _majority(given: ArrayLike | None, truth: Floats, attributes: Sequence[str]) -> Floats:
    if given is None:
        return majority_classes(truth)
    chosen = np.asarray(given, dtype=np.float64)
    if chosen.shape != (len(attributes),):
        raise PolyfaceError(f"majority must be {len(attributes)} classes, one an attribute, not {list(chosen.shape)}")
    for place in np.flatnonzero((~np.isnan(truth)).any(0) & (np.abs(chosen) != 1)).tolist():
        raise PolyfaceError(f"the majority class of {attributes[place]} is {chosen[place]:g}; expected -1 or 1")
    return chosen


def evaluate_attributes(
    scores: ArrayLike,
    positive: ArrayLike,
    truth: ArrayLike,
    attributes: Sequence[str],
    *,
    majority: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> AttributesResult:
    """Judge answers against true attributes [N, K] of −1, 1 and NaN (unknown), named by `attributes`.

    `scores` [N, K] rank the faces (average precision); `positive` bool [N, K] is what was answered, at whatever
    thresholds. `majority` [K], −1 or 1, is what the floor always answers: `majority_classes` of the *training* labels;
    by default it is the majority of the judged faces. Intervals are percentile bootstraps over faces (`resamples=0`:
    none); an attribute that a resample leaves without labels (or a class) is left out of that resample's mean.
    """
    values, called, known = _checked(scores, positive, truth, attributes)
    chosen, labelled = _majority(majority, known, attributes), ~np.isnan(known)
    count = labelled.sum(0)
    figures = {name: found[0] for name, found in _figures(_columns(called[None], known).sum(0)).items()}
    floor = 100 * ratio((known == chosen).sum(0), count)
    precision = [
        average_precision(values[rows, k], known[rows, k] > 0) if rows.any() else np.nan
        for k, rows in enumerate(labelled.T)
    ]
    columns = [100 * ratio((known > 0).sum(0), count), figures["mean accuracy"], floor]
    columns += [figures["mean balanced accuracy"], figures["mean F1"], np.array(precision)]
    per_attribute = {
        name: AttributeResult(int(count[k]), *(float(column[k]) for column in columns))
        for k, name in enumerate(attributes)
    }
    judged = labelled.any(1)
    drawn = _resampled(called[None, judged], known[judged], resamples, seed) if resamples else {}
    intervals = {name: _interval(_mean(found[:, 0]), level) for name, found in drawn.items()}
    return AttributesResult(
        n=int(judged.sum()),
        unlabelled=int((~judged).sum()),
        accuracy=float(_mean(figures["mean accuracy"])),
        balanced_accuracy=float(_mean(figures["mean balanced accuracy"])),
        f1=float(_mean(figures["mean F1"])),
        average_precision=float(_mean(columns[-1])),
        floor=float(_mean(floor)),
        majority_of="judged faces" if majority is None else "training faces",
        accuracy_interval=intervals.get("mean accuracy"),
        balanced_accuracy_interval=intervals.get("mean balanced accuracy"),
        f1_interval=intervals.get("mean F1"),
        never_labelled=tuple(name for name, one in per_attribute.items() if not one.n),
        one_class=tuple(name for name, one in per_attribute.items() if one.positive_rate in (0, 100)),
        per_attribute=per_attribute,
        positive=called,
        truth=known,
    )


def _runs(results: Iterable[AttributesResult]) -> tuple[Bools, Floats, int]:
    """Called [runs, n, K] and true [n, K] attributes of the labelled faces of several results over the same faces, and
    how many faces are not labelled."""
    first, *others = results
    for other in others:
        if list(other.per_attribute) != list(first.per_attribute):
            raise PolyfaceError("results to be averaged or compared must be of the same attributes")
        if not np.array_equal(other.truth, first.truth, equal_nan=True):
            raise PolyfaceError("results to be averaged or compared must be of the same faces, in the same order")
    judged = ~np.isnan(first.truth).all(1)
    positive = np.stack([result.positive[judged] for result in (first, *others)])
    return positive, first.truth[judged], first.unlabelled


def attribute_rows(
    name: str,
    results: Mapping[int, AttributesResult],
    *,
    published: Mapping[str, float] | None = None,
    note: str = "",
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """The results rows of one method, from its results by training seed over the same faces.

    "mean accuracy", "mean balanced accuracy", "mean F1", "mean AP" and "majority class" under `name`; then "accuracy"
    of every attribute under "<name>: <attribute>". Mean and std are over seeds. Intervals are bootstraps over faces
    and, for several seeds, over seeds as well (see `difference_of_runs`). A figure that is defined for no attribute has
    no row. `published` maps the metric of a mean to the paper's figure. What was left out is named in the notes.
    """
    if not results:
        raise PolyfaceError(f"{name}: give one result per seed")
    first, found = next(iter(results.values())), list(results.values())
    positive, truth, _ = _runs(found)
    drawn = _resampled(positive, truth, resamples, 0)
    unlabelled = f"{first.unlabelled} faces without any label" if first.unlabelled else ""
    absent = f"left out, no face labelled: {', '.join(first.never_labelled)}" if first.never_labelled else ""
    single = f"left out, only one class: {', '.join(first.one_class)}" if first.one_class else ""

    def row(of: str, metric: str, values: Sequence[float], n: int, figures: Floats | None, *notes: str) -> list[Row]:
        if np.isnan(values).any():
            return []
        summary = summarise(values)
        interval = None if figures is None else _interval(over_runs(figures, np.random.default_rng(1)), level)
        paper = (published or {}).get(metric) if of == name else None
        told = "; ".join(filter(None, (note, *notes)))
        ends = interval.ends if interval else None
        return [Row(of, metric, summary.mean, summary.std, n, tuple(results), ends, paper, note=told)]

    rows = []
    for metric, of in _FIELDS.items():
        left_out = (unlabelled, absent) if metric == "mean accuracy" else (unlabelled, absent, single)
        rows += row(name, metric, [getattr(r, of) for r in found], first.n, _mean(drawn[metric]), *left_out)
    rows += row(name, "mean AP", [r.average_precision for r in found], first.n, None, unlabelled, absent, single)
    about = f"always each attribute's majority class among the {first.majority_of}"
    rows.append(Row(name, "majority class", first.floor, None, first.n, note="; ".join(filter(None, (about, absent)))))
    for place, (attribute, one) in enumerate(first.per_attribute.items()):
        values = [r.per_attribute[attribute].accuracy for r in found]
        rows += row(f"{name}: {attribute}", "accuracy", values, one.n, drawn["mean accuracy"][..., place])
    return rows


def paired_difference(
    a: Sequence[AttributesResult],
    b: Sequence[AttributesResult],
    *,
    statistic: str = "mean accuracy",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Bootstrap the difference a − b of two systems' results, one a training seed, over the same faces (positive: a is
    better).

    Faces are resampled jointly, with several seeds the seeds as well: see `difference_of_runs`. `statistic` is "mean
    accuracy", "mean balanced accuracy" or "mean F1". Faces without any label are left out and counted.
    """
    if statistic not in _FIELDS:
        raise PolyfaceError(f"unknown statistic '{statistic}': {nearest(statistic, _FIELDS)}")
    if not a or not b:
        raise PolyfaceError("a difference needs a result of each system, one a training seed")
    positive, truth, unlabelled = _runs([*a, *b])
    drawn = _mean(_resampled(positive, truth, resamples, seed)[statistic])
    means = [float(np.mean([getattr(result, _FIELDS[statistic]) for result in system])) for system in (a, b)]
    if np.isnan(means).any():
        raise PolyfaceError(f"{statistic} is defined for no attribute: the labelled faces are all of one class")
    return difference_of_runs(
        drawn[:, : len(a)],
        drawn[:, len(a) :],
        means[0] - means[1],
        n=truth.shape[0],
        excluded=unlabelled,
        seed=seed,
        level=level,
    )
