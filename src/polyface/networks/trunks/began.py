"""The encoder of Barros et al. 2019 (Table I), which is the first half of the discriminator of a BEGAN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape

CONVOLUTIONS = (2, 2, 3, 3)
"""Of each block; those before the last end in one more, of stride 2 (four by the text, three by the table)."""


def convolution(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution and ELU. Weights start as Glorot & Bengio 2010 have it and biases at 0, as in the published code
    of BEGAN: at PyTorch's own start a decoder's ten layers would give next to nothing."""
    return nn.Sequential(glorot(nn.Conv2d(channels, width, 3, stride, 1)), nn.ELU())


def glorot(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Began(nn.Module):
    """Four blocks of 3×3 convolutions with ELU, the first three ending in one of stride 2: 2, 2, 3 and 3 convolutions.

    size: input side in pixels. widths: channels of each block. At 128 px and widths 64, 128, 128, 256 the maps are
    64×64×64, 128×32×32, 128×16×16 and "shared", 256×16×16; 2,509,184 parameters. The fully connected layer to the
    latent vector is no part of the trunk: whatever learns with a decoder has its own.
    """

    any_size = True

    def __init__(self, size: int = 128, widths: Sequence[int] = (64, 128, 128, 256), channels: int = 1) -> None:
        super().__init__()
        if size < 8 or len(widths) != len(CONVOLUTIONS) or min(widths) < 1:
            raise PolyfaceError(f"size {size}, widths {list(widths)}; expected a size of 8 or more, and 4 widths")
        self.size, self.in_channels = size, channels
        self.maps: dict[str, Shape] = {}
        self.blocks = nn.ModuleDict()
        for number, (count, width) in enumerate(zip(CONVOLUTIONS, widths, strict=True), 1):
            layers = [convolution(channels if first else width, width) for first in (True, *[False] * (count - 1))]
            last = number == len(widths)
            layers += [] if last else [convolution(width, width, stride=2)]
            name = "shared" if last else f"block{number}"
            self.blocks[name] = nn.Sequential(*layers)
            self.maps[name] = Shape(width, 2 ** min(number, len(widths) - 1))
            channels = width

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, channels, size, size] → {"block1", "block2", "block3", "shared": maps [B, C, H, W]}."""
        x = images.to(memory_format=torch.channels_last)
        maps: dict[str, Tensor] = {}
        for name, block in self.blocks.items():
            x = maps[name] = block(x)
        return maps
