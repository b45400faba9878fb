"""Verification of every face of one kind against every face of another: millions of pairs, from a few thousand faces.

The definitions are those of `verification`, with two differences that the number of pairs brings. Folds are of people:
all same pairs of a fold's people are evaluated by a threshold that was picked on the different pairs of all others. And
intervals are over people, since pairs that share a face or a person are far from independent. Sources: Schroff,
Kalenichenko & Philbin 2015 (VAL and FAR); Huo et al. 2018 (WebCaricature: folds of people); Bolle, Ratha & Pankanti
2004 (resampling of people).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import FoldFigure, Indices, auc, equal_error_rate, rate_sections, val_name
from polyface.metrics.resampling import Bools, Counts, Floats, mean_of_defined, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Section

_LEVELS = 400  # of FAR and of VAL: an interval needs no more of millions of pairs
_ROWS = 100  # resamples of people held at once: their weights are [rows, people²]


@dataclass(frozen=True)
class AllPairsResult:
    """Verification of `n` pairs, of which `same` show one person; figures in percent.

    `val` (by FAR in percent) is a mean over `folds` of people, `auc` and `eer` are of all pairs at once. Units are the
    people, who are drawn with all their faces and stay in their fold, `fold_of` [people] (−1: in none). In place of
    millions of distances, `counts` [people, people, levels] holds how many pairs of a person's first faces with a
    person's second faces are how far apart, by levels of distance that are about evenly spaced in log FAR and in VAL.
    """

    n: int
    same: int
    folds: int
    val: dict[float, FoldFigure]
    auc: FoldFigure
    eer: FoldFigure
    key: str
    people: tuple[str, ...] = field(repr=False)
    fold_of: Indices = field(repr=False, compare=False)
    counts: NDArray[Any] = field(repr=False, compare=False)

    @property
    def over(self) -> str:
        return "people"

    @property
    def units(self) -> int:
        return len(self.people)

    @property
    def figures(self) -> dict[str, FoldFigure]:
        """The figures that have rows, by their metric: AUC, VAL@1%, …"""
        return {"AUC": self.auc} | {val_name(far): figure for far, figure in self.val.items()}

    @property
    def metrics(self) -> list[Metric]:
        folds = f"{self.folds} folds of people"
        return [Metric(name, n=self.n, note="interval over people", folds=folds) for name in self.figures]

    def figure(self, metric: Metric) -> float:
        return self.figures[metric.name].value

    def spread(self, metric: Metric) -> float | None:
        return self.figures[metric.name].std

    def defined(self, metric: Metric) -> Bools:
        return np.ones(self.units, dtype=bool)

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        """A person who is drawn twice is never compared with himself as if he were two. Of a group, both people of a
        different pair are in it; the pairs that pick a threshold are everybody's."""
        members = [np.flatnonzero(self.fold_of == fold) for fold in [*range(self.folds), -1]]
        blocks = [(one, other, self._different(one, other)) for one in members for other in members]
        chunks = []
        for start in range(0, len(counts), _ROWS):
            times = counts[start : start + _ROWS].astype(np.float32)
            scored = times if judged is None else times * judged
            every = _drawn(times, blocks)
            others = every if judged is None else _drawn(scored, blocks)
            chunks.append(self._figures(scored, others, every))
        return {metric: np.concatenate([chunk[metric.name] for chunk in chunks]) for metric in wanted}

    def _different(self, first: Indices, second: Indices) -> NDArray[Any]:
        """How many pairs of two people are how far apart, of some people's first and others' second faces [first ·
        second, levels]."""
        pairs = self.counts[np.ix_(first, second)].astype(np.float32)
        pairs[first[:, None] == second] = 0
        return np.asarray(pairs.reshape(-1, pairs.shape[-1]))

    def _figures(self, scored: NDArray[Any], others: NDArray[Any], every: NDArray[Any]) -> dict[str, Floats]:
        """AUC and VAL at each FAR, in percent [R], of own pairs of people drawn so many times [R, people] and of
        different pairs (see `_drawn`). The threshold of a fold is picked on `every` different pair of the others; a
        fold of which nobody is drawn has no VAL."""
        own = np.einsum("iik->ik", self.counts).astype(np.float32)
        by_fold = [_accepted(scored[:, kept] @ own[kept]) for kept in self.fold_of == np.arange(self.folds)[:, None]]
        val, far = _share(np.sum(by_fold, axis=0)), _share(_accepted(others.sum((0, 1))))
        found = {"AUC": 100 * (np.diff(far, axis=1) * (val[:, 1:] + val[:, :-1]) / 2).sum(1)}
        rest = every.sum((0, 1)) - every.sum(0) - every.sum(1) + np.einsum("ff...->f...", every)
        curves = [(_share(mine), _share(_accepted(pairs))) for mine, pairs in zip(by_fold, rest, strict=False)]
        for wanted in self.val:
            each = np.stack([_at(wanted / 100, *curve) for curve in curves], axis=1)
            found[val_name(wanted)] = 100 * mean_of_defined(each)
        return found

    def sections(self) -> list[Section]:
        return rate_sections(*self.rates, self.auc.value, self.eer.value)

    @property
    def rates(self) -> tuple[Floats, Floats]:
        """FAR and VAL in percent at each level, from the first FAR above 0 to (100, 100)."""
        own = np.einsum("iik->k", self.counts, dtype=np.int64)
        other = self.counts.sum((0, 1), dtype=np.int64) - own
        far, val = (_share(_accepted(pairs[None])) for pairs in (other, own))
        return 100 * far[far > 0], 100 * val[far > 0]


