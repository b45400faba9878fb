"""Figures of a group of units, such as the faces of one pose: a `Result` of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Bools, Counts, Floats
from polyface.metrics.result import Metric, Result, digest
from polyface.metrics.sections import Section


def groups_of(labels: Sequence[str | None], order: Sequence[str] = ()) -> dict[str, Bools]:
    """Which units [units] have each label, in a given order, then as they occur; a unit without one is in no group."""
    words = np.array(labels, dtype=object)
    present = dict.fromkeys(label for label in labels if label is not None)
    known = [*(label for label in order if label in present), *(label for label in present if label not in order)]
    return {label: np.asarray(words == label, dtype=bool) for label in known}


def within(result: Result, judged: Bools) -> Result:
    """The same figures of a group of units [units]: thresholds are picked on everybody and used on the group."""
    if judged.shape != (result.units,):
        raise PolyfaceError(f"a group of {list(judged.shape)} {result.over} for a result over {result.units}")
    return _Within(result, judged)


@dataclass(frozen=True)
class _Within:
    whole: Result
    judged: Bools

    @property
    def units(self) -> int:
        return self.whole.units

    @property
    def over(self) -> str:
        return self.whole.over

    @property
    def key(self) -> str:
        return digest(self.whole.key, self.judged)

    @property
    def metrics(self) -> Sequence[Metric]:
        """Those of the whole question that an `at` gives; `n` counts the group's units."""
        kept = [metric for metric in self.whole.metrics if metric.resampled and metric.grouped and not metric.part]
        known = np.logical_or.reduce([self.whole.defined(metric) for metric in kept]) & self.judged
        return [replace(metric, n=int(known.sum()), note="", folds="") for metric in kept]

    def figure(self, metric: Metric) -> float:
        known = self.whole.defined(metric)
        if not (known & self.judged).any():
            return math.nan
        return float(self.at(known[None].astype(np.int32), [metric])[metric][0])

    def spread(self, metric: Metric) -> float | None:
        return None

    def defined(self, metric: Metric) -> Bools:
        return self.whole.defined(metric)

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        return self.whole.at(counts, wanted, self.judged if judged is None else self.judged & judged)

    def sections(self) -> list[Section]:
        return []
