"""Layers the papers need and PyTorch lacks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class AbsTanh(nn.Module):
    """|tanh(x)|, the activation of TCDCN (Zhang et al. 2014, Section 3). Range [0, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh().abs()


class MaxPoolAbsTanh(nn.Module):
    """2×2 max pooling of |tanh(x)|, as tanh of the pooled |x|: the same numbers for a quarter of the tanh calls."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x.abs(), 2).tanh()


class _Patches(torch.autograd.Function):
    """Patches of a location-first map, laid out for one matrix product a location: [H, W, B, C] → [H'·W', B, k·k·C].

    `Tensor.unfold` gives the same view, but its backward is many times slower on a CPU than these k² slice additions.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: int) -> Tensor:
        height, width, batch, channels = maps.shape
        rows, columns = height - kernel + 1, width - kernel + 1
        patches = maps.new_empty(rows, columns, batch, kernel * kernel, channels)
        for i in range(kernel):
            for j in range(kernel):
                patches[:, :, :, i * kernel + j] = maps[i : i + rows, j : j + columns]
        ctx.kernel, ctx.shape = kernel, maps.shape
        return patches.view(rows * columns, batch, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        kernel, (height, width, batch, channels) = ctx.kernel, ctx.shape
        rows, columns = height - kernel + 1, width - kernel + 1
        grad = grad.reshape(rows, columns, batch, kernel * kernel, channels)
        out = grad.new_zeros(height, width, batch, channels)
        for i in range(kernel):
            for j in range(kernel):
                out[i : i + rows, j : j + columns] += grad[:, :, :, i * kernel + j]
        return out, None


class LocallyConnected2d(nn.Module):
    """A convolution whose filters are not shared between places: its own weights and bias at every location.

    The "unshared" filters of TCDCN (Zhang et al. 2014, Section 3.1). No padding, stride 1. Maps are location-first,
    [H, W, B, C], so that every location is one contiguous matrix product; `to_locations` and `from_locations` convert.

    weight [H'·W', k·k·C, out] with (row, column, channel) order inside a patch, bias [H'·W', 1, out].
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, in_size: int) -> None:
        super().__init__()
        self.kernel, self.out_size = kernel, in_size - kernel + 1
        self.in_channels, self.out_channels = in_channels, out_channels
        fan_in = in_channels * kernel * kernel
        bound = 1 / math.sqrt(fan_in)  # nn.Conv2d's own default
        self.weight = nn.Parameter(torch.empty(self.out_size**2, fan_in, out_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(self.out_size**2, 1, out_channels).uniform_(-bound, bound))

    def forward(self, maps: Tensor) -> Tensor:
        """[H, W, B, C] → [H−k+1, W−k+1, B, out]."""
        batch = maps.shape[2]
        out = torch.baddbmm(self.bias, _Patches.apply(maps, self.kernel), self.weight)
        return out.view(self.out_size, self.out_size, batch, self.out_channels)

    @torch.no_grad()
    def copy_convolution(self, convolution: nn.Conv2d) -> None:
        """Put the filters of a convolution at every location; the two layers then compute the same."""
        weight = convolution.weight.permute(2, 3, 1, 0).reshape(1, -1, self.out_channels)
        self.weight.copy_(weight.expand_as(self.weight))
        bias = convolution.bias
        self.bias.copy_((torch.zeros(self.out_channels) if bias is None else bias).expand_as(self.bias))


def to_locations(images: Tensor) -> Tensor:
    """[B, C, H, W] → [H, W, B, C]."""
    return images.permute(2, 3, 0, 1)


def from_locations(maps: Tensor) -> Tensor:
    """[H, W, B, C] → [B, C, H, W]."""
    return maps.permute(2, 3, 0, 1)


def pool_locations(maps: Tensor) -> Tensor:
    """2×2 max pooling of [H, W, B, C], odd edges dropped as `max_pool2d` does."""
    height, width = maps.shape[0] // 2 * 2, maps.shape[1] // 2 * 2
    maps = maps[:height, :width]
    top = torch.maximum(maps[::2, ::2], maps[::2, 1::2])
    return torch.maximum(top, torch.maximum(maps[1::2, ::2], maps[1::2, 1::2]))
