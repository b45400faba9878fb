"""What a comparison of weightings found: rows of results, and one page with tables, differences and curves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from polyface.errors import PolyfaceError
from polyface.evaluation.classification import ClassificationResult
from polyface.evaluation.landmarks import LandmarkResult, landmark_rows
from polyface.evaluation.metrics import Row, summarise
from polyface.evaluation.pictures import Curve, plot_curves
from polyface.evaluation.report import (
    Block,
    CedSection,
    Figure,
    Figures,
    MeasuredSection,
    Section,
    Table,
    Text,
    TextSection,
    write_report,
)
from polyface.evaluation.results import format_number, format_row, markdown_table, read_results, write_results
from polyface.reproduce.pages import recipe_section
from polyface.reproduce.tables import Result, Runs, difference_rows, sources
from polyface.reproduce.weightings import BASELINES, UNIFORM, Comparison, selecting, validation

SHORT = "short: "


def rows_of(comparison: Comparison) -> list[Row]:
    """All rows that the finished runs give; the shorter trainings of a screening are prefixed."""
    rows: list[Row] = []
    for runs, prefix in _phases(comparison):
        finalists = comparison.finalists() if runs is comparison.full else []
        for row in comparison.rows:
            if seeds := runs.seeds(row):
                phase = "final" if row in finalists else "screening"
                epochs = runs.stage(row).optimisation.epochs
                about = [f"{phase}, {epochs} epochs", runs.recipe.variants[row].note]
                rows += _figures(runs, row, prefix + row, seeds, "; ".join(filter(None, about)))
    return rows + _differences(comparison)


def _phases(comparison: Comparison) -> list[tuple[Runs, str]]:
    full = [(comparison.full, "")]
    return [*full, (comparison.short, SHORT)] if comparison.screened else full


def _figures(runs: Runs, row: str, name: str, seeds: Sequence[int], note: str) -> list[Row]:
    """One row's figures: the main task's, what selected it, the side tasks', the time it took."""
    stage = runs.stage(row)
    main = stage.evaluation.main
    rows = _task_rows(name, "", runs.results(row), note)
    selected = list(runs.results(row, part="val").values())
    figures = [selecting(result) for result in selected]
    values = summarise([value for _, value, _ in figures])
    rows.append(
        Row(
            name, f"validation {figures[0][0]}", values.mean, values.std, selected[0].n, tuple(seeds),
            note="validation is what selects",
        )
    )  # fmt: skip
    for task in stage.tasks:
        if task != main and runs.labelled(row, task):
            rows += _task_rows(name, f"{task} ", runs.results(row, task), note)
    if ratio := _time_ratio(runs, row):
        about = f"time ratio: training time over that of {UNIFORM}, machine not idle"
        rows.append(Row(name, "time ratio", ratio, None, None, tuple(seeds), unit="×", note=about))
    return rows


def _task_rows(name: str, prefix: str, results: Mapping[int, Result], note: str) -> list[Row]:
    """One task's figures on the test faces: mean ± std over seeds."""
    landmarks = {seed: result for seed, result in results.items() if isinstance(result, LandmarkResult)}
    if landmarks:
        return [replace(row, metric=prefix + row.metric) for row in landmark_rows(name, landmarks, note=note)]
    classes = [result for result in results.values() if isinstance(result, ClassificationResult)]
    rows = []
    for metric in ("accuracy", "balanced accuracy"):
        attribute = metric.replace(" ", "_")
        figure = summarise([getattr(result, attribute) for result in classes])
        interval = getattr(classes[0], f"{attribute}_interval") if len(classes) == 1 else None
        rows.append(
            Row(
                name, prefix + metric, figure.mean, figure.std, classes[0].n, tuple(results),
                None if interval is None else interval.ends, note=note,
            )
        )  # fmt: skip
    return rows


