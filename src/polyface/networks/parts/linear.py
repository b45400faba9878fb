"""A fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, joined_length, single_map


class LinearPart(nn.Module):
    """Vectors, joined to [B, D] → [B, width] by a fully connected layer without nonlinearity.

    width: in a recipe a number, or the name of a task, which stands for the number of its outputs. side: read one whole
    map of side × side places, [B, C, side, side], in place of vectors. Biases start at 0: outputs that are compared as
    an embedding should have nothing in common to begin with.
    """

    def __init__(self, reads: Sequence[Shape], width: int, side: int = 0) -> None:
        super().__init__()
        if width < 1:
            raise PolyfaceError(f"width is {width}; expected 1 or more, or in a recipe the name of a task")
        length = single_map(reads).channels * side**2 if side else joined_length(reads)
        self.any_size = not side
        self.fc = nn.Linear(length, width)
        nn.init.zeros_(self.fc.bias)
        self.maps = {"": Shape(width)}

    @property
    def layer(self) -> nn.Linear:
        """All that the part does."""
        return self.fc

    def forward(self, reads: Sequence[Tensor]) -> Tensor:
        vectors = [read.flatten(1) for read in reads]
        return self.fc(torch.cat(vectors, 1) if len(vectors) > 1 else vectors[0])  # type: ignore[no-any-return]
