"""Task-wise early stopping (Zhang et al. 2014, Section 3.3, Eq. 5)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from torch import nn


def criterion(train: list[float], validation: float, weight: float, window: int, bounded: bool = False) -> float | None:
    """M(t) of Eq. 5, or None while fewer than window + 1 training losses are known.

    train: training losses of the task up to now; validation: its validation loss now; weight: its λ. Both losses must
    be measured alike (in evaluation mode, without augmentation), or their difference is that of two ways to measure.
    With med the median and mean the mean of the last k + 1 training losses, k the window,

        M = k·med / (Σ losses − k·med) · (E_val − min E_tr) / (λ · min E_tr)
          = k / (1 + (k + 1)·(mean/med − 1)) · …

    The first factor is k for a loss that rests and smaller while it falls ever more slowly, as losses do; the second is
    large once the task generalises badly. As printed, the first factor *rises* when the loss has just fallen steeply,
    since one low value moves the mean and not the median: 1, 1, 1, 0.1 with k = 3 give 30, and the task that has just
    improved is stopped. bounded: |mean/med − 1| in place of mean/med − 1, so that a loss that moves, either way, never
    has more than the k of one that rests (1.58 here); that form is Polyface's own.

    Guards, where the paper says nothing: the printed denominator can be ≤ 0 (a loss that has dropped more steeply yet):
    the loss is falling then, so M is 0 and the task goes on. min E_tr, λ and med are kept off 0 by 1e-12.
    """
    if len(train) < window + 1:
        return None
    recent = train[-(window + 1) :]
    median = statistics.median(recent)
    if bounded:
        mean = sum(recent) / len(recent)
        trend = window / (1 + (window + 1) * abs(mean - median) / max(median, 1e-12))
    elif (spread := sum(recent) - window * median) > 0:
        trend = window * median / spread
    else:
        return 0.0
    best = max(min(train), 1e-12)
    return trend * (validation - best) / (max(weight, 1e-12) * best)


class TaskStopping(nn.Module):
    """Stops each side task for good once its M exceeds the threshold: its weight is 0 from then on, its head frozen.

    window: the paper's k; threshold: its ε (neither is given there). main: tasks that never stop. bounded: see
    `criterion`. The histories and the stops are in the checkpoint.
    """

    def __init__(
        self, tasks: list[str], main: list[str], window: int = 10, threshold: float = 1.0, bounded: bool = False
    ) -> None:
        super().__init__()
        self.main, self.window, self.threshold, self.bounded = list(main), window, threshold, bounded
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
            weight = weights.get(task, 1.0)
            value = criterion(self.history[task], float(validation[task]), weight, self.window, self.bounded)
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
