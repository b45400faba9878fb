"""What every metric here shares: a figure, the interval around it, mean ± std over seeds, a row of results.

Every figure is a mean over faces, or a ratio of two such means. One routine therefore resamples them all: it draws how
often each face counts and multiplies those counts with the per-face columns, so that a thousand resamples of three
thousand faces cost tens of milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError

Floats = NDArray[np.float64]

_CHUNK = 4_000_000  # draws held at once (32 MB): resamples are drawn in chunks of this size


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


def resampled_means(columns: ArrayLike, resamples: int = 1000, seed: int = 0) -> Floats:
    """Means of per-face columns [N] or [N, M] over faces drawn with replacement: [resamples, M] (M = 1 for [N]).

    All columns of one resample see the same faces, so ratios of columns are resampled rightly. Deterministic by `seed`.
    """
    values = np.asarray(columns, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    n = len(values)
    if n == 0:
        raise PolyfaceError("no face to resample: an interval needs at least one evaluated face")
    if resamples < 1:
        raise PolyfaceError(f"resamples must be at least 1, not {resamples}")
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = counts @ values / n
    return means


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


def bootstrap_interval(values: ArrayLike, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """The percentile bootstrap interval of the mean of per-face values [N] (finite)."""
    return percentile_interval(resampled_means(values, resamples, seed)[:, 0], level)


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


def over_runs(figures: Floats, generator: np.random.Generator) -> Floats:
    """Resampled figures of several training runs [R, runs] → their mean over runs drawn with replacement, anew for each
    resample: [R]."""
    drawn = generator.integers(figures.shape[1], size=figures.shape)
    return np.asarray(np.take_along_axis(figures, drawn, 1).mean(1), dtype=np.float64)


@dataclass(frozen=True)
class PairedDifference:
    """`difference` = a - b of one figure over the same `n` faces, in percent.

    `p_value` is two-sided: how often the resampled difference falls on either side of zero. `excluded` faces are part
    of nothing; `seeds` counts the training runs of a and of b.
    """

    difference: float
    interval: Interval
    p_value: float
    n: int
    excluded: int
    seeds: tuple[int, int]


def difference_of_runs(
    a: Floats, b: Floats, difference: float, *, n: int, excluded: int, seed: int = 0, level: float = 0.95
) -> PairedDifference:
    """How sure a `difference` is, from one figure of two systems resampled over the same faces, [R, runs] each.

    The runs of a and of b are resampled as well, independently, so that the interval also covers how training varies.
    (With very few runs a bootstrap understates that variation, by about sqrt((runs - 1) / runs).)
    """
    generator = np.random.default_rng([seed, 1])
    differences = over_runs(a, generator) - over_runs(b, generator)
    rounding = 1e-9  # of figures in percent: equal ones may differ by their last bits
    tail = min((differences <= rounding).sum(), (differences >= -rounding).sum())
    return PairedDifference(
        difference=difference,
        interval=percentile_interval(differences, level),
        p_value=float(min(1.0, 2 * (1 + tail) / (1 + len(differences)))),
        n=n,
        excluded=excluded,
        seeds=(a.shape[1], b.shape[1]),
    )


@dataclass(frozen=True)
class Row:
    """One measured figure. Rates in percent; `interval` is (low, high); `n` counts the faces (or pairs) behind it.

    `seeds` are the training seeds averaged over, `std` the standard deviation over them (None for one). `published` is
    the paper's figure, `note` what a reader must know to compare the two.
    """

    row: str
    metric: str
    mean: float
    std: float | None = None
    n: int | None = None
    seeds: tuple[int, ...] = ()
    interval: tuple[float, float] | None = None
    published: float | None = None
    unit: str = "%"
    note: str = ""

    def __post_init__(self) -> None:
        where = f"result row '{self.row}' / '{self.metric}'"
        if not self.row or not self.metric:
            raise PolyfaceError(f"{where}: both the row and the metric need a name")
        for name in ("mean", "std", "published"):
            value = getattr(self, name)
            if not _finite(value) and not (value is None and name != "mean"):
                raise PolyfaceError(f"{where}: {name} must be a finite number, not {value!r}")
        if self.interval is not None:  # JSON knows lists only
            ends = tuple(self.interval)
            if len(ends) != 2 or not all(map(_finite, ends)) or ends[0] > ends[1]:
                raise PolyfaceError(f"{where}: interval must be (low, high), not {ends}")
            object.__setattr__(self, "interval", ends)
        object.__setattr__(self, "seeds", tuple(self.seeds))

    @property
    def key(self) -> tuple[str, str]:
        """What identifies a row within its file."""
        return self.row, self.metric


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
