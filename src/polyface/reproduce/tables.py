"""Finished jobs judged against the labelled faces, and the rows of results that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from polyface.data.loader import FacePool
from polyface.data.readers import cavi
from polyface.data.readers.common import Pair
from polyface.errors import NoDataError, PolyfaceError
from polyface.explain.weights import head_weights, weight_correlation
from polyface.metrics import attributes, landmarks
from polyface.metrics.attributes import AttributesResult, attribute_rows
from polyface.metrics.classification import ClassificationResult
from polyface.metrics.landmarks import LandmarkResult, landmark_rows
from polyface.metrics.resampling import PairedDifference, Row, summarise
from polyface.models.bundle import load_bundle
from polyface.models.evaluate import Result, judge
from polyface.protocols.recognition import (
    RecognitionResult,
    judge_across,
    judge_cavi,
    recognition_differences,
    recognition_rows,
)
from polyface.report.published import PUBLISHED
from polyface.report.results import markdown_table, read_results, write_results
from polyface.reproduce.jobs import Job, finished, folder, record, stored, trains
from polyface.schema import landmark_groups
from polyface.tasks import Task
from polyface.training.recipe import ComparisonSpec, Recipe
from polyface.training.specs import StageSpec
from polyface.training.stages import pool_of, stage_tasks

_MOST_SEEDS = 100


class Faces:
    """The labelled faces that answers are judged against; each pool is built once, for all variants and seeds."""

    def __init__(self, data: Path | None) -> None:
        self.data = data
        self._pools: dict[str, FacePool] = {}
        self._pairs: dict[str, list[Pair]] = {}

    def pairs(self, stage: StageSpec) -> list[Pair]:
        """The pairs of test faces that CaVI lists for verification, in the split that the stage takes."""
        if self.data is None:
            raise NoDataError("data set 'cavi': no data folder was given; pass --data DIR that holds cavi/")
        split = str(stage.data.tables[0].options.get("split", "clean"))
        if split not in self._pairs:
            self._pairs[split] = cavi.pairs(self.data / "cavi", "test", split)
        return self._pairs[split]

    def of(self, stage: StageSpec, part: str) -> FacePool:
        """The faces of a part; how they are cropped is of no account here."""
        key = f"{part} {[table.model_dump_json() for table in stage.data.tables]} {stage.data.boxes}"
        if key not in self._pools:
            self._pools[key] = pool_of(stage, self.data, {}, part)
        return self._pools[key]


class Runs:
    """The finished jobs of a recipe in a folder, judged; every stored answer is judged once, when it is asked for.

    parts: those that a job must have answered to be finished. faces: shared with other runs on the same data.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Path | None,
        out: Path,
        parts: Sequence[str] = ("test",),
        faces: Faces | None = None,
    ) -> None:
        self.recipe, self.out, self.parts = recipe, out, parts
        self.faces = faces or Faces(data)
        self._stages: dict[Job, StageSpec] = {}
        self._tasks: dict[Job, dict[str, Task]] = {}
        self._judged: dict[tuple[Job, str, str], Result] = {}
        self._recognised: dict[Job, RecognitionResult] = {}

    def stage(self, name: str, seed: int = 0) -> StageSpec:
        """The stage of a variant that is measured."""
        job = self._of(name, seed)
        if job not in self._stages:
            self._stages[job] = self.recipe.variant(name, job.seed).measured
        return self._stages[job]

    def tasks(self, name: str, seed: int = 0) -> dict[str, Task]:
        """The tasks of a variant's measured stage."""
        job = self._of(name, seed)
        if job not in self._tasks:
            self._tasks[job] = stage_tasks(self.stage(name, seed), self.faces.data)
        return self._tasks[job]

    def _of(self, name: str, seed: int) -> Job:
        """The seeds of a variant differ in their faces if they are splits, and in nothing else."""
        return Job(name, seed if self.recipe.variants[name].splits else 0)

    def seeds(self, name: str) -> list[int]:
        """The finished seeds of a variant."""
        return [seed for seed in range(_MOST_SEEDS) if finished(self.recipe, self.out, Job(name, seed), self.parts)]

    def results(self, name: str, task: str | None = None, part: str = "test") -> dict[int, Result]:
        """The finished seeds of a variant, judged at one task (default: the main one)."""
        if self.stage(name).evaluation.protocol:
            return {}
        return {seed: self._result(Job(name, seed), task, part) for seed in self.seeds(name)}

    def labelled(self, name: str, task: str, part: str = "test") -> bool:
        """Whether any face of a part is labelled for a task of a variant."""
        table = self.faces.of(self.stage(name), part).table
        return bool(self.tasks(name)[task].targets(table).labelled.any())

    def landmarks(self, name: str) -> dict[int, LandmarkResult]:
        """The finished seeds of a variant whose main task is landmarks."""
        found = self.results(name)
        return {seed: result for seed, result in found.items() if isinstance(result, LandmarkResult)}

    def _result(self, job: Job, task: str | None, part: str) -> Result:
        stage = self.stage(job.variant, job.seed)
        task = task or stage.evaluation.main
        key = (job, task, part)
        if key not in self._judged:
            answers = stored(self.out, job, part)[task]
            self._judged[key] = judge(self.tasks(job.variant)[task], answers, self.faces.of(stage, part))
        return self._judged[key]

    def recognition(self, name: str) -> dict[int, RecognitionResult]:
        """The finished seeds of a variant whose stage has a protocol of recognition."""
        if not self.stage(name).evaluation.protocol:
            return {}
        found = {}
        for seed in self.seeds(name):
            job = Job(name, seed)
            if job not in self._recognised:
                self._recognised[job] = self._recognise(job)
            found[seed] = self._recognised[job]
        return found

    def _recognise(self, job: Job) -> RecognitionResult:
        stage, answers = self.stage(job.variant, job.seed), stored(self.out, job)
        table = self.faces.of(stage, "test").table
        if stage.evaluation.protocol == "webcaricature":
            return judge_across(answers, table)
        people = next(task.people for task in self.tasks(job.variant).values() if task.people)
        return judge_cavi(answers, people, table, self.faces.pairs(stage))

    def record(self, name: str, seed: int = 0) -> dict[str, Any] | None:
        """What the training of a variant's last stage left: settings, history and seconds."""
        return record(self.out, Job(name, seed), self.stage(name).name)

    def history(self, name: str, seed: int = 0) -> list[dict[str, Any]]:
        """The epochs of a finished variant's last stage, for curves."""
        found = self.record(name, seed)
        return list(found["history"]) if found else []


