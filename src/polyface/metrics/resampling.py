"""Figures of faces drawn again: counts of a bootstrap, percentile intervals, mean and spread over runs or folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int32]

_CHUNK = 500_000  # draws held at once: few enough to stay in a processor's cache from step to step


@dataclass(frozen=True)
class Interval:
    """An interval around a figure, in the figure's own unit; `level` is its nominal coverage (0.95)."""

    low: float
    high: float
    level: float = 0.95

    @property
    def ends(self) -> tuple[float, float]:
        """(low, high), as a results row holds it."""
        return self.low, self.high


def resampled_counts(units: int | Bools, resamples: int = 1000, seed: int = 0) -> Iterator[Counts]:
    """How often each unit is drawn with replacement, by chunks of resamples: [rows, units]. Deterministic by `seed`.

    units: how many there are, or which of them [units] are drawn; the others count 0. As many are drawn as may be.
    """
    kept = np.ones(units, dtype=bool) if np.ndim(units) == 0 else np.asarray(units, dtype=bool)
    n = int(kept.sum())
    if n == 0:
        raise PolyfaceError("no face to resample: an interval needs at least one evaluated face")
    if resamples < 1:
        raise PolyfaceError(f"resamples must be at least 1, not {resamples}")
    generator, step = np.random.default_rng(seed), max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.zeros((rows, len(kept)), np.int32)
        counts[:, kept] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        yield counts


def percentile_interval(statistics: ArrayLike, level: float = 0.95) -> Interval:
    """The percentile interval of resampled statistics [R]; undefined ones (NaN) are left out.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if not 0 < level < 1:
        raise PolyfaceError(f"the level of an interval lies between 0 and 1, not {level}")
    values = np.asarray(statistics, dtype=np.float64)
    values = values[~np.isnan(values)]
    if values.size == 0:
        raise PolyfaceError("no resample has a defined statistic: too few faces for an interval")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


@dataclass(frozen=True)
class Summary:
    """A figure over seeds: mean and sample standard deviation (n - 1); `std` is None for a single seed."""

    mean: float
    std: float | None
    count: int


def summarise(values: Sequence[float]) -> Summary:
    """Mean and std of one figure measured once per seed (or fold)."""
    if not len(values):
        raise PolyfaceError("no value to summarise: give one figure per seed")
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise PolyfaceError(f"cannot summarise {list(values)}: every seed's figure must be finite")
    return Summary(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """`numerator / denominator`, NaN where the denominator is 0, without a warning."""
    above, below = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    quotient: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
    return quotient


def mean_of_defined(values: Floats) -> Floats:
    """The mean over the last axis, NaN left out; NaN if all are."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def over_runs(figures: Floats, generator: np.random.Generator) -> Floats:
    """Resampled figures of several training runs [R, runs] → their mean over runs drawn with replacement, anew for each
    resample: [R]."""
    drawn = generator.integers(figures.shape[1], size=figures.shape)
    return np.asarray(np.take_along_axis(figures, drawn, 1).mean(1), dtype=np.float64)


@dataclass(frozen=True)
class PairedDifference:
    """`difference` = a − b of one figure over the same `n` units, in the figure's unit.

    `p_value` is two-sided: how often the resampled difference falls on either side of zero. `seeds` counts the training
    runs of a and of b.
    """

    difference: float
    interval: Interval
    p_value: float
    n: int
    seeds: tuple[int, int]


def difference_of_runs(
    a: Floats, b: Floats, difference: float, *, n: int, seed: int = 0, level: float = 0.95
) -> PairedDifference:
    """How sure a `difference` is, from one figure of two systems resampled over the same units, [R, runs] each.

    The runs of a and of b are resampled as well, independently, so that the interval also covers how training varies.
    (With very few runs a bootstrap understates that variation, by about sqrt((runs - 1) / runs).)
    """
    generator = np.random.default_rng([seed, 1])
    differences = over_runs(a, generator) - over_runs(b, generator)
    differences = differences[~np.isnan(differences)]
    rounding = 1e-9  # of figures in percent: equal ones may differ by their last bits
    tail = min((differences <= rounding).sum(), (differences >= -rounding).sum())
    return PairedDifference(
        difference=difference,
        interval=percentile_interval(differences, level),
        p_value=float(min(1.0, 2 * (1 + tail) / (1 + len(differences)))),
        n=n,
        seeds=(a.shape[1], b.shape[1]),
    )
