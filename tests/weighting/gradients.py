"""Weights for task gradients given as a matrix, and such matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from toy import NAMES

from polyface.weighting import WEIGHTINGS, Context, Weighting, build
from polyface.weighting.gramian import SolvedWeighting

SOLVED = [name for name in NAMES if issubclass(WEIGHTINGS.get(name), SolvedWeighting)]  # type: ignore[arg-type]


def letters(size: int) -> list[str]:
    return [chr(ord("a") + i) for i in range(size)]


def step(weighting: Weighting, jacobian: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Weights [T] of one call in which task t has the gradient jacobian[t] and the loss values[t] (default: 1)."""
    shared = torch.zeros(1, jacobian.shape[1], dtype=torch.float64, requires_grad=True)
    losses = {
        task: (torch.from_numpy(row) * shared).sum() + value
        for task, row, value in zip(
            weighting.tasks, jacobian, np.ones(len(jacobian)) if values is None else values, strict=True
        )
    }
    found = weighting.combine(losses, Context(shared=shared)).weights
    return np.array([found[task] for task in weighting.tasks])


def solve(name: str, jacobian: np.ndarray, **options: Any) -> np.ndarray:
    """Weights of a fresh weighting's first call."""
    return step(build(name, letters(len(jacobian)), **options), np.asarray(jacobian, dtype=np.float64))


@st.composite
def jacobians(draw: st.DrawFn, least: int = 2, most: int = 4) -> np.ndarray:
    """Gradients [T, T + 2] of lengths that differ by up to some hundreds, in conflict or not, not nearly dependent."""
    size = draw(st.integers(least, most))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    jacobian = random.normal(size=(size, size + 2))
    if draw(st.booleans()):  # all against a common direction or along it: more and less conflict than by chance
        jacobian += draw(st.floats(-1, 2)) * random.normal(size=(1, size + 2))
    lengths = np.linalg.norm(jacobian, axis=1, keepdims=True)
    assume(np.linalg.eigvalsh(jacobian @ jacobian.T / (lengths * lengths.T))[0] > 1e-3)
    return jacobian * 10.0 ** random.uniform(-1, 1, size=(size, 1))
