"""The last stage of Inception-ResNet-v1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, single_map
from polyface.networks.trunks.inception_resnet import MOMENTUM, block8, start_as_facenet


class InceptionPart(nn.Module):
    """The last stage of Inception-ResNet-v1 on a map [B, channels, H, W] → a vector (Ming et al. 2021).

    `blocks` Block8s (scale .20, ReLU; facenet's original has 5), one more of scale 1 without ReLU, the average over the
    map, dropout, and with `bottleneck` a linear layer to that length (without: as many numbers as the map has
    channels). A block's towers have 192 channels whatever the map's: with 1792 and one block 3,201,536 parameters. On a
    map of 1×1 the 1×3 and 3×1 convolutions see padding beside their middle. momentum: of batch norm.
    """

    def __init__(
        self,
        reads: Sequence[Shape],
        blocks: int = 1,
        dropout: float = 0.5,
        bottleneck: int | None = None,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__()
        if blocks < 0 or (bottleneck is not None and bottleneck < 1):
            raise PolyfaceError(f"blocks is {blocks}, bottleneck {bottleneck}; expected 0 or more, 1 or more (or null)")
        channels = single_map(reads).channels
        self.blocks = nn.Sequential(*(block8(channels) for _ in range(blocks)), block8(channels, scale=1.0, relu=False))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.bottleneck = nn.Identity() if bottleneck is None else nn.Linear(channels, bottleneck)
        self.maps = {"": Shape(bottleneck or channels)}
        start_as_facenet(self, momentum)

    def forward(self, reads: Sequence[Tensor]) -> Tensor:
        return self.bottleneck(self.pool(self.blocks(reads[0])))  # type: ignore[no-any-return]