def rows_of(runs: Runs) -> list[Row]:
    """All rows that the finished jobs give: each variant's figures, and the differences that the recipe asks for."""
    rows: list[Row] = []
    for name, variant in runs.recipe.variants.items():
        if found := runs.results(name):
            rows += task_rows(name, found, variant.note)
            rows += _validation_time(runs, name)
        if points := runs.landmarks(name):
            rows += _per_group(name, points)
        if recognised := runs.recognition(name):
            rows += recognition_rows(
                variant.row or name, recognised, prefix=variant.prefix, splits=variant.splits, note=variant.note
            )
    for pair in runs.recipe.comparisons:
        rows += _recognition_differences(runs, pair)
        rows += difference_rows(pair.better, pair.than, runs.results(pair.better), runs.results(pair.than))
        a, b = runs.landmarks(pair.better), runs.landmarks(pair.than)
        if set(a) & set(b):
            rows.append(_relative(pair.better, pair.than, a, b))
    return rows + _correlations(runs)


def _recognition_differences(runs: Runs, pair: ComparisonSpec) -> list[Row]:
    a, b = runs.recognition(pair.better), runs.recognition(pair.than)
    if not set(a) & set(b):
        return []
    better, than = (runs.recipe.variants[name] for name in (pair.better, pair.than))
    names = better.row or pair.better, than.row or pair.than
    return recognition_differences(*names, a, b, prefix=better.prefix, splits=better.splits)


def _validation_time(runs: Runs, name: str) -> list[Row]:
    """How much of its training time a variant spent on the validations that weights and thresholds follow."""
    if not (steps := runs.stage(name).optimisation.validate_steps) or not trains(runs.recipe.variants[name]):
        return []
    records = {seed: record for seed in runs.seeds(name) if (record := runs.record(name, seed))}
    shares = [100 * record["validation_seconds"] / record["seconds"] for record in records.values()]
    if not shares:
        return []
    figure, note = (
        summarise(shares),
        f"time in validation: share of the training time, a validation every {steps} steps",
    )
    return [Row(name, "time in validation", figure.mean, figure.std, None, tuple(records), note=note)]


def task_rows(name: str, results: Mapping[int, Result], note: str = "", prefix: str = "") -> list[Row]:
    """One task's figures over seeds; `prefix` tells the metrics of side tasks from the main one's."""
    points = {seed: result for seed, result in results.items() if isinstance(result, LandmarkResult)}
    if points:
        return [replace(row, metric=prefix + row.metric) for row in landmark_rows(name, points, note=note)]
    many = {seed: result for seed, result in results.items() if isinstance(result, AttributesResult)}
    if many:
        return [replace(row, metric=prefix + row.metric) for row in attribute_rows(name, many, note=note)]
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


