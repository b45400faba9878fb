"""How well pairs of faces are told to show the same person or two: accuracy, VAL at a FAR, AUC, equal error rate.

Thresholds are never picked on the pairs that they are used on: on nine of ten folds for the tenth, or on pairs of a
validation part. Sources: Huang et al. 2007 (LFW: mean accuracy over ten folds); Schroff, Kalenichenko & Philbin 2015
(FaceNet, section 4: VAL and FAR); Ming, Burie & Luqman 2021, Tables 2 and 3, whose code follows FaceNet's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import (
    FoldFigure,
    SortedPairs,
    auc,
    checked,
    checked_fars,
    equal_error_rate,
    figure_names,
    numbered_folds,
    rate_sections,
    rates,
    shuffled_folds,
    val_name,
)
from polyface.metrics.resampling import Bools, Counts, Floats
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Section

AUTHORS_GRID = np.arange(400) / 100
"""Thresholds that the code of Ming et al. tries on squared distances: from 0 to below 4 in steps of 0.01."""


@dataclass(frozen=True)
class VerificationResult:
    """Verification over `n` pairs, of which `same` show one person; figures in percent.

    `accuracy` and `val` (by FAR in percent) are means over folds; `far` is what was measured beside each VAL. `auc`
    and `eer` need no threshold: they are of all pairs at once, those of single folds only give the spread, unless
    they were asked for as means over folds too (`each_fold`). `thresholds`, one a fold, are those of the accuracy,
    in the unit of the scores (infinite where no pair is accepted). `protocol` says where thresholds come from.
    `distances` (similarities with their sign turned), `truth` and `accepted` (at the thresholds) are [N] in the
    order given. Units are the pairs, which are taken as independent though they share faces. Resamples pick the
    thresholds of VAL anew (from a calibration that stays as it is); those of the accuracy stay. `names`: what
    metrics are called that have another name than their figure ({"verification": "accuracy"}).
    """

    accuracy: FoldFigure
    auc: FoldFigure
    eer: FoldFigure
    val: dict[float, FoldFigure]
    far: dict[float, float]
    thresholds: tuple[float, ...]
    protocol: str
    key: str
    distances: Floats = field(repr=False, compare=False)
    truth: Bools = field(repr=False, compare=False)
    accepted: Bools = field(repr=False, compare=False)
    pairs: SortedPairs = field(repr=False, compare=False)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def over(self) -> str:
        return "pairs"

    @property
    def units(self) -> int:
        return len(self.truth)

    @property
    def n(self) -> int:
        return len(self.truth)

    @property
    def same(self) -> int:
        return int(self.truth.sum())

    @property
    def figures(self) -> dict[str, FoldFigure]:
        """All figures: verification (the accuracy), AUC, EER, VAL@1%, …"""
        values = (self.accuracy, self.auc, self.eer, *self.val.values())
        return dict(zip(figure_names(list(self.val)), values, strict=True))

    @property
    def _figure_of(self) -> dict[str, str]:
        """The figure of each metric."""
        return {self.names.get(name, name): name for name in self.figures}

    @property
    def metrics(self) -> list[Metric]:
        """All but the AUC and the EER hang on thresholds: where these are from is told."""
        elsewhere = {
            name: self.protocol if name not in ("AUC", "EER") and one.std is None else ""
            for name, one in self.figures.items()
        }
        return [
            Metric(
                metric,
                n=self.n,
                note=elsewhere[name],
                folds=self.protocol,
                higher_is_better=name != "EER",
                compared=name != "EER",
            )
            for metric, name in self._figure_of.items()
        ]

    def figure(self, metric: Metric) -> float:
        return self.figures[self._figure_of[metric.name]].value

    def spread(self, metric: Metric) -> float | None:
        return self.figures[self._figure_of[metric.name]].std

    def defined(self, metric: Metric) -> Bools:
        return np.ones(self.n, dtype=bool)

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        scored = None if judged is None else self.pairs.ranked(counts * judged)
        asked = {metric: self._figure_of[metric.name] for metric in wanted}
        found = self.pairs.figures(self.pairs.ranked(counts), list(asked.values()), scored)
        return {metric: found[name] for metric, name in asked.items()}

    def sections(self) -> list[Section]:
        return rate_sections(*rates(self.distances, self.truth), self.auc.value, self.eer.value)


def evaluate_verification(
    scores: ArrayLike,
    same: ArrayLike,
    *,
    similarity: bool = False,
    folds: int | ArrayLike = 10,
    calibration: tuple[ArrayLike, ArrayLike] | None = None,
    grid: ArrayLike | None = None,
    fars: Sequence[float] = (0.1, 1.0),
    val_on: str = "test",
    seed: int = 0,
    names: Mapping[str, str] | None = None,
    each_fold: bool = False,
) -> VerificationResult:
    """Evaluate the scores [N] of pairs, distances or similarities, against whether they show the same person: bool [N].

    folds: how many (dealt out at random by `seed`, each with its share of same pairs), or the fold of each pair [N] of
    any names. calibration: scores and same of other pairs, for example of the validation part, that pick one threshold
    for all; there are no folds then.

    The threshold of the accuracy is the distance, among those of the other folds, up to which accepting pairs is most
    often right there (the smallest of equally good ones). `grid` tries given thresholds instead, in the unit of the
    scores: `AUTHORS_GRID` for the published procedure. VAL at a FAR (`fars`, in percent) accepts as many pairs as it
    can while at most that share of the other folds' different pairs is accepted, exactly and not by a grid; the FAR of
    the fold itself is measured beside it. val_on="train" reports the VAL of the folds that gave the threshold, as the
    code of Ming et al. does: for reproduction only. names: figure → what its metric is called, where that differs.
    each_fold: AUC and EER are means over folds too, as CFP has them (Sengupta et al. 2016).
    """
    distances, truth = checked(scores, same, similarity)
    if val_on not in ("test", "train"):
        raise PolyfaceError(f"val_on is 'test' or 'train', not '{val_on}'")
    fars = checked_fars(fars)
    sign = -1.0 if similarity else 1.0
    tried = None if grid is None else np.sort(sign * np.asarray(grid, dtype=np.float64).ravel())
    if calibration is None:
        dealt = shuffled_folds(truth, int(np.asarray(folds)), seed) if np.ndim(folds) == 0 else folds
        numbers = numbered_folds(dealt, truth)
        pairs = SortedPairs(distances, truth, numbers, tried, fars, val_on, each_fold)
        protocol = f"{numbers.max() + 1} folds"
    else:
        other, known = checked(*calibration, similarity)
        for kinds, what in ((truth, "evaluated"), (known, "calibrating")):
            if kinds.all() or not kinds.any():
                raise PolyfaceError(f"all {what} pairs are {'same' if kinds.all() else 'different'}: both are needed")
        numbers = np.zeros(len(truth), np.int64)
        both = np.append(numbers, np.full(len(known), -1))
        pairs = SortedPairs(np.append(distances, other), np.append(truth, known), both, tried, fars, val_on)
        protocol = f"thresholds of {len(known):,} other pairs"
    once = pairs.ranked()
    by_far = pairs.val(once, fars)
    members = [numbers == fold for fold in range(numbers.max() + 1)]
    return VerificationResult(
        accuracy=FoldFigure.of(pairs.accuracy(once)[0]),
        auc=_over_all(auc, distances, truth, members, each_fold),
        eer=_over_all(equal_error_rate, distances, truth, members, each_fold),
        val={far: FoldFigure.of(by_far[val_name(far)][0]) for far in fars},
        far={far: float(by_far[f"FAR of {val_name(far)}"][0].mean()) for far in fars},
        thresholds=tuple((sign * pairs.threshold).tolist()),
        protocol=(protocol := protocol + (", VAL on those that gave the threshold" if val_on == "train" else "")),
        key=digest(truth, numbers, list(fars), protocol, *(["each fold"] if each_fold else [])),
        distances=distances,
        truth=truth,
        accepted=pairs.accepted,
        pairs=pairs,
        names=dict(names or {}),
    )


def _over_all(
    measure: Callable[[Floats, Bools], float],
    distances: Floats,
    truth: Bools,
    members: Sequence[Bools],
    each_fold: bool,
) -> FoldFigure:
    """A figure that needs no threshold: of all pairs at once, or a mean over folds, with its spread over these."""
    by_fold = [measure(distances[rows], truth[rows]) for rows in members]
    return FoldFigure.of(by_fold, None if each_fold else measure(distances, truth))


def mistakes(result: VerificationResult, count: int = 12) -> dict[str, list[int]]:
    """Indices of the pairs that are most clearly wrong, the worst first: "false positives" (different people, accepted)
    from the closest, "false negatives" (one person, rejected) from the farthest."""
    order = np.argsort(result.distances, kind="stable")
    wrong = {
        "false positives": order[(result.accepted & ~result.truth)[order]],
        "false negatives": order[(~result.accepted & result.truth)[order]][::-1],
    }
    return {what: rows[:count].tolist() for what, rows in wrong.items()}
