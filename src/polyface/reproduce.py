"""`polyface reproduce`: the rows of a paper's table, trained over seeds and measured beside the published ones."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from polyface.data.loader import FacePool
from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.evaluation.landmarks import LandmarkResult, evaluate_landmarks, landmark_rows, paired_difference
from polyface.evaluation.measure import Measured, measure, pool_of
from polyface.evaluation.metrics import Row
from polyface.evaluation.pictures import draw_face
from polyface.evaluation.published import PUBLISHED, STATEMENTS
from polyface.evaluation.report import (
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
from polyface.evaluation.results import markdown_table, read_results, write_results
from polyface.explain.weights import head_weights, weight_correlation
from polyface.files import atomic_path
from polyface.inference import Analyzer, draw
from polyface.networks.bundle import Bundle, load_bundle
from polyface.schema import landmark_groups
from polyface.training import stages
from polyface.training.recipe import Recipe, StageSpec, load

ERRORS = "points.npz"


@dataclass(frozen=True)
class Job:
    """One training and measuring run: a variant at a seed."""

    variant: str
    seed: int


def jobs(recipe: Recipe, only: Sequence[str] = (), seeds: int | None = None) -> list[Job]:
    """What there is to run, by seed so that a stopped reproduction has whole rows of the first seeds."""
    chosen = [name for name in recipe.variants if not only or any(fnmatch.fnmatchcase(name, o) for o in only)]
    if not chosen:
        raise PolyfaceError(f"no variant matches {', '.join(only)}; there are: {', '.join(recipe.variants)}")
    found = [Job(name, seed) for name in chosen for seed in range(seeds or recipe.variants[name].seeds)]
    return sorted(found, key=lambda job: (_follows(recipe, job), job.seed))


def _follows(recipe: Recipe, job: Job) -> bool:
    """Whether a job needs another variant's network."""
    return bool(recipe.variants[job.variant].model or recipe.variants[job.variant].start)


def hours(recipe: Recipe, todo: Sequence[Job]) -> float:
    """Estimated hours of one core."""
    return sum(recipe.variants[job.variant].minutes for job in todo) / 60


def folder(out: Path, job: Job) -> Path:
    return out / re.sub(r"[^\w.+-]+", "-", job.variant).strip("-") / f"seed{job.seed}"


def finished(out: Path, job: Job) -> bool:
    return (folder(out, job) / ERRORS).exists()


def run_job(recipe: Recipe, job: Job, data: Path | None, out: Path, options: stages.RunOptions) -> None:
    """Train a variant at a seed (resuming), then keep its predictions on the test faces."""
    variant = recipe.variants[job.variant]
    place = folder(out, job)
    own = recipe.variant(job.variant).model_copy(update={"seed": job.seed})
    stage = own.stages[-1]
    evaluation = stage.evaluation
    if variant.predictor == "detector":
        tasks = stages.stage_tasks(stage)
        pool = pool_of(stage, data, tasks)
        points = pool.detector_points
        if points is None:
            raise PolyfaceError(f"variant '{job.variant}': data.boxes.source must be detector to take its points")
    else:
        if variant.model:
            source = folder(out, Job(variant.model, job.seed)) / stage.name / "model"
            if not source.exists():
                raise PolyfaceError(f"variant '{job.variant}' measures '{variant.model}': run that one first")
        else:
            earlier = {}
            if variant.start:
                before = folder(out, Job(variant.start, job.seed))
                earlier = {name: before / name / "model" for name in recipe.variants[variant.start].stages}
            source = stages.run(own, place, data, options, earlier)[stage.name].bundle
        bundle = load_bundle(source, quiet=True)
        pool = pool_of(stage, data, bundle.tasks)
        found = measure(bundle, pool, average=evaluation.translations, spread=evaluation.spread)
        points = found.predictions[evaluation.main]["points"]
    with atomic_path(place / ERRORS) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, points=points, missed=pool.missed)


