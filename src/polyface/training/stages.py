"""Running the stages of a recipe: data → learner → checkpoint → model bundle, resumable at every step."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from safetensors import SafetensorError

from polyface import networks, weighting
from polyface import tasks as task_kinds
from polyface.data.boxes import boxes_of
from polyface.data.loader import FaceLoader, FacePool, assemble
from polyface.data.store import open_source
from polyface.data.table import FaceTable, Progress
from polyface.errors import NoDataError, PolyfaceError
from polyface.files import atomic_path
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.labels import labelled
from polyface.networks.trunks.face_resnet import unfold
from polyface.tasks import Task
from polyface.training.callbacks import Bar, Saver, reason, stopping_between_steps
from polyface.training.distil import distillation
from polyface.training.learner import Learner
from polyface.training.memory import keep_freed_memory
from polyface.training.precision import precision
from polyface.training.recipe import Recipe, SourceSpec, StageSpec, same_settings
from polyface.training.start import build_network
from polyface.training.terms import Terms
from polyface.weighting import Weighting

CHECKPOINT, HISTORY = "last.ckpt", "history.json"
_UNFOLDING = 512  # faces that give the batch norms of dlib's network, which has no statistics, those to begin with


@dataclass
class RunOptions:
    """Where and how a run happens; nothing here changes what is learnt on one kind of device.

    accelerator, devices, strategy: Lightning's. checkpoint_minutes: how often the run is saved (also at its end and
    when it is interrupted); checkpoint_steps: instead, every so many batches. progress: called with what is going on.
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


@dataclass
class StageResult:
    """A finished stage: its bundle's folder, its history (a dict an epoch), how long it trained."""

    bundle: Path
    history: list[dict[str, Any]]
    seconds: float


def named_tasks(stage: StageSpec) -> dict[str, Task]:
    """The tasks of a stage as its settings say, before any face was seen."""
    return {name: task_kinds.build(name, config) for name, config in stage.tasks.items()}


def stage_tasks(stage: StageSpec, data: Path | None = None) -> dict[str, Task]:
    """The tasks of a stage; those whose settings do not say their outputs learn them from its training faces."""
    tasks = named_tasks(stage)
    return _learnt(tasks, [task for task in tasks.values() if not task.output_dim], stage, data)


def training_tasks(stage: StageSpec, data: Path | None) -> dict[str, Task]:
    """The tasks of a stage, which have learnt all that they can from its training faces."""
    tasks = named_tasks(stage)
    return _learnt(tasks, list(tasks.values()), stage, data)


def _learnt(tasks: dict[str, Task], some: list[Task], stage: StageSpec, data: Path | None) -> dict[str, Task]:
    tables = [table.take(rows) for table, rows, _ in _chosen(stage, "train", data)] if some else []
    if tables:
        training = FaceTable.concat(tables)
        for task in some:
            task.learn(training)
    return tasks


def stage_pool(
    stage: StageSpec,
    part: str,
    data: Path | None,
    tasks: dict[str, Task],
    progress: Progress | None = None,
    earlier: Mapping[str, Path] | None = None,
) -> FacePool | None:
    """The faces of a stage whose split is `part` (train, val, test); None where its tables have none.

    earlier: bundles of other stages, which may label its faces.
    """
    found = []
    for opened, rows, source in _chosen(stage, part, data, progress):
        if not len(rows):
            continue
        table = opened
        for model in source.labels:
            table = labelled(table, str((earlier or {}).get(model, model)), progress)
        # once a table, whatever part is asked for; once its pictures, whatever models say of them
        detected = stage.data.boxes.source in ("detector", "points")
        whole = boxes_of(opened if detected else table, stage.data.boxes, progress=progress)
        missed = np.flatnonzero(np.isin(rows, whole.missed))
        boxes = type(whole)(whole.xyxy[rows], missed, None if whole.points is None else whole.points[rows])
        found.append((table.take(rows), boxes, source.ratio))
    if not found:
        return None
    pool = FacePool(found, stage.data.crop, tasks, progress, stage.data.balance if part == "train" else ())
    needed = tasks if part == "train" else [name for name in tasks if name == stage.evaluation.main]
    for name in needed:  # a side task may have no labels where it is not learnt: people of other parts, say
        if not pool.targets[name].labelled.any():
            raise PolyfaceError(
                f"stage {stage.name}, task '{name}': no face with split '{part}' is labelled for it; check its column "
                "and where"
            )
    return pool


def pool_of(stage: StageSpec, data: Path | None, tasks: Mapping[str, Task], part: str = "test") -> FacePool:
    """The faces of a stage's tables whose split is `part`."""
    pool = stage_pool(stage, part, data, dict(tasks))
    if pool is None:
        names = ", ".join(source.name for source in stage.data.tables)
        raise PolyfaceError(f"stage {stage.name}: no face of {names} has split '{part}'; nothing to measure on")
    return pool


