"""What tasks share: the correlation of their heads' weights over the shared features (Zhang et al. 2014, Fig. 5b)."""

from __future__ import annotations

import numpy as np

from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork


def head_weights(network: FaceNetwork, task: str) -> np.ndarray:
    """Weights [outputs, D] of a task's head over the trunk's features.

    Raises:
        PolyfaceError: an unknown task, or one whose head reads parts.
    """
    if task not in network.heads:
        raise PolyfaceError(f"the network has no task '{task}' (it has {', '.join(network.heads)})")
    if (reads := network.graph.heads[task].reads) != ("trunk",):
        raise PolyfaceError(f"the head of '{task}' reads {', '.join(reads)}: only heads on the trunk can be compared")
    weight = network.heads[task].get_parameter("weight")
    return np.asarray(weight.detach().cpu().double().numpy())


def weight_correlation(landmarks: np.ndarray, side: np.ndarray) -> np.ndarray:
    """How strongly each landmark uses the features that a side task uses: [points], each in 0 … 1.

    landmarks [2·points, D] with x and y interleaved, side [classes, D]. A softmax head is fixed only up to a vector
    common to all classes, so that one is taken off first. Then, per landmark, the largest absolute Pearson correlation
    between one of its two weight vectors and one of the classes'.
    """
    side = side - side.mean(axis=0)
    a, b = landmarks - landmarks.mean(axis=1, keepdims=True), side - side.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    correlation = np.abs(a @ b.T) / np.maximum(norms, 1e-12)
    return np.asarray(correlation.reshape(-1, 2 * len(b)).max(axis=1))


def correlation_by_chance(landmarks: np.ndarray, side: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """The same where the side task's features are shuffled: [draws, points].

    Being the largest of several, a correlation is above 0 by chance too: of random weights over 100 features 0.11 with
    two classes, 0.18 with five. Shuffling keeps each head's own weights and what its rows have in common.
    """
    generator = np.random.default_rng(seed)
    shuffled = (side[:, generator.permutation(side.shape[1])] for _ in range(draws))
    return np.stack([weight_correlation(landmarks, one) for one in shuffled])
