"""The pages that a person reads: one of a measured network, one of a reproduced table, one of the main job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from polyface.data.loader import FacePool
from polyface.data.table import Progress
from polyface.inference import Analyzer, draw
from polyface.metrics.attributes import AttributesResult, attribute_rows
from polyface.metrics.landmarks import LandmarkResult, landmark_rows
from polyface.metrics.resampling import Row
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.evaluate import Measured, measure
from polyface.report.faces import draw_face
from polyface.report.page import (
    Block,
    CedSection,
    GroupSection,
    LandmarkSection,
    MeasuredSection,
    PhotoSection,
    RecipeSection,
    Section,
    Table,
    TrainingSection,
    best_median_worst,
    write_report,
)
from polyface.report.plots import Curve
from polyface.report.published import PUBLISHED, STATEMENTS
from polyface.report.results import read_results
from polyface.reproduce.attribute_pages import EachAttribute, attribute_sections
from polyface.reproduce.caricature_pages import recognition_sections
from polyface.reproduce.tables import Runs, kinds
from polyface.schema import landmark_groups
from polyface.training import stages
from polyface.training.recipe import Recipe, load
from polyface.training.stages import pool_of

_STILL = 1e-6  # weights that differ by no more are the same, rounded


def evaluation_report(path: Path, found: Measured, bundle: Bundle, title: str, extra: Sequence[Section] = ()) -> Path:
    """One page: every task's figures, error curves, errors by landmark and pose, best, median and worst faces."""
    sections: list[Section] = []
    for name, result in found.results.items():
        if isinstance(result, LandmarkResult):
            points = found.predictions[name]["points"]
            truth = found.pool.table.points(f"landmarks_{points.shape[1]}")
            sections.append(MeasuredSection(f"{name}: figures", landmark_rows(name, {0: result})))
            sections.append(CedSection(f"{name}: error curve", {name: result.face_errors}))
            if points.shape[1] == 5:
                sections.append(LandmarkSection(f"{name}: by landmark", {name: result}, list(landmark_groups(5))))
            if "pose" in result.per_group:
                sections.append(GroupSection(f"{name}: by pose", "pose", {name: result}))
            sections.append(
                best_median_worst(f"{name}: faces", result, partial(_drawn, found.pool, points=points, truth=truth))
            )
        elif isinstance(result, AttributesResult):
            means = [row for row in attribute_rows(name, {0: result}) if row.row == name]
            sections.append(MeasuredSection(f"{name}: figures", means))
            sections.append(EachAttribute(f"{name}: each attribute", {name: [result]}))
        else:
            interval = result.accuracy_interval
            rows = [
                Row(
                    name, "accuracy", result.accuracy, None, result.n, (0,), None if interval is None else interval.ends
                ),
                Row(name, "balanced accuracy", result.balanced_accuracy, None, result.n, (0,)),
                Row(name, "majority class", result.floor, None, result.n, (0,)),
            ]
            sections.append(MeasuredSection(f"{name}: figures", rows))
    return write_report(path, title, [*sections, *extra])


def _drawn(pool: FacePool, row: int, points: np.ndarray, truth: np.ndarray) -> Any:
    """A face cut out of its picture by its box, with predicted and labelled points."""
    x0, y0, x1, y1 = pool.boxes[row, :4]
    pad = 0.35 * max(x1 - x0, y1 - y0)
    image = pool.table.image(row)
    left, top = max(0, int(x0 - pad)), max(0, int(y0 - pad))
    right, bottom = min(image.shape[1], int(x1 + pad) + 1), min(image.shape[0], int(y1 + pad) + 1)
    shift = np.array([left, top])
    return draw_face(image[top:bottom, left:right], points=points[row] - shift, truth=truth[row] - shift, size=240)