def _seconds(runs: Runs, row: str) -> list[float]:
    records = [runs.record(row, seed) for seed in runs.seeds(row)]
    return [float(record["seconds"]) for record in records if record]


def _time_ratio(runs: Runs, row: str) -> float | None:
    own, plain = _seconds(runs, row), _seconds(runs, UNIFORM)
    return float(np.mean(own) / np.mean(plain)) if own and plain else None


def _differences(comparison: Comparison) -> list[Row]:
    """Each row of full length minus each baseline."""
    runs = comparison.full
    results = {row: runs.landmarks(row) for row in comparison.finalists() or comparison.rows if runs.seeds(row)}
    pairs = [(row, baseline) for row in results for baseline in BASELINES if row not in BASELINES]
    pairs += itertools.combinations(BASELINES, 2)
    rows: list[Row] = []
    for row, baseline in pairs:
        found, base = results.get(row, {}), results.get(baseline, {})
        if set(found) & set(base):
            rows += difference_rows(row, baseline, found, base)
    return rows


def collect(comparison: Comparison, results: Path, command: str) -> list[Row]:
    """Write the rows of all finished runs into a results file."""
    rows = rows_of(comparison)
    if not rows:
        raise PolyfaceError(f"{comparison.place}: no finished run to collect")
    write_results(results, rows, command=command, data=", ".join(sources(comparison.full.recipe)))
    return rows


def printed(comparison: Comparison, results: Path) -> str:
    """The figures in a results file as tables: those of each phase by validation, then the differences."""
    found = read_results(results)
    tables = []
    for runs, prefix in _phases(comparison):
        if order := [prefix + row for row in _order(runs, comparison.rows)]:
            tables.append(markdown_table(found, order, published=False))
    if pairs := list(dict.fromkeys(row.row for row in _differences(comparison))):
        tables.append(markdown_table(found, pairs, published=False))
    return "\n\n".join(tables)


# ------------------------------------------------------------------------------------------------ the page


def report(path: Path, comparison: Comparison, rows: Sequence[Row], command: str) -> Path:
    """One page: who was compared how, a table a phase, differences, weights and losses over training."""
    sections: list[Section] = [TextSection("What was compared", _about(comparison))]
    for runs, prefix in _phases(comparison):
        order = _order(runs, comparison.rows)
        title = "Screening (shorter training)" if prefix else "Figures"
        if order:
            sections.append(_TableSection(title, [prefix + row for row in order], rows, prefix))
    if pairs := [row for row in rows if " minus " in row.row]:
        sections.append(MeasuredSection("Differences", pairs))
    full = _order(comparison.full, comparison.finalists() or comparison.rows)
    errors = {row: found[min(found)].face_errors for row in full if (found := comparison.full.landmarks(row))}
    if errors:
        sections.append(CedSection("Error curves (first seed)", dict(list(errors.items())[:8])))
    for runs, prefix in reversed(_phases(comparison)):
        for part, title in (("weights", "Weights over training"), ("validation", "Validation losses over training")):
            curves = {row: _curves(runs.history(row), part) for row in _order(runs, comparison.rows)}
            if curves := {row: found for row, found in curves.items() if found}:
                sections.append(_CurvesSection(f"{title}{' (screening)' if prefix else ''}", part, curves))
    if missing := _missing(comparison):
        sections.append(TextSection("Not finished", missing))
    sections.append(recipe_section(comparison.full.recipe, command))
    return write_report(path, f"Weightings compared: {comparison.full.recipe.name}", sections)


def _order(runs: Runs, rows: Sequence[str]) -> list[str]:
    """Rows from best to worst by validation, each by all the seeds that it has; those without a figure last."""
    finished = [row for row in rows if runs.seeds(row)]
    best = {row: validation(runs, row, runs.seeds(row)) for row in finished}

    def key(row: str) -> float:
        figure = best[row]
        if figure is None or not np.isfinite(figure[1]):
            return np.inf
        return figure[1] if figure[2] else -figure[1]

    return sorted(finished, key=key)


