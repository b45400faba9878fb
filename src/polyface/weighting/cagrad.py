"""CAGrad: the worst improvement, near the mean gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polyface.errors import PolyfaceError
from polyface.weighting.gramian import Level, SolvedWeighting
from polyface.weighting.solvers import conflict_averse


class CAGrad(SolvedWeighting):
    """Conflict-averse gradient descent (Liu et al. 2021, Algorithm 1): the direction with the largest worst improvement
    within c|g_0| of the mean gradient g_0,

        d = g_0 + c |g_0| g_w / |g_w|,   so w_t = 1/T + c |g_0| / |g_w| · w*_t,

    with w* from Eq. 4. c: in [0, 1) (0.4 in the paper's scenes; 0 is the mean). rescale: divide by 1 + c² as the
    authors' code does. On the Pareto front (|g_w| below 1e-4 of the gradients' length) d = g_0.
    """

    def __init__(
        self, tasks: Sequence[str], level: Level = "features", *, c: float = 0.4, rescale: bool = False
    ) -> None:
        super().__init__(tasks, level)
        if c < 0:
            raise PolyfaceError(f"weighting c is {c}; expected a number ≥ 0")
        self.c, self.rescale = c, rescale

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        unit = gramian / np.diag(gramian).mean()
        mean = np.full(len(unit), 1 / len(unit))
        radius = self.c * np.sqrt(max(unit.mean(), 0.0))
        if radius == 0:
            return mean
        worst = conflict_averse(unit, radius)
        length = np.sqrt(max(worst @ unit @ worst, 0.0))
        weights = mean if length < 1e-4 else mean + radius / length * worst
        return weights / (1 + self.c**2) if self.rescale else weights