def table_report(path: Path, runs: Runs, results: Path) -> Path:
    """One page for a reproduction: the table beside the published figures, curves, poses, and the recipe."""
    recipe, rows = runs.recipe, read_results(results).rows
    papers, said = (PUBLISHED.get(recipe.name, ()), STATEMENTS.get(recipe.name, ()))
    names, *compared = ([row for row in rows if row.row in kind] for kind in kinds(recipe, rows))
    sections: list[Section] = [MeasuredSection("Figures", names, papers, said)]
    sections += [MeasuredSection("Differences", differences) for differences in compared]
    if shared := [row for row in rows if row.metric == "weight correlation"]:
        sections.append(MeasuredSection("Correlation of head weights", shared))
    found = {name: runs.landmarks(name) for name in recipe.variants}
    by_points: dict[int, dict[str, LandmarkResult]] = {}
    for name, seeds in found.items():
        if seeds:
            first = seeds[min(seeds)]
            by_points.setdefault(len(first.per_point), {})[name] = first
    for count, ones in by_points.items():
        sections.append(
            CedSection(f"Error curves, {count} points (first seed)", {n: r.face_errors for n, r in ones.items()})
        )
        if all("pose" in r.per_group for r in ones.values()):
            sections.append(_PoseSection(f"Mean error by pose, {count} points (first seed)", ones))
    sections += attribute_sections(runs, PUBLISHED.get(f"{recipe.name} by attribute", ()))
    sections += recognition_sections(runs)
    for name in recipe.variants:
        seed = min(runs.seeds(name), default=None)
        if seed is not None and (epochs := runs.history(name, seed)):
            sections.append(training_section(f"Training: {name} (seed {seed})", epochs))
    sections.append(recipe_section(recipe))
    return write_report(path, f"Reproduction of {recipe.place}", sections)


@dataclass(frozen=True)
class _PoseSection:
    """Mean error of many results by pose, a line each."""

    title: str
    results: Mapping[str, LandmarkResult]

    def blocks(self) -> Sequence[Block]:
        poses = list(next(iter(self.results.values())).per_group["pose"])
        lines = [[n, *(f"{r.per_group['pose'][p].mean_error:.2f}" for p in poses)] for n, r in self.results.items()]
        return [Table(["", *(f">{pose}" for pose in poses)], lines, "In percent.")]


def training_section(title: str, history: Sequence[Mapping[str, Any]]) -> TrainingSection:
    """Losses over the epochs of a training, and the tasks' weights where these change (Ming et al. 2021, Figs. 6, 7).

    Of what was recorded in one epoch alone there is no curve; weights within a task have a picture of their own.
    """
    weights = {task: curve for task, curve in followed(history, "weights").items() if "/" not in task}
    spread = [np.nanmax(values) - np.nanmin(values) for _, values in weights.values()]
    validation = {task: curve for task, curve in followed(history, "validation").items() if np.size(curve[0]) > 1}
    stopped = {task: float(epoch) for task, epoch in history[-1].get("stopped", {}).items()}
    moving = weights if max(spread, default=0) > _STILL else {}
    return TrainingSection(title, followed(history, "train"), moving, validation, stopped, "epoch")


def followed(history: Sequence[Mapping[str, Any]], part: str) -> dict[str, Curve]:
    """{task: (epochs, values)} of one part of a history ("train", "validation", "weights"), in the epochs that have it;
    NaN where a task has no value."""
    kept = [row for row in history if row.get(part)]
    tasks = dict.fromkeys(task for row in kept for task in row[part])
    epochs = [float(row["epoch"]) for row in kept]
    return {task: (epochs, [float(row[part].get(task, np.nan)) for row in kept]) for task in tasks}


def recipe_section(recipe: Recipe, command: str = "") -> RecipeSection:
    """The recipe as it was run."""
    text = yaml.safe_dump(recipe.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True)
    return RecipeSection("Recipe", text, command)


# ------------------------------------------------------------------------------------------------ the main job


def demonstrate(out: Path, photo: Path | None, changes: Sequence[str], progress: Progress | None = None) -> Path:
    """Train the synthetic recipe, measure it, analyze a photo with the shipped models, and write it all on one page."""
    recipe = load("synthetic", changes)
    options = stages.RunOptions(accelerator="cpu", progress=progress)
    stage = recipe.measured
    trained = stages.run(recipe, out, None, options)[stage.name]
    bundle = load_bundle(trained.bundle)
    pool = pool_of(stage, None, bundle.tasks)
    found = measure(bundle, pool, progress=progress)
    analyzer = Analyzer()
    path = photo or sample_photo()
    (analysed,) = analyzer(path)
    extra: list[Section] = [
        training_section("Training", trained.history),
        PhotoSection(
            f"Analyzed: {path.name}", draw(path, analysed), f"{len(analysed.faces)} face(s)", analysed.table()
        ),
        recipe_section(recipe),
    ]
    title = f"Polyface: {recipe.about}"
    return evaluation_report(out / "report.html", found, bundle, title, extra)


def sample_photo() -> Path:
    """The photo of Grace Hopper that matplotlib ships."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
