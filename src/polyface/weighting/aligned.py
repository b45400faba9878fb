"""Aligned-MTL: gradients made orthogonal and equally long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from polyface.errors import PolyfaceError
from polyface.weighting.gramian import Level, SolvedWeighting

Scale = Literal["min", "median", "rmse"]


class AlignedMTL(SolvedWeighting):
    """Independent component alignment (Senushkin et al. 2023, Algorithm 1): with G = V Λ Vᵀ of rank R,

        w = √λ · V Λ^{-1/2} Vᵀ p

    where all singular values become one, √λ: the smallest ("min", the paper), their median or root mean square (the
    authors' code). preferences: task → p_t (default 1/T of the present tasks). Eigenvalues below T·ε·λ_max count as 0.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level = "features",
        *,
        scale: Scale = "min",
        preferences: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks, level)
        if scale not in ("min", "median", "rmse"):
            raise PolyfaceError(f"weighting scale is '{scale}'; expected min, median or rmse")
        self.scale = scale
        self.preferences = np.array(self.task_values(preferences, "preferences", 1.0))

    def solve(self, gramian: np.ndarray, index: list[int]) -> np.ndarray:
        values, vectors = np.linalg.eigh(gramian)
        kept = values > len(gramian) * np.finfo(np.float64).eps * values.max()
        values, vectors = values[kept], vectors[:, kept]
        middle = {"min": values.min(), "median": np.median(values), "rmse": values.mean()}[self.scale]
        preferences = self.preferences[index] / self.preferences[index].sum()
        return np.sqrt(middle) * vectors @ ((vectors.T @ preferences) / np.sqrt(values))  # type: ignore[no-any-return]
