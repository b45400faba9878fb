"""How well ages are told, in groups and in years: exact and 1-off accuracy, balanced accuracy, mean absolute error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyface.metrics.classification import ClassificationResult, evaluate_classification
from polyface.metrics.faces import OverFaces
from polyface.metrics.regression import RegressionResult, evaluate_regression
from polyface.metrics.resampling import Bools, Counts, Floats, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Section

NEAR = Metric("1-off")
YEARS = Metric("years error", unit="years", higher_is_better=False)
_ERROR = Metric("mean absolute error")


@dataclass(frozen=True)
class AgeResult(OverFaces):
    """Ages over all faces given, of which some are labelled with a group, some with years, and most with both.

    groups: the classification into ordered groups, whose figures are the first here. 1-off is the share of faces whose
    answer is the true group or one beside it (Eidinger, Enbar & Hassner, TIFS 2014). years: None where no face is
    labelled with them; its error is the mean of |answer − truth|.
    """

    groups: ClassificationResult
    years: RegressionResult | None
    key: str = field(repr=False)

    @property
    def labelled(self) -> Bools:
        return self.groups.labelled if self.years is None else self.groups.labelled | self.years.labelled

    @property
    def metrics(self) -> list[Metric]:
        exact, *others = self.groups.metrics
        near = Metric(NEAR.name, n=self.groups.n)
        if self.years is None:
            return [exact, near, *others]
        return [exact, near, Metric(YEARS.name, "", YEARS.unit, YEARS.higher_is_better, self.years.n), *others]

    def defined(self, metric: Metric) -> Bools:
        return self.years.labelled if self.years and metric == YEARS else self.groups.labelled

    def figure(self, metric: Metric) -> float:
        return super().figure(metric) if metric in (NEAR, YEARS) else self.groups.figure(metric)

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        found = self.groups.at(counts, [metric for metric in wanted if metric not in (NEAR, YEARS)], judged)
        if NEAR in wanted:
            known, scored = self.groups.labelled, counts if judged is None else counts * judged
            near = known & (np.abs(self.groups.predicted - self.groups.truth) <= 1)
            found[NEAR] = 100 * ratio((scored @ near).astype(np.float64), (scored @ known).astype(np.float64))
        if YEARS in wanted and self.years:
            found[YEARS] = self.years.at(counts, [_ERROR], judged)[_ERROR]
        return {metric: found[metric] for metric in wanted}

    def sections(self) -> list[Section]:
        return [*self.groups.sections(), *(self.years.sections() if self.years else ())]


def evaluate_ages(
    predicted: ArrayLike, truth: ArrayLike, groups: Sequence[str], years: ArrayLike, true_years: ArrayLike
) -> AgeResult:
    """Evaluate answers on N faces: places among the ordered `groups`, int [N] (of the truth −1 where a face is in no
    group or its age is not known), and years [N] (of the truth NaN where they are not known).

    Raises:
        PolyfaceError: no face is labelled with a group, or answers are not finite.
    """
    told = evaluate_classification(predicted, truth, groups)
    known = ~np.isnan(np.asarray(true_years, dtype=np.float64)).all()
    numbers = evaluate_regression(years, true_years, unit="years") if known else None
    return AgeResult(told, numbers, digest(told.key, numbers.key if numbers else ""))
