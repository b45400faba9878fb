"""What goes on beside training: checkpoints that are whole or absent, Ctrl-C between steps, a progress bar."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L

from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.training.module import StageModule
from polyface.training.processes import handling


class Saver(L.Callback):
    """Writes the checkpoint beside the old one, then renames; on a full disk the old one stays."""

    def __init__(self, path: Path, accumulate: int, minutes: float, steps: int | None) -> None:
        self.path, self.accumulate, self.minutes, self.steps = path, accumulate, minutes, steps
        self.last = time.monotonic()
        self.asked_to_stop = False

    def ask_to_stop(self, number: int, frame: Any) -> None:
        """A signal's handler: stop where the run can be saved; a second signal does not wait."""
        if self.asked_to_stop:
            raise KeyboardInterrupt
        self.asked_to_stop = True

    def on_train_start(self, trainer: L.Trainer, learner: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler broadcasts in the middle of a step, which other processes do not expect.
            signal.signal(signal.SIGTERM, self.ask_to_stop)

    def save(self, trainer: L.Trainer) -> None:
        aside = self.path.with_name(f".{self.path.name}.tmp")
        try:
            trainer.save_checkpoint(aside)
            if trainer.is_global_zero:
                with open(aside, "rb") as written:
                    os.fsync(written.fileno())
                os.replace(aside, self.path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            kept = "the previous checkpoint is whole" if self.path.exists() else "there was none before"
            raise PolyfaceError(
                f"{self.path}: could not save ({reason(error)}; {kept}): free some space and run the same command again"
            ) from error
        self.last = time.monotonic()

    def after_batch(self, trainer: L.Trainer, batches_done: int) -> None:
        if batches_done % self.accumulate:
            return  # gradients are not in the checkpoint
        waited = time.monotonic() - self.last > 60 * self.minutes
        due = batches_done % self.steps == 0 if self.steps else waited
        stop = self.asked_to_stop
        if trainer.world_size > 1:
            due, stop = (bool(trainer.strategy.reduce_boolean_decision(x, all=False)) for x in (due, stop))
        if due or stop:
            self.save(trainer)
        if stop:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: L.Trainer, learner: L.LightningModule) -> None:
        self.save(trainer)


def reason(error: Exception) -> str:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    return "the disk is full" if full else str(error)


@contextmanager
def stopping_between_steps(saver: Saver) -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the step, where the run can be saved; a second one does not wait."""
    with handling([signal.SIGINT, signal.SIGTERM], saver.ask_to_stop):
        try:
            yield
        except SystemExit as error:  # what Lightning makes of it
            raise KeyboardInterrupt from error


class Bar(L.Callback):
    """Reports every batch's progress to the caller."""

    def __init__(self, report: Progress, stage: str) -> None:
        self.report, self.stage = report, stage

    def on_train_batch_end(self, trainer: L.Trainer, learner: L.LightningModule, *args: Any) -> None:
        assert isinstance(learner, StageModule)
        size, done = learner.epoch_batches, learner.batches_done + 1
        what = f"{self.stage} epoch {(done - 1) // size + 1}/{learner.epochs}"
        self.report(done, learner.epochs * size, " · ".join(filter(None, [what, learner.standing])))


class Epochs(L.Callback):
    """Tells the caller of every epoch that was finished, at the first batch of the next one."""

    def __init__(self, tell: Callable[[str, Mapping[str, Any]], None], stage: str) -> None:
        self.tell, self.stage, self.told = tell, stage, 0

    def on_train_start(self, trainer: L.Trainer, learner: L.LightningModule) -> None:
        assert isinstance(learner, StageModule)
        self.told = len(learner.history)  # of a run that goes on

    def on_train_batch_end(self, trainer: L.Trainer, learner: L.LightningModule, *args: Any) -> None:
        assert isinstance(learner, StageModule)
        for row in learner.history[self.told :]:
            self.told += 1
            self.tell(self.stage, row)
