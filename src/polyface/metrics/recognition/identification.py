"""How well people of a closed set are named, from a score for each: accuracy over faces, and its mean over people.

Source: Ming, Burie & Luqman 2021, Table 2. Ties lose: a network that answers the same for everybody knows nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError, nearest
from polyface.metrics.resampling import (
    Floats,
    Interval,
    PairedDifference,
    Row,
    percentile_interval,
    ratio,
    resampled_means,
)
from polyface.metrics.runs import compared, difference, mean_of_defined, results_of, row_of_runs

Bools = NDArray[np.bool_]

_STATISTICS = {"accuracy": "accuracy", "person mean": "person_mean"}
"""The figures, with the field of a result that holds each."""


@dataclass(frozen=True)
class IdentificationResult:
    """Closed-set identification of `n` faces of `people` people among `classes` known ones; rates in percent.

    `person_mean` is the mean over people of the accuracy on their faces, so that people with many faces do not decide
    it. `unlabelled` faces are part of nothing. `correct` and `person` (class index) are [n].
    """

    n: int
    unlabelled: int
    classes: int
    people: int
    accuracy: float
    person_mean: float
    accuracy_interval: Interval | None
    person_mean_interval: Interval | None
    correct: Bools = field(repr=False, compare=False)
    person: NDArray[np.int64] = field(repr=False, compare=False)


def evaluate_identification(
    scores: ArrayLike,
    people: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> IdentificationResult:
    """Judge scores [N, K], probabilities or logits, against the true class [N] of each face; −1: not labelled.

    A face is right if the score of its person is above every other; one that shares the highest score is wrong.
    Intervals are percentile bootstraps over faces (`resamples=0`: none).
    """
    values, known = np.asarray(scores, dtype=np.float64), np.asarray(people)
    if values.ndim != 2 or known.shape != values.shape[:1] or not np.issubdtype(known.dtype, np.integer):
        raise PolyfaceError(
            f"scores must be [faces, people] and the true people class indices [faces], found {list(values.shape)} and "
            f"{known.dtype} {list(known.shape)}"
        )
    labelled = known >= 0
    if not labelled.any():
        raise PolyfaceError("no face is labelled with a person: nothing to evaluate")
    if known.max() >= values.shape[1]:
        raise PolyfaceError(f"a face is of class {known.max()}, but there are scores for {values.shape[1]} only")
    bad = np.flatnonzero(labelled & ~np.isfinite(values).all(1))
    if bad.size:
        raise PolyfaceError(
            f"{bad.size} faces have scores that are not finite (the first is face {bad[0]}): the network diverged"
        )
    values, person = values[labelled], known[labelled].astype(np.int64)
    rows = np.arange(len(person))
    own = values[rows, person]
    values[rows, person] = -np.inf
    correct = own > values.max(1)
    figures = _figures(_columns(correct[None], person).mean(0)[None], 1)
    drawn = _resampled(correct[None], person, resamples, seed) if resamples else {}
    intervals = {name: percentile_interval(one[:, 0], level) for name, one in drawn.items()}
    return IdentificationResult(
        n=len(person),
        unlabelled=int((~labelled).sum()),
        classes=values.shape[1],
        people=len(np.unique(person)),
        accuracy=float(figures["accuracy"][0, 0]),
        person_mean=float(figures["person mean"][0, 0]),
        accuracy_interval=intervals.get("accuracy"),
        person_mean_interval=intervals.get("person mean"),
        correct=correct,
        person=person,
    )


def _columns(correct: Bools, person: NDArray[np.int64]) -> Floats:
    """Per face: whether each run names it rightly, whose it is, both for each run: [N, runs + (1 + runs)·people]."""
    of_person = person[:, None] == np.unique(person)
    return np.hstack([correct.T, of_person, *(of_person & run[:, None] for run in correct)]).astype(np.float64)


def _figures(means: Floats, runs: int) -> dict[str, Floats]:
    """Figures [R, runs] from means over faces of `_columns` [R, …]; people that a resample lacks are left out of it."""
    shares = means[:, runs:].reshape(len(means), 1 + runs, -1)
    return {
        "accuracy": 100 * means[:, :runs],
        "person mean": 100 * mean_of_defined(ratio(shares[:, 1:], shares[:, :1])),
    }


def _resampled(correct: Bools, person: NDArray[np.int64], resamples: int, seed: int) -> dict[str, Floats]:
    return _figures(resampled_means(_columns(correct, person), resamples, seed), len(correct))


def _named(results: Sequence[IdentificationResult]) -> tuple[Bools, NDArray[np.int64]]:
    """Which faces each run names rightly [runs, n], and whose they are [n]."""
    first, *others = results
    if any(not np.array_equal(other.person, first.person) for other in others):
        raise PolyfaceError("results to be averaged or compared must be of the same faces, in the same order")
    return np.stack([result.correct for result in results]), first.person


def identification_rows(
    name: str,
    results: Mapping[int, IdentificationResult],
    metric: str,
    *,
    published: Mapping[str, float] | None = None,
    note: str = "",
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """The results rows of one method, from its results by training seed over the same faces: `metric` ("visual id",
    "caricature id") is the accuracy, "<metric>, mean over people" the other figure.

    Mean and std are over seeds. Intervals are bootstraps over faces and, for several seeds, over seeds as well (see
    `difference_of_runs`). `published` maps a metric to the paper's figure.
    """
    found = results_of(name, results)
    drawn = _resampled(*_named(found), resamples, 0) if resamples else {}
    left_out = f"{found[0].unlabelled} faces without a label" if found[0].unlabelled else ""
    rows = []
    for statistic, of in _STATISTICS.items():
        title = metric if statistic == "accuracy" else f"{metric}, mean over people"
        rows.append(
            row_of_runs(
                name,
                title,
                [getattr(one, of) for one in found],
                drawn.get(statistic),
                n=found[0].n,
                runs=results,
                published=(published or {}).get(title),
                notes=(note, left_out),
                level=level,
            )
        )
    return rows


def paired_difference(
    a: Sequence[IdentificationResult],
    b: Sequence[IdentificationResult],
    *,
    statistic: str = "accuracy",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Bootstrap the difference a − b of two systems' results, one a training seed, over the same faces (positive: a is
    better).

    Faces are resampled jointly, with several seeds the seeds as well: see `difference_of_runs`. `statistic` is
    "accuracy" or "person mean".
    """
    if statistic not in _STATISTICS:
        raise PolyfaceError(f"unknown statistic '{statistic}': {nearest(statistic, _STATISTICS)}")
    (both,) = compared(a, b)
    _named(both)  # over the same faces
    return difference(
        a,
        b,
        lambda side: _resampled(*_named(side), resamples, seed)[statistic],
        lambda one: float(getattr(one, _STATISTICS[statistic])),
        lambda one: (one.n, one.unlabelled),
        seed=seed,
        level=level,
    )
