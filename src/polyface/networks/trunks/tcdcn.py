"""The two trunks of TCDCN (Zhang et al. 2014): Fig. 3's 40×40 network, and the 60×60 one released for 68 points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.layers import (
    AbsTanh,
    LocallyConnected2d,
    MaxPoolAbsTanh,
    from_locations,
    pool_locations,
    to_locations,
)
from polyface.networks.shapes import Shape


@dataclass(frozen=True)
class _Plan:
    size: int
    convolutions: tuple[tuple[int, int], ...]  # (kernel, channels); 2×2 max pooling after the first three
    shared: int


_PLANS = {
    "tcdcn": _Plan(40, ((5, 16), (3, 48), (3, 64), (2, 64)), 100),
    "tcdcn68": _Plan(60, ((5, 20), (5, 48), (3, 64), (3, 80)), 512),
}
_POOLED = 3


class TCDCN(nn.Module):
    """Four unpadded convolutions, 2×2 max pooling after the first three, one fully connected layer = the shared x.

    plan "tcdcn": 1×40×40 → 16@36 → 48@16 → 64@6 → 64@2 → x of 100 (Fig. 3); with its four heads 79,357 parameters
    shared, 3,412,141 unshared. plan "tcdcn68": 1×60×60 → 20@56 → 48@24 → 64@10 → 80@3 → x of 512, the authors'
    released network, which has ReLU where the paper has |tanh|. filters "unshared" (the paper's own experiments on
    five points) are locally connected, "shared" are convolutions.

    gain: weights start with a standard deviation of gain / √(inputs), and biases at 0. With PyTorch's own start, which
    is uniform and of gain 1/√3, |tanh| leaves faces hardly apart in x; with a gain of 1, several times as far.
    """

    def __init__(
        self,
        plan: str = "tcdcn",
        filters: str = "shared",
        activation: str = "abs_tanh",
        channels: int = 1,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        if gain is not None and not 0 < gain < math.inf:
            raise PolyfaceError(f"gain is {gain}; expected a finite number above 0")
        if plan not in _PLANS or filters not in ("shared", "unshared") or activation not in ("abs_tanh", "relu"):
            raise PolyfaceError(
                f"plan '{plan}', filters '{filters}', activation '{activation}'; expected plan tcdcn or "
                "tcdcn68, filters shared or unshared, activation abs_tanh or relu"
            )
        chosen = _PLANS[plan]
        self.unshared, self.size = filters == "unshared", chosen.size
        self.in_channels = channels
        self.maps = {"shared": Shape(chosen.shared)}
        self.activation: nn.Module = AbsTanh() if activation == "abs_tanh" else nn.ReLU()
        self.pool: nn.Module = (
            MaxPoolAbsTanh() if activation == "abs_tanh" else nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
        )
        self.convolutions = nn.ModuleList()
        side = chosen.size
        for index, (kernel, width) in enumerate(chosen.convolutions):
            layer: nn.Module = (
                LocallyConnected2d(channels, width, kernel, side)
                if self.unshared
                else nn.Conv2d(channels, width, kernel)
            )
            self.convolutions.append(layer)
            side, channels = side - kernel + 1, width
            side = side // 2 if index < _POOLED else side
            self.maps[f"conv{index + 1}"] = Shape(width, 2 ** min(index + 1, _POOLED))
        self.fc = nn.Linear(channels * side * side, chosen.shared)
        if gain is not None:
            for layer in (*self.convolutions, self.fc):
                _start(layer, gain)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 1, size, size] → {"conv1" … "conv4": maps [B, C, H, W], "shared": x [B, D]}."""
        maps: dict[str, Tensor] = {}
        x = to_locations(images) if self.unshared else images.to(memory_format=torch.channels_last)
        for index, layer in enumerate(self.convolutions):
            x = layer(x)
            if index >= _POOLED:
                x = self.activation(x)
            elif not self.unshared:
                x = self.pool(x)
            elif isinstance(self.activation, AbsTanh):
                x = pool_locations(x.abs()).tanh()
            else:
                x = pool_locations(x).relu()
            maps[f"conv{index + 1}"] = from_locations(x) if self.unshared else x
        flat = maps[f"conv{len(self.convolutions)}"].flatten(1)
        maps["shared"] = self.activation(self.fc(flat))
        return maps


def _start(layer: nn.Module, gain: float) -> None:
    """Random weights with a standard deviation of gain / √(inputs), and biases of 0."""
    assert isinstance(layer, nn.Conv2d | LocallyConnected2d | nn.Linear)
    weight = layer.weight
    inputs = weight.shape[-1] if isinstance(layer, LocallyConnected2d) else weight[0].numel()
    nn.init.normal_(weight, std=gain / math.sqrt(inputs))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