def run_jobs(
    recipe: Recipe,
    todo: Sequence[Job],
    data: Path | None,
    out: Path,
    options: stages.RunOptions,
    workers: int = 1,
    progress: Progress | None = None,
) -> None:
    """Run what is not finished, in `workers` processes; a stopped reproduction goes on where it was."""
    left = [job for job in todo if not finished(out, job)]
    waves = [[job for job in left if _follows(recipe, job) == later] for later in (False, True)]
    done = len(todo) - len(left)
    for wave in waves:
        if workers <= 1:
            for job in wave:
                run_job(recipe, job, data, out, options)
                done += 1
                if progress:
                    progress(done, len(todo), f"{job.variant}, seed {job.seed}")
            continue
        quiet = stages.RunOptions(**{**options.__dict__, "progress": None, "threads": options.threads or 1})
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(run_job, recipe, job, data, out, quiet): job for job in wave}
            for future in as_completed(futures):
                future.result()
                done += 1
                if progress:
                    progress(done, len(todo), f"{futures[future].variant}, seed {futures[future].seed}")


def results_of(recipe: Recipe, name: str, data: Path | None, out: Path) -> dict[int, LandmarkResult]:
    """The finished seeds of a variant, judged against the test faces."""
    own = recipe.variant(name)
    stage = own.stages[-1]
    places = {seed: folder(out, Job(name, seed)) / ERRORS for seed in range(100)}
    places = {seed: place for seed, place in places.items() if place.exists()}
    if not places:
        return {}
    truth, groups = _truth(stage, data)
    found = {}
    for seed, place in places.items():
        with np.load(place) as file:
            found[seed] = evaluate_landmarks(file["points"], truth, groups=groups)
    return found


def _truth(stage: StageSpec, data: Path | None) -> tuple[np.ndarray, dict[str, list[str | None]] | None]:
    tasks = stages.stage_tasks(stage)
    main = {stage.evaluation.main: tasks[stage.evaluation.main]}
    pool = pool_of(stage, data, main)
    points = pool.table.points(f"landmarks_{tasks[stage.evaluation.main].output_dim // 2}")
    return points, {"pose": list(pool.table.words("pose"))} if "pose" in pool.table.columns else None


def rows_of(recipe: Recipe, data: Path | None, out: Path) -> tuple[list[Row], dict[str, dict[int, LandmarkResult]]]:
    """All rows that the finished jobs give: each variant's figures, and the differences that the recipe asks for."""
    results = {name: results_of(recipe, name, data, out) for name in recipe.variants}
    results = {name: found for name, found in results.items() if found}
    rows: list[Row] = []
    for name, found in results.items():
        rows += landmark_rows(name, found, note=recipe.variants[name].note)
        rows += _per_group(name, found)
    for comparison in recipe.comparisons:
        if comparison.better in results and comparison.than in results:
            rows += _difference(comparison.better, comparison.than, results)
    rows += _correlations(recipe, out)
    return rows, results


def _per_group(name: str, found: dict[int, LandmarkResult]) -> list[Row]:
    rows = []
    for grouping, groups in next(iter(found.values())).per_group.items():
        for label, first in groups.items():
            values = [result.per_group[grouping][label].mean_error for result in found.values()]
            std = float(np.std(values, ddof=1)) if len(values) > 1 else None
            rows.append(
                Row(f"{name}: {grouping} {label}", "mean error", float(np.mean(values)), std, first.n, tuple(found))
            )
    return rows


