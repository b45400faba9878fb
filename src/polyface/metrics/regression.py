"""How well a number is told: mean absolute error, R² and correlation, of numbers or of degrees on the circle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.faces import OverFaces
from polyface.metrics.resampling import Bools, Counts, Floats, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Curves, Section


@dataclass(frozen=True)
class RegressionResult(OverFaces):
    """A number over `n` labelled faces. Units are all faces. `predicted` and `truth` are [N], NaN in `truth` where a
    face is not labelled; `circular` ones are degrees.

    R² is the share of the labels' variation that is explained: 1 − Σ e² / Σ (y − ȳ)², of degrees 1 − Σ (1 − cos e) /
    Σ (1 − cos(y − ȳ)) with the mean direction ȳ, which is the same where angles are small (Mardia & Jupp 2000, 2.3).
    The correlation is Pearson's, or the circular one of Jammalamadaka & SenGupta 2001, 8.2. Both are NaN where all
    labels (for the correlation: or all answers) are equal.
    """

    circular: bool
    unit: str
    key: str
    predicted: Floats = field(repr=False, compare=False)
    truth: Floats = field(repr=False, compare=False)

    @property
    def labelled(self) -> Bools:
        return np.asarray(~np.isnan(self.truth))

    @property
    def errors(self) -> Floats:
        """Absolute errors [N], at most 180 on the circle; NaN where a face is not labelled."""
        apart = np.abs(self.predicted - self.truth)
        return np.asarray(np.abs((apart + 180) % 360 - 180) if self.circular else apart)

    @property
    def metrics(self) -> list[Metric]:
        note = f"{self.unlabelled} faces without a label" if self.unlabelled else ""
        return [
            Metric("mean absolute error", unit=self.unit, higher_is_better=False, n=self.n, note=note),
            Metric("R²", unit="", n=self.n, note=note),
            Metric("correlation", unit="", n=self.n, note=note),
        ]

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        known = self.labelled
        scored = (counts if judged is None else counts * judged)[:, known].astype(np.float64)
        total, error = scored.sum(1), self.errors[known]
        true, told = self.truth[known], self.predicted[known]
        if self.circular:
            residual, middle = 1 - np.cos(np.deg2rad(error)), 0.0
        else:  # of numbers near 0 no digits are lost
            residual, middle = error**2, true.mean()
        a, b = (_coordinates(values - middle, self.circular) for values in (true, told))
        (mean, first), (_, second) = (_centre(scored @ one, total, self.circular) for one in (a, b))
        own, other = _moment(scored, a, a, first, first), _moment(scored, b, b, second, second)
        sizes = [total if self.circular else scored @ one[:, 1] ** 2 for one in (a, b)]
        own, other = (np.where(sum_ > 1e-12 * size, sum_, 0) for sum_, size in zip((own, other), sizes, strict=True))
        variation = np.where(own > 0, total - mean, 0) if self.circular else own
        figures = {
            "mean absolute error": ratio(scored @ error, total),
            "R²": 1 - ratio(scored @ residual, variation),
            "correlation": ratio(_moment(scored, a, b, first, second), np.sqrt(own * other)),
        }
        return {metric: figures[metric.name] for metric in wanted}

    def sections(self) -> list[Section]:
        errors = np.sort(self.errors[self.labelled])
        share = 100 * np.arange(1, self.n + 1) / self.n
        unit = f", {self.unit}" if self.unit else ""
        legend = f"mean {errors.mean():.3g} {self.unit}".strip()
        curve = Curves({"": (errors, share)}, f"absolute error{unit}", "faces, %", legend=legend, percent=True)
        return [Section("error curve", [curve])]


def _coordinates(values: Floats, circular: bool) -> Floats:
    """Numbers y as (1, y), degrees as (cos, sin): [N, 2]."""
    angle = np.deg2rad(values)
    pair = (np.cos(angle), np.sin(angle)) if circular else (np.ones_like(values), values)
    return np.stack(pair, axis=1)


def _centre(sums: Floats, total: Floats, circular: bool) -> tuple[Floats, Floats]:
    """Sums of coordinates [R, 2] → their mean (of directions: the length of the sum) [R], and what turns coordinates
    into deviations from it [R, 2]: (1, y) · (−ȳ, 1) = y − ȳ; (cos y, sin y) · (−sin ȳ, cos ȳ) = sin(y − ȳ)."""
    if circular:
        length = np.hypot(*sums.T)
        return length, np.stack([-ratio(sums[:, 1], length), ratio(sums[:, 0], length)], axis=1)
    mean = ratio(sums[:, 1], total)
    return mean, np.stack([-mean, np.ones_like(mean)], axis=1)


def _moment(scored: Floats, a: Floats, b: Floats, first: Floats, second: Floats) -> Floats:
    """Sums [R] of the products of deviations of coordinates a and b [N, 2], by what `_centre` gives [R, 2]."""
    products = (scored @ (a[:, :, None] * b[:, None, :]).reshape(-1, 4)).reshape(-1, 2, 2)
    return np.asarray(np.einsum("ri,rij,rj->r", first, products, second))


def evaluate_regression(
    predicted: ArrayLike, truth: ArrayLike, *, circular: bool = False, unit: str = ""
) -> RegressionResult:
    """Evaluate predicted numbers [N] against the true ones [N], NaN where a face is not labelled. circular: degrees, of
    which 360 is 0. unit: of the error."""
    guess, known = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if guess.ndim != 1 or guess.shape != known.shape:
        raise PolyfaceError(
            f"predictions {list(guess.shape)} and true numbers {list(known.shape)} must both be [faces]"
        )
    if np.isnan(known).all():
        raise PolyfaceError("no face is labelled with a number: nothing to evaluate")
    bad = np.flatnonzero(~np.isnan(known) & ~np.isfinite(guess))
    if bad.size:
        raise PolyfaceError(
            f"{bad.size} faces have predictions that are not finite (the first is face {bad[0]}): the network diverged"
        )
    return RegressionResult(circular, unit, digest(known, circular), guess, known)