def evaluate_all_pairs(
    distances: ArrayLike,
    first_people: ArrayLike,
    second_people: ArrayLike,
    *,
    folds: int = 10,
    fars: Sequence[float] = (0.1, 1.0),
    seed: int = 0,
) -> AllPairsResult:
    """Evaluate the distances [A, B] of all first faces to all second ones, given the names of who is on each [A], [B].

    folds: of the people who are on faces of both kinds, dealt out at random by `seed`; as many as there are people, if
    there are fewer. Pairs with anybody else are among the different ones of the others in every fold. VAL at a FAR
    (`fars`, in percent) accepts as many pairs as can be while at most that share of the others' different pairs is.
    """
    values = np.asarray(distances, dtype=np.float64)
    names = [np.asarray(people).astype(str) for people in (first_people, second_people)]
    if values.shape != (len(names[0]), len(names[1])):
        raise PolyfaceError(f"distances must be [{len(names[0])}, {len(names[1])} faces], found {list(values.shape)}")
    people, codes = np.unique(np.concatenate(names), return_inverse=True)
    first, second = codes[: len(names[0])], codes[len(names[0]) :]
    fold_of = _folds_of_people(first, second, folds, seed)
    same = first[:, None] == second
    pairs = values.ravel(), same.ravel()
    by_far = _val(values, same, fold_of[first], fold_of[second], fars)
    return AllPairsResult(
        n=same.size,
        same=int(same.sum()),
        folds=int(fold_of.max()) + 1,
        val={far: FoldFigure.of(by_fold) for far, by_fold in by_far.items()},
        auc=FoldFigure.of([auc(*pairs)]),
        eer=FoldFigure.of([equal_error_rate(*pairs)]),
        key=digest(people, np.bincount(first), np.bincount(second), fold_of, list(fars)),
        people=tuple(people.tolist()),
        fold_of=fold_of,
        counts=_counts(values, same, first, second, len(people)),
    )


def _folds_of_people(first: Indices, second: Indices, folds: int, seed: int) -> Indices:
    """A fold for each person, −1 for those who are in no same pair."""
    both = np.intersect1d(first, second)
    if len(both) < 3:
        raise PolyfaceError(
            f"{len(both)} people are on faces of both kinds: three are needed, for a threshold of other people"
        )
    if folds < 2:
        raise PolyfaceError(f"folds must be at least 2, not {folds}: a threshold is picked on the others")
    fold_of = np.full(max(first.max(), second.max()) + 1, -1)
    # of three people two folds would leave one alone, who has no different pair
    fold_of[np.random.default_rng(seed).permutation(both)] = np.arange(len(both)) % min(max(folds, 3), len(both))
    return fold_of


def _val(
    distances: Floats, same: Bools, first: Indices, second: Indices, fars: Sequence[float]
) -> dict[float, list[float]]:
    """VAL in percent of each fold's same pairs, by FAR, given the folds of the people [A], [B].

    Of the others' different pairs so many may be accepted: what is accepted is closer than the first one too many.
    """
    found: dict[float, list[float]] = {far: [] for far in fars}
    for fold in range(max(first.max(), second.max()) + 1):
        own, others = np.ix_(first == fold, second == fold), np.ix_(first != fold, second != fold)
        mine, different = distances[own][same[own]], distances[others][~same[others]]
        allowed = [int(np.floor(far / 100 * len(different) + 1e-9)) for far in fars]
        ranked = np.partition(different, allowed)
        for far, place in zip(fars, allowed, strict=True):
            found[far].append(float(100 * (mine < ranked[place]).mean()))
    return found


def _counts(distances: Floats, same: Bools, first: Indices, second: Indices, people: int) -> NDArray[Any]:
    """`AllPairsResult.counts`; a level goes from one of these distances, which it holds, to the next."""
    different, own = np.sort(distances[~same]), np.sort(distances[same])
    places = np.geomspace(1, len(different), _LEVELS).astype(np.int64) - 1
    edges = np.union1d(different[places], own[np.linspace(0, len(own) - 1, _LEVELS).astype(np.int64)])
    levels = len(edges) + 1
    counts = np.empty((people, people, levels), np.int64)
    for person in range(people):
        level = np.searchsorted(edges, distances[first == person], side="right")
        counts[person] = np.bincount((second * levels + level).ravel(), minlength=people * levels).reshape(people, -1)
    return counts.astype(np.min_scalar_type(counts.max()))


def _drawn(times: NDArray[Any], blocks: Sequence[tuple[Indices, Indices, NDArray[Any]]]) -> NDArray[Any]:
    """How many different pairs are how far apart where people are drawn so many times [R, people], by the folds of
    both, of which the last is no fold: [folds + 1, folds + 1, R, levels]."""
    found = [
        (times[:, first][:, :, None] * times[:, second][:, None]).reshape(len(times), -1) @ pairs
        for first, second, pairs in blocks
    ]
    folds = round(len(blocks) ** 0.5)
    return np.stack(found).reshape(folds, folds, *found[0].shape)


def _accepted(pairs: NDArray[Any]) -> Floats:
    """Pairs counted by level [R, levels] → how many are accepted at each."""
    return np.cumsum(pairs, axis=1, dtype=np.float64)


def _share(accepted: Floats) -> Floats:
    """Of accepted pairs [R, levels], the share of all, from 0 to 1."""
    return ratio(accepted, accepted[:, -1:])


def _at(wanted: float, val: Floats, far: Floats) -> Floats:
    """VAL [R] at a wanted FAR, of both [R, levels] from 0 to 1; between two levels on a straight line."""
    rows = np.arange(len(far))
    before = np.maximum((far <= wanted).sum(1) - 1, 0)
    after = np.minimum(before + 1, far.shape[1] - 1)
    share = np.nan_to_num(ratio(wanted - far[rows, before], far[rows, after] - far[rows, before]))
    return np.asarray(val[rows, before] * (1 - share) + val[rows, after] * share)
