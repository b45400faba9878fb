"""How well classes are told: accuracy, balanced accuracy, majority-class floor, confusion matrix, under masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError, short
from polyface.metrics.faces import OverFaces
from polyface.metrics.resampling import Bools, Counts, Floats, mean_of_defined, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Section, Table, cell

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ClassificationResult(OverFaces):
    """Classification over `n` labelled faces; every rate in percent. Units are all faces.

    `floor` is what always answering the majority class would score on the same faces: an accuracy means little
    without it. `confusion[i][j]` counts faces of class i that were called j. `recall` is NaN for an absent class;
    `balanced_accuracy` is the mean recall of the classes present. `unlabelled` faces are part of nothing. `predicted`
    and `truth` are class indices [N], −1 where the face is not labelled.
    """

    labels: tuple[str, ...]
    majority: str
    key: str
    predicted: Indices = field(repr=False, compare=False)
    truth: Indices = field(repr=False, compare=False)

    @property
    def labelled(self) -> Bools:
        return np.asarray(self.truth >= 0)

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        known = self.labelled
        counts = confusion_matrix(self.predicted[known], self.truth[known], len(self.labels))
        return tuple(tuple(row) for row in counts.tolist())

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Labelled faces of each class."""
        return np.bincount(self.truth[self.labelled], minlength=len(self.labels))

    @property
    def recall(self) -> tuple[float, ...]:
        hits = np.bincount(self.truth[self.labelled & (self.predicted == self.truth)], minlength=len(self.labels))
        return tuple((100 * ratio(hits, self.sizes)).tolist())

    @property
    def accuracy(self) -> float:
        return float(100 * (self.predicted == self.truth)[self.labelled].mean())

    @property
    def balanced_accuracy(self) -> float:
        return float(mean_of_defined(np.array(self.recall)))

    @property
    def floor(self) -> float:
        return float(100 * (self.truth == self.labels.index(self.majority))[self.labelled].mean())

    @property
    def metrics(self) -> list[Metric]:
        floor = Metric("majority class", n=self.n, trained=False, resampled=False, note=f"always {self.majority}")
        return [Metric("accuracy", n=self.n), Metric("balanced accuracy", n=self.n), floor]

    def figure(self, metric: Metric) -> float:
        return float(getattr(self, "floor" if metric.name == "majority class" else metric.name.replace(" ", "_")))

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        scored = counts if judged is None else counts * judged
        of_class = (self.truth[:, None] == np.flatnonzero(self.sizes)).astype(
            np.float64
        )  # of 20,000 people few are shown
        hits, sizes = scored @ (of_class * (self.predicted == self.truth)[:, None]), scored @ of_class
        found = {
            Metric("accuracy"): 100 * ratio(hits.sum(1), sizes.sum(1)),
            Metric("balanced accuracy"): 100 * mean_of_defined(ratio(hits, sizes)),
        }
        return {metric: found[metric] for metric in wanted}

    def sections(self) -> list[Section]:
        if len(self.labels) > _FEW:
            return [Section("mistakes", [self._mistakes()])]
        counts = np.array(self.confusion)
        body = [
            [label, f"{counts[i].sum():,}", cell(self.recall[i]), *map(str, counts[i])]
            for i, label in enumerate(self.labels)
        ]
        header = ["labelled", ">n", ">recall, %", *(f">as {label}" for label in self.labels)]
        return [Section("by class", [Table(header, body, "How many faces of a class are called which.")])]

    def _mistakes(self) -> Table:
        """What of many classes is most often taken for what."""
        wrong = self.labelled & (self.predicted != self.truth)
        pairs, counts = np.unique(np.stack([self.truth, self.predicted])[:, wrong], axis=1, return_counts=True)
        sizes, most = self.sizes, np.argsort(-counts, kind="stable")[:_SHOWN]
        body = [
            [self.labels[i], f"{sizes[i]:,}", self.labels[j], f"{n:,}"]
            for (i, j), n in zip(pairs.T[most], counts[most], strict=True)
        ]
        said = f"The {len(body)} most frequent mistakes of {len(self.labels):,} classes."
        return Table(["labelled", ">n", "called", ">times"], body, said)


_FEW = 40  # classes whose confusion matrix can be read
_SHOWN = 20  # mistakes among more classes


def _classes(values: ArrayLike, what: str, classes: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise PolyfaceError(f"{what} must be class indices of shape [faces], found {array.dtype} {list(array.shape)}")
    if array.size and array.max() >= classes:
        raise PolyfaceError(f"{what} hold class {array.max()}, but only {classes} labels are named")
    return array.astype(np.int64)


def confusion_matrix(predicted: NDArray[Any], truth: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Counts [classes, classes] of labelled faces: rows are the true class, columns the predicted one."""
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def evaluate_classification(
    predicted: ArrayLike,
    truth: ArrayLike,
    labels: Sequence[str],
    *,
    labelled: ArrayLike | None = None,
    majority: str | None = None,
) -> ClassificationResult:
    """Evaluate predicted class indices [N] against the true ones [N] over the faces that are labelled.

    `labelled` [N] is the mask; without it, a negative true index means "not labelled". `majority` names the class that
    the floor always answers (the most frequent of the *training* labels); by default it is the most frequent of the
    evaluated faces, which bounds that from above.
    """
    guess, known = _classes(predicted, "predictions", len(labels)), _classes(truth, "true labels", len(labels))
    if guess.shape != known.shape:
        raise PolyfaceError(f"{len(guess)} predictions do not match {len(known)} true labels")
    mask = known >= 0 if labelled is None else np.asarray(labelled, dtype=bool)
    if mask.shape != known.shape:
        raise PolyfaceError(f"the mask {list(mask.shape)} does not match the true labels {list(known.shape)}")
    if not mask.any():
        raise PolyfaceError(f"no face is labelled with one of {short(', '.join(labels))}: nothing to evaluate")
    if guess[mask].min() < 0 or known[mask].min() < 0:
        raise PolyfaceError("a labelled face has a negative class index: predictions and labels count from 0")
    if majority is not None and majority not in labels:
        raise PolyfaceError(f"the majority class '{majority}' is none of {short(', '.join(labels))}")
    known = np.where(mask, known, -1)
    chosen = majority or labels[int(np.bincount(known[mask], minlength=len(labels)).argmax())]
    return ClassificationResult(tuple(labels), chosen, digest(known, *labels, chosen), guess, known)
