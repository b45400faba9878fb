"""Task-wise early stopping (Zhang et al. 2014, Eq. 5): the key `stopping`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from polyface.errors import check_names
from polyface.networks import FaceNetwork
from polyface.training.extras.base import Extra, Setup
from polyface.training.specs import StageSpec, Strict
from polyface.weighting import TaskStopping


class StoppingSpec(Strict):
    """main: tasks that never stop; window: k; threshold: ε."""

    main: list[str]
    window: int = Field(10, ge=1)
    threshold: float = 1.0


class Stopping(Extra):
    """A side task that overfits stops for good: its loss counts no more, and its head stays as it is."""

    Spec = StoppingSpec
    needs_validation = True

    def __init__(self, spec: StoppingSpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.task_of = setup.terms.task_of
        self.criterion = TaskStopping(list(setup.tasks), spec.main, spec.window, spec.threshold)

    @classmethod
    def check(cls, spec: StoppingSpec, stage: StageSpec) -> None:
        check_names(spec.main, stage.tasks, "stopping.main")

    @property
    def stopped(self) -> dict[str, int]:
        """Task → the evaluation (counted from 1) after which it stopped."""
        return self.criterion.stopped

    def counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        return {name: 0 if self.task_of[name] in self.stopped else count for name, count in counts.items()}

    def before_step(self, network: FaceNetwork) -> None:
        # A stopped task's head took part in the step (×0, so that DDP sees every parameter); without a gradient the
        # optimiser leaves it as it is, momentum and weight decay included.
        for task in self.stopped:
            for parameter in network.heads[task].parameters():
                parameter.grad = None

    def end_epoch(self, row: dict[str, Any]) -> None:
        if "validation" in row:
            self.criterion.update(row["train"], row["validation"], row["weights"])
            row["criterion"], row["stopped"] = dict(self.criterion.values), dict(self.stopped)
