"""The stages of a recipe: their faces, tasks and weighting, and running them one after the other."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from safetensors import SafetensorError

from polyface import tasks as task_kinds
from polyface import weighting
from polyface.data.boxes import Boxes, boxes_of
from polyface.data.loader import FacePool, drawn
from polyface.data.store import open_source
from polyface.data.table import FaceTable, Progress
from polyface.errors import NoDataError, PolyfaceError, check_names, nearest, short
from polyface.files import atomic_path, lock
from polyface.models.bundle import MANIFEST, Bundle
from polyface.models.labels import labelled
from polyface.networks import FaceNetwork
from polyface.tasks import Task
from polyface.training.callbacks import reason
from polyface.training.learners import LEARNERS
from polyface.training.recipe import Recipe
from polyface.training.records import HISTORY, Inputs, faces_of, inputs_of, read_record, warn_unseen
from polyface.training.specs import BaseStage, SourceSpec, StageSpec, same_settings
from polyface.training.start import adapt, build_network, extended
from polyface.training.terms import LossTerms
from polyface.weighting import Weighting

LOGGERS = ("csv", "tensorboard", "none")


@dataclass
class RunOptions:
    """Where and how a run happens; nothing here changes what is learnt on one kind of device.

    accelerator, devices, strategy: Lightning's. checkpoint_minutes: how often the run is saved (also at its end and
    when it is interrupted); checkpoint_steps: instead, every so many batches. progress: called with what is going on.
    after_epoch: called with a stage's name and the history's entry of each epoch that another one follows; what it
    raises ends the run, which can be resumed.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    strategy: str = "auto"
    checkpoint_minutes: float = 2.0
    checkpoint_steps: int | None = None
    fresh: bool = False
    logger: str = "csv"
    progress: Progress | None = None
    threads: int | None = None
    after_epoch: Callable[[str, Mapping[str, Any]], None] | None = None

    def __post_init__(self) -> None:
        for name, value, most in (
            ("devices", self.devices, None),
            ("threads", self.threads, 1024),
            ("checkpoint_steps", self.checkpoint_steps, None),
        ):
            if isinstance(value, int) and (value < 1 or (most and value > most)):
                raise PolyfaceError(f"{name} is {value}; expected at least 1" + (f", at most {most}" if most else ""))
        for name, value, known in (
            ("device", self.accelerator, ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]),
            ("strategy", self.strategy, ["auto", *StrategyRegistry.available_strategies()]),
            ("logger", self.logger, LOGGERS),
        ):
            if value not in known:
                raise PolyfaceError(f"{name} '{short(value)}' cannot be used; {nearest(value, known)}")


@dataclass
class StageResult:
    """A finished stage: its bundle's folder, its history (a dict an epoch), how long it trained."""

    bundle: Path
    history: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True)
