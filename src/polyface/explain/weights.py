"""Heads as the matrices that they are, and what tasks share: the correlation of their weights (Zhang et al. 2014, Fig.
5b)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Floats
from polyface.networks import FaceNetwork


@dataclass(frozen=True)
class LinearHead:
    """A task's outputs x Wᵀ + b, weight W [outputs, D] and bias b [outputs], of the vector x [D] that the network makes
    of what the head `reads`, by `merge`. cosine: they are cosines of x and of the rows of W, which are of length 1."""

    reads: tuple[str, ...]
    merge: str
    weight: Floats
    bias: Floats
    cosine: bool = False

    def __call__(self, x: ArrayLike) -> Floats:
        """Outputs [N, outputs] of vectors x [N, D]."""
        vectors = np.asarray(x, dtype=np.float64)
        if self.cosine:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-5)
        return np.asarray(vectors @ self.weight.T + self.bias)


def linear_head(network: FaceNetwork, task: str) -> LinearHead:
    """The linear layer of a task: that of its head, or of the linear part that is its output already.

    Raises:
        PolyfaceError: an unknown task, or one whose outputs come from several layers, or from none that is linear.
    """
    if task not in network.heads:
        raise PolyfaceError(f"the network has no task '{task}' (it has {', '.join(network.heads)})")
    layer, reads, merge = network.output_layer(task)
    found = {name: values.detach().cpu().double().numpy() for name, values in layer.named_parameters(recurse=False)}
    if "weight" not in found:
        raise PolyfaceError(f"the outputs of '{task}' come from {', '.join(reads)}, not from one linear layer")
    weight, cosine = found["weight"], network.graph.heads[task].cosine
    if cosine:
        weight = weight / np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-5)
    return LinearHead(reads, merge, weight, found.get("bias", np.zeros(len(weight))), cosine)


def head_weights(network: FaceNetwork, task: str) -> Floats:
    """Weights [outputs, D] of a task's head over the trunk's features.

    Raises:
        PolyfaceError: an unknown task, or one whose head reads parts.
    """
    head = linear_head(network, task)
    if head.reads != ("trunk",):
        raise PolyfaceError(
            f"the head of '{task}' reads {', '.join(head.reads)}: only heads on the trunk can be compared"
        )
    return head.weight


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