def _chosen(
    stage: StageSpec, part: str, data: Path | None, progress: Progress | None = None
) -> Iterator[tuple[FaceTable, np.ndarray, SourceSpec]]:
    """Each table of a stage, whole, with its rows of a part."""
    for source in stage.data.tables:
        table = open_source(source.name, data, source.options, progress)
        if len(table) < source.faces:
            raise NoDataError(
                f"stage {stage.name}: {source.name} has {len(table):,} faces here; it takes {source.faces:,}"
            )
        rows = _rows(table, part, source)
        if part == "train" and stage.data.limit:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[: stage.data.limit])
        yield table, rows, source


def _rows(table: FaceTable, part: str, source: SourceSpec) -> np.ndarray:
    split = table.words("split")
    keep = split == part
    if part == "train":
        keep |= split == None  # noqa: E711  a table without splits is all for training
    for conditions, wanted in ((source.where, True), (source.without, False)):
        for column, words in conditions.items():
            keep &= (table.classes(column, [words] if isinstance(words, str) else words) >= 0) == wanted
    return np.flatnonzero(keep)


def build_weighting(
    stage: StageSpec, features: int | None = None, tasks: Mapping[str, Task] | None = None
) -> Weighting:
    """The stage's weighting; features: the width of the network's shared features; tasks: those of the stage. Reads no
    face: it needs the names of tasks and terms alone."""
    names = list(Terms(tasks or named_tasks(stage), stage.weighting.terms).weighed)
    return weighting.build(stage.weighting.name, names, features=features, **stage.weighting.options)


def untrained(recipe: Recipe, out: Path, data: Path | None, earlier: Mapping[str, Path]) -> Path:
    """The bundle of a recipe's last stage as its `init` leaves it."""
    stage = recipe.stages[-1]
    tasks = training_tasks(stage, data)
    network = build_network(stage, tasks, recipe.seed, dict(earlier))
    if pool := stage_pool(stage, "train", data, tasks, earlier=earlier):
        _unfold(network, stage, tasks, pool, recipe.seed)
    about = {"name": f"{recipe.place}/{stage.name}, untrained", "recipe": recipe.name, "seed": recipe.seed}
    return Bundle(network, tasks, stage.data.crop, stage.data.boxes, about).save(out / stage.name / "model")


def _unfold(
    network: networks.FaceNetwork, stage: StageSpec, tasks: Mapping[str, Task], pool: FacePool, seed: int
) -> None:
    """Let the batch norms of dlib's network, which has no statistics, begin with those of training faces."""
    if stage.init and stage.init.source == "dlib":
        raw = FaceLoader(pool, stage.data.batch, seed=seed, shuffle=False).some(0, min(_UNFOLDING, len(pool)))
        unfold(network, assemble(raw, stage.data.crop, tasks, stage.data.augment).images)


def _trainer(stage: StageSpec, options: RunOptions, folder: Path, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's trainer for one pass over all batches of all epochs; checkpoints and the bar are callbacks."""
    trainer = L.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        strategy=options.strategy,
        precision=precision(stage.optimisation.precision, options.accelerator),  # type: ignore[arg-type]
        max_epochs=1,
        accumulate_grad_batches=stage.optimisation.accumulate,
        gradient_clip_val=stage.optimisation.clip,
        callbacks=callbacks,
        logger=_logger(options.logger, folder),
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
    )
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise PolyfaceError(
            f"strategy '{options.strategy}' trains in copies of this process, whose results stay there: use 'ddp'"
        )
    return trainer


def run_stage(
    recipe: Recipe,
    stage: StageSpec,
    out: Path,
    data: Path | None,
    options: RunOptions,
    earlier: dict[str, Path],
) -> StageResult:
    """Train one stage into `out`, resuming what is there; a finished stage is returned as it is."""
    folder = out / stage.name
    done = folder / HISTORY
    settings = json.loads(stage.model_dump_json()) | {"seed": recipe.seed}
    if done.exists() and not options.fresh:
        finished = json.loads(done.read_text())
        if same_settings(stage, recipe.seed, finished["settings"]):
            return StageResult(folder / "model", finished["history"], finished["seconds"])
    _quiet()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    tasks = training_tasks(stage, data)
    train = stage_pool(stage, "train", data, tasks, options.progress, earlier)
    if train is None:
        raise PolyfaceError(f"stage {stage.name}: no training faces (split 'train') in its tables")
    stand_in = stage.data.validate_on == "train"
    val = train if stand_in else stage_pool(stage, "val", data, tasks, options.progress, earlier)
    network = build_network(stage, tasks, recipe.seed, earlier)
    optimisation = stage.optimisation
    checkpoint = folder / CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        checkpoint.unlink(missing_ok=True)
    saver = Saver(checkpoint, optimisation.accumulate, options.checkpoint_minutes, options.checkpoint_steps)
    callbacks: list[L.Callback] = [saver]
    if options.progress:
        callbacks.append(Bar(options.progress, stage.name))
    trainer = _trainer(stage, options, folder, callbacks)
    loaders = {}
    for part, pool in (("train", train), ("val", val)):
        if pool is not None:
            loaders[part] = FaceLoader(
                pool,
                optimisation_batch(stage, part),
                seed=recipe.seed,
                stage=stage.name,
                shuffle=part == "train",
                rank=trainer.global_rank,
                world=trainer.world_size,
            )
    _unfold(network, stage, tasks, train, recipe.seed)
    balance = build_weighting(stage, network.shared_dim, tasks)
    if "val" not in loaders and (needs := _needs_validation(stage, balance)):
        raise PolyfaceError(
            f"stage {stage.name}: {needs} needs validation faces, and no face has split 'val': name some, "
            "or set data.validate_on to train"
        )
    taught = None
    if stage.distil:
        teacher = load_bundle(earlier.get(stage.distil.teacher, Path(stage.distil.teacher)), quiet=True)
        taught = distillation(stage.distil, teacher, network, train, options.progress)
    learner = Learner(stage, recipe.seed, network, tasks, balance, loaders["train"], loaders.get("val"), taught)
    learner.after_batch = lambda done: saver.after_batch(trainer, done)  # callbacks run before the learner's own hook
    start = checkpoint if checkpoint.exists() else None
    began = time.monotonic()
    seconds_before = 0.0
    if start is not None:
        # Lightning asks for the loader before it restores the learner, so the position is read first.
        own = _position(start)
        learner.on_load_checkpoint({"polyface": own})
        seconds_before = float(own.get("seconds", 0.0))
    learner.seconds = lambda: seconds_before + time.monotonic() - began
    torch.manual_seed(recipe.seed + 1)
    with stopping_between_steps(saver):
        trainer.fit(learner, ckpt_path=start, weights_only=True)
    if trainer.is_global_zero:
        _finish(recipe, learner, folder, settings)
    trainer.strategy.barrier()
    return StageResult(folder / "model", learner.history, learner.seconds())


