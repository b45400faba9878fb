"""IMTL: impartial gradients (G), and with balanced losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from polyface.weighting.base import Step
from polyface.weighting.gramian import Level, SolvedWeighting


class GradientBalance(SolvedWeighting):
    """IMTL-G (Liu et al. 2021, Eq. 6): the combination, with Σ w = 1, that has equal projections on all gradients'
    directions, g·g_1/|g_1| = g·g_t/|g_t|:

        w = v / Σ v,   v = G⁺ (|g_1|, …, |g_T|)

    Weights may be negative. Linear dependence goes through the pseudo-inverse (Quinton & Rey 2024); where Σ v is 0 (two
    opposite gradients) there is no such combination: weights 1/T. Level `features` is what the authors use.
    """

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        lengths = np.sqrt(np.diag(gramian))
        # on gradients of length 1, or the pseudo-inverse would cut off tasks with small ones
        solution = np.linalg.pinv(gramian / np.outer(lengths, lengths), rcond=1e-10, hermitian=True) @ np.ones(
            len(gramian)
        )
        weights = solution / lengths
        total, size = weights.sum(), np.abs(weights).sum()
        # what the pseudo-inverse leaves of a right side outside the range is rounding, far below any solution
        solvable = np.abs(solution).max() > 1e-9 and abs(total) > 1e-9 * size
        return weights / total if solvable else np.full(len(gramian), np.nan)


class IMTL(GradientBalance):
    """IMTL (Liu et al. 2021, Algorithm 1): loss balance e^{s_t} L_t, then gradient balance of the balanced losses.

    w_t = α_t e^{s_t}, with α of IMTL-G from the scaled gradients and s trained by Σ e^{s_t} L_t − s_t. lr: that of s;
    None: the network's. Absent tasks: s_t gets no gradient.
    """

    def __init__(self, tasks: Sequence[str], level: Level = "features", *, lr: float | None = None) -> None:
        super().__init__(tasks, level)
        self.log_scale = nn.Parameter(torch.zeros(len(self.tasks)))
        self.lr = lr

    def weigh(self, step: Step) -> tuple[Tensor, Tensor | None]:
        s = self.log_scale[step.index]
        scale = s.detach().cpu().double().exp()
        products = self.products(step) * scale[:, None] * scale
        own = (s.exp() * step.values.to(s) - s).sum()
        return scale * self.solution(products, step.index), own