def _about(comparison: Comparison) -> list[str]:
    stage, budget = comparison.full.recipe.stages[-1], comparison.budget
    tasks = ", ".join(task for task in stage.tasks if task != stage.evaluation.main)
    of = f", variant “{comparison.variant}”" if comparison.variant else ""
    text = [
        f"Recipe {comparison.recipe.name}{of}: main task {stage.evaluation.main}, side tasks {tasks}. Only the "
        "weighting differs between rows; data, network, optimiser and length are the same.",
        f"Screening: {budget.seeds} seed(s) a row"
        + (f", with {', '.join(f'{k} = {v}' for k, v in budget.changes.items())}." if budget.changes else "."),
    ]
    if finalists := comparison.finalists():
        text.append(
            f"Finals: {budget.final_seeds} seeds of {', '.join(finalists)}: the {budget.finals} best by the main "
            "task's figure on the validation faces, and the baselines. No figure of the test faces chose anything."
        )
    return text


def _missing(comparison: Comparison) -> list[str]:
    phases = [(False, "screening")] + ([(True, "finals")] if comparison.budget.finals else [])
    return [
        f"{phase}: {job}" + (f": {comparison.failed[job]}" if job in comparison.failed else "")
        for final, phase in phases
        for job in comparison.left(final)
    ]


def _curves(history: Sequence[Mapping[str, Any]], part: str) -> dict[str, Curve]:
    """{task: (epochs, values)} of one part of a history; nothing where it was not recorded."""
    kept = [row for row in history if row.get(part)]
    epochs = [float(row["epoch"]) for row in kept]
    tasks = kept[-1][part] if kept else {}
    return {task: (epochs, [float(row[part].get(task, np.nan)) for row in kept]) for task in tasks}


@dataclass(frozen=True)
class _TableSection:
    """Rows in a given order, a column a metric."""

    title: str
    order: Sequence[str]
    rows: Sequence[Row]
    prefix: str

    def blocks(self) -> Sequence[Block]:
        """The table, by validation."""
        found = {row.key: row for row in self.rows}
        metrics = list(dict.fromkeys(row.metric for row in self.rows if row.row in self.order))
        metrics.sort(key=lambda metric: (not metric.startswith("validation"), metric == "time ratio"))
        header = ["weighting", *(f">{metric}" for metric in metrics), ">seeds"]
        body = []
        for name in self.order:
            cells = [found.get((name, metric)) for metric in metrics]
            seeds = next((str(len(cell.seeds)) for cell in cells if cell), "")
            body.append([name.removeprefix(self.prefix), *map(_cell, cells), seeds])
        caption = "Sorted by the validation figure; mean ± standard deviation over seeds, in percent (time: ×)."
        return [Table(header, body, caption)]


def _cell(row: Row | None) -> str:
    return "" if row is None else format_row(replace(row, interval=None))


@dataclass(frozen=True)
class _CurvesSection:
    """A small chart a row: {row: {task: (epochs, values)}}."""

    title: str
    what: str
    curves: Mapping[str, Mapping[str, Curve]]

    def blocks(self) -> Sequence[Block]:
        """The charts, seed 0."""
        label = "weight" if self.what == "weights" else "validation loss"
        figures = []
        for row, tasks in self.curves.items():
            log = all(np.nanmin(values) > 0 for _, values in tasks.values())
            plot = plot_curves(tasks, x_label="epoch", y_label=label, title=row, y_log=log, size=(4.6, 3.4))
            ends = {task: float(np.asarray(values)[-1]) for task, (_, values) in tasks.items()}
            last = ", ".join(f"{task} {format_number(end, '')}" for task, end in ends.items())
            figures.append(Figure(plot, f"{row}: {label} per task over training", f"last: {last}"))
        return [Text("First seed; a chart a weighting, logarithmic where all is positive."), Figures(figures)]
