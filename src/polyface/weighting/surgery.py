"""Gradient surgery: PCGrad and GradVac take each gradient apart against the others, in a random order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polyface.errors import PolyfaceError
from polyface.weighting.gramian import Level, SolvedWeighting


class PCGrad(SolvedWeighting):
    """Projecting conflicting gradients (Yu et al. 2020, Algorithm 1): each g_i loses, for every j in random order with
    g_i·g_j < 0, its part along g_j; the results are summed (w = 1 without conflict). The order is drawn from
    (seed, call): the same on all processes and after a resume.
    """

    def __init__(self, tasks: Sequence[str], level: Level = "features", *, seed: int = 0) -> None:
        super().__init__(tasks, level)
        self.seed = seed

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        size = len(gramian)
        random = np.random.default_rng([self.seed, self.state["calls"]])
        rows = np.eye(size)  # row i: g_i after surgery, as a combination of the gradients
        for i in range(size):
            for j in random.permutation([j for j in range(size) if j != i]):
                self.operate(rows[i], gramian, i, int(j), index)
        return rows.sum(0)  # type: ignore[no-any-return]

    def operate(self, row: np.ndarray, gramian: np.ndarray, i: int, j: int, index: list[int]) -> None:
        """Change the combination `row` of g_i with regard to g_j, in place."""
        inner = row @ gramian[j]
        if inner < 0:
            row[j] -= inner / gramian[j, j]


class GradVac(PCGrad):
    """Gradient vaccine (Wang et al. 2021, Algorithm 1): where the cosine φ of g_i and g_j is below its moving average
    φ̂_ij, g_j is added to g_i until it is φ̂:

        g_i ← g_i + |g_i| (φ̂ √(1 − φ²) − φ √(1 − φ̂²)) / (|g_j| √(1 − φ̂²)) · g_j,   φ̂ ← (1 − β) φ̂ + β φ

    φ̂ starts at 0, where the first step is PCGrad's. beta: the paper's 0.01. φ̂ is in `state`; those of absent tasks
    stay. Two gradients of one direction (φ̂ → 1) have nothing to add.
    """

    def __init__(self, tasks: Sequence[str], level: Level = "features", *, beta: float = 0.01, seed: int = 0) -> None:
        super().__init__(tasks, level, seed=seed)
        if not 0 <= beta <= 1:
            raise PolyfaceError(f"weighting beta is {beta}; expected a number between 0 and 1")
        self.beta = beta
        self.state["targets"] = [0.0] * len(self.tasks) ** 2

    def operate(self, row: np.ndarray, gramian: np.ndarray, i: int, j: int, index: list[int]) -> None:
        place = index[i] * len(self.tasks) + index[j]
        target = self.state["targets"][place]
        own, other = np.sqrt(max(row @ gramian @ row, 0.0)), np.sqrt(gramian[j, j])
        if own == 0:
            return
        cosine = float(np.clip(row @ gramian[j] / (own * other), -1, 1))
        if cosine < target < 1:
            across, goal = np.sqrt(1 - cosine**2), np.sqrt(1 - target**2)
            row[j] += own * (target * across - cosine * goal) / (other * goal)
        if self.training:
            self.state["targets"][place] = (1 - self.beta) * target + self.beta * cosine
