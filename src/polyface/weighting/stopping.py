"""Task-wise early stopping (Zhang et al. 2014, Section 3.3, Eq. 5)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from torch import nn


def criterion(train: list[float], validation: float, weight: float, window: int) -> float | None:
    """M(t) of Eq. 5, or None while fewer than window + 1 training losses are known.

    train: training losses of the task up to now; validation: its validation loss now; weight: its λ.
    With med the median of the last window + 1 training losses,

        M = window·med / (Σ losses − window·med) · (E_val − min E_tr) / (λ · min E_tr).

    The first factor is small while the training loss still falls, the second large once the task generalises badly.
    Guards, where the paper says nothing: the denominator Σ − window·med can be ≤ 0 (a loss that has just dropped): the
    loss is falling then, so M is 0 and the task goes on. min E_tr and λ are kept off 0 by 1e-12.
    """
    if len(train) < window + 1:
        return None
    recent = train[-(window + 1) :]
    scaled_median = window * statistics.median(recent)
    spread = sum(recent) - scaled_median
    if spread <= 0:
        return 0.0
    best = max(min(train), 1e-12)
    return (scaled_median / spread) * (validation - best) / (max(weight, 1e-12) * best)


class TaskStopping(nn.Module):
    """Stops each side task for good once its M exceeds the threshold: its weight is 0 from then on, its head frozen.

    window: the paper's k; threshold: its ε (neither is given there). main: tasks that never stop. The histories and
    the stops are in the checkpoint.
    """

    def __init__(self, tasks: list[str], main: list[str], window: int = 10, threshold: float = 1.0) -> None:
        super().__init__()
        self.main, self.window, self.threshold = list(main), window, threshold
        self.side = [task for task in tasks if task not in main]
        self.history: dict[str, list[float]] = {task: [] for task in self.side}
        self.values: dict[str, float] = {}
        self.stopped: dict[str, int] = {}
        """task → the evaluation (counted from 1) after which it stopped."""
        self.evaluations = 0

    def update(
        self, train: Mapping[str, float], validation: Mapping[str, float], weights: Mapping[str, float]
    ) -> list[str]:
        """Take one evaluation's mean losses; returns the tasks that stop now. A task without a loss is passed over."""
        self.evaluations += 1
        now = []
        for task in self.side:
            if task in self.stopped or task not in train or task not in validation:
                continue
            self.history[task].append(float(train[task]))
            value = criterion(self.history[task], float(validation[task]), weights.get(task, 1.0), self.window)
            if value is not None:
                self.values[task] = value
                if value > self.threshold:
                    self.stopped[task] = self.evaluations
                    now.append(task)
        return now

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "history": {task: list(values) for task, values in self.history.items()},
            "values": dict(self.values),
            "stopped": dict(self.stopped),
            "evaluations": self.evaluations,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.history = {task: list(values) for task, values in state["history"].items()}
        self.values, self.stopped = dict(state["values"]), dict(state["stopped"])
        self.evaluations = int(state["evaluations"])
