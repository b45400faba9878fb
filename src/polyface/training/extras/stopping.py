"""Task-wise early stopping (Zhang et al. 2014, Eq. 5): the key `stopping`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from polyface.errors import check_names
from polyface.files import rounded
from polyface.networks import FaceNetwork
from polyface.training.extras.base import Extra, Setup
from polyface.training.specs import StageSpec, Strict
from polyface.weighting import TaskStopping


class StoppingSpec(Strict):
    """main: tasks that never stop; window: k; threshold: ε (null: nothing stops, the looks alone are kept). every:
    steps between two looks, in which k counts. faces: so many training faces give E_tr and so many validation faces
    E_val, the same at every look, without augmentation and in evaluation mode. bounded: a first factor that does not
    rise when a loss has just fallen steeply, in place of the printed one (`polyface.weighting.criterion`). until: it
    looks up to this step also when no task is left to stop, for the curve."""

    main: list[str]
    window: int = Field(10, ge=1)
    threshold: float | None = 1.0
    every: int = Field(25, ge=1)
    faces: int = Field(500, ge=1)
    bounded: bool = False
    until: int = Field(0, ge=0)


class Stopping(Extra):
    """A side task that overfits stops for good: its loss counts no more, and its head stays as it is."""

    Spec = StoppingSpec
    needs_validation = True

    def __init__(self, spec: StoppingSpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.spec, self.task_of, self.losses, self.weights = spec, setup.terms.task_of, setup.losses, setup.weights
        threshold = math.inf if spec.threshold is None else spec.threshold
        self.criterion = TaskStopping(list(setup.tasks), spec.main, spec.window, threshold, spec.bounded)
        self.looks: list[dict[str, Any]] = []
        needed = spec.every * (spec.window + 1)
        if setup.period and setup.period.steps < needed:
            warnings.warn(
                f"stage {setup.stage.name}: stopping cannot act: its first value takes {needed} steps (stopping.every "
                f"{spec.every}, window {spec.window} + 1), and the run has {setup.period.steps}: lower every or window",
                stacklevel=2,
            )

    @classmethod
    def check(cls, spec: StoppingSpec, stage: StageSpec) -> None:
        check_names(spec.main, stage.tasks, "stopping.main")

    @property
    def stopped(self) -> dict[str, int]:
        """Task → the look (counted from 1) after which it stopped."""
        return self.criterion.stopped

    def counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        return {name: 0 if self.task_of[name] in self.stopped else count for name, count in counts.items()}

    def before_step(self, network: FaceNetwork) -> None:
        # A stopped task's head took part in the step (×0, so that DDP sees every parameter); without a gradient the
        # optimiser leaves it as it is, momentum and weight decay included.
        for task in self.stopped:
            for parameter in network.heads[task].parameters():
                parameter.grad = None

    def after_step(self, network: FaceNetwork, step: int) -> None:
        going = [task for task in self.criterion.side if task not in self.stopped]
        if step % self.spec.every or not (going or step <= self.spec.until):
            return
        assert self.losses
        train, validation = (self.losses(part, self.spec.faces) for part in ("train", "val"))
        if going:
            self.criterion.update(train, validation, self._task_weights())
        look = {"step": step, "train": train, "validation": validation}
        look["criterion"] = {task: self.criterion.values[task] for task in going if task in self.criterion.values}
        self.looks.append(rounded(look | {"stopped": [task for task in going if task in self.stopped]}))

    def _task_weights(self) -> dict[str, float]:
        """λ of every task; the mean over its terms, where each has a weight of its own."""
        found: dict[str, list[float]] = {}
        for name, weight in self.weights().items():
            found.setdefault(self.task_of[name], []).append(weight)
        return {task: sum(weights) / len(weights) for task, weights in found.items()}

    def end_epoch(self, row: dict[str, Any]) -> None:
        """The last values, and the epochs (with a fraction) after which tasks stopped."""
        epochs = row["epoch"] / row["step"] * self.spec.every
        row["criterion"] = rounded(self.criterion.values)
        row["stopped"] = {task: rounded(look * epochs) for task, look in self.stopped.items()}

    def record(self) -> list[dict[str, Any]]:
        """Every look: its step, both losses of all tasks, the criterion of those that went on, those that stopped."""
        return self.looks

    def get_extra_state(self) -> list[dict[str, Any]]:
        return self.looks

    def set_extra_state(self, state: list[dict[str, Any]]) -> None:
        self.looks = list(state)
