"""Figures of every kind of task and protocol behind one interface, and the one place that makes rows of them.

A `Result` is about units (faces, pairs, probes, people) that can be drawn again. Everything else follows from that:
`rows` gives a figure over training seeds (or splits) with its interval, `differences` the paired difference of two
systems; `groups.within` gives the same figures of a group of units.

Intervals are of bootstraps over units and, of several runs, of how these differ (see `resampling.interval_over_runs`).
All runs of both sides see the same draws, over the units that are defined in every one of them, with one seed; of
splits, each draws its own. Systems are compared run by run, each with that of the same seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import (
    Bools,
    Counts,
    Floats,
    PairedDifference,
    interval_over_runs,
    resampled_counts,
    student,
    summarise,
)
from polyface.metrics.sections import Section


@dataclass(frozen=True)
class Metric:
    """One figure of a result. Metrics of equal name and part are the same one, in whatever result.

    part: what of the question it is about, such as one attribute of 40; empty for all of it. n: how many faces (or
    pairs) are behind it. note: what a reader must know. folds: over what it is a mean ("10 folds"), where its spread is
    told. compared: whether it has paired differences. resampled: whether it has an interval. grouped: whether it is
    told of groups of units too. trained: whether it depends on the network at all; what the labels alone give, such as
    the share of the majority class, is one for all runs. relative: whether its relative change is told as well.
    """

    name: str
    part: str = ""
    unit: str = field(default="%", compare=False)
    higher_is_better: bool = field(default=True, compare=False)
    n: int | None = field(default=None, compare=False)
    note: str = field(default="", compare=False)
    folds: str = field(default="", compare=False)
    compared: bool = field(default=True, compare=False)
    resampled: bool = field(default=True, compare=False)
    grouped: bool = field(default=True, compare=False)
    trained: bool = field(default=True, compare=False)
    relative: bool = field(default=False, compare=False)


class Result(Protocol):
    """How one network did at one question, over units that can be drawn again."""

    @property
    def units(self) -> int:
        """How many units there are, also those that no figure is of."""

    @property
    def over(self) -> str:
        """What a unit is: "faces", "pairs"."""

    @property
    def key(self) -> str:
        """Of the units, their labels and the protocol (see `digest`): only results of equal keys are averaged or
        compared."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """All figures; the first is the one by which networks are selected."""

    def figure(self, metric: Metric) -> float:
        """The figure as published; NaN if it is not defined."""

    def spread(self, metric: Metric) -> float | None:
        """Its standard deviation over folds (or draws of a gallery); None where it has none."""

    def defined(self, metric: Metric) -> Bools:
        """Which units [units] the figure is of: those with a label and an answer."""

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        """The wanted figures [B] of units that are there so many times, counts [B, units] (0 where not defined).

        Thresholds are picked on these counts; of these units, those that are `judged` [units] are scored.
        """

    def sections(self) -> list[Section]:
        """What there is to show beside the figures."""


@dataclass(frozen=True)
class Row:
    """One measured figure. Rates in percent; `interval` is (low, high); `n` counts the faces (or pairs) behind it.

    `seeds` are the training seeds averaged over, `std` the standard deviation over them (None for one). `published` is
    the paper's figure, `note` what a reader must know to compare the two. `over` says what the interval is over: "faces
    and seeds", or "faces only", which says nothing of how trainings differ; empty in rows from before it was told.
    `precision` is that of the trainings ("bf16-mixed"), where it is known.
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
    over: str = ""
    precision: str = ""

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

    @property
    def notes(self) -> list[str]:
        """What a reader must know of it, each by itself."""
        late = {"interval over": self.only, "trained in": self.precision}
        return [*filter(None, self.note.split("; ")), *(f"{what} {told}" for what, told in late.items() if told)]

    @property
    def differs(self) -> bool:
        """Whether it is a difference ("<one> minus <other>") whose interval excludes 0."""
        return " minus " in self.row and self.interval is not None and around_zero(self.interval) == EXCLUDES

    @property
    def only(self) -> str:
        """What its interval is over where that is no training: "faces only"; empty for any other row."""
        if self.interval is None or (self.over and not self.over.endswith(" only")):
            return ""
        return self.over or ("faces only" if len(self.seeds) == 1 else "")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def digest(*what: Any) -> str:
    """A result's `key` from arrays (labels, names) and plain values."""
    found = hashlib.sha1()
    for one in what:
        array = np.asarray(one)
        if array.dtype.kind == "f":
            array = np.where(np.isnan(array), np.nan, array)  # all NaN alike
        content = repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes()
        found.update(f"{array.dtype.str} {array.shape} ".encode() + content)
    return found.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------- rows


