"""CASIA-Net (Yi et al. 2014) as Yin & Liu 2018 have it: ten 3×3 convolutions with batch norm, and the shared x."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape

STAGES = ((32, 64), (64, 128), (96, 192), (128, 256))
"""Channels of the convolutions before pool1 … pool4."""
LAST = (160, 320)
"""Channels of conv51 and conv52."""
ENDS = ("pool4", "pool5")


def scaled(channels: int, width: float) -> int:
    """`width` times as many channels, a multiple of 8 and at least 8."""
    return max(8, round(channels * width / 8) * 8)


def convolution(channels: int, width: int, relu: bool = True) -> nn.Sequential:
    """3×3 convolution, batch norm and, unless `relu` is false, ReLU.

    Weights start at a deviation of 0.01 and biases at 0, as printed; what comes out does not depend on that deviation,
    since batch norm divides by it, and so it is kept at any width.
    """
    conv = nn.Conv2d(channels, width, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.BatchNorm2d(width), *[nn.ReLU(inplace=True)] * relu)


def last_block(channels: int, widths: tuple[int, int], dropout: float) -> nn.Sequential:
    """conv51, conv52 without ReLU, the average over the map, dropout: [B, channels, h, w] → [B, widths[1]]."""
    first, second = convolution(channels, widths[0]), convolution(*widths, relu=False)
    return nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))


class CasiaNet(nn.Module):
    """CASIA-Net with batch norm (Yin & Liu 2018): 1,755,648 parameters, x of 320 numbers.

    size: input side in pixels; 2×2 max pooling makes 100 → 50 → 25 → 13 → 7, with padding in pool3 and pool4, and pool5
    averages whatever map is left. width: a factor on all numbers of channels, which stay multiples of 8. dropout: of x.
    end: "pool4" leaves out conv51, conv52 and pool5, and "shared" is pool4's map: for networks whose tasks have a part
    "casia" each from there.
    """

    any_size = True

    def __init__(
        self, size: int = 100, width: float = 1.0, channels: int = 1, dropout: float = 0.4, end: str = "pool5"
    ) -> None:
        super().__init__()
        if size < 4 or not 0 < width <= 8 or not 0 <= dropout < 1 or end not in ENDS:
            raise PolyfaceError(
                f"size {size}, width {width}, dropout {dropout}, end '{end}'; expected a size of 4 or more, a width "
                f"above 0 and at most 8, a dropout from 0 to below 1, end {' or '.join(ENDS)}"
            )
        self.size, self.in_channels = size, channels
        self.maps = {}
        self.stages = nn.ModuleDict()
        for number, (first, second) in enumerate(STAGES, 1):
            first, second = scaled(first, width), scaled(second, width)
            pool = nn.MaxPool2d(2, padding=1 if number > 2 else 0)
            self.stages[f"pool{number}"] = nn.Sequential(convolution(channels, first), convolution(first, second), pool)
            self.maps[f"pool{number}"] = Shape(second, 2**number)
            channels = second
        widths = scaled(LAST[0], width), scaled(LAST[1], width)
        self.last: nn.Module = last_block(channels, widths, dropout) if end == "pool5" else nn.Identity()
        self.maps["shared"] = Shape(widths[1]) if end == "pool5" else self.maps["pool4"]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, channels, size, size] → {"pool1" … "pool4": maps, "shared": x [B, D] or pool4}."""
        x = images.to(memory_format=torch.channels_last)
        maps: dict[str, Tensor] = {}
        for name, stage in self.stages.items():
            x = maps[name] = stage(x)
        return maps | {"shared": self.last(x)}
