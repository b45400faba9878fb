"""Weights from how losses move: DWA (training), DMM-CNN and AW (validation)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.weighting.base import Step, Weighting


class TrendWeights(Weighting):
    """Base: weights that change at certain moments and are constant between them. They start at 1; absent tasks keep
    theirs. fixed: task → a weight that never changes (such a task takes no part in the rule)."""

    def __init__(self, tasks: Sequence[str], fixed: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks)
        self.state["weights"] = self.task_values(fixed, "fixed", 1.0)
        self.state["previous"] = [math.nan] * len(self.tasks)
        self.moving = [name for name in self.tasks if name not in (fixed or {})]

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        return torch.tensor(self.state["weights"], dtype=torch.float64)[step.index], None

    def in_force(self) -> dict[str, float]:
        return dict(zip(self.tasks, self.state["weights"], strict=True))

    def known(self, losses: Mapping[str, float]) -> dict[int, float]:
        """Finite losses of the tasks that move, by position."""
        found = {self.tasks.index(name): float(losses[name]) for name in self.moving if name in losses}
        return {task: value for task, value in found.items() if math.isfinite(value)}

    def moved(self, now: Mapping[int, float]) -> dict[int, tuple[float, float]]:
        """Loss before and loss now of the tasks that had one before; what is now is kept as the next "before"."""
        before = self.state["previous"]
        pairs = {task: (before[task], value) for task, value in now.items() if not math.isnan(before[task])}
        for task, value in now.items():
            before[task] = value
        return pairs


class DynamicAverage(TrendWeights):
    """DWA (Liu, Johns & Davison 2019, Eq. 7): after every epoch, with mean training losses L̄ of the last two,

        w_t = K exp(r_t / T) / Σ exp(r_i / T),   r_t = L̄_t(now) / L̄_t(before)

    over the K tasks that had labelled faces, so these weights sum to K. temperature: T = 2. The first two epochs have
    weights 1, as in the authors' code. A task without labels in an epoch keeps weight and last loss; one whose last
    loss was 0 has r = 1.
    """

    epochs_needed = 2

    def __init__(
        self, tasks: Sequence[str], *, temperature: float = 2.0, fixed: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(tasks, fixed)
        if temperature <= 0:
            raise PolyfaceError(f"weighting temperature is {temperature}; expected a number > 0")
        self.temperature = temperature

    def on_epoch_end(self, losses: Mapping[str, float]) -> None:
        moved = self.moved(self.known(losses))
        rates = {t: min(now / before, 1e9) if before > 0 else 1.0 for t, (before, now) in moved.items()}
        if rates:
            shares = (torch.tensor(list(rates.values()), dtype=torch.float64) / self.temperature).softmax(0)
            for task, share in zip(rates, shares.tolist(), strict=True):
                self.state["weights"][task] = len(rates) * share


class ValidationTrend(TrendWeights):
    """DMM-CNN (Mao et al. 2020, Eq. 4): after every pass over the validation faces,

        λ_t = |L_t − L_t before| / L_t before

    Weights are 1 before two validations. Eq. 4 has no sign, so a loss that *rises* gets weight too, and near
    convergence all weights can go to 0; floor: at least this weight; normalise: divide by the mean over these tasks.
    A task without validation labels keeps its weight; a loss that was 0 before gives the floor. fixed: the paper's
    landmark task has a constant β = 0.5.
    """

    validations_needed = 1

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        floor: float = 0.0,
        normalise: bool = False,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks, fixed)
        if floor < 0:
            raise PolyfaceError(f"weighting floor is {floor}; expected a number ≥ 0")
        self.floor, self.normalise = floor, normalise

    def on_validation(self, losses: Mapping[str, float], counts: Mapping[str, int]) -> None:
        found = {task: value for task, value in self.known(losses).items() if counts.get(self.tasks[task], 1) > 0}
        moved, weights = self.moved(found), self.state["weights"]
        trends = {t: abs(now - before) / before if before > 0 else 0.0 for t, (before, now) in moved.items()}
        mean = sum(trends.values()) / len(trends) if trends and self.normalise else 1.0
        for task, trend in trends.items():
            weights[task] = max(self.floor, trend / mean if mean > 0 else 1.0)


class AdaptiveWeights(TrendWeights):
    """AW (He et al. 2017 and the authors' code): every `window` steps, with L̄_t the mean over that window of the losses
    of a few validation faces that come with every training batch,

        w_t ∝ trend_t · L̄_t,   trend_t = |L̄_t − L̄_t before| / L̄_t,   with mean 1 over the tasks.

    The code divides trend and loss by their means first, which cancels, and trend by the *present* loss, which cancels
    too: what is left is w_t = |L̄_t − L̄_t before| / mean. faces: validation faces a step (the authors: 10,
    beside 10 training faces), one more forward pass, without gradient, of the network in evaluation mode (theirs share
    the batch-norm statistics of the training batch). Weights are 1 before the second window is full. A task without
    labels in a window keeps its weight. If no loss moved, weights stay.
    """

    def __init__(
        self, tasks: Sequence[str], *, window: int = 200, faces: int = 10, fixed: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(tasks, fixed)
        if window < 1 or faces < 1:
            raise PolyfaceError(f"weighting window and faces are {window} and {faces}; expected at least 1")
        self.window, self.validation_faces, self.steps_needed = window, faces, 2 * window - 1
        self.state |= {"sums": [0.0] * len(self.tasks), "seen": [0] * len(self.tasks), "batches": 0}

    def on_validation_batch(self, losses: Mapping[str, float], counts: Mapping[str, int]) -> None:
        state = self.state
        for task, value in self.known(losses).items():
            if counts.get(self.tasks[task], 1) > 0:
                state["sums"][task] += value
                state["seen"][task] += 1
        state["batches"] += 1
        if state["batches"] == self.window:
            self._end_window()

    def _end_window(self) -> None:
        state = self.state
        means = {t: s / n for t, (s, n) in enumerate(zip(state["sums"], state["seen"], strict=True)) if n}
        state["sums"], state["seen"], state["batches"] = [0.0] * len(self.tasks), [0] * len(self.tasks), 0
        moves = {t: abs(now - before) for t, (before, now) in self.moved(means).items()}
        if (mean := sum(moves.values()) / max(1, len(moves))) > 0:
            for task, move in moves.items():
                state["weights"][task] = move / mean
