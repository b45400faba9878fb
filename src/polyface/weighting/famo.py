"""FAMO: equal rates of improvement without gradients of single tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.weighting.base import Context, Step, Weighting, mean_over_ranks, scalars
from polyface.weighting.losses import TINY


class FAMO(Weighting):
    """Fast Adaptive Multitask Optimization (Liu et al. 2023, Algorithm 2). With z = softmax(ξ) and D_t = L_t − b_t,

        L = c Σ z_t log D_t,   so w_t = c z_t / D_t,   c = 1 / Σ (z_i / D_i)

    and after the optimiser's step, from the losses of the same batch again (a second forward), one step of Adam on ξ
    along ∇ξ (z · δ), δ_t = log D_t(before) − log D_t(after): a task that improved less gets more weight.

    minimum: task → b_t (0). lr 0.025; weight_decay 1e-3 (Algorithm 2; the authors' code has 1e-5). ξ and Adam's moments
    are in `state`, so a resumed run goes on exactly. Absent tasks: softmax, c and Adam's step are those of the present
    ones, which therefore renormalise. A loss at its minimum (D < 1e-8) is left out like an absent one: its 1/D would
    take all weight and stop the others. With accumulation δ is that of the last micro-batch.
    """

    second_forward = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        minimum: Mapping[str, float] | None = None,
        lr: float = 0.025,
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__(tasks)
        if lr < 0 or weight_decay < 0:
            raise PolyfaceError(f"weighting lr and weight_decay are {lr} and {weight_decay}; expected numbers ≥ 0")
        self.minimum = torch.tensor(self.task_values(minimum, "minimum", 0.0), dtype=torch.float64)
        self.rate, self.weight_decay = lr, weight_decay
        size = len(self.tasks)
        self.state |= {key: [0.0] * size for key in ("logits", "first_moment", "second_moment", "before")}
        self.state["updates"] = [0] * size

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        distance = step.values - self.minimum[step.index]
        alive = distance > TINY
        weights = torch.zeros_like(distance)
        if alive.any():
            index = [task for task, live in zip(step.index, alive.tolist(), strict=True) if live]
            ratio = self._numbers("logits", index).softmax(0) / distance[alive]
            weights[alive] = ratio / ratio.sum()
        if self.training:
            self.state["before"] = [0.0] * len(self.tasks)
            for task, value in zip(step.index, distance.tolist(), strict=True):
                self.state["before"][task] = value
        return weights, None

    def after_step(self, losses: Mapping[str, Tensor], context: Context | None = None) -> None:
        losses = scalars(losses)
        names = [name for name in self.tasks if name in losses]
        values = mean_over_ranks(torch.stack([losses[name] for name in names]))
        after = dict(zip((self.tasks.index(name) for name in names), values.tolist(), strict=True))
        minimum = self.minimum.tolist()
        now = {t: v - minimum[t] for t, v in after.items() if self.state["before"][t] > TINY and v - minimum[t] > TINY}
        if not now or not all(torch.isfinite(torch.tensor(list(now.values())))):
            return
        index = list(now)
        delta = self._numbers("before", index).log() - torch.tensor(list(now.values()), dtype=torch.float64).log()
        z = self._numbers("logits", index).softmax(0)
        self._adam(index, z * (delta - (z * delta).sum()))
        self.state["before"] = [0.0] * len(self.tasks)  # a step without losses of its own is compared with nothing

    def _adam(self, index: list[int], gradient: Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        """torch.optim.Adam's step for some of the logits, with moments and counts a task."""
        logits = self._numbers("logits", index)
        gradient = gradient + self.weight_decay * logits
        first = betas[0] * self._numbers("first_moment", index) + (1 - betas[0]) * gradient
        second = betas[1] * self._numbers("second_moment", index) + (1 - betas[1]) * gradient**2
        count = self._numbers("updates", index) + 1
        denominator = (second / (1 - betas[1] ** count)).sqrt() + 1e-8
        logits = logits - self.rate * first / (1 - betas[0] ** count) / denominator
        for place, task in enumerate(index):
            self.state["logits"][task] = float(logits[place])
            self.state["first_moment"][task] = float(first[place])
            self.state["second_moment"][task] = float(second[place])
            self.state["updates"][task] += 1

    def _numbers(self, key: str, index: list[int]) -> Tensor:
        return torch.tensor([self.state[key][task] for task in index], dtype=torch.float64)
