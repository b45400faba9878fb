"""How well people of a closed set are named, from a score for each: accuracy over faces, and its mean over people.

Source: Ming, Burie & Luqman 2021, Table 2. Ties lose: a network that answers the same for everybody knows nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError
from polyface.metrics.faces import OverFaces
from polyface.metrics.resampling import Bools, Counts, Floats, mean_of_defined, ratio
from polyface.metrics.result import Metric, digest


@dataclass(frozen=True)
class IdentificationResult(OverFaces):
    """Closed-set identification of `n` faces of `people` people among `classes` known ones; rates in percent. Units are
    all faces.

    `person_mean` is the mean over people of the accuracy on their faces, so that people with many faces do not decide
    it. `unlabelled` faces are part of nothing. `correct` and `person` (class index; −1: not labelled) are [N]. `metric`
    is what the accuracy is called in rows.
    """

    metric: str
    classes: int
    key: str
    correct: Bools = field(repr=False, compare=False)
    person: NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def labelled(self) -> Bools:
        return np.asarray(self.person >= 0)

    @property
    def people(self) -> int:
        return len(np.unique(self.person[self.labelled]))

    @property
    def accuracy(self) -> float:
        return self.figure(self.metrics[0])

    @property
    def person_mean(self) -> float:
        return self.figure(self.metrics[1])

    @property
    def metrics(self) -> list[Metric]:
        note = f"{self.unlabelled} faces without a label" if self.unlabelled else ""
        return [Metric(name, n=self.n, note=note) for name in (self.metric, f"{self.metric}, mean over people")]

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        """A person whom a resample lacks is left out of its mean over people."""
        scored = counts if judged is None else counts * judged
        accuracy, over_people = self.metrics
        found = {}
        if accuracy in wanted:
            found[accuracy] = 100 * ratio(scored @ self.correct, scored.sum(1))
        if over_people in wanted:
            of_person = (self.person[:, None] == np.unique(self.person[self.labelled])).astype(np.float64)
            hits, faces = scored @ (of_person * self.correct[:, None]), scored @ of_person
            found[over_people] = 100 * mean_of_defined(ratio(hits, faces))
        return {metric: found[metric] for metric in wanted}


def evaluate_identification(scores: ArrayLike, people: ArrayLike, *, metric: str = "accuracy") -> IdentificationResult:
    """Evaluate scores [N, K], probabilities or logits, against the true class [N] of each face; −1: not labelled.

    A face is right if the score of its person is above every other; one that shares the highest score is wrong.
    metric: what the accuracy is called ("visual id").
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
    rows, person = np.flatnonzero(labelled), np.where(labelled, known, -1).astype(np.int64)
    others = values.copy()
    others[rows, person[rows]] = -np.inf
    correct = labelled & (values[np.arange(len(values)), person] > others.max(1))
    key = digest(person, values.shape[1], metric)
    return IdentificationResult(metric, values.shape[1], key, correct, person)
