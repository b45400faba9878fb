"""Columns of convolutions, the progressive networks' own: each may also read the blocks of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, single_map

BLOCKS, MOST = 4, 64


class Lateral(nn.Module):
    """What a column takes over from the same block of earlier columns: maps [B, cⱼ, H, W] → [B, channels, H, W].

    V · [α₁x₁, α₂x₂, …], V a 1×1 convolution without bias and each αⱼ one learned number, which starts small and random;
    `nonlinear` with ReLU after it (Rusu et al. 2016, Eq. 2). At α = 0 it is exactly 0.
    """

    def __init__(self, sources: Sequence[int], channels: int, nonlinear: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(0.1 * torch.rand(len(sources)))
        self.project = _started(nn.Conv2d(sum(sources), channels, 1, bias=False))
        self.activation: nn.Module = nn.ReLU() if nonlinear else nn.Identity()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        scaled = [alpha * values for alpha, values in zip(self.alpha, maps, strict=True)]
        return self.activation(self.project(torch.cat(scaled, 1)))  # type: ignore[no-any-return]


class ColumnPart(nn.Module):
    """A column of Barros et al. 2019 on a map [B, C, H, W]: blocks of 3×3 convolutions, then a fully connected layer.

    A block is `convs_per_group` convolutions of each of the `widths`, in turn, with ReLU; a maximum over 3×3 places at
    stride 2 follows the blocks in `pool` (by default the last two). Then one vector [B, width], ReLU and dropout. Table
    III is the default: on 256×16×16 four blocks 16, 16, 8, 4 and, with a head of 2, 9,081,946 parameters. `blocks: 1`
    is the column of Fig. 1.

    In a recipe its `reads` are a map and then earlier columns, which have as many blocks at least. Before each block
    but the first, and before the fully connected layer, what they gave after the same block is brought in (`Lateral`)
    and added to the column's own map. adapter: linear, as the paper's equation, or nonlinear, as Rusu et al. 2016.
    Convolutions start as He et al. 2015: 24 of them without a norm would let nothing through otherwise.
    """

    any_size = False

    def __init__(
        self,
        reads: Sequence[Shape],
        blocks: int = BLOCKS,
        widths: Sequence[int] = (128, 256),
        convs_per_group: int = 3,
        pool: Sequence[int] | None = None,
        width: int = 200,
        dropout: float = 0.5,
        adapter: Literal["linear", "nonlinear"] = "linear",
    ) -> None:
        super().__init__()
        pooled = {blocks - 1, blocks} if pool is None else set(pool)
        if min(blocks, convs_per_group, width, len(widths), *widths) < 1 or blocks > MOST or not 0 <= dropout < 1:
            numbers = f"blocks is 1 to {MOST}, widths, convs_per_group and width are 1 or more"
            raise PolyfaceError(f"{numbers}, dropout is from 0 to below 1")
        if pool is not None and not pooled <= set(range(1, blocks + 1)):
            raise PolyfaceError(f"pool is {list(pool)}; expected numbers of blocks, 1 … {blocks}")
        first = single_map(reads[:1])
        if not first.side:
            raise PolyfaceError("what it reads first does not say how large it is: set `side` of its Shape")
        sources = (len(reads) - 1) // blocks
        self.laterals, self.blocks = nn.ModuleList(), nn.ModuleList()
        self.maps = {"": Shape(width)}
        own = first
        for number in range(1, blocks + 1):
            channels = [own.channels, *(each for each in widths for _ in range(convs_per_group))]
            layers = [layer for pair in pairwise(channels) for layer in (_convolution(*pair), nn.ReLU())]
            shrink = [nn.MaxPool2d(3, 2, 1)] if number in pooled else []
            self.blocks.append(nn.Sequential(*layers, *shrink))
            step = 2 if shrink else 1
            self.maps[f"block{number}"] = own = Shape(channels[-1], step * own.stride, -(-own.side // step))
            given = reads[1 + (number - 1) * sources : 1 + number * sources]
            if other := next((one for one in given if one.side != own.side), None):
                raise PolyfaceError(
                    f"its block {number} ends in a map of {own.side}×{own.side}, that of an earlier column in one of "
                    f"{other.side}×{other.side}: let both read the same map first, and give both the same pool"
                )
            if sources:
                lateral = Lateral([one.channels for one in given], own.channels, adapter == "nonlinear")
                self.laterals.append(lateral)
        self.fc = _started(nn.Linear(own.channels * own.side**2, width))
        self.dropout = nn.Dropout(dropout)

    @staticmethod
    def spelled(reads: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        """A map, then block by block what the earlier columns give: [trunk, a, b] → [trunk, a.block1, b.block1, …]."""
        blocks = options.get("blocks", BLOCKS)
        numbers = range(1, 1 + min(blocks, MOST)) if isinstance(blocks, int) else ()  # others are refused as an option
        return [reads[0], *(f"{source}.block{number}" for number in numbers for source in reads[1:])]

    def forward(self, reads: Sequence[Tensor]) -> dict[str, Tensor]:
        """{"": the vector, "block1": the map after the first block, …}, the column's own, without laterals."""
        x, given = reads[0], reads[1:]
        sources = len(given) // len(self.blocks)
        maps: dict[str, Tensor] = {}
        for number, block in enumerate(self.blocks):
            x = maps[f"block{number + 1}"] = block(x)
            if sources:
                x = x + self.laterals[number](given[number * sources : (number + 1) * sources])
        return maps | {"": self.dropout(self.fc(x.flatten(1)).relu())}


def _convolution(channels: int, width: int) -> nn.Conv2d:
    return _started(nn.Conv2d(channels, width, 3, padding=1))


_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


def _started(layer: _Layer) -> _Layer:
    """A layer with weights that keep the size of what goes through it and ReLU (He et al. 2015), and biases 0."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
