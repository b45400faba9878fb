"""Weights that follow from the losses of the step alone: random (RLW), geometric (GLS), smooth Tchebycheff (STCH)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyface.errors import PolyfaceError
from polyface.weighting.base import Step, Weighting

TINY = 1e-8
"""A loss below this counts as reached: a geometric mean or a logarithm would otherwise weigh it without bound."""


class RandomWeights(Weighting):
    """RLW (Lin et al. 2022): w = softmax(ξ), ξ ~ N(0, I) anew at every step, drawn from (seed, call): the same on all
    processes and after a resume. scale: Σ w (the paper: 1). Absent tasks: the others keep their drawn value.
    """

    def __init__(self, tasks: Sequence[str], *, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__(tasks)
        self.seed, self.scale = seed, scale

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.state["calls"]))
        drawn = torch.randn(len(self.tasks), generator=generator, dtype=torch.float64)
        return self.scale * drawn.softmax(0)[step.index], None


class GeometricMean(Weighting):
    """GLS (Chennupati et al. 2019): L = (Π L_t)^{1/T}, so w_t = L / (T L_t); blind to the scale of any single loss.

    Absent tasks are not in the product, so the others renormalise; nor is a loss below 1e-8, which is at its minimum
    and would take all weight: it gets weight 0 (elsewhere: NaN).
    """

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        alive = step.values > TINY
        weights = torch.zeros_like(step.values)
        if alive.any():
            found = step.values[alive]
            weights[alive] = found.log().mean().exp() / (len(found) * found)
        return weights, None


class SmoothTchebycheff(Weighting):
    """STCH (Lin et al. 2024, Eq. 7): a smooth maximum over the losses,

        L = μ log Σ exp(λ_t (L_t − z_t) / μ),   so w_t = λ_t softmax(λ (L − z) / μ)_t

    mu: smoothness; the smaller, the nearer the maximum. preferences: task → λ_t (default 1/T each). ideal: task → z_t
    (default 0). relative: use log(L_t / L_t at its first step) for L_t, as the authors' code for deep networks does
    (with the mean of the first epoch), which makes losses of different units comparable; weights are then divided by
    L_t. Absent tasks are not in the sum, so the others renormalise; a relative loss below 1e-8 is left out alike.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        mu: float = 0.1,
        preferences: Mapping[str, float] | None = None,
        ideal: Mapping[str, float] | None = None,
        relative: bool = False,
    ) -> None:
        super().__init__(tasks)
        if mu <= 0:
            raise PolyfaceError(f"weighting mu is {mu}; expected a number > 0")
        self.mu, self.relative = mu, relative
        self.preferences = torch.tensor(
            self.task_values(preferences, "preferences", 1 / len(self.tasks)), dtype=torch.float64
        )
        self.ideal = torch.tensor(self.task_values(ideal, "ideal", 0.0), dtype=torch.float64)
        self.state["first"] = [0.0] * len(self.tasks)

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        values, slope = step.values - self.ideal[step.index], torch.ones_like(step.values)
        alive = torch.ones_like(step.values, dtype=torch.bool)
        if self.relative:
            first = self.first_values(step)
            alive = step.values > TINY
            values = (step.values.clamp_min(TINY) / first.clamp_min(TINY)).log()
            slope = torch.where(alive, 1 / step.values, 0.0)
            if not alive.any():
                return torch.zeros_like(slope), None
        preferences = self.preferences[step.index]
        exponents = torch.where(alive, preferences * values / self.mu, -torch.inf)
        return preferences * slope * exponents.softmax(0), None
