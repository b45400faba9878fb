"""Pairs of faces in the order of their distance: ROC, AUC, equal error rate, and figures at thresholds of other folds.

Only the order of distances counts, so any increasing function of them gives the same figures. Every figure follows from
how many same and how many different pairs are accepted at each cut of the sorted pairs. One routine therefore gives it
for the pairs as they are and for resamples of them, in which thresholds are picked anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Bools, Counts, Floats, mean_of_defined, ratio, summarise
from polyface.metrics.sections import Curves, Section

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class FoldFigure:
    """A figure in percent: its value, its spread over folds or draws (sample std, None for one), and that of each."""

    value: float
    std: float | None
    folds: tuple[float, ...]

    @classmethod
    def of(cls, folds: Sequence[float], value: float | None = None) -> FoldFigure:
        """From the figure of each fold; `value` is their mean unless it is given."""
        summary = summarise(folds)
        return cls(summary.mean if value is None else value, summary.std, tuple(map(float, folds)))


def shaped(embeddings: ArrayLike, what: str = "embeddings") -> NDArray[Any]:
    """Embeddings after a check of their shape, [N, D]."""
    vectors = np.asarray(embeddings)
    if vectors.ndim != 2:
        raise PolyfaceError(f"{what} must have the shape [faces, dimensions], found {list(vectors.shape)}")
    return vectors


def unit_vectors(embeddings: ArrayLike, what: str = "embeddings") -> Floats:
    """Embeddings [N, D] as float64, after a check that they are finite and of length 1 (to 1 %, for half precision).

    They are not normalised here: an embedding says itself how it is compared.
    """
    vectors = np.asarray(shaped(embeddings, what), dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= 0.01))
    if wrong.size:
        raise PolyfaceError(
            f"{wrong.size} {what} are not of length 1 (the first is {wrong[0]}, of length {lengths[wrong[0]]:g}): "
            "normalise them before they are compared"
        )
    return vectors


def pair_distances(a: ArrayLike, b: ArrayLike, *, inner: bool = False) -> Floats:
    """Squared Euclidean distance, 0 to 4, of the unit vectors a and b [N, D] of each pair: [N].

    inner: vectors of any length, compared by their product: 2 − 2·a·b, which is that distance where both have length 1.
    """
    made = shaped if inner else unit_vectors
    first, second = made(a, "embeddings of first faces"), made(b, "embeddings of second faces")
    if first.shape != second.shape:
        raise PolyfaceError(f"a pair has two embeddings: found {list(first.shape)} and {list(second.shape)}")
    if inner:
        return np.asarray(2 - 2 * np.einsum("nd,nd->n", first, second, dtype=np.float64))  # no copies of a long list
    return np.asarray(np.clip(((first - second) ** 2).sum(1), 0, 4), dtype=np.float64)


def squared_distances(a: ArrayLike, b: ArrayLike, *, inner: bool = False) -> Floats:
    """Squared Euclidean distances, 0 to 4, of every unit vector of a [N, D] to every one of b [M, D]: [N, M].

    Rounded to 1e-12, so that equal faces are equally far whatever order their products were summed in. inner: as for
    `pair_distances`.
    """
    if inner:
        first, second = (np.asarray(shaped(one), dtype=np.float64) for one in (a, b))
    else:
        first, second = unit_vectors(a, "embeddings of probes"), unit_vectors(b, "embeddings of the gallery")
    if first.shape[1] != second.shape[1]:
        raise PolyfaceError(f"embeddings of {first.shape[1]} and of {second.shape[1]} dimensions cannot be compared")
    distances = first @ second.T
    distances *= -2
    if inner:
        return np.asarray(np.round(distances + 2, 12))
    distances += (first**2).sum(1)[:, None] + (second**2).sum(1)
    return np.asarray(np.clip(np.round(distances, 12, out=distances), 0, 4, out=distances))


def roc(scores: ArrayLike, same: ArrayLike, *, similarity: bool = False) -> tuple[Floats, Floats]:
    """FAR and VAL in percent at every cut of the sorted pairs, from (0, 0) to (100, 100).

    FAR (false positive rate) is the share of different pairs that are accepted, VAL (true positive rate) that of same
    pairs. Pairs of equal score are accepted together. `scores` [N] are distances, or similarities if so said.
    """
    accepted, accepted_other = _whole(scores, same, similarity)
    return 100 * accepted_other[0] / accepted_other[0, -1], 100 * accepted[0] / accepted[0, -1]


def rates(distances: ArrayLike, same: ArrayLike, steps: int = 500) -> tuple[Floats, Floats]:
    """The largest VAL at each of some FARs, in percent, from that of a single pair on: millions of pairs fit a plot."""
    far, val = roc(distances, same)
    levels = np.geomspace(100 / np.sum(~np.asarray(same, dtype=bool)), 100, steps)
    return levels, val[np.searchsorted(far, levels * (1 + 1e-9), side="right") - 1]


def rate_sections(far: Floats, val: Floats, auc: float, eer: float) -> list[Section]:
    """ROC and DET, from FAR and VAL in percent, with the AUC and the equal error rate beside them."""
    rejected = np.where(val < 100, 100 - val, np.nan)
    roc = Curves({"": (far, val)}, "FAR, %", "VAL, %", legend=f"AUC {auc:.1f} %", x_log=True, percent=True)
    det = Curves({"": (far, rejected)}, "FAR, %", "FRR, %", legend=f"EER {eer:.1f} %", x_log=True, y_log=True)
    return [Section("ROC", [roc]), Section("DET", [det])]


def auc(scores: ArrayLike, same: ArrayLike, *, similarity: bool = False) -> float:
    """Area under the ROC, in percent: how often a same pair is closer than a different one; equal ones count half."""
    return float(_area(*_whole(scores, same, similarity))[0])


def equal_error_rate(scores: ArrayLike, same: ArrayLike, *, similarity: bool = False) -> float:
    """The rate in percent at which FAR and FRR are equal, on the straight line between the ROC's two nearest points."""
    return float(_crossing(*_whole(scores, same, similarity))[0])


