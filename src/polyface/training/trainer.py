"""Lightning's trainer, as every learner wants it: one pass that can be interrupted and resumed at every step."""

from __future__ import annotations

import json
import logging
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from polyface.data.loader import FaceLoader, FacePool
from polyface.errors import PolyfaceError, short
from polyface.training.callbacks import Bar, Epochs, Saver, stopping_between_steps
from polyface.training.memory import keep_freed_memory
from polyface.training.module import LAYOUT, Pace, StageModule
from polyface.training.precision import precision
from polyface.training.processes import ended_together
from polyface.training.specs import BaseStage, same_settings
from polyface.training.stages import RunOptions

CHECKPOINT = "last.ckpt"


def trainer_of(stage: str, pace: Pace, options: RunOptions, folder: Path) -> tuple[L.Trainer, Saver]:
    """Lightning's trainer for one pass over all batches of all epochs of a stage, and what saves its checkpoints."""
    _quiet()
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    if options.fresh:
        checkpoint.unlink(missing_ok=True)
    saver = Saver(checkpoint, pace.accumulate, options.checkpoint_minutes, options.checkpoint_steps)
    callbacks: list[L.Callback] = [saver]
    if options.progress:
        callbacks.append(Bar(options.progress, stage))
    if options.after_epoch:
        callbacks.append(Epochs(options.after_epoch, stage))
    try:
        trainer = L.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=options.strategy,
            precision=precision(pace.precision, options.accelerator),  # type: ignore[arg-type]
            max_epochs=1,
            accumulate_grad_batches=pace.accumulate,
            gradient_clip_val=pace.clip,
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
    except (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        asked = f"device {options.accelerator} ({options.devices}), strategy {options.strategy}"
        asked += f", precision {pace.precision}"
        raise PolyfaceError(f"stage {stage}: cannot be trained on {asked} ({short(error)})") from error
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise PolyfaceError(
            f"strategy '{options.strategy}' trains in copies of this process, whose results stay there: use 'ddp'"
        )
    return trainer, saver


def loaders_of(
    trainer: L.Trainer, stage: BaseStage, seed: int, train: FacePool, val: FacePool | None
) -> tuple[FaceLoader, FaceLoader | None]:
    """This process's share of the training faces, in another order every epoch, and of the validation faces, in theirs
    and in larger batches."""

    def loader(pool: FacePool, batch: int, shuffle: bool) -> FaceLoader:
        rank, world = trainer.global_rank, trainer.world_size
        return FaceLoader(pool, batch, seed=seed, stage=stage.name, shuffle=shuffle, rank=rank, world=world)

    validation = None if val is None else loader(val, max(stage.data.batch, 250), shuffle=False)
    return loader(train, stage.data.batch, shuffle=True), validation


def fit(trainer: L.Trainer, learner: StageModule, saver: Saver, seed: int) -> None:
    """Train to the end, from the checkpoint if there is one."""
    learner.after_batch = lambda done: saver.after_batch(trainer, done)  # callbacks run before the learner's own hook
    learner.save = lambda: saver.save(trainer)
    start = saver.path if saver.path.exists() else None
    began = time.monotonic()
    seconds_before = 0.0
    if start is not None:
        # Lightning asks for the loader before it restores the learner, so the position is read first.
        kept = _checkpoint(start, learner.KEPT)
        try:
            learner.on_load_checkpoint(kept)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise _unreadable(start, f"{type(error).__name__}: {short(error)}") from error
        _check_state(start, kept["state_dict"], learner)
        seconds_before = float(kept["polyface"]["seconds"])
        del kept
    learner.seconds = lambda: seconds_before + time.monotonic() - began
    torch.manual_seed(seed + 1)
    with stopping_between_steps(saver), ended_together(trainer.world_size, trainer.local_rank):
        try:
            trainer.fit(learner, ckpt_path=start, weights_only=True)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if start is None or learner.started or trainer.world_size > 1:  # there another process may have ended
                raise
            raise _unreadable(start, f"{type(error).__name__}: {short(error)}") from error


def begun_otherwise(folder: Path, stage: BaseStage, seed: int) -> bool:
    """Whether there is the checkpoint of an unfinished run of a stage, made with other settings than these.

    Raises:
        PolyfaceError: it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    own = _checkpoint(path, {})["polyface"]
    return not same_settings(stage, seed, json.loads(own["stage"]) | {"seed": own["seed"]})


def _checkpoint(path: Path, own_keys: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint that holds what was written, and all that a run goes on from. own_keys: see `StageModule.KEPT`."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # its checksums, which torch does not look at
        kept: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        own = kept["polyface"]
        layout = own.get("layout")
    except Exception as error:  # a damaged file raises as variously as it can be damaged
        raise _unreadable(path, type(error).__name__) from error
    if damaged:
        raise _unreadable(path, f"{damaged} is not what was written")
    if layout != LAYOUT:
        raise PolyfaceError(
            f"{path}: made by another version of Polyface, which kept its state in other places: finish the run "
            "with that version, or move the file away to start over"
        )
    for held, keys in ((kept, _LIGHTNING), (own, own_keys)):
        for key, kind in keys.items():
            if not isinstance(held.get(key, ...), kind) or (held is kept and not held[key]):
                raise _unreadable(path, f"{key} is missing or of another kind")
    return kept


_LIGHTNING = {"state_dict": dict, "optimizer_states": list, "lr_schedulers": list}


def _check_state(path: Path, given: dict[str, Any], learner: StageModule) -> None:
    """Refuse a state that lacks a tensor of the learner's, has others, or parameters that are not finite."""
    expected = {name: _form(value) for name, value in learner.state_dict().items()}
    found = {name: _form(value) for name, value in given.items()}
    if wrong := next((n for n in expected | found if expected.get(n, ...) != found.get(n, ...)), None):
        raise _unreadable(path, f"{wrong} is missing or of another shape")
    if wrong := next((name for name, _ in learner.named_parameters() if not given[name].isfinite().all()), None):
        raise _unreadable(path, f"{wrong} is not finite")


def _form(value: Any) -> tuple[Any, ...] | None:
    """The shape of a tensor, and whether it holds numbers with a fraction; their precision is the trainer's."""
    return (value.shape, value.is_floating_point()) if isinstance(value, torch.Tensor) else None


def _unreadable(path: Path, why: str) -> PolyfaceError:
    return PolyfaceError(
        f"{path}: not a readable checkpoint ({why}): put an intact copy there, or pass --fresh to start over"
    )


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
    raise AssertionError(kind)  # `RunOptions` knows no other


def _quiet() -> None:
    """Lightning's advice about settings that are fixed here would bury the progress bar."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Where a process that trains with others has died it ends them all, and says so, as information.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="lightning")
