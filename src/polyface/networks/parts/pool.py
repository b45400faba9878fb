"""Pooling and fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, single_map


class SpatialPyramid(nn.Module):
    """Spatial pyramid pooling (He et al. 2014): maxima over an n×n grid of bins for n = 1 … levels, one after another.

    [B, C, H, W] of any size → [B, C · Σ n²], each level [C, n, n] in row order; the first C entries are the global
    maxima. Bins begin at floor(i·H/n) and end at ceil((i+1)·H/n), so those of a map smaller than n overlap. The pyramid
    is cumulative: Mao et al. 2020 have 14 · 2048 = 28,672 numbers at 3 levels.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 1:
            raise PolyfaceError(f"a spatial pyramid has at least 1 level, not {levels}")
        self.levels = levels
        self.bins = sum(n * n for n in range(1, levels + 1))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self._level(maps, n) for n in range(1, self.levels + 1)], 1)

    def _level(self, maps: Tensor, n: int) -> Tensor:
        # adaptive_max_pool2d has the same bins, but ONNX can only say it where n divides the map's sides
        rows, columns = ([(i * size // n, -(-(i + 1) * size // n)) for i in range(n)] for size in maps.shape[2:])
        bins = [maps[:, :, top:bottom, left:right].amax((2, 3)) for top, bottom in rows for left, right in columns]
        return torch.stack(bins, 2).flatten(1)


class PoolPart(nn.Module):
    """A map [B, channels, H, W] → a vector: pooling, then fully connected layers with ReLU.

    levels: of the spatial pyramid; 0: the average over the map. hidden: lengths of the fully connected layers (none:
    what was pooled goes to the heads), norm: each with batch norm before its ReLU, which short runs want. dropout: of
    what each of them reads, and of what the heads read.
    """

    def __init__(
        self,
        reads: Sequence[Shape],
        levels: int = 1,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.pool: nn.Module = (
            SpatialPyramid(levels) if levels else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        )
        width = single_map(reads).channels * (self.pool.bins if isinstance(self.pool, SpatialPyramid) else 1)
        layers: list[nn.Module] = []
        for length in hidden:
            layers += [nn.Dropout(dropout), nn.Linear(width, length), *[nn.BatchNorm1d(length)] * norm, nn.ReLU()]
            width = length
        self.fc = nn.Sequential(*layers, nn.Dropout(dropout))
        self.maps = {"": Shape(width)}

    def forward(self, reads: Sequence[Tensor]) -> Tensor:
        return self.fc(self.pool(reads[0]))  # type: ignore[no-any-return]
