"""How well attributes are told: accuracy, balanced accuracy, F1 and average precision, each by itself and on average.

Every attribute has its own mask. All figures but average precision follow from four counts (faces that have or lack the
attribute, and how many of each are called so), so one routine gives them for all attributes, runs and resamples. An
attribute that is rare is called right by always saying no: therefore the majority class stands beside every accuracy,
and balanced accuracy, F1 and average precision beside that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError, check_names
from polyface.metrics.faces import OverFaces
from polyface.metrics.resampling import Bools, Counts, Floats, mean_of_defined, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Section, Table, cell

_FIELDS = {
    "mean accuracy": "accuracy",
    "mean balanced accuracy": "balanced_accuracy",
    "mean F1": "f1",
    "mean AP": "average_precision",
    "majority class": "floor",
}
"""The means over attributes, with the field of a result that holds each; the first three follow from counts alone."""


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
class AttributesResult(OverFaces):
    """Attributes over the `n` faces that are labelled for any of them; rates in percent, means over attributes. Units
    are all faces.

    An attribute whose figure is NaN is left out of that figure's mean: those of `never_labelled` out of all,
    those of `one_class` out of all but accuracy and floor. A mean over none is NaN. `floor` is what always answering
    each attribute's majority class scores; `majority_of` says whose majority: "training faces" or "evaluated faces"
    (which bounds the former from above). `positive` (as called) and `truth` (±1, NaN where unknown) are [N, K] in the
    order given; `unlabelled` of these faces are part of nothing.
    """

    majority_of: str
    key: str
    per_attribute: dict[str, AttributeResult]
    positive: Bools = field(repr=False, compare=False)
    truth: Floats = field(repr=False, compare=False)

    def among(self, attributes: Sequence[str]) -> AttributesResult:
        """The same of some of the attributes alone, over the same faces."""
        check_names(attributes, self.per_attribute, "attributes")
        places = [list(self.per_attribute).index(name) for name in attributes]
        each = {name: self.per_attribute[name] for name in attributes}
        key = digest(self.key, *attributes)
        return AttributesResult(self.majority_of, key, each, self.positive[:, places], self.truth[:, places])

    @property
    def labelled(self) -> Bools:
        """Faces with any label: an attribute of which a resample has none is left out of that resample's means."""
        return np.asarray(~np.isnan(self.truth).all(1))

    @property
    def accuracy(self) -> float:
        return self._mean("accuracy")

    @property
    def balanced_accuracy(self) -> float:
        return self._mean("balanced_accuracy")

    @property
    def f1(self) -> float:
        return self._mean("f1")

    @property
    def average_precision(self) -> float:
        return self._mean("average_precision")

    @property
    def floor(self) -> float:
        return self._mean("floor")

    def _mean(self, of: str) -> float:
        return float(mean_of_defined(np.array([getattr(one, of) for one in self.per_attribute.values()])))

    @property
    def never_labelled(self) -> tuple[str, ...]:
        return tuple(name for name, one in self.per_attribute.items() if not one.n)

    @property
    def one_class(self) -> tuple[str, ...]:
        return tuple(name for name, one in self.per_attribute.items() if one.positive_rate in (0, 100))

    @property
    def metrics(self) -> list[Metric]:
        """The means, then "accuracy" of every attribute. Average precision is too dear to resample."""
        unlabelled = f"{self.unlabelled} faces without any label" if self.unlabelled else ""
        absent = f"left out, no face labelled: {', '.join(self.never_labelled)}" if self.never_labelled else ""
        single = f"left out, only one class: {', '.join(self.one_class)}" if self.one_class else ""
        floor = f"always each attribute's majority class among the {self.majority_of}"
        n, every, two = self.n, _told(unlabelled, absent), _told(unlabelled, absent, single)
        return [
            Metric("mean accuracy", n=n, note=every),
            Metric("mean balanced accuracy", n=n, note=two),
            Metric("mean F1", n=n, note=two),
            Metric("mean AP", n=n, note=two, resampled=False),
            Metric("majority class", n=n, note=_told(floor, absent), resampled=False, trained=False),
            *(Metric("accuracy", name, n=one.n, compared=False) for name, one in self.per_attribute.items()),
        ]

    def figure(self, metric: Metric) -> float:
        if metric.part:
            return self.per_attribute[metric.part].accuracy
        return float(getattr(self, _FIELDS[metric.name]))

    @cached_property
    def _columns(self) -> Floats:
        return _columns(self.positive, self.truth).reshape(self.units, -1)

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        scored = counts if judged is None else counts * judged
        each = _figures((scored @ self._columns).reshape(len(counts), 4, -1))
        places = {name: place for place, name in enumerate(self.per_attribute)}
        return {
            metric: each["mean accuracy"][:, places[metric.part]] if metric.part else mean_of_defined(each[metric.name])
            for metric in wanted
        }

    def sections(self) -> list[Section]:
        header = [">have it", ">majority", ">accuracy", ">balanced accuracy", ">F1", ">average precision"]
        body = [
            [
                name, cell(one.positive_rate, 1), cell(one.floor), cell(one.accuracy),
                cell(one.balanced_accuracy), cell(one.f1), cell(one.average_precision),
            ]
            for name, one in self.per_attribute.items()
        ]  # fmt: skip
        return [Section("each attribute", [Table(["attribute", *header], body, "In percent.")])]


