"""Bargaining and fairness: Nash-MTL and FairGrad, two exponents of one fixed point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polyface.errors import PolyfaceError
from polyface.weighting.gramian import Level, SolvedWeighting
from polyface.weighting.solvers import fair_point


class NashMTL(SolvedWeighting):
    """Multi-task learning as a bargaining game (Navon et al. 2022, Claim 3.1): G α = 1/α, α > 0.

    Each task's share α_t g_t·Σ α_i g_i of the step is then 1, so the update is blind to the scale of any single loss
    (α_t scales inversely). The authors approximate α by a sequence of convex programs and keep it for some steps; here
    Newton's method finds it exactly at every step. max_norm: Σ α_t g_t is at most this long (their code: 1; it is √T
    before); None: no limit. Where a positive combination of gradients vanishes there is no bargain: weights 1/T.
    """

    def __init__(self, tasks: Sequence[str], level: Level = "features", *, max_norm: float | None = 1.0) -> None:
        super().__init__(tasks, level)
        if max_norm is not None and max_norm <= 0:
            raise PolyfaceError(f"weighting max_norm is {max_norm}; expected a number > 0")
        self.max_norm = max_norm

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        weights = fair_point(gramian, 1.0)
        length = np.sqrt(weights @ gramian @ weights)
        return weights if self.max_norm is None else weights * min(1.0, self.max_norm / length)


class FairGrad(SolvedWeighting):
    """α-fair improvement of all tasks (Ban & Ji 2024, Eq. 4): G w = w^{−1/α}, w > 0.

    alpha: 1 is Nash-MTL's bargain, larger values move towards the worst-off task (the paper: 2); 0 is the mean.
    """

    def __init__(self, tasks: Sequence[str], level: Level = "features", *, alpha: float = 2.0) -> None:
        super().__init__(tasks, level)
        if alpha < 0:
            raise PolyfaceError(f"weighting alpha is {alpha}; expected a number ≥ 0")
        self.alpha = alpha

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        if self.alpha == 0:
            return np.full(len(gramian), 1 / len(gramian))
        return fair_point(gramian, 1 / self.alpha)
