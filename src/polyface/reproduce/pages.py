"""The pages that a person reads: one of a measured network, one of a reproduced table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from polyface.data.loader import FacePool
from polyface.metrics import result
from polyface.metrics.groups import within
from polyface.metrics.result import Result, Row
from polyface.metrics.sections import Curve, Curves, Face, Table, Text
from polyface.protocols.evaluation import Evaluation
from polyface.report.faces import Picture, draw_face
from polyface.report.page import (
    Block,
    Code,
    Figure,
    Figures,
    Section,
    measured_section,
    parts_section,
    result_section,
    side_by_side,
    write_report,
)
from polyface.report.plots import PALETTE, plot_grid
from polyface.report.published import Published, Statement
from polyface.report.results import read_results
from polyface.reproduce.jobs import Job, folder
from polyface.reproduce.runs import Runs, by_prefix
from polyface.reproduce.tables import CORRELATION, kinds
from polyface.training.recipe import Recipe
from polyface.training.records import SHEETS

_MOST_CURVES = 2 * len(PALETTE)  # of which the second half is dashed
_BY_CHANCE = (
    "Mean ± standard deviation over seeds. By chance: the mean where the side task's features are shuffled; p: how "
    "often a shuffled one is as large. Of twenty that share nothing one has a p below 0.05."
)
_STILL = 1e-6  # weights that differ by no more are the same, rounded


def evaluation_report(path: Path, found: Evaluation, title: str, by: Sequence[str] = ()) -> Path:
    """One page: the figures of all results, also by the words of some columns, and what each has to show."""
    return write_report(path, title, evaluation_sections(found, by))


def evaluation_sections(found: Evaluation, by: Sequence[str] = ()) -> list[Section]:
    """What there is to say of every result of an evaluation."""
    sections: list[Section] = []
    for prefix, one in found.results.items():
        name = prefix.strip() or "faces"
        sections.append(measured_section(f"{name}: figures", figure_rows(name, one)))
        sections += [
            result_section(f"{name}: {shown.title}", shown, partial(_drawn, found.pool)) for shown in one.sections()
        ]
        for column in by:
            groups = found.cases.groups(prefix, column)
            each = {word: result.rows(word, {0: within(one, units)}) for word, units in groups.items()}
            sections.append(parts_section(f"{name}: by {column}", column, {word: r for word, r in each.items() if r}))
    return sections


def figure_rows(name: str, one: Result) -> list[Row]:
    """A result's figures of all its units."""
    return [row for row in result.rows(name, {0: one}) if row.row == name]


def _drawn(pool: FacePool, face: Face) -> Picture:
    """A face cut out of its picture by its box, with predicted and labelled points."""
    x0, y0, x1, y1 = pool.boxes[face.row, :4]
    pad = 0.35 * max(x1 - x0, y1 - y0)
    image = pool.table.image(face.row)
    left, top = max(0, int(x0 - pad)), max(0, int(y0 - pad))
    right, bottom = min(image.shape[1], int(x1 + pad) + 1), min(image.shape[0], int(y1 + pad) + 1)
    points, truth = (
        None if one is None else np.asarray(one) - np.array([left, top]) for one in (face.points, face.truth)
    )
    return draw_face(image[top:bottom, left:right], points=points, truth=truth, size=240)


def table_report(
    path: Path,
    runs: Runs,
    results: Path,
    published: Sequence[Published] = (),
    statements: Sequence[Statement] = (),
    extra: Sequence[Section] = (),
) -> Path:
    """One page for a reproduction: the table beside the published figures, what the results have to show, figures by
    pose, what the paper's own page adds (`extra`), the trainings and the recipe."""
    recipe, rows = runs.recipe, read_results(results).rows
    names, *compared = [[row for row in rows if row.row in kind] for kind in kinds(recipe, rows)] or [[]]
    headlines = [figure for figure in published if not figure.detail]
    sections: list[Section] = [measured_section("Figures", names, headlines, statements)]
    sections += [measured_section("Differences", differences) for differences in compared]
    if shared := _lines(row for row in rows if row.metric.startswith(CORRELATION)):
        sections.append(parts_section("Correlation of head weights", "", shared, _BY_CHANCE))
    sections += result_sections(runs)
    if by_pose := _lines(row for row in rows if ": pose " in row.row):
        sections.append(parts_section("By pose", "", by_pose))
    sections += extra
    for name, variant in recipe.variants.items():
        if (seed := min(runs.seeds(name), default=None)) is not None:
            for stage in variant.stages:
                sections += _stage_sections(runs, Job(name, seed), stage)
    sections.append(recipe_section(recipe))
    return write_report(path, f"Reproduction of {recipe.place}", sections)


def _stage_sections(runs: Runs, job: Job, stage: str) -> list[Section]:
    """How a stage of a variant was trained, and the sheets of pictures that it left; of stages before the last only
    those that left some."""
    kept, last = runs.record(job.variant, job.seed, stage), stage == runs.recipe.variants[job.variant].stages[-1]
    if not kept or not kept["history"] or not (last or kept.get("sheets")):
        return []
    about = f"{job.variant}{'' if last else f', {stage}'} (seed {job.seed})"
    by_step = (kept.get(key, ()) for key in ("validations", "stopping"))
    made = training_sections(about, kept["history"], *by_step)
    files = {
        folder(runs.out, job) / stage / SHEETS / Path(name).name: shown
        for name, shown in kept.get("sheets", {}).items()
    }
    if figures := [Figure(file.read_bytes(), shown, shown) for file, shown in files.items() if file.is_file()]:
        made.append(Section(f"Sheets: {about}", [Figures(figures, wide=True)]))
    return made