def _needs_validation(stage: StageSpec, balance: Weighting) -> str | None:
    """What of a stage cannot do without validation faces."""
    found = {
        f"weighting {stage.weighting.name}": balance.follows_validation,
        "thresholds": stage.thresholds is not None,
        "stopping": stage.stopping is not None,
        "optimisation.schedule plateau": stage.optimisation.schedule == "plateau",
        "evaluation.select best": stage.evaluation.select == "best",
    }
    return next((what for what, needed in found.items() if needed), None)


def _finish(recipe: Recipe, learner: Learner, folder: Path, settings: dict[str, Any]) -> None:
    """Write the stage's model, then its history, which marks it as finished."""
    stage, final = learner.spec, learner.evaluated
    learner.finish()
    about = {"name": f"{recipe.place}/{stage.name}", "recipe": recipe.name, "seed": recipe.seed}
    about["precision"] = learner.trainer.precision
    result = {"settings": settings, "history": learner.history, "seconds": learner.seconds()}
    result |= {"validation_seconds": learner.validation_seconds, "precision": learner.trainer.precision}
    try:
        Bundle(final, learner.tasks, stage.data.crop, stage.data.boxes, about).save(folder / "model")
        with atomic_path(folder / HISTORY) as aside:
            aside.write_text(json.dumps(result, indent=1))
    except (OSError, SafetensorError) as error:
        raise PolyfaceError(
            f"{folder}: trained, but could not write the model ({reason(error)}; the checkpoint is whole): "
            "free some space and run the same command again"
        ) from error


def _position(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of where its run stood."""
    try:
        own: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")["polyface"]
    except Exception as error:  # a damaged file raises as variously as it can be damaged
        raise PolyfaceError(
            f"{checkpoint}: not a readable checkpoint ({type(error).__name__}): put an intact copy there, or pass "
            "--fresh to start over"
        ) from error
    return own


def optimisation_batch(stage: StageSpec, part: str) -> int:
    """Faces a process takes at once: the recipe's batch in training, a larger one where no gradient is kept."""
    return stage.data.batch if part == "train" else max(stage.data.batch, 250)


def run(
    recipe: Recipe, out: Path, data: Path | None, options: RunOptions, earlier: Mapping[str, Path] | None = None
) -> dict[str, StageResult]:
    """Train all stages of a recipe in order into `out`; the last bundle is `out/<last stage>/model`.

    earlier: bundles that `init` may name beside the recipe's own stages.
    """
    results: dict[str, StageResult] = {}
    for stage in recipe.stages:
        known = {**(earlier or {}), **{name: result.bundle for name, result in results.items()}}
        results[stage.name] = run_stage(recipe, stage, out, data, options, known)
    return results


def _logger(kind: str, folder: Path) -> list[Logger]:
    if kind == "none":
        return []
    if kind == "csv":
        return [CSVLogger(folder, name="", version="logs")]
    if kind == "tensorboard":
        try:
            from lightning.pytorch.loggers import TensorBoardLogger

            return [TensorBoardLogger(folder, name="", version="tensorboard")]
        except ModuleNotFoundError as error:
            raise PolyfaceError("--logger tensorboard needs `pip install 'polyface[track]'`") from error
    raise PolyfaceError(f"--logger is '{kind}'; expected csv, tensorboard or none")


def _quiet() -> None:
    """Lightning's advice about settings that are fixed here would bury the progress bar."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