def rows(
    name: str,
    results: Mapping[int, Result],
    *,
    prefix: str = "",
    splits: bool = False,
    published: Mapping[str, float] | None = None,
    note: str = "",
    wanted: str | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """The rows of a method, from its results by training seed over the same units: one a metric, named `prefix` and the
    metric's name; a metric that is about a part is in a row "<name>: <part>".

    Mean and std are over seeds. With `splits`, results are of several splits (or folds), each with units of its own.
    A figure that is not defined in every run has no row; `resamples=0` gives no intervals. `published` maps a metric,
    with its prefix, to the paper's figure. wanted: the metrics of this name alone.

    Raises:
        PolyfaceError: no result, or results that are not over the same units.
    """
    if not results:
        raise PolyfaceError(f"{name}: give one result per seed")
    runs = list(results.values())
    groups = [[run] for run in runs] if splits else [runs]
    chosen = _named(_common(runs, groups), wanted)
    drawn = _drawn(groups, [metric for metric in chosen if metric.resampled], resamples, 0)
    made = []
    for metric in chosen:
        if not metric.trained:
            value = runs[0].figure(metric)
            made.append(
                Row(_row(name, metric), prefix + metric.name, value, n=metric.n, unit=metric.unit, note=metric.note)
            )
            continue
        summary = summarise([run.figure(metric) for run in runs])
        ends = _interval(metric, [group[metric] for group in drawn], runs, level) if metric in drawn[0] else None
        spread = [one for run in runs if (one := run.spread(metric)) is not None]
        notes = note, f"± {np.mean(spread):.2f} over {metric.folds}" if spread else "", metric.note
        paper = None if metric.part else (published or {}).get(prefix + metric.name)
        made.append(
            Row(
                _row(name, metric), prefix + metric.name, summary.mean, summary.std, metric.n, tuple(results),
                ends, paper, metric.unit, "; ".join(filter(None, notes)), _told(runs, splits) if ends else "",
            )
        )  # fmt: skip
    return made


def _told(runs: Sequence[Result], splits: bool) -> str:
    """What an interval is over."""
    return f"{runs[0].over} only" if len(runs) == 1 else f"{runs[0].over} and {'splits' if splits else 'seeds'}"


def _row(name: str, metric: Metric) -> str:
    return f"{name}: {metric.part}" if metric.part else name


def _interval(
    metric: Metric, drawn: Sequence[Floats], runs: Sequence[Result], level: float
) -> tuple[float, float] | None:
    """Of resampled figures [R, runs] of each group; None where no resample defines it. Errors end at 0, shares at 100 %
    too; but what is in percent of something else may go beyond, as its draws do."""
    figures = np.hstack(drawn)
    found = interval_over_runs(figures, np.array([run.figure(metric) for run in runs]), level)
    if found is None:
        return None
    least = 0.0 if metric.unit == "%" or not metric.higher_is_better else -np.inf
    most = 100.0 if metric.unit == "%" else np.inf
    return max(found.low, min(least, np.nanmin(figures))), min(found.high, max(most, np.nanmax(figures)))


INCLUDES, EXCLUDES = "the interval includes 0", "the interval excludes 0"
"""What is noted of a difference."""


def around_zero(ends: tuple[float, float]) -> str:
    """What the interval of a difference says."""
    return INCLUDES if ends[0] <= 0 <= ends[1] else EXCLUDES


def differences(
    better: str,
    than: str,
    a: Mapping[int, Result],
    b: Mapping[int, Result],
    *,
    prefix: str = "",
    splits: bool = False,
    wanted: str | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """The figures of `better` minus those of `than`, in rows "<better> minus <than>", over the seeds (with `splits`,
    the splits) that both have; none without a common one. wanted: of the metrics of this name alone."""
    seeds = tuple(sorted(set(a) & set(b)))
    if not seeds:
        return []
    ours, theirs = ([side[seed] for seed in seeds] for side in (a, b))
    over = _told(ours, splits)
    made = []
    told = paired_differences(ours, theirs, splits=splits, wanted=wanted, resamples=resamples, level=level)
    for metric, one in told.items():
        ends = one.interval.ends
        note = f"paired bootstrap over {over}; {around_zero(ends)}"
        name = _row(f"{better} minus {than}", metric)
        made.append(
            Row(name, prefix + metric.name, one.difference, None, one.n, seeds, ends, None, metric.unit, note, over)
        )
    return made


def differences_of_runs(
    better: str, than: str, metric: str, gaps: Mapping[int, float], unit: str, note: str = "", level: float = 0.95
) -> list[Row]:
    """The row of how much one method's figure of a training differs from another's, by seed: with an interval by
    Student's t over seeds, for what is of no units that could be drawn again; none of fewer than two seeds."""
    if len(gaps) < 2:
        return []
    of_all = summarise(list(gaps.values()))
    half = student(level, len(gaps) - 1) * float(of_all.std or 0) / np.sqrt(len(gaps))
    ends = (of_all.mean - half, of_all.mean + half)
    told = "; ".join(filter(None, [note, around_zero(ends)]))
    name, seeds = f"{better} minus {than}", tuple(gaps)
    return [Row(name, metric, of_all.mean, of_all.std, None, seeds, ends, unit=unit, note=told, over="seeds")]


def relative_differences(better: str, than: str, a: Mapping[int, Result], b: Mapping[int, Result]) -> list[Row]:
    """By how many percent the figures of `better` are above (negative: below) those of `than`, of metrics that have a
    `relative` change, over the seeds that both have; none where a figure of `than` is 0."""
    seeds = tuple(sorted(set(a) & set(b)))
    if not seeds:
        return []
    made = []
    for metric in (metric for metric in a[seeds[0]].metrics if metric.relative):
        pairs = [(a[seed].figure(metric), b[seed].figure(metric)) for seed in seeds]
        if all(theirs for _, theirs in pairs):
            change = summarise([100 * (ours - theirs) / theirs for ours, theirs in pairs])
            note = "relative to the second; mean ± std over seeds"
            name = f"relative {metric.name}"
            made.append(Row(f"{better} minus {than}", name, change.mean, change.std, None, seeds, note=note))
    return made


def paired_differences(
    a: Sequence[Result],
    b: Sequence[Result],
    *,
    splits: bool = False,
    wanted: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[Metric, PairedDifference]:
    """The difference a − b of every metric that has one, of two systems' results over the same units, one a run.

    a[i] and b[i] are of the same training seed: what differs between seeds in both alike, such as the order of faces,
    is no difference of the systems. With `splits` they saw the same split. A unit that is not defined in some run is
    left out of the figures of all. wanted: the metrics of this name alone.
    """
    if not a or not b:
        raise PolyfaceError("a difference needs a result of each system, one a training seed")
    if len(a) != len(b):
        raise PolyfaceError(f"runs are compared one by one, seed by seed: {len(a)} results of a for {len(b)} of b")
    groups = [[x, y] for x, y in zip(a, b, strict=True)] if splits else [[*a, *b]]
    own = 1 if splits else len(a)  # the runs of a come first in each group

    def apart(each: Sequence[Floats]) -> Floats:
        """Figures [R, runs] of each group → those of a minus those of b, run by run."""
        return np.hstack([one[:, :own] - one[:, own:] for one in each])

    if not set(a[0].metrics) & set(b[0].metrics):
        raise PolyfaceError(f"results to be compared have no figure in common: {_listed(a[0])}; {_listed(b[0])}")
    shared = [metric for metric in _common(a, groups) if metric in _common(b, groups)]
    chosen = [metric for metric in _named(shared, wanted) if metric.compared and metric.resampled and metric.trained]
    drawn = _drawn(groups, chosen, resamples, seed)
    found = {}
    for metric in (one for one in chosen if one in drawn[0]):
        joint = [_joint(group, metric) for group in groups]
        values = apart([_over(group, metric, units) for group, units in zip(groups, joint, strict=True)])[0]
        interval = interval_over_runs(apart([figures[metric] for figures in drawn]), values, level)
        if interval is not None:
            n = sum(_count(group[0], metric, units) for group, units in zip(groups, joint, strict=True))
            found[metric] = PairedDifference(float(values.mean()), interval, n, len(values))
    return found


# ------------------------------------------------------------------------------------------------------------- drawing


def _common(runs: Sequence[Result], groups: Sequence[Sequence[Result]]) -> list[Metric]:
    """The metrics that are defined in every run; the runs of each group must be over the same units."""
    first = runs[0]
    for other in runs[1:]:
        if list(other.metrics) != list(first.metrics):
            raise PolyfaceError(
                f"results to be averaged must have the same figures, found {_listed(first)} and {_listed(other)}"
            )
    for group in groups:
        if len({run.key for run in group}) > 1:
            raise PolyfaceError(
                f"results to be averaged or compared must be of the same {first.over} in the same order, by the same "
                "protocol"
            )
    return [metric for metric in first.metrics if all(math.isfinite(run.figure(metric)) for run in runs)]


def _named(metrics: Sequence[Metric], wanted: str | None) -> list[Metric]:
    return [metric for metric in metrics if wanted in (None, metric.name)]


def _listed(result: Result) -> str:
    return ", ".join(f"{metric.part} {metric.name}".strip() for metric in result.metrics)


def _joint(runs: Sequence[Result], metric: Metric) -> Bools:
    """The units that are defined in every run."""
    return np.asarray(np.logical_and.reduce([run.defined(metric) for run in runs]), dtype=bool)


def _over(runs: Sequence[Result], metric: Metric, joint: Bools) -> Floats:
    """The figure of each run [1, runs]; of the joint units where these are fewer than its own."""
    once = joint[None].astype(np.int32)
    return np.array(
        [
            [
                run.figure(metric) if (run.defined(metric) == joint).all() else run.at(once, [metric])[metric][0]
                for run in runs
            ]
        ]
    )


def _count(run: Result, metric: Metric, joint: Bools) -> int:
    """How many are behind a figure of the joint units: these, or what the metric counts if they are all."""
    found = next(known.n for known in run.metrics if known == metric)
    return found if found is not None and joint.all() else int(joint.sum())


def _drawn(
    groups: Sequence[Sequence[Result]], metrics: Sequence[Metric], resamples: int, seed: int
) -> list[dict[Metric, Floats]]:
    """Resampled figures [R, runs] for each group of runs over the same units: group i draws with `seed` + i.

    Metrics that are defined for the same units share their draws; one without any such unit is left out.
    """
    found: list[dict[Metric, Floats]] = []
    for place, group in enumerate(groups):
        alike: dict[bytes, list[Metric]] = {}
        for metric in metrics if resamples else ():
            if (joint := _joint(group, metric)).any():
                alike.setdefault(joint.tobytes(), []).append(metric)
        figures: dict[Metric, Floats] = {}
        for wanted in alike.values():
            counted = resampled_counts(_joint(group, wanted[0]), resamples, seed + place)
            chunks = [[run.at(counts, wanted) for run in group] for counts in counted]
            for metric in wanted:
                figures[metric] = np.concatenate([np.stack([run[metric] for run in chunk], 1) for chunk in chunks])
        found.append(figures)
    if len(found) > 1:  # a figure that one split lacks is no figure of all
        found = [{metric: one[metric] for metric in one if all(metric in other for other in found)} for one in found]
    return found
