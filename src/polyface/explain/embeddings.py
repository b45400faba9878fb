"""Maps of embeddings: faces laid out in a plane so that those that are alike to a network are close."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import unit_vectors
from polyface.metrics.resampling import Floats

NEEDS = "t-SNE needs scikit-learn, `pip install polyface[explain]`"


def can_lay_out() -> bool:
    """Whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


def plane(embeddings: ArrayLike, seed: int = 0) -> Floats:
    """Embeddings [N, E], N ≥ 2, laid out by t-SNE: [N, 2]. Source: van der Maaten & Hinton 2008."""
    if not can_lay_out():
        raise PolyfaceError(NEEDS)
    from sklearn.manifold import TSNE

    vectors = unit_vectors(embeddings, "embeddings")
    perplexity = min(30.0, max(1.0, (len(vectors) - 1) / 3))
    return np.asarray(TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors))


def most_pictured(table: FaceTable, column: str, words: Sequence[str], count: int) -> list[str]:
    """The people with the most faces of that of some words of a column that they have the fewest of."""
    shown = Counter(zip(table.words("identity"), table.words(column), strict=True))
    fewest = {name: min(shown[name, word] for word in words) for name, _ in shown if name is not None}
    every = [name for name in fewest if fewest[name]]
    if not every:
        raise PolyfaceError(f"nobody in the table has faces of every {column} {', '.join(words)}: none to compare")
    return sorted(sorted(every, key=lambda name: (-fewest[name], name))[:count])
