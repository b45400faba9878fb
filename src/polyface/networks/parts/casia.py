"""The last block of CASIA-Net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, single_map
from polyface.networks.trunks.casia_net import LAST, last_block, scaled


class CasiaPart(nn.Module):
    """conv51, conv52, the average over the map and dropout, on a map such as trunk.pool4 of "casia-net".

    [B, channels, H, W] → [B, 320 · width]; on 256 channels 830,880 parameters. width: as the trunk's.
    """

    def __init__(self, reads: Sequence[Shape], width: float = 1.0, dropout: float = 0.4) -> None:
        super().__init__()
        if not 0 < width <= 8 or not 0 <= dropout < 1:
            raise PolyfaceError(f"width {width}, dropout {dropout}; expected above 0 (at most 8), and 0 to below 1")
        widths = scaled(LAST[0], width), scaled(LAST[1], width)
        self.block = last_block(single_map(reads).channels, widths, dropout)
        self.maps = {"": Shape(widths[1])}

    def forward(self, reads: Sequence[Tensor]) -> Tensor:
        return self.block(reads[0])  # type: ignore[no-any-return]
