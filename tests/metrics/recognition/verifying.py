"""A system whose verification is evaluated."""

from __future__ import annotations

import numpy as np

from polyface.metrics.recognition.verification import VerificationResult, evaluate_verification


def system(count: int = 400, seed: int = 0, noise: float = 0.4, truth_seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(distances, same): who is on a pair depends on `truth_seed` alone, so seeds are runs over the same pairs."""
    same = np.random.default_rng(truth_seed).random(count) < 0.5
    return np.where(same, 1.0, 1.8) + noise * np.random.default_rng([seed, 1]).normal(size=count), same


def evaluate(*given: np.ndarray, **settings: object) -> VerificationResult:
    return evaluate_verification(*given, **settings)  # type: ignore[arg-type]