def _difference(better: str, than: str, results: dict[str, dict[int, LandmarkResult]]) -> list[Row]:
    """Paired over faces and seeds: mean error and failure rate of `better` minus those of `than`, and how many percent
    of `than`'s failures are gone."""
    seeds = tuple(sorted(set(results[better]) & set(results[than])))
    a, b = (np.stack([results[name][seed].face_errors for seed in seeds]) for name in (better, than))
    rows = []
    for metric in ("mean error", "failure rate"):
        found = paired_difference(a, b, statistic=metric)
        rows.append(
            Row(
                f"{better} minus {than}", metric, found.difference, None, a.shape[1], seeds,
                (found.interval.low, found.interval.high), note="paired bootstrap over faces and seeds",
            )
        )  # fmt: skip
    relative = [
        100 * (results[better][s].failure_rate - results[than][s].failure_rate) / results[than][s].failure_rate
        for s in seeds
    ]
    std = float(np.std(relative, ddof=1)) if len(seeds) > 1 else None
    note = "relative to the second; mean ± std over seeds"
    rows.append(
        Row(f"{better} minus {than}", "relative failure rate", float(np.mean(relative)), std, None, seeds, note=note)
    )
    return rows


def _correlations(recipe: Recipe, out: Path) -> list[Row]:
    """Fig. 5(b): correlation of head weights between each landmark and each side task, mean over seeds."""
    rows: list[Row] = []
    for name, variant in recipe.variants.items():
        if not variant.correlation:
            continue
        stage = recipe.variant(name).stages[-1]
        found: dict[str, list[np.ndarray]] = {}
        seeds = [s for s in range(variant.seeds) if (folder(out, Job(name, s)) / stage.name / "model").exists()]
        for seed in seeds:
            network = load_bundle(folder(out, Job(name, seed)) / stage.name / "model", quiet=True).network
            points = head_weights(network, stage.evaluation.main)
            for side in network.heads:
                if side != stage.evaluation.main:
                    found.setdefault(side, []).append(weight_correlation(points, head_weights(network, side)))
        for side, values in found.items():
            names = list(landmark_groups(values[0].shape[0]))
            for index, point in enumerate(names):
                each = [float(v[index]) for v in values]
                std = float(np.std(each, ddof=1)) if len(each) > 1 else None
                rows.append(
                    Row(
                        f"{name}: {point} ~ {side}", "weight correlation", float(np.mean(each)), std, None,
                        tuple(seeds), unit="",
                    )
                )  # fmt: skip
    return rows


def collect(recipe: Recipe, data: Path | None, out: Path, results: Path, command: str, about: str) -> list[Row]:
    """Write the rows of all finished jobs into a results file."""
    rows, _ = rows_of(recipe, data, out)
    if not rows:
        raise PolyfaceError(f"{out}: no finished run to collect")
    write_results(results, rows, command=command, data=about)
    return rows


def histories(recipe: Recipe, name: str, out: Path, seed: int = 0) -> list[dict[str, object]]:
    """The epochs of a finished variant's last stage, for curves."""
    stage = recipe.variant(name).stages[-1].name
    path = folder(out, Job(name, seed)) / stage / stages.HISTORY
    return list(json.loads(path.read_text())["history"]) if path.exists() else []


def sources(recipe: Recipe) -> list[str]:
    """The data sets that a recipe reads."""
    return sorted({source.name for stage in recipe.stages for source in stage.data.tables})


def printed(recipe: Recipe, results: Path) -> str:
    """The variants' figures in a results file, and their differences, as tables."""
    found = read_results(results)
    parts = [markdown_table(found, rows=[row for row in kind], published=False) for kind in _kinds(recipe, found.rows)]
    return "\n\n".join(parts)


def _kinds(recipe: Recipe, rows: Sequence[Row]) -> list[list[str]]:
    """Names of the rows that are variants, and of those that are differences between variants."""
    names = [name for name in recipe.variants if any(row.row == name for row in rows)]
    compared = [f"{pair.better} minus {pair.than}" for pair in recipe.comparisons]
    return [kind for kind in (names, [name for name in compared if any(row.row == name for row in rows)]) if kind]