def difference_rows(better: str, than: str, a: Mapping[int, Result], b: Mapping[int, Result]) -> list[Row]:
    """The figures of `better` minus those of `than`, paired over faces and the seeds of both; none where there is no
    common seed, or no paired difference for this kind of task."""
    seeds = tuple(sorted(set(a) & set(b)))
    ours, theirs = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    found: dict[str, PairedDifference] = {}
    if ours and all(isinstance(result, LandmarkResult) for result in (*ours, *theirs)):
        errors = [np.stack([result.face_errors for result in side]) for side in (ours, theirs)]  # type: ignore[union-attr]
        found = {m: landmarks.paired_difference(*errors, statistic=m) for m in ("mean error", "failure rate")}
    elif ours and all(isinstance(result, AttributesResult) for result in (*ours, *theirs)):
        found = {
            metric: attributes.paired_difference(ours, theirs, statistic=metric)  # type: ignore[arg-type]
            for metric in ("mean accuracy", "mean balanced accuracy", "mean F1")
        }
    note = "paired bootstrap over faces and seeds"
    return [
        Row(f"{better} minus {than}", metric, one.difference, None, one.n, seeds, one.interval.ends, note=note)
        for metric, one in found.items()
    ]


def _relative(better: str, than: str, a: Mapping[int, LandmarkResult], b: Mapping[int, LandmarkResult]) -> Row:
    """How many percent of `than`'s failures are gone (negative) with `better`."""
    seeds = tuple(sorted(set(a) & set(b)))
    relative = [100 * (a[s].failure_rate - b[s].failure_rate) / b[s].failure_rate for s in seeds]
    std = float(np.std(relative, ddof=1)) if len(seeds) > 1 else None
    note = "relative to the second; mean ± std over seeds"
    return Row(f"{better} minus {than}", "relative failure rate", float(np.mean(relative)), std, None, seeds, note=note)


def _correlations(runs: Runs) -> list[Row]:
    """Fig. 5(b): correlation of head weights between each landmark and each side task, mean over seeds."""
    rows: list[Row] = []
    for name, variant in runs.recipe.variants.items():
        if not variant.correlation:
            continue
        stage = runs.stage(name)
        found: dict[str, list[np.ndarray]] = {}
        models = {s: folder(runs.out, Job(name, s)) / stage.name / "model" for s in range(variant.seeds)}
        models = {seed: model for seed, model in models.items() if model.exists()}
        for model in models.values():
            network = load_bundle(model, quiet=True).network
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
                        tuple(models), unit="",
                    )
                )  # fmt: skip
    return rows


def collect(runs: Runs, results: Path, command: str, about: str) -> list[Row]:
    """Write the rows of all finished jobs into a results file."""
    rows = _beside_published(runs.recipe.name, rows_of(runs))
    if not rows:
        raise PolyfaceError(f"{runs.out}: no finished run to collect")
    write_results(results, rows, command=command, data=about)
    return rows


def _beside_published(recipe: str, rows: Sequence[Row]) -> list[Row]:
    """Rows with the figure that the recipe's paper prints of the same name and metric, where it prints one."""
    papers = {
        (figure.row, figure.metric): figure.value
        for key in (recipe, f"{recipe} by attribute")
        for figure in PUBLISHED.get(key, ())
    }
    return [replace(row, published=papers.get(row.key, row.published)) for row in rows]


def sources(recipe: Recipe) -> list[str]:
    """The data sets that a recipe reads."""
    return sorted({source.name for stage in recipe.stages for source in stage.data.tables})


def printed(recipe: Recipe, results: Path) -> str:
    """The variants' figures in a results file, and their differences, as tables."""
    found = read_results(results)
    parts = [markdown_table(found, rows=kind, published=False) for kind in kinds(recipe, found.rows)]
    return "\n\n".join(parts)


def kinds(recipe: Recipe, rows: Sequence[Row]) -> list[list[str]]:
    """Names of the rows that are variants, and of those that are differences between variants."""
    title = {name: variant.row or name for name, variant in recipe.variants.items()}
    names = [name for name in dict.fromkeys(title.values()) if any(row.row == name for row in rows)]
    compared = list(dict.fromkeys(f"{title[pair.better]} minus {title[pair.than]}" for pair in recipe.comparisons))
    return [kind for kind in (names, [name for name in compared if any(row.row == name for row in rows)]) if kind]
