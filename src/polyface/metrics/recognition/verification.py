"""How well pairs of faces are told to show the same person or two: accuracy, VAL at a FAR, AUC, equal error rate.

Thresholds are never picked on the pairs that they judge: on nine of ten folds for the tenth, or on pairs of a
validation part. Sources: Huang et al. 2007 (LFW: mean accuracy over ten folds); Schroff, Kalenichenko & Philbin 2015
(FaceNet, section 4: VAL and FAR); Ming, Burie & Luqman 2021, Tables 2 and 3, whose code follows FaceNet's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError, nearest
from polyface.metrics.recognition.pairs import (
    Bools,
    SortedPairs,
    auc,
    checked,
    equal_error_rate,
    numbered_folds,
    resampled_counts,
    shuffled_folds,
    val_name,
)
from polyface.metrics.resampling import Floats, PairedDifference, Row
from polyface.metrics.runs import FoldFigure, compared, difference, fold_figure, fold_row, results_of

AUTHORS_GRID = np.arange(400) / 100
"""Thresholds that the code of Ming et al. tries on squared distances: from 0 to below 4 in steps of 0.01."""


@dataclass(frozen=True)
class VerificationResult:
    """Verification over `n` pairs, of which `same` show one person; figures in percent.

    `accuracy` and `val` (by FAR in percent) are means over folds; `far` is what was measured beside each VAL. `auc` and
    `eer` need no threshold: they are of all pairs at once, those of single folds only give the spread. `thresholds`,
    one a fold, are those of the accuracy, in the unit of the scores (infinite where no pair is accepted). `protocol`
    says where thresholds come from. `distances` (similarities with their sign turned), `truth` and `accepted` (at the
    thresholds) are [N] in the order given.
    """

    n: int
    same: int
    accuracy: FoldFigure
    auc: FoldFigure
    eer: FoldFigure
    val: dict[float, FoldFigure]
    far: dict[float, float]
    thresholds: tuple[float, ...]
    protocol: str
    distances: Floats = field(repr=False, compare=False)
    truth: Bools = field(repr=False, compare=False)
    accepted: Bools = field(repr=False, compare=False)
    pairs: SortedPairs = field(repr=False, compare=False)

    @property
    def figures(self) -> dict[str, FoldFigure]:
        """All figures by their metric: verification (the accuracy), AUC, EER, VAL@1%, …"""
        by_far = {val_name(far): figure for far, figure in self.val.items()}
        return {"verification": self.accuracy, "AUC": self.auc, "EER": self.eer} | by_far


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
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> VerificationResult:
    """Judge the scores [N] of pairs, distances or similarities, against whether they show the same person: bool [N].

    folds: how many (dealt out at random by `seed`, each with its share of same pairs), or the fold of each pair [N] of
    any names. calibration: scores and same of other pairs, for example of the validation part, that pick one threshold
    for all; there are no folds then.

    The threshold of the accuracy is the distance, among those of the other folds, up to which accepting pairs is most
    often right there (the smallest of equally good ones). `grid` tries given thresholds instead, in the unit of the
    scores: `AUTHORS_GRID` for the published procedure. VAL at a FAR (`fars`, in percent) accepts as many pairs as it
    can while at most that share of the other folds' different pairs is accepted, exactly and not by a grid; the FAR of
    the fold itself is measured beside it. val_on="train" reports the VAL of the folds that gave the threshold, as the
    code of Ming et al. does: for reproduction only.

    Intervals are percentile bootstraps over pairs, in which the thresholds of VAL are picked anew (from a `calibration`
    that stays as it is) and those of the accuracy stay. They take pairs as independent, though pairs share faces.
    For millions of pairs, `resamples=0` skips them.
    """
    distances, truth = checked(scores, same, similarity)
    if val_on not in ("test", "train"):
        raise PolyfaceError(f"val_on is 'test' or 'train', not '{val_on}'")
    fars = tuple(dict.fromkeys(fars))
    for far in fars:
        if not 0 < far < 100:
            raise PolyfaceError(f"a FAR is a percentage between 0 and 100, not {far:g}")
    sign = -1.0 if similarity else 1.0
    tried = None if grid is None else np.sort(sign * np.asarray(grid, dtype=np.float64).ravel())
    if calibration is None:
        dealt = shuffled_folds(truth, int(np.asarray(folds)), seed) if np.ndim(folds) == 0 else folds
        numbers = numbered_folds(dealt, truth)
        pairs = SortedPairs(distances, truth, numbers, tried, fars, val_on)
        protocol = f"{numbers.max() + 1} folds"
    else:
        other, known = checked(*calibration, similarity)
        for kinds, what in ((truth, "judged"), (known, "calibrating")):
            if kinds.all() or not kinds.any():
                raise PolyfaceError(f"all {what} pairs are {'same' if kinds.all() else 'different'}: both are needed")
        numbers = np.zeros(len(truth), np.int64)
        both = np.append(numbers, np.full(len(known), -1))
        pairs = SortedPairs(np.append(distances, other), np.append(truth, known), both, tried, fars, val_on)
        protocol = f"thresholds of {len(known):,} other pairs"
    once = pairs.ranked()
    by_far = pairs.val(once, fars)
    drawn = _resampled([pairs], pairs.metrics, resamples, seed) if resamples else {}

    def figure(name: str, by_fold: Sequence[float], value: float | None = None) -> FoldFigure:
        return fold_figure(by_fold, drawn[name][:, 0] if drawn else None, level, value)

    members = [numbers == fold for fold in range(numbers.max() + 1)]
    return VerificationResult(
        n=len(truth),
        same=int(truth.sum()),
        accuracy=figure("verification", pairs.accuracy(once)[0]),
        auc=figure("AUC", [auc(distances[rows], truth[rows]) for rows in members], auc(distances, truth)),
        eer=figure(
            "EER",
            [equal_error_rate(distances[rows], truth[rows]) for rows in members],
            equal_error_rate(distances, truth),
        ),
        val={far: figure(val_name(far), by_far[val_name(far)][0]) for far in fars},
        far={far: float(by_far[f"FAR of {val_name(far)}"][0].mean()) for far in fars},
        thresholds=tuple((sign * pairs.threshold).tolist()),
        protocol=protocol + (", VAL on those that gave the threshold" if val_on == "train" else ""),
        distances=distances,
        truth=truth,
        accepted=pairs.accepted,
        pairs=pairs,
    )


def mistakes(result: VerificationResult, count: int = 12) -> dict[str, list[int]]:
    """Indices of the pairs that are most clearly wrong, the worst first: "false positives" (different people, accepted)
    from the closest, "false negatives" (one person, rejected) from the farthest."""
    order = np.argsort(result.distances, kind="stable")
    wrong = {
        "false positives": order[(result.accepted & ~result.truth)[order]],
        "false negatives": order[(~result.accepted & result.truth)[order]][::-1],
    }
    return {what: rows[:count].tolist() for what, rows in wrong.items()}


def _resampled(
    runs: Sequence[SortedPairs], wanted: Collection[str], resamples: int, seed: int, splits: bool = False
) -> dict[str, Floats]:
    """Resampled figures [R, runs]: over the same pairs for all runs, or of each split by itself."""
    if splits:
        each = [_resampled([run], wanted, resamples, seed + place) for place, run in enumerate(runs)]
        return {name: np.hstack([one[name] for one in each]) for name in wanted}
    chunks = [
        [run.figures(run.ranked(drawn), wanted) for run in runs]
        for drawn in resampled_counts(int(runs[0].judged.sum()), resamples, seed)
    ]
    return {
        name: np.concatenate([np.stack([run[name] for run in chunk], axis=1) for chunk in chunks]) for name in wanted
    }


def _over_the_same_pairs(results: Sequence[VerificationResult]) -> None:
    first, *others = results
    for other in others:
        if list(other.figures) != list(first.figures) or other.protocol != first.protocol:
            raise PolyfaceError(
                "results to be averaged or compared must be of the same FARs and the same protocol, found "
                f"{', '.join(first.figures)} by {first.protocol} and {', '.join(other.figures)} by {other.protocol}"
            )
        if not np.array_equal(other.truth, first.truth):
            raise PolyfaceError("results to be averaged or compared must be of the same pairs, in the same order")


def verification_rows(
    name: str,
    results: Mapping[int, VerificationResult],
    *,
    prefix: str = "",
    splits: bool = False,
    published: Mapping[str, float] | None = None,
    note: str = "",
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """The results rows of one method, from its results by training seed over the same pairs: "verification" (the
    accuracy), "AUC", "EER" and "VAL@1%" for each FAR, after a `prefix` such as "across ".

    Mean and std are over seeds. Intervals are bootstraps over pairs and, for several seeds, over seeds as well (see
    `difference_of_runs`); none if `resamples` is 0. With `splits`, results are of several splits of the people, each
    with pairs of its own. `published` maps a metric, with its prefix, to the paper's figure. The spread over folds is
    in the notes.
    """
    found = results_of(name, results)
    if not splits:
        _over_the_same_pairs(found)
    metrics = found[0].figures
    drawn = _resampled([one.pairs for one in found], list(metrics), resamples, 0, splits) if resamples else {}
    rows = []
    for metric in metrics:
        figures = [one.figures[metric] for one in found]
        # a threshold from elsewhere has no spread to tell of
        elsewhere = metric not in ("AUC", "EER") and all(one.std is None for one in figures)
        rows.append(
            fold_row(
                name,
                prefix + metric,
                figures,
                drawn.get(metric),
                over=found[0].protocol,
                n=found[0].n,
                runs=results,
                published=published,
                note=note,
                notes=[found[0].protocol] if elsewhere else (),
                level=level,
            )
        )
    return rows


def paired_difference(
    a: Sequence[VerificationResult],
    b: Sequence[VerificationResult],
    *,
    statistic: str = "verification",
    splits: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Bootstrap the difference a − b of two systems' results, one a training seed, over the same pairs (positive: a is
    better, but for the EER).

    Pairs are resampled jointly, with several seeds the seeds as well: see `difference_of_runs`. With `splits`, a[i] and
    b[i] are over the pairs of split i, and splits are resampled in place of seeds. `statistic` is "verification",
    "AUC", "EER" or "VAL@1%" for one of the FARs.
    """
    groups = compared(a, b, splits)
    if statistic not in a[0].figures:
        raise PolyfaceError(f"unknown statistic '{statistic}': {nearest(statistic, a[0].figures)}")
    for group in groups:
        _over_the_same_pairs(group)
    return difference(
        a,
        b,
        lambda side: _resampled([one.pairs for one in side], [statistic], resamples, seed, splits)[statistic],
        lambda one: one.figures[statistic].value,
        lambda one: (one.n, 0),
        splits=splits,
        seed=seed,
        level=level,
    )
