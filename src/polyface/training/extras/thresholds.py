"""Thresholds of attributes that follow the validation faces (Mao et al. 2020, Eq. 6): the key `thresholds`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from polyface.data.loader import FaceBatch
from polyface.networks import FaceOutput
from polyface.tasks import with_thresholds
from polyface.training.extras.base import Extra, Setup
from polyface.training.specs import Strict
from polyface.weighting import AdaptiveThresholds
from polyface.weighting.base import sum_over_ranks


class ThresholdSpec(Strict):
    """tasks: whose thresholds move. rate: γ."""

    tasks: list[str] = Field(default_factory=lambda: ["attributes"])
    rate: float = Field(0.01, ge=0)


class Thresholds(Extra):
    """After every validation, the thresholds of tasks move by what they got wrong (`AdaptiveThresholds`)."""

    mistakes: Tensor
    """[2, terms]: false positives and false negatives of one pass, of this process."""

    Spec = ThresholdSpec
    needs_validation = True

    def __init__(self, spec: ThresholdSpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.tasks = {name: with_thresholds(setup.tasks, name) for name in spec.tasks}
        self.places = {name: setup.terms.tasks[name] for name in spec.tasks}
        self.moving = {name: AdaptiveThresholds(task.thresholds, spec.rate) for name, task in self.tasks.items()}
        self.register_buffer("mistakes", torch.zeros(2, setup.terms.count, dtype=torch.float64), persistent=False)

    @classmethod
    def moves(cls, spec: ThresholdSpec) -> Sequence[str]:
        return spec.tasks

    def before_validation(self) -> None:
        self.mistakes.zero_()

    def on_validation_batch(self, output: FaceOutput, batch: FaceBatch) -> None:
        for name, task in self.tasks.items():
            counts = task.mistakes(output.outputs[name], batch.targets[name], batch.labelled[name])
            self.mistakes[:, self.places[name]] += torch.stack(counts)

    def after_validation(self, counts: Tensor, epoch: int) -> None:
        mistakes = sum_over_ranks(self.mistakes).cpu().numpy()
        for name, moving in self.moving.items():
            place = self.places[name]
            above, below = mistakes[:, place]
            self.tasks[name].thresholds = moving.update(above, below, counts[place].numpy(), epoch)
        self.counted = mistakes.astype(int)

    def validated(self, row: dict[str, Any]) -> None:
        """Thresholds as they now are, and the mistakes that moved them, made with those before."""
        row["thresholds"] = self.best()
        for kind, counts in zip(("false positives", "false negatives"), self.counted, strict=True):
            row[kind] = {name: counts[place].tolist() for name, place in self.places.items()}

    def end_epoch(self, row: dict[str, Any]) -> None:
        row["thresholds"] = self.best()

    def best(self) -> dict[str, list[float]]:
        return {name: task.thresholds for name, task in self.tasks.items()}

    def restore(self, best: dict[str, list[float]]) -> None:
        for name, values in best.items():
            self.tasks[name].thresholds = values

    def get_extra_state(self) -> dict[str, Any]:
        return {name: moving.get_extra_state() for name, moving in self.moving.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        for name, moving in self.moving.items():
            moving.set_extra_state(state[name])
            self.tasks[name].thresholds = moving.thresholds
