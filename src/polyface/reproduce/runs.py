"""Finished jobs evaluated by the protocol of their stage; one way for every task and protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyface import protocols
from polyface.data.loader import FacePool
from polyface.errors import PolyfaceError
from polyface.metrics.folds import pooled
from polyface.metrics.result import Result, Row
from polyface.protocols.base import EvaluationSet, Protocol
from polyface.reproduce.jobs import Answers, Job, answers_path, finished, record, stored, trains
from polyface.tasks import Task
from polyface.training.recipe import MOST_SEEDS, Recipe, VariantSpec
from polyface.training.specs import StageSpec
from polyface.training.stages import pool_of, stage_tasks

OLDER = "trained by an older Polyface, see its changelog"


class Faces:
    """The labelled faces that answers are evaluated on; each pool is built once, for all variants and seeds."""

    def __init__(self, data: Path | None) -> None:
        self.data = data
        self._pools: dict[str, FacePool] = {}
        self._offered: dict[str, Any] = {}

    def of(self, stage: StageSpec, part: str) -> FacePool:
        """The faces of a part; how they are cropped is of no account here."""
        key = f"{part} {[table.model_dump_json() for table in stage.data.tables]} {stage.data.boxes}"
        if key not in self._pools:
            self._pools[key] = pool_of(stage, self.data, {}, part)
        return self._pools[key]

    def evaluated(self, stage: StageSpec, part: str, tasks: Mapping[str, Task]) -> EvaluationSet:
        """The faces of a part as a protocol takes them."""
        sources = {source.name: source.options for source in stage.data.tables}
        table, main = self.of(stage, part).table, stage.evaluation.main
        return EvaluationSet(table, part, self.data, sources, tasks, main, self._offered)


class Runs:
    """The finished jobs of a recipe in a folder; stored answers are evaluated once, when they are asked for.

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
        self._done: set[Job] = set()
        self._stages: dict[Job, StageSpec] = {}
        self._tasks: dict[Job, dict[str, Task]] = {}
        self._protocols: dict[str, tuple[Protocol, Any]] = {}
        self._results: dict[str, Mapping[str, Result]] = {}

    @property
    def measured(self) -> dict[str, VariantSpec]:
        """The variants that have a row."""
        return {name: variant for name, variant in self.recipe.variants.items() if self.recipe.has_row(name)}

    def title(self, name: str) -> str:
        """The row of the table that a variant stands in."""
        return self.recipe.variants[name].row or name

    def stage(self, name: str, seed: int = 0) -> StageSpec:
        """The stage of a variant that is evaluated."""
        job = self._of(name, seed)
        if job not in self._stages:
            self._stages[job] = self.recipe.variant(name, job.seed).measured
        return self._stages[job]

    def tasks(self, name: str, seed: int = 0) -> dict[str, Task]:
        """The tasks of a variant's evaluated stage."""
        job = self._of(name, seed)
        if job not in self._tasks:
            self._tasks[job] = stage_tasks(self.stage(name, seed), self.faces.data, every=True)
        return self._tasks[job]

    def _of(self, name: str, seed: int) -> Job:
        """The seeds of a variant differ in their faces if they are splits or folds, and in nothing else."""
        variant = self.recipe.variants[name]
        return Job(name, seed if variant.splits or variant.folds > 1 else 0)

    def seeds(self, name: str) -> list[int]:
        """The finished seeds of a variant."""
        return [seed for seed in range(MOST_SEEDS) if self._finished(Job(name, seed))]

    def _finished(self, job: Job) -> bool:
        if job not in self._done and finished(self.recipe, self.out, job, self.parts, self.faces.data):
            self._done.add(job)
        return job in self._done

    def answers(self, name: str, seed: int, part: str = "test") -> Answers:
        """What a finished seed of a variant said of the faces of a part."""
        return stored(self.out, Job(name, seed), part)

    def _answers(self, name: str, seed: int, part: str) -> Answers:
        """Those, on as many faces as there are."""
        found, faces = self.answers(name, seed, part), len(self.faces.of(self.stage(name, seed), part))
        given = {len(values) for answer in found.values() for values in answer.values()}
        if wrong := given - {faces}:
            path = answers_path(self.out, Job(name, seed), part)
            raise PolyfaceError(
                f"{path}: answers on {min(wrong)} faces, and there are {faces}: delete it, and run again"
            )
        return found

    def protocol(
        self, name: str, seed: int = 0, part: str = "test", settings: Mapping[str, Any] | None = None
    ) -> tuple[Protocol, Any]:
        """How a variant is evaluated, and what is compared then; by default as its stage says."""
        job = self._of(name, seed)
        key = f"{job} {part} {settings}"
        if key not in self._protocols:
            stage = self.stage(name, seed)
            chosen = protocols.build(settings or stage.evaluation.protocol)
            cases = chosen.cases(self.faces.evaluated(stage, part, self.tasks(name, seed)))
            self._protocols[key] = chosen, cases
        return self._protocols[key]

    def results(self, name: str, part: str = "test") -> dict[int, Mapping[str, Result]]:
        """The results of the finished seeds of a variant, each by the prefix of its metrics."""
        return {seed: self._result(name, seed, part) for seed in self.seeds(name)}

    def whole(self, name: str, found: Mapping[str, Mapping[int, Result]]) -> dict[str, dict[int, Result]]:
        """Results of a variant by prefix and seed, those of all folds of one division as one, numbered from 0; without
        a prefix of which no division is whole."""
        folds = self.recipe.variants[name].folds
        made: dict[str, dict[int, Result]] = {}
        for prefix, one in found.items():
            for run in sorted({seed // folds for seed in one}):
                seeds = range(run * folds, (run + 1) * folds)
                if all(seed in one for seed in seeds):
                    made.setdefault(prefix, {})[run] = pooled([one[seed] for seed in seeds])
        return made

    def _result(
        self, name: str, seed: int, part: str, settings: Mapping[str, Any] | None = None
    ) -> Mapping[str, Result]:
        key = f"{Job(name, seed)} {part} {settings}"
        if key not in self._results:
            chosen, cases = self.protocol(name, seed, part, settings)
            self._results[key] = chosen.evaluate(self._answers(name, seed, part), cases)
        return self._results[key]

    def side(self, name: str, part: str = "test") -> dict[str, dict[int, Result]]:
        """How the tasks beside the main one do, by the prefix of their metrics and by seed: a task that is said to help
        must be seen to be learnt, whatever the stage is evaluated by. Without those that the stage's protocol tells of
        itself, and those that no face is labelled for."""
        found: dict[int, Mapping[str, Result]] = {}
        for seed, told in self.results(name, part).items():
            stage, answers = self.stage(name, seed), self.answers(name, seed, part)
            table = self.faces.of(stage, part).table
            named = {metric.name for one in told.values() for metric in one.metrics}
            asked = [
                task
                for task, one in self.tasks(name, seed).items()
                if task != stage.evaluation.main and f"{task} " not in told and task not in named and task in answers
                if one.targets(table).labelled.any()
            ]
            settings = {"name": protocols.DEFAULT, "tasks": asked}
            found[seed] = self._result(name, seed, part, settings) if asked else {}
        return by_prefix(found)

    def main(self, name: str, part: str = "test") -> dict[int, Result]:
        """The results without a prefix, such as the main task's, of the finished seeds of a variant."""
        return by_prefix(self.results(name, part)).get("", {})

    def record(self, name: str, seed: int = 0, stage: str = "") -> dict[str, Any] | None:
        """What the training of a variant's stage, by default the last, left: settings, history and seconds."""
        return record(self.out, Job(name, seed), stage or self.recipe.variants[name].stages[-1])

    def precision(self, name: str) -> str:
        """What the networks of a variant, or of those that it takes its answers from, were trained in."""
        variant = self.recipe.variants[name]
        if others := [variant.model] if variant.model else variant.average:
            return _listed(self.precision(other) for other in others)
        kept = [record for seed in self.seeds(name) if trains(variant) and (record := self.record(name, seed))]
        asked = (record.get("precision") or record["settings"]["optimisation"].get("precision") for record in kept)
        return _listed(one for one in asked if one != "auto")

    def older(self, name: str) -> bool:
        """Whether one of the networks behind a variant is from a Polyface whose records do not say what data they were
        trained on; it may have been trained in another way than the recipe says now, where a key was added since."""
        variant = self.recipe.variants[name]
        kept = (
            record(self.out, Job(name, seed), stage)
            for seed in (self.seeds(name) if trains(variant) else ())
            for stage in variant.stages
        )
        return any(one is not None and one["data"] is None for one in kept) or any(map(self.older, variant.needs))

    def told(self, rows: Iterable[Row], *names: str) -> list[Row]:
        """Rows of a variant, or of several that are compared, with how the networks behind them were trained."""
        precision, older = _listed(map(self.precision, names)), OLDER * any(map(self.older, names))
        return [
            replace(row, precision=precision, note="; ".join(filter(None, [row.note, older]))) if row.seeds else row
            for row in rows
        ]

    def history(self, name: str, seed: int = 0) -> list[dict[str, Any]]:
        """The epochs of a finished variant's last stage, for curves."""
        found = self.record(name, seed)
        return list(found["history"]) if found else []


def _listed(words: Iterable[str | None]) -> str:
    """Each word once."""
    return ", ".join(dict.fromkeys(filter(None, words)))


def by_prefix(results: Mapping[int, Mapping[str, Result]]) -> dict[str, dict[int, Result]]:
    """Results by seed → by prefix, of the prefixes that every seed has."""
    first, *others = results.values() if results else [{}]
    common = [prefix for prefix in first if all(prefix in other for other in others)]
    return {prefix: {seed: one[prefix] for seed, one in results.items()} for prefix in common}