def _lines(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their name, a line of a table each."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row.row, []).append(row)
    return lines


def result_sections(runs: Runs) -> list[Section]:
    """What the results of the variants have to show, those over the same faces side by side: of the first seed that any
    of them has, and of as many variants as curves are told apart."""
    alike: dict[str, dict[str, dict[int, Result]]] = {}
    for name, variant in runs.measured.items():
        for prefix, found in by_prefix(runs.results(name)).items():
            alike.setdefault(variant.prefix + prefix, {})[runs.title(name)] = found
    sections: list[Section] = []
    for prefix, variants in alike.items():
        seed = min(min(found) for found in variants.values())
        first = {name: found[seed] for name, found in variants.items() if seed in found}
        left = ", ".join(list(first)[_MOST_CURVES:])
        note = f"Seed {seed}." + (f" Not drawn: {left}." if left else "")
        sections += side_by_side(dict(list(first.items())[:_MOST_CURVES]), prefix.strip(), note)
    return sections


def training_sections(
    about: str,
    history: Sequence[Mapping[str, Any]],
    validations: Sequence[Mapping[str, Any]] = (),
    stopping: Sequence[Mapping[str, Any]] = (),
) -> list[Section]:
    """How a training went: losses and weights, what was followed for each term of a task by itself (after every
    validation, or where a run did not keep these, by epoch), and the criterion of task-wise stopping."""
    sections: list[Section] = [training_section(f"Training: {about}", history)]
    if criterion := followed(stopping, "criterion", "step"):
        caption = "A side task stops for good once its criterion is above the threshold."
        sections.append(Section(f"Task-wise stopping: {about}", [Curves(criterion, "step", "criterion", caption)]))
    if terms := _by_term(validations, "step") if validations else _by_term(history, "epoch"):
        text = Text("A line a term of the task, a column " + ("a validation." if validations else "an epoch."))
        sections.append(Section(f"Weights and thresholds: {about}", [text, Figures(terms, wide=True)]))
    return sections


def _by_term(history: Sequence[Mapping[str, Any]], moment: str) -> list[Figure]:
    """The weight of each term and its threshold (Mao et al. 2020, Figs. 5–7), as they follow from every validation, or
    by epoch: the mean weight, and the threshold at the end."""
    moments, last = [str(row[moment]) for row in history], history[-1]
    weights = {
        name.partition("/")[2]: [row["weights"].get(name, np.nan) for row in history]
        for name in last.get("weights", {})
        if "/" in name
    }
    figures = []
    if weights:
        picture = plot_grid(weights, moments, x_label=moment, value="weight", log=True)
        caption = "Weights, mean over each epoch." if moment == "epoch" else "Weights."
        figures.append(Figure(picture, "weight of each term over training", caption))
    for task, values in last.get("thresholds", {}).items():
        names = list(weights) or [str(i) for i in range(len(values))]
        curves = np.array([row["thresholds"][task] for row in history]).T
        picture = plot_grid(dict(zip(names, curves.tolist(), strict=True)), moments, x_label=moment, value="threshold")
        figures.append(Figure(picture, "threshold of each term over training", "Thresholds."))
    return figures


def training_section(title: str, history: Sequence[Mapping[str, Any]]) -> Section:
    """Losses over the epochs of a training, what distillation adds to them, the tasks' weights where these change (Ming
    et al. 2021, Figs. 6, 7), and the equilibrium of a training that has one.

    Of what was recorded in one epoch alone there is no curve; weights within a task have a picture of their own.
    """
    weights = {task: curve for task, curve in followed(history, "weights").items() if "/" not in task}
    spread = [np.nanmax(values) - np.nanmin(values) for _, values in weights.values()]
    validation = {task: curve for task, curve in followed(history, "validation").items() if np.size(curve[0]) > 1}
    stopped = {task: float(epoch) for task, epoch in history[-1].get("stopped", {}).items()}
    moving = weights if max(spread, default=0) > _STILL else {}
    per_task = " per task" if any("weights" in row for row in history) else ""
    each = {
        "loss": followed(history, "train"),
        "validation loss": validation,
        "distillation loss": followed(history, "distil"),
        "weight": moving,
    }
    stops = " (dotted: the task was stopped)" if stopped else ""
    blocks: list[Block] = [
        Curves(tasks, "epoch", name, f"{name.capitalize()}{per_task}{stops}", y_log=name != "weight", marks=stopped)
        for name, tasks in each.items()
        if tasks
    ]
    for name, curve in followed(history, "equilibrium").items():
        blocks.append(Curves({"": curve}, "epoch", name))
    if stopped:
        lines = [[task, f"{epoch:,.4g}"] for task, epoch in sorted(stopped.items(), key=lambda item: item[1])]
        blocks.append(Table(["task", ">stopped at epoch"], lines))
    return Section(title, blocks)


def followed(history: Sequence[Mapping[str, Any]], part: str, moment: str = "epoch") -> dict[str, Curve]:
    """{task: (epochs, values)} of one part of a history ("train", "validation", "weights"), in the epochs that have it;
    NaN where a task has no value. moment: "step" for rows that have steps."""
    kept = [row for row in history if row.get(part)]
    tasks = dict.fromkeys(task for row in kept for task in row[part])
    epochs = [float(row[moment]) for row in kept]
    return {task: (epochs, [float(row[part].get(task, np.nan)) for row in kept]) for task in tasks}


def recipe_section(recipe: Recipe, command: str = "") -> Section:
    """The recipe as it was run, and the command that runs it."""
    text = yaml.safe_dump(recipe.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True)
    return Section("Recipe", [Code(one) for one in (command, text) if one])