def _told(*notes: str) -> str:
    return "; ".join(filter(None, notes))


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
    """Per face of called and true attributes [N, K]: has it, lacks it, has it and is called so, lacks it and is called
    so: [N, 4, K]."""
    has, lacks = truth > 0, truth < 0
    return np.stack([has, lacks, has & positive, lacks & ~positive], axis=1).astype(np.float64)


def _figures(counts: Floats) -> dict[str, Floats]:
    """Percentages [..., K] of every attribute, from sums over faces of `_columns` [..., 4, K]."""
    has, lacks, hits, rejections = np.moveaxis(counts, -2, 0)
    balanced = (ratio(hits, has) + ratio(rejections, lacks)) / 2
    f1 = ratio(2 * hits, hits + has + lacks - rejections)
    figures = (ratio(hits + rejections, has + lacks), balanced, np.where(np.isnan(balanced), np.nan, f1))
    return {name: 100 * values for name, values in zip(_FIELDS, figures, strict=False)}


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
) -> AttributesResult:
    """Evaluate answers against true attributes [N, K] of −1, 1 and NaN (unknown), named by `attributes`.

    `scores` [N, K] rank the faces (average precision); `positive` bool [N, K] is what was answered, at whatever
    thresholds. `majority` [K], −1 or 1, is what the floor always answers: `majority_classes` of the *training* labels;
    by default it is the majority of the evaluated faces.
    """
    values, called, known = _checked(scores, positive, truth, attributes)
    chosen, labelled = _majority(majority, known, attributes), ~np.isnan(known)
    count = labelled.sum(0)
    figures = _figures(_columns(called, known).sum(0))
    precision = [
        average_precision(values[rows, k], known[rows, k] > 0) if rows.any() else np.nan
        for k, rows in enumerate(labelled.T)
    ]
    columns = [100 * ratio((known > 0).sum(0), count), figures["mean accuracy"]]
    columns += [100 * ratio((known == chosen).sum(0), count)]
    columns += [figures["mean balanced accuracy"], figures["mean F1"], np.array(precision)]
    per_attribute = {
        name: AttributeResult(int(count[k]), *(float(column[k]) for column in columns))
        for k, name in enumerate(attributes)
    }
    majority_of = "evaluated faces" if majority is None else "training faces"
    key = digest(known, *attributes, chosen)
    return AttributesResult(majority_of, key, per_attribute, called, known)
