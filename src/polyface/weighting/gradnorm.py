"""GradNorm: equal training rates by the lengths of the weighted gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.weighting.base import Step
from polyface.weighting.gramian import GradientWeighting, Level


class GradNorm(GradientWeighting):
    """GradNorm (Chen et al. 2018, Algorithm 1): the weights w (Σ w = T, from 1) are trained by

        L_grad = Σ |w_t n_t − n̄ r_t^α|,   n_t = |∇L_t|,   n̄ = mean of w_t n_t (a constant),

    with r_t = (L_t / L_t at its first step) over their mean: tasks that learn slowly get longer gradients. After every
    step w is scaled back to Σ w = T (here before it is used again). alpha: the paper's 1.5 (0: equal lengths). lr: that
    of w; the paper 0.025.

    The paper takes the last shared layer's gradients: level `features` is what enters it from above, `shared` all
    shared parameters. Absent tasks: their w gets no gradient; the others' share of T is theirs still. A negative w is
    set to 0.
    """

    def __init__(
        self, tasks: Sequence[str], level: Level = "features", *, alpha: float = 1.5, lr: float | None = 0.025
    ) -> None:
        super().__init__(tasks, level)
        if alpha < 0:
            raise PolyfaceError(f"weighting alpha is {alpha}; expected a number ≥ 0")
        self.alpha, self.lr = alpha, lr
        self.raw = nn.Parameter(torch.ones(len(self.tasks)))
        self.state["first"] = [0.0] * len(self.tasks)

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            w = self.raw.clamp_min(0)
            w = w * (len(self.tasks) / w.sum()) if bool(w.sum() > 0) else torch.ones_like(w)
            if self.training:
                self.raw.copy_(w)
        lengths = self.products(step).diagonal().sqrt().to(w)
        first = self.first_values(step)
        rate = torch.where(first > 0, step.values / first.clamp_min(1e-12), 1.0)
        rate = (rate / rate.mean().clamp_min(1e-12)).to(w)
        present = self.raw[step.index]
        goal = (present.detach() * lengths).mean() * rate**self.alpha
        return w[step.index], (present * lengths - goal).abs().sum()