def _whole(scores: ArrayLike, same: ArrayLike, similarity: bool) -> tuple[Counts, Counts]:
    """Same and different pairs accepted at each cut: [1, cuts]."""
    distances, truth = checked(scores, same, similarity)
    if truth.all() or not truth.any():
        raise PolyfaceError(f"all {len(truth)} pairs are {'same' if truth.all() else 'different'}: nothing to tell")
    order, ends = _sorted(distances)
    ranked = truth[order][None]
    return _cumulated(ranked)[:, ends], _cumulated(~ranked)[:, ends]


def _sorted(distances: Floats) -> tuple[Indices, Indices]:
    """The order of pairs [N], and the cuts (numbers of accepted pairs, from 0 to N) that part no equal distances."""
    order = np.argsort(distances, kind="stable")
    inner = np.flatnonzero(np.diff(distances[order])) + 1
    return order, np.concatenate([[0], inner, [len(order)]])


def _cumulated(counts: NDArray[Any]) -> Counts:
    """Counts [rows, N] → how many are among the first 0, 1, …, N: [rows, N + 1]."""
    sums = np.zeros((counts.shape[0], counts.shape[1] + 1), np.int32)
    np.cumsum(counts, axis=1, out=sums[:, 1:])
    return sums


def _area(same: Counts, other: Counts) -> Floats:
    """AUC [rows] from same and different pairs accepted at each cut [rows, cuts], by trapezoids: ties count half."""
    height = same[:, 1:] + same[:, :-1]
    area = np.einsum("rc,rc->r", np.diff(other, axis=1), height, dtype=np.float64, casting="safe")
    return 100 * ratio(area, 2.0 * same[:, -1] * other[:, -1])


def _crossing(same: Counts, other: Counts) -> Floats:
    """Equal error rates [rows]: where FAR − FRR, which rises from −1 to 1, is 0."""
    far = ratio(other, other[:, -1:])
    gap = far - 1 + ratio(same, same[:, -1:])
    after = np.argmax(gap >= 0, axis=1)
    low, high = _at(gap, after - 1), _at(gap, after)
    share = ratio(-low, high - low)
    return np.asarray(100 * (_at(far, after - 1) * (1 - share) + _at(far, after) * share))


def _at(values: NDArray[Any], columns: Indices) -> NDArray[Any]:
    """One value of each row [rows, …] → [rows]."""
    return np.asarray(np.take_along_axis(values, columns[:, None], 1)[:, 0])


