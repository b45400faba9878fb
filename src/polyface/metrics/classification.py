"""How well classes are told: accuracy, balanced accuracy, majority-class floor, confusion matrix, under masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Interval, percentile_interval, ratio, resampled_means


@dataclass(frozen=True)
class ClassificationResult:
    """Classification over `n` labelled faces; every rate in percent.

    `floor` is what always answering the majority class would score on the same faces: an accuracy means little
    without it. `confusion[i][j]` counts faces of class i that were called j. `recall` is NaN for an absent class;
    `balanced_accuracy` is the mean recall of the classes present. `unlabelled` faces are part of nothing.
    """

    n: int
    unlabelled: int
    labels: tuple[str, ...]
    accuracy: float
    balanced_accuracy: float
    floor: float
    majority: str
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    accuracy_interval: Interval | None
    balanced_accuracy_interval: Interval | None


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
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> ClassificationResult:
    """Judge predicted class indices [N] against the true ones [N] over the faces that are labelled.

    `labelled` [N] is the mask; without it, a negative true index means "not labelled". `majority` names the class that
    the floor always answers (the most frequent of the *training* labels); by default it is the most frequent of the
    judged faces, which bounds that from above. Intervals are percentile bootstraps over faces (`resamples=0`: none).
    """
    guess, known = _classes(predicted, "predictions", len(labels)), _classes(truth, "true labels", len(labels))
    if guess.shape != known.shape:
        raise PolyfaceError(f"{len(guess)} predictions do not match {len(known)} true labels")
    mask = known >= 0 if labelled is None else np.asarray(labelled, dtype=bool)
    if mask.shape != known.shape:
        raise PolyfaceError(f"the mask {list(mask.shape)} does not match the true labels {list(known.shape)}")
    total, guess, known = len(known), guess[mask], known[mask]
    if not len(known):
        raise PolyfaceError(f"no face is labelled with one of {', '.join(labels)}: nothing to evaluate")
    if guess.min() < 0 or known.min() < 0:
        raise PolyfaceError("a labelled face has a negative class index: predictions and labels count from 0")
    confusion = confusion_matrix(guess, known, len(labels))
    recall = 100 * ratio(confusion.diagonal(), confusion.sum(1))
    chosen = int(confusion.sum(1).argmax()) if majority is None else _index(majority, labels)
    accuracy_interval = balanced_interval = None
    if resamples:
        of_class = np.eye(len(labels))[known]
        correct = (guess == known)[:, None]
        means = resampled_means(np.hstack([of_class * correct, of_class]), resamples, seed)
        hits, sizes = means[:, : len(labels)], means[:, len(labels) :]
        accuracy_interval = percentile_interval(100 * hits.sum(1), level)
        balanced_interval = percentile_interval(100 * np.nanmean(ratio(hits, sizes), axis=1), level)
    return ClassificationResult(
        n=len(known),
        unlabelled=total - len(known),
        labels=tuple(labels),
        accuracy=float(100 * (guess == known).mean()),
        balanced_accuracy=float(np.nanmean(recall)),
        floor=float(100 * (known == chosen).mean()),
        majority=labels[chosen],
        recall=tuple(recall.tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        accuracy_interval=accuracy_interval,
        balanced_accuracy_interval=balanced_interval,
    )


def _index(label: str, labels: Sequence[str]) -> int:
    if label not in labels:
        raise PolyfaceError(f"the majority class '{label}' is none of {', '.join(labels)}")
    return labels.index(label)
