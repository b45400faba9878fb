"""Figures over folds, training seeds and splits: their rows of results, and differences of two systems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import (
    Floats,
    Interval,
    PairedDifference,
    Row,
    difference_of_runs,
    over_runs,
    percentile_interval,
    ratio,
    summarise,
)

T = TypeVar("T")


@dataclass(frozen=True)
class FoldFigure:
    """A figure in percent: its value, its spread over folds (or draws of a gallery; sample std, None for one), its
    interval over pairs (or faces; None if none was asked for), and the figure of each fold."""

    value: float
    std: float | None
    interval: Interval | None
    folds: tuple[float, ...]


def fold_figure(folds: Sequence[float], drawn: Floats | None, level: float, value: float | None = None) -> FoldFigure:
    """A figure from that of each fold and from resamples of it [R]; `value` is their mean unless it is given."""
    summary = summarise(folds)
    interval = None if drawn is None else percentile_interval(drawn, level)
    return FoldFigure(summary.mean if value is None else value, summary.std, interval, tuple(map(float, folds)))


def mean_of_defined(values: Floats) -> Floats:
    """The mean over the last axis, NaN left out; NaN if all are."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def row_of_runs(
    name: str,
    metric: str,
    values: Sequence[float],
    drawn: Floats | None,
    *,
    n: int,
    runs: Iterable[int],
    published: float | None = None,
    notes: Iterable[str] = (),
    level: float = 0.95,
) -> Row:
    """The row of one figure measured once a run; `drawn` [R, runs] are resamples of it (none: no interval)."""
    summary = summarise(values)
    ends = None
    if drawn is not None:
        ends = percentile_interval(over_runs(drawn, np.random.default_rng(1)), level).ends
    told = "; ".join(filter(None, notes))
    return Row(name, metric, summary.mean, summary.std, n, tuple(runs), ends, published, note=told)


def fold_row(
    name: str,
    metric: str,
    figures: Sequence[FoldFigure],
    drawn: Floats | None,
    *,
    over: str,
    n: int,
    runs: Iterable[int],
    published: Mapping[str, float] | None = None,
    note: str = "",
    notes: Iterable[str] = (),
    level: float = 0.95,
) -> Row:
    """The row of a figure of several folds (or draws: `over` says of what), one figure a run; `published` by metric.
    `note` comes first in its note, then the spread over folds where there is any, then `notes`."""
    spread = [one.std for one in figures if one.std is not None]
    told = (note, f"± {np.mean(spread):.2f} over {over}" if spread else "", *notes)
    values, paper = [one.value for one in figures], (published or {}).get(metric)
    return row_of_runs(name, metric, values, drawn, n=n, runs=runs, published=paper, notes=told, level=level)


def results_of(name: str, results: Mapping[int, T]) -> list[T]:
    """The results of a method, one a seed; there must be one."""
    if not results:
        raise PolyfaceError(f"{name}: give one result per seed")
    return list(results.values())


def compared(a: Sequence[T], b: Sequence[T], splits: bool = False) -> list[tuple[T, ...]]:
    """The results of two systems in groups that must be over the same faces: all, or those of one split each."""
    if not a or not b:
        raise PolyfaceError("a difference needs a result of each system, one a training seed")
    if splits and len(a) != len(b):
        raise PolyfaceError(f"splits are compared one by one: {len(a)} results of a for {len(b)} of b")
    return list(zip(a, b, strict=True)) if splits else [(*a, *b)]


def difference(
    a: Sequence[T],
    b: Sequence[T],
    resampled: Callable[[Sequence[T]], Floats],
    figure: Callable[[T], float],
    counts: Callable[[T], tuple[int, int]],
    *,
    splits: bool = False,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """The difference a − b of a `figure`, measured once a run; `resampled` gives that of some runs [R, runs], of the
    same draws whichever runs are asked for; `counts` what a run judged and what it left out.

    Training seeds of a and b have nothing to do with each other and are resampled independently. With `splits`, run i
    of a and run i of b saw the same split, and splits are resampled: a difference of each, then their mean.
    """
    ours, theirs = resampled(a), resampled(b)
    value = float(np.mean([*map(figure, a)])) - float(np.mean([*map(figure, b)]))
    n, excluded = (sum(column) for column in zip(*map(counts, a if splits else a[:1]), strict=True))
    if not splits:
        return difference_of_runs(ours, theirs, value, n=n, excluded=excluded, seed=seed, level=level)
    nothing = np.zeros((len(ours), 1))
    found = difference_of_runs(ours - theirs, nothing, value, n=n, excluded=excluded, seed=seed, level=level)
    return replace(found, seeds=(len(a), len(b)))