class RunContext:
    """What a learner is given beside its stage. recipe: whose name and seed the run has. folder: where all that it
    writes belongs. data: where data sets are. earlier: bundles of other stages, by name. inputs: what the stage is made
    from beside its settings."""

    recipe: Recipe
    folder: Path
    data: Path | None
    options: RunOptions
    earlier: Mapping[str, Path]
    inputs: Inputs

    def finish(
        self,
        stage: BaseStage,
        network: FaceNetwork,
        tasks: Mapping[str, Task],
        record: dict[str, Any],
        old: Bundle | None = None,
        **more: Any,
    ) -> None:
        """Write the stage's model, then its settings and its record (history, seconds), which marks it as finished.
        old: the model that it extends, whose tasks go on. more: what model and record both say."""
        recipe, crop, boxes = self.recipe, stage.data.crop, stage.data.boxes
        name = {"name": f"{recipe.place}/{stage.name}"}
        about = {**name, "recipe": recipe.name, "seed": recipe.seed, **more}
        if old:
            faces = [one.model_dump() for one in self.inputs.data or ()]
            entry = {"tasks": list(tasks), "date": time.strftime("%Y-%m-%d", time.gmtime()), "data": faces, **about}
            about = {**old.about, **name, "added": [*old.about.get("added", ()), entry]}
            tasks = {**old.tasks, **tasks}
        settings = json.loads(stage.model_dump_json()) | {"seed": recipe.seed}
        made_from = self.inputs.model_dump(exclude={"missing"})
        try:
            Bundle(network, dict(tasks), crop, boxes, about).save(self.folder / "model")
            with atomic_path(self.folder / HISTORY) as aside:
                told = json.dumps({"settings": settings, **made_from, **record, **more}, indent=1)
                aside.write_text(told, encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise PolyfaceError(
                f"{self.folder}: trained, but could not write the model ({reason(error)}; the checkpoint is whole): "
                "free some space and run the same command again"
            ) from error

    def finished(self, stage: BaseStage) -> StageResult | None:
        """What is there of the stage, if it was finished with these settings.

        Raises:
            PolyfaceError: its record is damaged, or it was made from other data than there is now.
        """
        kept = None if self.options.fresh else read_record(self.folder)
        if kept is None or not same_settings(stage, self.recipe.seed, kept.settings):
            return None
        if not (self.folder / "model" / MANIFEST).exists():
            return None
        if changed := self.inputs.changed(kept):
            raise PolyfaceError(
                f"{self.folder}: was finished, and {changed} changed since: pass --fresh to train it anew, give "
                "another --out, or put back what there was"
            )
        warn_unseen(self.folder, kept, self.inputs)
        return StageResult(self.folder / "model", kept.history, kept.seconds)


def named_tasks(stage: StageSpec) -> dict[str, Task]:
    """The tasks of a stage as its settings say, before any face was seen."""
    return {name: task_kinds.build(name, config) for name, config in stage.tasks.items()}


def stage_tasks(stage: StageSpec, data: Path | None = None, every: bool = False) -> dict[str, Task]:
    """The tasks of a stage; those whose settings do not say their outputs learn them from its training faces. every:
    all learn what they can from these, as those that are to be trained do."""
    tasks = named_tasks(stage)
    learning = [task for task in tasks.values() if every or not task.output_dim]
    if learning and (tables := [table.take(rows) for table, rows, _ in _chosen(stage, "train", data)]):
        training = FaceTable.concat(tables)
        for task in learning:
            task.learn(training)
    return tasks


def stage_pool(
    stage: BaseStage,
    part: str,
    data: Path | None,
    tasks: dict[str, Task],
    progress: Progress | None = None,
    earlier: Mapping[str, Path] | None = None,
) -> FacePool | None:
    """The faces of a stage whose split is `part` (train, val, test); None where its tables have none.

    earlier: bundles of other stages, which may label its faces.
    """
    parts = []
    for opened, rows, source in _chosen(stage, part, data, progress):
        if not len(rows):
            continue
        table = opened
        for place, model in enumerate(source.labels, 1):
            pose = source.pose and place == len(source.labels)  # by points of the table or of any of the models
            table = labelled(table, str((earlier or {}).get(model, model)), progress, pose)
        taken = table.take(rows)
        if stage.data.boxes.source in ("detector", "points"):  # once its pictures, whatever part or model is asked for
            whole = boxes_of(opened, stage.data.boxes, progress=progress)
            missed = np.flatnonzero(np.isin(rows, whole.missed))
            boxes = Boxes(whole.xyxy[rows], missed, None if whole.points is None else whole.points[rows])
        else:
            boxes = boxes_of(taken, stage.data.boxes)
        parts.append((taken, boxes, source.ratio))
    if not parts:
        return None
    training = part == "train"
    if training:
        check_names(stage.data.labelled, tasks, f"stage {stage.name}: data.labelled")
    balance, kept = (stage.data.balance, stage.data.labelled) if training else ((), {})
    pool = FacePool(parts, stage.data.crop, tasks, progress, balance, kept)
    needed = tasks if training else [name for name in tasks if name == stage.main]
    for name in needed:  # a side task may have no labels where it is not learnt: people of other parts, say
        if not pool.targets[name].labelled.any():
            raise PolyfaceError(
                f"stage {stage.name}, task '{name}': no face with split '{part}' is labelled for it; check its column "
                "and where"
            )
    return pool


def pool_of(stage: BaseStage, data: Path | None, tasks: Mapping[str, Task], part: str = "test") -> FacePool:
    """The faces of a stage's tables whose split is `part`."""
    pool = stage_pool(stage, part, data, dict(tasks))
    if pool is None:
        names = ", ".join(source.name for source in stage.data.tables)
        raise PolyfaceError(f"stage {stage.name}: no face of {names} has split '{part}'; nothing to measure on")
    return pool


def _chosen(
    stage: BaseStage, part: str, data: Path | None, progress: Progress | None = None
) -> Iterator[tuple[FaceTable, np.ndarray, SourceSpec]]:
    """Each table of a stage, whole, with its rows of a part."""
    for source in stage.data.tables:
        table = open_source(source.name, data, source.options, progress)
        if len(table) < source.faces:
            raise NoDataError(
                f"stage {stage.name}: {source.name} has {len(table):,} faces here, and {source.faces:,} where it is "
                "whole: fetch the others, or set `faces` of the table to null to train on these"
            )
        rows = _rows(table, part, source)
        if part == "train" and stage.data.people:
            rows = _of_few(table.words("identity"), rows, stage.data.people)
        if part == "train" and stage.data.limit:
            rows = np.sort(drawn(rows, stage.data.limit))
        yield table, rows, source


def _rows(table: FaceTable, part: str, source: SourceSpec) -> np.ndarray:
    split = table.words("split")
    keep = np.isin(split.astype(str), source.splits if part == "train" else [part])
    if part == "train" and not (split != None).any():  # noqa: E711  in an array of words
        keep[:] = True  # a table without splits is all for training; of one with splits a face without is in no part
    for conditions, wanted in ((source.where, True), (source.without, False)):
        for column, words in conditions.items():
            keep &= table.holding(column, words) == wanted
    if source.faces_each:
        keep &= _pictured(table.words("identity"), keep, source.faces_each)
    return np.flatnonzero(keep)


def _pictured(people: np.ndarray, among: np.ndarray, least: int) -> np.ndarray:
    """Bool [N]: the faces of people who have at least so many faces among those that are marked."""
    count = Counter(people[among].tolist())
    return np.array([person is not None and count[person] >= least for person in people], dtype=bool)


def _of_few(people: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """Those of the rows whose faces are of at most so many people, drawn in a fixed order."""
    some = sorted({person for person in people[rows] if person is not None})
    kept = set(drawn(np.array(some, dtype=object), most))
    return rows[[person in kept for person in people[rows]]]


def build_weighting(
    stage: StageSpec, features: int | Sequence[int] | None = None, tasks: Mapping[str, Task] | None = None
) -> Weighting:
    """The stage's weighting; features: the width of the network's shared features, or a map's shape; tasks: those of
    the stage. Reads no face: it needs the names of tasks and terms alone."""
    names = list(LossTerms(tasks or named_tasks(stage), stage.weighting.terms).weighted)
    return weighting.build(stage.weighting.name, names, features=features, **stage.weighting.options)


def untrained(recipe: Recipe, out: Path, data: Path | None, earlier: Mapping[str, Path]) -> Path:
    """The bundle of a recipe's last stage as its `init` leaves it, with the record of a stage of no epoch."""
    stage = recipe.measured
    folder = out / stage.name
    context = RunContext(recipe, folder, data, RunOptions(), earlier, inputs_of(stage, data, earlier))
    tasks = stage_tasks(stage, data, every=True)
    network = build_network(stage, tasks, recipe.seed, earlier)
    if pool := stage_pool(stage, "train", data, tasks, earlier=earlier):
        adapt(network, stage, tasks, pool, recipe.seed, earlier)
    with lock(folder):
        record = {"history": [], "seconds": 0.0}
        context.finish(stage, network, tasks, record, extended(stage, earlier), untrained=True)
    return folder / "model"


def run(
    recipe: Recipe, out: Path, data: Path | None, options: RunOptions, earlier: Mapping[str, Path] | None = None
) -> dict[str, StageResult]:
    """Train all stages of a recipe in order into `out`, resuming what is there; a finished stage stays as it is. The
    last bundle is `out/<last stage>/model`.

    earlier: bundles that `init` may name beside the recipe's own stages.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict[str, StageResult] = {}
    for stage in recipe.stages:
        known = {**(earlier or {}), **{name: result.bundle for name, result in results.items()}}
        context = RunContext(recipe, out / stage.name, data, options, known, inputs_of(stage, data, known))
        results[stage.name] = context.finished(stage) or _train(stage, context)
    return results


def _train(stage: BaseStage, context: RunContext) -> StageResult:
    for source in stage.data.tables:  # what is missing is told before there is a folder
        faces_of(source, context.data)
    others = bool(_get_rank())  # processes of the same run
    with nullcontext() if others else lock(context.folder):
        if context.options.fresh and not others:
            (context.folder / HISTORY).unlink(missing_ok=True)  # or a run that is stopped would pass for the old one
        result: StageResult = LEARNERS.get(stage.learner).run(stage, context)
    return result
