"""How often answers on the validation faces are right, epoch by epoch: the key `accuracy`."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from polyface.data.loader import FaceBatch
from polyface.errors import check_names
from polyface.networks import FaceOutput
from polyface.training.extras.base import Extra, Setup
from polyface.training.specs import Strict
from polyface.weighting.base import sum_over_ranks


class AccuracySpec(Strict):
    """tasks: which; by default all whose answers are right or wrong."""

    tasks: list[str] = Field(default_factory=list)


class Accuracy(Extra):
    """The history says after each validation, beside its losses, what share of a task's labelled faces was answered
    rightly ("accuracy", in percent). Nothing that is learnt depends on it."""

    told: Tensor
    """[2, tasks]: right answers and labelled faces of one pass, of this process."""

    Spec = AccuracySpec
    needs_validation = True

    def __init__(self, spec: AccuracySpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        able = [name for name, task in setup.tasks.items() if task.judges]
        check_names(spec.tasks, able, f"stage {setup.stage.name}: accuracy.tasks")
        self.tasks = {name: setup.tasks[name] for name in spec.tasks or able}
        self.register_buffer("told", torch.zeros(2, len(self.tasks), dtype=torch.float64), persistent=False)

    def before_validation(self) -> None:
        self.told.zero_()

    def on_validation_batch(self, output: FaceOutput, batch: FaceBatch) -> None:
        for place, (name, task) in enumerate(self.tasks.items()):
            labelled = batch.labelled[name][:, 0]
            right = task.right(output.outputs[name], batch.targets[name])
            self.told[:, place] += torch.stack([(right & labelled).sum(), labelled.sum()])

    def end_epoch(self, row: dict[str, Any]) -> None:
        if "validation" in row:
            right, labelled = sum_over_ranks(self.told).cpu()
            shares = zip(self.tasks, right.tolist(), labelled.tolist(), strict=True)
            row["accuracy"] = {name: 100 * one / count for name, one, count in shares if count}
