"""UPGrad: no task may get worse."""

from __future__ import annotations

import numpy as np

from polyface.weighting.gramian import SolvedWeighting
from polyface.weighting.solvers import dual_cone


class UPGrad(SolvedWeighting):
    """Unconflicting projection of gradients (Quinton & Rey 2024, Eq. 5): every gradient is projected onto the cone of
    directions that lower no-one's progress, {d: g_i·d ≥ 0}, and the projections are averaged:

        w = 1/T Σ_i argmin {vᵀGv: v ≥ e_i}

    Without conflict this is the mean gradient (w = 1/T). Linear in the scale of all gradients alike, not of each.
    """

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        size = len(gramian)
        return np.mean([dual_cone(gramian, start) for start in np.eye(size)], axis=0)  # type: ignore[no-any-return]
