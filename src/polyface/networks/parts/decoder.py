"""A picture from a vector: the decoder and the generator of Barros et al. 2019 (Table II)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, joined_length
from polyface.networks.trunks.began import convolution, glorot


class Decoder(nn.Module):
    """Vectors [B, D] → normalised pictures [B, channels, size, size], of any range.

    A fully connected layer to a small map of `width` channels; for each of `convolutions` so many 3×3 convolutions with
    ELU, then each pixel twice as wide and high; a last 3×3 convolution without ELU. With 128 numbers and the values
    given here 8×8 becomes 128×128, in 155,441 parameters. The printed table is mended: it has no layer to one channel,
    and its first enlargement does not enlarge.
    """

    any_size = False

    def __init__(
        self,
        reads: Sequence[Shape],
        size: int = 128,
        channels: int = 1,
        width: int = 16,
        convolutions: Sequence[int] = (2, 2, 3, 3),
    ) -> None:
        super().__init__()
        self.side, left = divmod(size, 2 ** len(convolutions))
        if left or not self.side or min(width, channels, *convolutions) < 1:
            raise PolyfaceError(
                f"size {size}, channels {channels}, width {width}, convolutions {list(convolutions)}; expected a size "
                f"that {2 ** len(convolutions)} divides (it doubles {len(convolutions)} times), and numbers above 0"
            )
        self.width = width
        self.fc = glorot(nn.Linear(joined_length(reads), width * self.side**2))
        layers: list[nn.Module] = []
        for count in convolutions:
            layers += [*(convolution(width, width) for _ in range(count)), nn.Upsample(scale_factor=2)]
        self.layers = nn.Sequential(*layers, glorot(nn.Conv2d(width, channels, 3, padding=1)))
        self.maps = {"": Shape(channels, 1)}

    def forward(self, reads: Sequence[Tensor]) -> Tensor:
        maps = self.fc(torch.cat(list(reads), 1)).unflatten(1, (self.width, self.side, self.side))
        return self.layers(maps.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]
