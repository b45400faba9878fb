"""The last level of dlib's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, single_map
from polyface.networks.trunks.face_resnet import WIDTH, level


class ResidualPart(nn.Module):
    """The last level of dlib's network on the map of a trunk "face-resnet": a residual block that halves it, the
    average over what is left, dropout, and with `bottleneck` a linear layer without bias (dlib's has 128).

    [B, 256, 4, 4] → [B, 256] or [B, bottleneck]; without bottleneck 1.2 M parameters.
    """

    def __init__(self, reads: Sequence[Shape], dropout: float = 0.0, bottleneck: int | None = None) -> None:
        super().__init__()
        channels = single_map(reads).channels
        if channels != WIDTH:
            raise PolyfaceError(f"kind residual reads a map of {WIDTH} channels, that of trunk face-resnet")
        self.blocks = level(channels, WIDTH, 1, down=True)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.bottleneck = nn.Identity() if bottleneck is None else nn.Linear(WIDTH, bottleneck, bias=False)
        self.maps = {"": Shape(bottleneck or WIDTH)}

    def forward(self, reads: Sequence[Tensor]) -> Tensor:
        return self.bottleneck(self.pool(self.blocks(reads[0])))  # type: ignore[no-any-return]

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the published weights (`polyface.networks.pretrained.dlib`)."""
        own = self.state_dict()
        if "bottleneck.weight" in own and own["bottleneck.weight"].shape != weights["bottleneck.weight"].shape:
            length = self.maps[""].channels
            raise PolyfaceError(f"dlib's network has a bottleneck of 128, not {length}: set bottleneck to 128")
        self.load_state_dict({name: weights[name] for name in own})
