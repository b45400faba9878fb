"""What a comparison of weightings found: rows of results, and one page with tables, differences and curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from polyface.compare.weightings import BASELINES, UNIFORM, Comparison, validation
from polyface.errors import PolyfaceError
from polyface.metrics import result
from polyface.metrics.resampling import ratio
from polyface.metrics.result import Row, differences
from polyface.metrics.sections import Curve, Table, Text
from polyface.report.page import Figure, Figures, Section, side_by_side, write_report
from polyface.report.plots import PALETTE, canvas, encoded
from polyface.report.results import format_number, format_row, markdown_table, read_results, write_results
from polyface.reproduce.pages import followed, recipe_section
from polyface.reproduce.runs import Runs
from polyface.reproduce.tables import sources

SHORT = "short: "
_MOST_CURVES = 8  # as many as colours
_PAIRED = (
    "First row minus second, negative: the first has less; in percent. In parentheses the 95 % paired bootstrap over "
    "faces and seeds, of one seed over faces only."
)


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
    rows = result.rows(name, runs.main(row), note=note)
    chosen = runs.main(row, "val")
    rows += result.rows(name, chosen, prefix="validation ", note="validation is what selects", resamples=0)[:1]
    for prefix, found in runs.side(row).items():
        rows += result.rows(name, found, note=note, prefix=prefix)
    if times := _time_ratio(runs, row):
        about = f"time ratio: training time over that of {UNIFORM}, machine not idle"
        rows.append(Row(name, "time ratio", times, None, None, tuple(seeds), unit="×", note=about))
    return runs.told(rows, row)


def _seconds(runs: Runs, row: str) -> list[float]:
    records = [runs.record(row, seed) for seed in runs.seeds(row)]
    return [float(record["seconds"]) for record in records if record]


def _time_ratio(runs: Runs, row: str) -> float | None:
    own, plain = _seconds(runs, row), _seconds(runs, UNIFORM)
    return float(np.mean(own) / np.mean(plain)) if own and plain else None


def _differences(comparison: Comparison) -> list[Row]:
    """Each row of full length minus each baseline."""
    runs = comparison.full
    results = {row: runs.main(row) for row in comparison.finalists() or comparison.rows if runs.seeds(row)}
    pairs = [(row, baseline) for row in results for baseline in BASELINES if row not in BASELINES]
    pairs += itertools.combinations(BASELINES, 2)
    rows: list[Row] = []
    for row, baseline in pairs:
        found = differences(row, baseline, results.get(row, {}), results.get(baseline, {}))
        rows += runs.told(found, row, baseline)
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
    sections: list[Section] = [Section("What was compared", _about(comparison))]
    for runs, prefix in _phases(comparison):
        if order := [prefix + row for row in _order(runs, comparison.rows)]:
            title = "Screening (shorter training)" if prefix else "Figures"
            sections.append(_table_section(title, order, rows, prefix, side=_side_tasks(comparison)))
    if pairs := list(dict.fromkeys(row.row for row in rows if " minus " in row.row)):
        sections.append(_table_section("Differences", pairs, rows, text=_PAIRED))
    full = _order(comparison.full, comparison.finalists() or comparison.rows)
    first = {row: found[min(found)] for row in full if (found := comparison.full.main(row))}
    sections += side_by_side(dict(list(first.items())[:_MOST_CURVES]), note="First seed.")
    for part, title in (("weights", "Weights over training"), ("validation", "Validation losses over training")):
        for runs, prefix in _phases(comparison):
            curves = {row: followed(runs.history(row), part) for row in _order(runs, comparison.rows)}
            if curves := {row: found for row, found in curves.items() if found}:
                sections.append(_curves_section(f"{title}{' (screening)' if prefix else ''}", part, curves))
    if missing := _missing(comparison):
        sections.append(Section("Not finished", missing))
    sections.append(recipe_section(comparison.full.recipe, command))
    return write_report(path, f"Weightings compared: {comparison.full.recipe.name}", sections)


def _order(runs: Runs, rows: Sequence[str]) -> list[str]:
    """Rows from best to worst by validation, each by all the seeds that it has; those without a figure last."""
    finished = [row for row in rows if runs.seeds(row)]
    best = {row: validation(runs, row, runs.seeds(row)) for row in finished}
    return sorted(finished, key=lambda row: math.inf if (figure := best[row]) is None else figure)


def _side_tasks(comparison: Comparison) -> list[str]:
    stage = comparison.full.recipe.measured
    return [task for task in stage.tasks if task != stage.evaluation.main]


def _about(comparison: Comparison) -> list[Text]:
    stage, budget = comparison.full.recipe.measured, comparison.budget
    tasks = ", ".join(_side_tasks(comparison))
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
            "task's figure on the validation faces, what was asked for, and the baselines. No figure of the test "
            "faces chose anything."
        )
    return list(map(Text, text))


def _missing(comparison: Comparison) -> list[Text]:
    phases = [(False, "screening")] + ([(True, "finals")] if comparison.budget.finals else [])
    return [
        Text(f"{phase}: {job}" + (f": {comparison.failed[job]}" if job in comparison.failed else ""))
        for final, phase in phases
        for job in comparison.left(final)
    ]


def _table_section(
    title: str,
    order: Sequence[str],
    rows: Sequence[Row],
    prefix: str = "",
    text: str = "Sorted by the validation figure; mean ± standard deviation over seeds, in percent (time: ×).",
    side: Sequence[str] = (),
) -> Section:
    """Rows in a given order, a column a metric: a table of the main task and cost, and one of the side tasks, if there
    are any."""
    metrics = list(dict.fromkeys(row.metric for row in rows if row.row in order))
    of_side = [metric for metric in metrics if any(metric.startswith(f"{task} ") for task in side)]
    of_main = [metric for metric in metrics if metric not in of_side]
    of_main.sort(key=lambda metric: (not metric.startswith("validation"), metric == "time ratio"))
    found = {row.key: row for row in rows}
    tables = []
    for kind in filter(None, (of_main, of_side)):
        body = []
        for name in order:
            cells = [found.get((name, metric)) for metric in kind]
            if present := [cell for cell in cells if cell]:
                body.append([name.removeprefix(prefix), *map(_cell, cells), str(len(present[0].seeds))])
        tables.append(Table(["", *(f">{metric}" for metric in kind), ">seeds"], body, text))
    return Section(title, tables)


def _cell(row: Row | None) -> str:
    """A figure with its standard deviation; a difference with its interval."""
    return "" if row is None else format_row(row if " minus " in row.row else replace(row, interval=None))


def _curves_section(title: str, what: str, curves: Mapping[str, Mapping[str, Curve]]) -> Section:
    """A small chart a row, first seed, all on the same axes: {row: {task: (epochs, values)}}; weights as shares, since
    an optimiser such as Adam takes no notice of their sum."""
    if what != "weights":
        plot = _small_multiples(curves, "validation loss", log=True)
        return Section(title, [Figures([Figure(plot, title, "First seed.")], wide=True)])
    shares = {row: _shares(tasks) for row, tasks in curves.items()}
    plot = _small_multiples(shares, "share of the weights, %", log=False)
    caption = "First seed, mean over each epoch; logarithmic above 1 %, linear below."
    tasks = list(dict.fromkeys(task for of_row in curves.values() for task in of_row))
    body = [[row, *(_last(of_row.get(task)) for task in tasks)] for row, of_row in curves.items()]
    table = Table(["", *(f">{task}" for task in tasks)], body, "The weights themselves, mean over the last epoch.")
    return Section(title, [Figures([Figure(plot, title, caption)], wide=True), table])


def _last(curve: Curve | None) -> str:
    return "" if curve is None else format_number(float(np.asarray(curve[1])[-1]), "")


def _shares(tasks: Mapping[str, Curve]) -> dict[str, Curve]:
    """Weights in percent of the sum of their sizes."""
    total = np.sum([np.abs(np.asarray(values, dtype=np.float64)) for _, values in tasks.values()], axis=0)
    return {task: (x, 100 * ratio(np.asarray(values, dtype=np.float64), total)) for task, (x, values) in tasks.items()}


def _small_multiples(rows: Mapping[str, Mapping[str, Curve]], y_label: str, log: bool, columns: int = 4) -> bytes:
    """A small chart a row on shared axes, with one legend, as PNG bytes."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    lines = math.ceil(len(rows) / columns)
    figure = canvas(9.2, 0.7 + 1.75 * lines)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    tasks = list(dict.fromkeys(task for curves in rows.values() for task in curves))
    colours = {task: PALETTE[index % len(PALETTE)] for index, task in enumerate(tasks)}
    for axes, (row, curves) in zip(grid.flat, rows.items(), strict=False):
        for task, (x, y) in curves.items():
            axes.plot(np.asarray(x), np.asarray(y), color=colours[task], label=task, linewidth=1.5)
        axes.set_title(row, fontsize=9, loc="left")
    for index, axes in enumerate(grid.flat):
        axes.set_visible(index < len(rows))
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.set_yscale("symlog", linthresh=1)
            axes.set_yticks([0, 1, 10, 100])
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(labelsize=8, labelbottom=index >= len(rows) - columns)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(y_label, fontsize=9)
    handles = [Line2D([], [], color=colour, label=task) for task, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper left", frameon=False, fontsize=9, ncols=min(8, len(handles)))
    return encoded(figure)
