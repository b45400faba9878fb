"""One result of several folds or splits, each with units of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Bools, Counts, Floats, summarise
from polyface.metrics.result import Metric, Result, digest
from polyface.metrics.sections import Section


def pooled(folds: Sequence[Result], told: str = "") -> Result:
    """The results of several folds as one over all their units, which are drawn again together; every figure is the
    mean of those of the folds. told: what they are called ("10 splits") where the spread of figures is that over them;
    else it is the mean of their own.

    Raises:
        PolyfaceError: folds with different figures.
    """
    first, *others = folds
    if any(list(other.metrics) != list(first.metrics) for other in others):
        raise PolyfaceError("folds that are one result must have the same figures")
    return _Pooled(tuple(folds), told) if others else first


@dataclass(frozen=True)
class _Pooled:
    folds: tuple[Result, ...]
    told: str

    @property
    def units(self) -> int:
        return sum(fold.units for fold in self.folds)

    @property
    def over(self) -> str:
        return self.folds[0].over

    @property
    def key(self) -> str:
        return digest(*(fold.key for fold in self.folds))

    @property
    def metrics(self) -> Sequence[Metric]:
        of_each = zip(*(fold.metrics for fold in self.folds), strict=True)
        return [
            replace(
                same[0],
                n=None if any(one.n is None for one in same) else sum(one.n or 0 for one in same),
                note="",
                folds=self.told or same[0].folds,
            )
            for same in of_each
        ]

    def figure(self, metric: Metric) -> float:
        return float(np.mean([fold.figure(metric) for fold in self.folds]))

    def spread(self, metric: Metric) -> float | None:
        if self.told:
            return summarise([fold.figure(metric) for fold in self.folds]).std
        spreads = [one for fold in self.folds if (one := fold.spread(metric)) is not None]
        return float(np.mean(spreads)) if spreads else None

    def defined(self, metric: Metric) -> Bools:
        return np.concatenate([fold.defined(metric) for fold in self.folds])

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        ends = np.cumsum([fold.units for fold in self.folds])[:-1]
        own = np.split(counts, ends, axis=1)
        scored = [None] * len(self.folds) if judged is None else np.split(judged, ends)
        found = [fold.at(c, wanted, j) for fold, c, j in zip(self.folds, own, scored, strict=True)]
        return {metric: np.mean([one[metric] for one in found], axis=0) for metric in wanted}

    def sections(self) -> list[Section]:
        return self.folds[0].sections()
