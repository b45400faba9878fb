"""Convolutions that several parts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, single_map


class ConvolutionsPart(nn.Module):
    """A map [B, C, H, W] → one of the same size with widths[-1] channels: 3×3 convolutions, each with batch norm and
    ReLU. Over a frozen trunk they are what all tasks learn together."""

    def __init__(self, reads: Sequence[Shape], widths: Sequence[int] = (128,)) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise PolyfaceError(f"widths are {list(widths)}; expected one number of channels or more, each 1 or more")
        read = single_map(reads)
        layers: list[nn.Module] = []
        for before, after in pairwise([read.channels, *widths]):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.maps = {"": replace(read, channels=widths[-1])}

    def forward(self, reads: Sequence[Tensor]) -> Tensor:
        return self.layers(reads[0])  # type: ignore[no-any-return]
