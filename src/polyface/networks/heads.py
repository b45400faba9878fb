"""What ends a network: linear layers for the tasks' outputs, and embeddings that are compared between faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.layers import CosineLinear

SIMILARITIES = ("cosine", "euclidean", "inner")
LAYERS = ("linear", "none")
EMBEDDED = ("embedding", "inner")
"""What an embedding is called among the answers for a face: "inner" if it is compared by its product as it is."""


@dataclass(frozen=True)
class Embedding:
    """What is compared between faces, and how. dim: its length. similarity: "cosine", features at length 1, compared by
    their product; "inner", features as they are, by their product; "euclidean", as they are, by their distance."""

    dim: int
    similarity: str

    @property
    def answer(self) -> str:
        """Which of `EMBEDDED` it is."""
        return "inner" if self.similarity == "inner" else "embedding"

    def __call__(self, features: Tensor) -> Tensor:
        """Features [B, dim], as the heads read them, → the embedding [B, dim]."""
        return nn.functional.normalize(features, eps=1e-5) if self.similarity == "cosine" else features


@torch.no_grad()
def set_bias(head: nn.Module, bias: Tensor) -> None:
    """Give a task's head these biases [outputs]; one without biases stays as it is, and so does one without a layer:
    what it reads may be compared as an embedding, where a common shift would make all faces alike."""
    if isinstance(head, GroupedHead):
        places = head.order.argsort()
        for layer in head.parts.values():
            own, places = places[: layer.out_features], places[layer.out_features :]
            set_bias(layer, bias[own])
    elif isinstance(head, nn.Linear):
        head.bias.copy_(bias)


class Given(nn.Identity):
    """A head without a layer: what it reads, [B, outputs], is the task's output already."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.out_features = outputs


class GroupedHead(nn.Module):
    """One task's outputs from several parts: a linear layer each, and every output in its own place.

    groups: part → places of its outputs in the task's output, each place exactly once, so that the answer is in the
    data set's order whatever the groups. cosine: the outputs are cosines (`CosineLinear`).
    """

    order: Tensor

    def __init__(self, widths: Mapping[str, int], groups: Mapping[str, Sequence[int]], cosine: bool = False) -> None:
        super().__init__()
        places = [place for group in groups.values() for place in group]
        if sorted(places) != list(range(len(places))):
            raise PolyfaceError(f"a head's groups must name every output exactly once, not {sorted(places)}")
        linear: type[nn.Module] = CosineLinear if cosine else nn.Linear
        self.parts = nn.ModuleDict({part: linear(widths[part], len(group)) for part, group in groups.items()})
        self.register_buffer("order", torch.tensor(places).argsort(), persistent=False)
        self.out_features = len(places)

    def forward(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Outputs of the parts → [B, outputs]."""
        outputs = torch.cat([layer(parts[part]) for part, layer in self.parts.items()], 1)
        return outputs.index_select(1, self.order)  # in ONNX one operation, where indexing is ten
