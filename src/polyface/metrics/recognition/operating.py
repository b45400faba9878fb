"""How much of what is right is accepted where so much of what is wrong is: TAR at a FAR, TPIR at a FPIR.

Thresholds are read off the very units that are judged, as IJB-A has it (Klare et al., CVPR 2015): of a list that has no
folds, and is large. Figures at thresholds of other folds are those of `verification`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import (
    SortedPairs,
    auc,
    checked,
    checked_fars,
    equal_error_rate,
    rate_sections,
    rates,
    val_name,
)
from polyface.metrics.resampling import Bools, Counts, Floats
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Section


@dataclass(frozen=True)
class OperatingResult:
    """The share of right units that is accepted where at most so much of the wrong ones is (`fars`, in percent); `name`
    is that of both rates ("TAR@FAR"), `over` what a unit is. `truth` says which units are right [N]. Resamples pick
    thresholds anew."""

    name: str
    over: str
    fars: tuple[float, ...]
    key: str
    distances: Floats = field(repr=False, compare=False)
    truth: Bools = field(repr=False, compare=False)
    pairs: SortedPairs = field(repr=False, compare=False)

    @property
    def units(self) -> int:
        return len(self.truth)

    @property
    def metrics(self) -> list[Metric]:
        return [Metric(f"{self.name} {far:g}%", n=self.units) for far in self.fars]

    def figure(self, metric: Metric) -> float:
        return float(self.at(np.ones((1, self.units), np.int32), [metric])[metric][0])

    def spread(self, metric: Metric) -> float | None:
        return None

    def defined(self, metric: Metric) -> Bools:
        return np.ones(self.units, dtype=bool)

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        scored = None if judged is None else self.pairs.ranked(counts * judged)
        asked = {metric: far for metric, far in zip(self.metrics, self.fars, strict=True) if metric in wanted}
        found = self.pairs.val(self.pairs.ranked(counts), list(asked.values()), scored)
        return {metric: found[val_name(far)][:, 0] for metric, far in asked.items()}

    def sections(self) -> list[Section]:
        area, equal = auc(self.distances, self.truth), equal_error_rate(self.distances, self.truth)
        return rate_sections(*rates(self.distances, self.truth), area, equal)


def evaluate_operating(
    distances: ArrayLike,
    right: ArrayLike,
    *,
    fars: Sequence[float] = (1.0, 0.1),
    name: str = "TAR@FAR",
    over: str = "pairs",
) -> OperatingResult:
    """Evaluate distances [N] of units of which those that are `right` [N] should be accepted, for being near.

    As many are accepted as can be while at most that share of the wrong ones is: at a FAR (`fars`, in percent) for
    which there are too few of these, none of them.

    Raises:
        PolyfaceError: all units are of one kind, or a distance is not finite.
    """
    values, truth = checked(distances, right, False)
    if truth.all() or not truth.any():
        raise PolyfaceError(f"all {len(truth)} {over} are {'right' if truth.all() else 'wrong'}: nothing to tell")
    levels = checked_fars(fars)
    pairs = SortedPairs(values, truth, np.zeros(len(truth), np.int64), None, levels, "itself")
    return OperatingResult(name, over, levels, digest(truth, list(levels), name), values, truth, pairs)
