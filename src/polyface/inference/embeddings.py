"""What an embedder is: anything that turns the faces of pictures into vectors that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class FoundFace(NamedTuple):
    """A face of a picture: its embedding float32 [D], and its box [4] (x0, y0, x1, y1 in the picture's pixels)."""

    embedding: NDArray[np.float32]
    box: NDArray[np.float32]


class Embedder(Protocol):
    """Anything that turns faces into embeddings which can be compared; `polyface.inference.BundleEmbedder` is one.

    ``id`` names the network, its weights, its crop and the similarity: embeddings of different ids are not compared.
    ``similarity`` is "cosine" (embeddings have length 1 and are compared by their product) or "euclidean".
    """

    id: str
    dim: int
    similarity: str

    def embed(
        self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[NDArray[np.float32] | None] | None = None
    ) -> list[list[FoundFace]]:
        """The faces of every picture (uint8 RGB [H, W, 3]): those in `boxes` [n, 4], or all that are found."""
        ...
