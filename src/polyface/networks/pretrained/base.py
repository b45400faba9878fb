"""How a network begins with weights that somebody published."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from polyface.networks.network import FaceNetwork

SUFFIXES = (".safetensors", ".pth", ".pt")
"""Of files of weights."""


class PublishedWeights(ABC):
    """Weights of one kind. source: what the recipe calls them, for errors."""

    faces: int = 0
    """Training faces that `adapt` wants to see, at most; 0: none."""

    def __init__(self, source: str) -> None:
        self.source = source

    @abstractmethod
    def start(self, network: FaceNetwork, parts: Sequence[str]) -> None:
        """Copy them over a network's `parts` (trunk, branches, heads); a `PolyfaceError` where they do not fit."""

    def adapt(self, network: FaceNetwork, images: Tensor) -> None:  # noqa: B027  most lack nothing
        """Take from training faces [B, C, S, S], as training sees them, what the weights lack; before training."""