def checked(scores: ArrayLike, same: ArrayLike, similarity: bool) -> tuple[Floats, Bools]:
    """Distances (similarities with their sign turned) and truth [N], or an error that says what is wrong with them."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(same)
    if values.ndim != 1 or values.shape != truth.shape:
        raise PolyfaceError(f"scores {list(values.shape)} and same {list(truth.shape)} must both be [pairs]")
    if not len(values):
        raise PolyfaceError("no pair to verify: the list of pairs is empty")
    if truth.dtype != bool and not np.isin(truth, (0, 1)).all():
        raise PolyfaceError("same must be bool (or 0 and 1), one answer a pair")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise PolyfaceError(
            f"{bad.size} pairs have scores that are not finite (the first is pair {bad[0]}): the network diverged"
        )
    return -values if similarity else values, truth.astype(bool)


def checked_fars(fars: Sequence[float]) -> tuple[float, ...]:
    """False acceptance rates in percent, each once, or an error that says which is none."""
    for far in fars:
        if not 0 < far < 100:
            raise PolyfaceError(f"a FAR is a percentage between 0 and 100, not {far:g}")
    return tuple(dict.fromkeys(fars))


def shuffled_folds(same: ArrayLike, folds: int = 10, seed: int = 0) -> NDArray[np.int64]:
    """A fold from 0 to `folds` − 1 for each pair [N], at random by `seed`; each gets its share of same pairs."""
    truth = np.asarray(same, dtype=bool)
    if folds < 2:
        raise PolyfaceError(f"folds must be at least 2, not {folds}: a threshold is picked on the others")
    if folds > (fewest := min(truth.sum(), (~truth).sum())):
        raise PolyfaceError(f"{folds} folds need as many same and as many different pairs, but one kind has {fewest}")
    generator, answer = np.random.default_rng(seed), np.empty(len(truth), np.int64)
    for rows in (np.flatnonzero(truth), np.flatnonzero(~truth)):
        answer[generator.permutation(rows)] = np.arange(len(rows)) % folds
    return answer


def numbered_folds(given: ArrayLike, truth: Bools) -> NDArray[np.int64]:
    """Folds [N] of any names, numbered from 0; each must hold pairs of both kinds."""
    names = np.asarray(given)
    if names.shape != truth.shape:
        raise PolyfaceError(f"folds {list(names.shape)} must hold one fold for each of the {len(truth)} pairs")
    known, folds = np.unique(names, return_inverse=True)
    if len(known) < 2:
        raise PolyfaceError("all pairs are in one fold: thresholds are picked on other folds, or give a calibration")
    for place, name in enumerate(known.tolist()):
        kinds = truth[folds == place]
        if kinds.all() or not kinds.any():
            kind = "same" if kinds.all() else "different"
            raise PolyfaceError(f"all {len(kinds)} pairs of fold {name} are {kind}: use fewer folds, or other ones")
    return folds.astype(np.int64)


def val_name(far: float) -> str:
    """The name of the metric VAL at a FAR in percent."""
    return f"VAL@{far:g}%"


def figure_names(fars: Sequence[float]) -> list[str]:
    """The figures of pairs, with VAL at these FARs in percent."""
    return ["verification", "AUC", "EER", *map(val_name, fars)]


class SortedPairs:
    """Pairs in the order of their distance, and how they are evaluated.

    distances, same, folds: of each pair [N]; those of fold −1 come after all others and only pick thresholds. grid:
    candidate thresholds (a pair is the same if it is closer), rising; None: every distance that occurs (a pair is the
    same if it is not farther). fars: in percent. val_on: "test", "train" for the folds that give the threshold, or
    "itself" where the threshold of a fold is picked on that very one. each_fold: AUC and EER are means over folds.

    `threshold` and `cut`, the number of pairs of all folds that it accepts, are those of each fold's accuracy.
    """

    def __init__(
        self,
        distances: Floats,
        same: Bools,
        folds: NDArray[np.int64],
        grid: Floats | None,
        fars: tuple[float, ...],
        val_on: str,
        each_fold: bool = False,
    ) -> None:
        self.order, self.ends = _sorted(distances)
        self.same, self.folds = same[self.order], folds[self.order]
        self.fars, self.val_on, self.each_fold = fars, val_on, each_fold
        self.judged = self.folds >= 0
        self.closer = self.ends[np.searchsorted(self.ends, np.arange(len(same)), side="right") - 1]
        ranked = distances[self.order]
        cuts, thresholds = self.ends, np.append(-np.inf, ranked[self.ends[1:] - 1])
        if grid is not None:
            cuts, thresholds = np.searchsorted(ranked, grid, side="left"), grid
        best = [self._best(fold, cuts) for fold in range(folds.max() + 1)]
        self.cut, self.threshold = cuts[best], thresholds[best]

    def _best(self, fold: int, cuts: Indices) -> int:
        """The place in `cuts` of the one that is right most often for the other folds, the smallest of equals."""
        gain = np.where(self.folds == fold, 0, np.where(self.same, 1, -1))
        return int(np.argmax(_cumulated(gain[None])[0, cuts]))

    @property
    def accepted(self) -> Bools:
        """Whether each evaluated pair [n], in the order given, is called the same at its fold's threshold."""
        called = np.empty_like(self.same)
        called[self.order] = self._called
        return called[: self.judged.sum()]

    @property
    def _called(self) -> Bools:
        return np.asarray(np.arange(len(self.order)) < self.cut[self.folds])

    def ranked(self, drawn: Counts | None = None) -> Counts:
        """How often each pair is there, by distance [rows, N], given that of evaluated pairs, [rows, n] as given.

        Pairs that only pick thresholds are there once; so are all others without `drawn`.
        """
        if drawn is None:
            return np.ones((1, len(self.order)), np.int32)
        calibrating = np.ones((len(drawn), len(self.order) - drawn.shape[1]), np.int32)
        return np.asarray(np.hstack([drawn, calibrating])[:, self.order])

    def figures(self, counts: Counts, wanted: Collection[str], scored: Counts | None = None) -> dict[str, Floats]:
        """The wanted figures [rows] of `ranked` counts: means over folds; AUC and EER of all pairs at once, but with
        `each_fold`. `scored`: counts of the pairs that are scored, where thresholds are picked on others too."""
        scored = counts if scored is None else scored
        found = self.val(counts, [far for far in self.fars if val_name(far) in wanted], scored)
        if "verification" in wanted:
            found["verification"] = self.accuracy(scored)
        figures = {name: mean_of_defined(values) for name, values in found.items()}
        whole = {name: of for name, of in (("AUC", _area), ("EER", _crossing)) if name in wanted}
        accepted = [*self._accepted(scored)] if whole else []
        figures |= {name: mean_of_defined(np.stack([of(*one) for one in accepted], 1)) for name, of in whole.items()}
        return {name: figures[name] for name in wanted}

    def _accepted(self, scored: Counts) -> Iterator[tuple[Counts, Counts]]:
        """Same and different pairs accepted at each cut [rows, cuts], of all pairs, or of each fold."""
        for part in [self.folds == fold for fold in range(len(self.cut))] if self.each_fold else [self.judged]:
            places = np.flatnonzero(part)
            cuts = np.unique(np.searchsorted(places, self.ends))
            same, other = (_cumulated(scored[:, places] * kind[places])[:, cuts] for kind in (self.same, ~self.same))
            yield same, other

    def accuracy(self, counts: Counts) -> Floats:
        """Percent of each fold's pairs that its threshold tells rightly: [rows, folds].

        The thresholds stay as picked: around the best one the accuracy is flat, and resamples of a place where
        something is largest spread more than that place does.
        """
        right, found = self._called == self.same, []
        for fold in range(len(self.cut)):
            inside = self.folds == fold
            total, hits = (counts[:, np.flatnonzero(kind)].sum(1) for kind in (inside, inside & right))
            found.append(100 * ratio(hits, total))
        return np.stack(found, axis=1)

    def val(self, counts: Counts, fars: Sequence[float], scored: Counts | None = None) -> dict[str, Floats]:
        """VAL, and "FAR of VAL@…" as measured beside it, by fold [rows, folds]; thresholds are picked for each row."""
        scored = counts if scored is None else scored
        found: dict[str, list[Floats]] = {}
        for fold in range(len(self.cut)) if fars else ():
            inside = self.folds == fold
            others = np.flatnonzero(~self.same & (inside if self.val_on == "itself" else ~inside))
            judged = ~inside if self.val_on == "train" else inside
            kinds = [np.flatnonzero(judged & self.same), np.flatnonzero(judged & ~self.same)]
            sums = [_cumulated(scored[:, places]) for places in kinds]
            known = counts[:, others].sum(1)  # a resample without any gives no threshold
            for far in fars:
                cut = self._most(counts, others, np.floor(far / 100 * known + 1e-9))
                name = val_name(far)
                for rate, places, sums_ in zip((name, f"FAR of {name}"), kinds, sums, strict=True):
                    share = ratio(_at(sums_, places.searchsorted(cut)), np.where(known > 0, sums_[:, -1], 0))
                    found.setdefault(rate, []).append(100 * share)
        return {name: np.stack(values, axis=1) for name, values in found.items()}

    def _most(self, counts: Counts, others: Indices, allowed: Floats) -> Indices:
        """The largest cuts [rows] that accept at most so many [rows] of the different pairs at `others`."""
        width = 2 * int(allowed.max()) + 50  # of the sorted pairs only the first matter
        few = others[:width]
        accepted = (_cumulated(counts[:, few])[:, 1:] <= allowed[:, None]).sum(1)
        if len(few) < len(others) and (accepted == len(few)).any():
            few = others
            accepted = (_cumulated(counts[:, few])[:, 1:] <= allowed[:, None]).sum(1)
        return np.asarray(np.append(self.closer[few], len(self.order))[accepted])