# ------------------------------------------------------------------------------------------------ reports


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
    x0, y0, x1, y1 = pool.boxes[row]
    pad = 0.35 * max(x1 - x0, y1 - y0)
    image = pool.table.image(row)
    left, top = max(0, int(x0 - pad)), max(0, int(y0 - pad))
    right, bottom = min(image.shape[1], int(x1 + pad) + 1), min(image.shape[0], int(y1 + pad) + 1)
    shift = np.array([left, top])
    return draw_face(image[top:bottom, left:right], points=points[row] - shift, truth=truth[row] - shift, size=240)


def table_report(path: Path, recipe: Recipe, data: Path | None, out: Path, results: Path) -> Path:
    """One page for a reproduction: the table beside the published figures, curves, poses, and the recipe."""
    rows = read_results(results).rows
    papers, said = (PUBLISHED.get(recipe.name, ()), STATEMENTS.get(recipe.name, ()))
    names, *compared = ([row for row in rows if row.row in kind] for kind in _kinds(recipe, rows))
    sections: list[Section] = [MeasuredSection("Figures", names, papers, said)]
    sections += [MeasuredSection("Differences", differences) for differences in compared]
    if shared := [row for row in rows if row.metric == "weight correlation"]:
        sections.append(MeasuredSection("Correlation of head weights", shared))
    found = {name: results_of(recipe, name, data, out) for name in recipe.variants}
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
    for name in found:
        if rows_ := histories(recipe, name, out):
            sections.append(_curves(f"Training: {name} (seed 0)", rows_))
    sections.append(RecipeSection("Recipe", yaml.safe_dump(recipe.model_dump(exclude_defaults=True), sort_keys=False)))
    return write_report(path, f"Reproduction of {recipe.name}", sections)


@dataclass(frozen=True)
class _PoseSection:
    """Mean error of many results by pose, a line each."""

    title: str
    results: Mapping[str, LandmarkResult]

    def blocks(self) -> Sequence[Block]:
        poses = list(next(iter(self.results.values())).per_group["pose"])
        lines = [[n, *(f"{r.per_group['pose'][p].mean_error:.2f}" for p in poses)] for n, r in self.results.items()]
        return [Table(["", *(f">{pose}" for pose in poses)], lines, "In percent.")]


def _curves(title: str, history: Sequence[Mapping[str, Any]]) -> TrainingSection:
    epochs = [float(row["epoch"]) for row in history]

    def curves(part: str) -> dict[str, tuple[list[float], list[float]]]:
        tasks = history[-1].get(part, {})
        return {t: (epochs, [float(row.get(part, {}).get(t, np.nan)) for row in history]) for t in tasks}

    stopped = {task: float(epoch) for task, epoch in history[-1].get("stopped", {}).items()}
    return TrainingSection(title, curves("train"), {}, curves("validation"), stopped, "epoch")


# ------------------------------------------------------------------------------------------------ the main job


def demonstrate(out: Path, photo: Path | None, changes: Sequence[str], progress: Progress | None = None) -> Path:
    """Train the synthetic recipe, measure it, analyze a photo with the shipped models, and write it all on one page."""
    recipe = load("synthetic", changes)
    options = stages.RunOptions(accelerator="cpu", progress=progress)
    stage = recipe.stages[-1]
    trained = stages.run(recipe, out, None, options)[stage.name]
    bundle = load_bundle(trained.bundle)
    pool = pool_of(stage, None, bundle.tasks)
    found = measure(bundle, pool, progress=progress)
    analyzer = Analyzer()
    path = photo or sample_photo()
    (analysed,) = analyzer(path)
    extra: list[Section] = [
        _curves("Training", trained.history),
        PhotoSection(
            f"Analyzed: {path.name}", draw(path, analysed), f"{len(analysed.faces)} face(s)", analysed.table()
        ),
        RecipeSection("Recipe", yaml.safe_dump(recipe.model_dump(exclude_defaults=True), sort_keys=False)),
    ]
    title = f"Polyface: {recipe.about}"
    return evaluation_report(out / "report.html", found, bundle, title, extra)


def sample_photo() -> Path:
    """The photo of Grace Hopper that matplotlib ships."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
