"""MGDA: the shortest common descent direction."""

from __future__ import annotations

import numpy as np

from polyface.weighting.gramian import SolvedWeighting
from polyface.weighting.solvers import min_norm


class MGDA(SolvedWeighting):
    """Multiple-gradient descent (Désidéri 2012; Sener & Koltun 2018, Eq. 3): w = argmin |Σ w_t g_t|² over the simplex.

    The authors' Frank–Wolfe iteration is replaced by an exact solution. Level `features` is their upper bound MGDA-UB.
    Two tasks: w_1 = clip(g_2·(g_2 − g_1) / |g_1 − g_2|², 0, 1). Weights sum to 1 and favour small gradients. Identical
    gradients: any share is optimal; the solver's is taken.
    """

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        return min_norm(gramian)
