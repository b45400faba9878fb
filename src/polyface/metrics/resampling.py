"""Figures of faces drawn again: counts of a bootstrap, percentile intervals, mean and spread over runs or folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

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


@cache
def student(level: float, degrees: int) -> float:
    """How far from 0 Student's t lies with probability `level`, to both sides: its 97.5 % quantile for 0.95.

    t = √degrees · tan θ, where the density of θ is as cos θ to the power of degrees − 1: summed over a fine grid.
    """
    angles = np.linspace(0, np.pi / 2, 100_001)
    density = np.cos(angles) ** (degrees - 1)
    share = np.append(0, np.cumsum(density[1:] + density[:-1]))
    return float(np.sqrt(degrees) * np.tan(np.interp(level, share / share[-1], angles)))


def interval_over_runs(figures: Floats, values: Floats, level: float = 0.95) -> Interval | None:
    """The interval of a mean over training runs, from the figure of each run [runs] and those of the same units drawn
    again [R, runs]; None where no draw is defined in every run.

    One run has the percentile interval of its draws, which says nothing of how runs differ. Of several, what a draw of
    units changes in all runs alike (the mean covariance of two runs' draws) and what differs between runs (their
    variance; how units and runs interact is in it) add up to the variance of the mean, as readers and cases do in
    Obuchowski & Rockette 1995. Few runs tell their variance badly: the quantile is that of the draws and Student's t of
    runs − 1 degrees of freedom, weighed by these two parts (Cochran & Cox 1950).
    """
    defined = figures[~np.isnan(figures).any(1)]
    if not len(defined):
        return None
    means, runs = defined.mean(1), len(values)
    of_units = percentile_interval(means, level)
    if runs == 1:
        return of_units
    covariance = np.atleast_2d(np.cov(defined, rowvar=False, ddof=0))
    shared = max(0.0, float(covariance.sum() - covariance.trace()) / (runs * (runs - 1)))
    between = float(np.var(values, ddof=1)) / runs
    if not (total := shared + between):
        return Interval(float(values.mean()), float(values.mean()), level)
    mean, spread = float(values.mean()), float(means.std())
    below, above = (abs(end - mean) / spread if spread else 0.0 for end in of_units.ends)
    low, high = ((side * shared + student(level, runs - 1) * between) / np.sqrt(total) for side in (below, above))
    return Interval(mean - low, mean + high, level)


@dataclass(frozen=True)
class PairedDifference:
    """`difference` = a − b of one figure over the same `n` units and the same `runs` training seeds (or splits), in the
    figure's unit."""

    difference: float
    interval: Interval
    n: int
    runs: int
