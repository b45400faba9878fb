"""Small convex problems in the Gramian G = J Jᵀ of T task gradients, in float64. Errors: LinAlgError, RuntimeError."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

Floats = NDArray[np.float64]

MOST_CANCELLATION = 1e7
"""Where terms of a sum cancel to less than this part of them, rounding of the (single precision) gradients decides."""


def factor(gramian: Floats) -> Floats:
    """A with AᵀA = G: gradients in T dimensions with the same inner products (negative rounding is cut off)."""
    values, vectors = np.linalg.eigh(gramian)
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T  # type: ignore[no-any-return]


def min_norm(gramian: Floats) -> Floats:
    """argmin wᵀGw over the simplex: the shortest point of the convex hull of the gradients (Wolfe 1976).

    Solved as least squares over w ≥ 0: for w = s·u with u in the simplex, min over s of s² uᵀGu + c (s − 1)² is
    c q / (c + q) at q = uᵀGu, which grows with q, so the best direction u is the shortest point; c only sets the scale.
    """
    scale = np.sqrt(np.diag(gramian).min())  # c of the size of the answer, which cannot be longer than any gradient
    rows = np.vstack([factor(gramian), np.full(len(gramian), scale)])
    found, _ = nnls(rows, np.append(np.zeros(len(gramian)), scale))
    return found / found.sum()  # type: ignore[no-any-return]


def dual_cone(gramian: Floats, start: Floats) -> Floats:
    """argmin vᵀGv over v ≥ start: Jᵀv is the projection of Jᵀstart onto the cone {d: J d ≥ 0}."""
    lengths = np.sqrt(np.diag(gramian))
    a = factor(gramian / np.outer(lengths, lengths))
    # a little ridge, or two opposite gradients could be added to the answer without bound
    rows = np.vstack([a, 1e-6 * np.eye(len(a))])
    found, _ = nnls(rows, np.append(-a @ (start * lengths), np.zeros(len(a))))
    return start + found / lengths  # type: ignore[no-any-return]


def fair_point(gramian: Floats, power: float, iterations: int = 100) -> Floats:
    """w > 0 with G w = w^{-power} (power > 0), the minimum of the convex ½ wᵀGw − Σ φ(w), φ' = w^{-power}, by Newton.

    The problem is solved for gradients of length 1 first: with G = D C D, C of unit diagonal and w = D⁻¹u, C u =
    D^{power − 1}·u^{-power}. It has no solution where a positive combination of the gradients vanishes (then w grows
    without bound): RuntimeError.
    """
    lengths = np.sqrt(np.diag(gramian))
    cosines = gramian / np.outer(lengths, lengths)
    # a common scale of D only scales u, so that the weights on the right stay near 1
    middle = np.exp(np.log(lengths).mean())
    right = (lengths / middle) ** (power - 1)
    u = np.ones(len(gramian))
    for _ in range(iterations):
        slope = right * u**-power
        gradient = cosines @ u - slope
        step = np.linalg.solve(cosines + np.diag(power * slope / u), -gradient)
        if np.abs(step / u).max() < 1e-6:  # squared by the last step; cancellation allows no more where u is large
            u = u + step
            if (np.abs(cosines) @ u / (right * u**-power)).max() > MOST_CANCELLATION:
                break
            return u / lengths * middle ** ((power - 1) / (power + 1))  # type: ignore[no-any-return]
        shrink = step / u
        longest = min(1.0, 0.95 / max(float(-shrink.min()), 1e-12))
        start = _fair_value(u, cosines, right, power)
        # within rounding of the minimum values cannot be compared any more, and full steps converge
        while gradient @ step < -1e-9 and _fair_value(
            u + longest * step, cosines, right, power
        ) > start + 1e-4 * longest * (gradient @ step):
            longest /= 2
        u = u + longest * step
    raise RuntimeError("no positive fixed point: the gradients have a vanishing positive combination")


def _fair_value(u: Floats, gramian: Floats, right: Floats, power: float) -> float:
    utility: Floats = np.log(u) if power == 1 else u ** (1 - power) / (1 - power)
    return float(u @ gramian @ u / 2 - (right * utility).sum())


def conflict_averse(gramian: Floats, radius: float) -> Floats:
    """argmin over the simplex of g_w·g_0 + radius·|g_w| with g_0 the mean gradient (Liu et al. 2021, Eq. 4)."""
    size = len(gramian)
    mean = gramian.mean(1)

    def value(w: Floats) -> tuple[float, Floats]:
        inner = gramian @ w
        length = float(np.sqrt(max(float(w @ inner), 1e-24)))
        return float(mean @ w + radius * length), mean + radius * inner / length

    answer: Any = minimize(
        value,
        np.full(size, 1 / size),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(size)},
        options={"ftol": 1e-12, "maxiter": 200},
    )
    w = np.clip(answer.x, 0, None)
    return w / w.sum()  # type: ignore[no-any-return]
