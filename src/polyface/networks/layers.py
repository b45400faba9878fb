"""Layers the papers need and PyTorch lacks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from polyface.errors import check_names


class PartlyFrozen(nn.Module):
    """A module of which the parts in `frozen` stay in evaluation mode whatever mode it is in (see `freeze`)."""

    frozen: Sequence[nn.Module] = ()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def freeze(module: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The named modules of `module`, which no longer learn and are in evaluation mode: `PartlyFrozen` keeps them so."""
    known = dict(module.named_modules())
    check_names(names, known.keys() - {""}, "frozen")
    return [known[name].requires_grad_(False).eval() for name in names]


def fingerprint(module: nn.Module, told: Mapping[str, Any]) -> str:
    """64 hex digits of a module's tensors, and of what is told of it beside them."""
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


class CosineLinear(nn.Module):
    """Cosines of x [B, D] and of a direction for each output: [B, outputs], −1 … 1 (Wang et al. 2018, CosFace)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / math.sqrt(in_features))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, eps=1e-5) @ nn.functional.normalize(self.weight, eps=1e-5).T


class AbsTanh(nn.Module):
    """|tanh(x)|, the activation of TCDCN (Zhang et al. 2014, Section 3). Range [0, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh().abs()


class MaxPoolAbsTanh(nn.Module):
    """2×2 max pooling of |tanh(x)|, as tanh of the pooled |x|: the same numbers for a quarter of the tanh calls."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x.abs(), 2).tanh()


class _Patches(torch.autograd.Function):
    """Patches of a location-first map, laid out for one matrix product a location: [H, W, C, B] → [H'·W', k·k·C, B].

    `Tensor.unfold` gives the same view, but its backward is many times slower on a CPU than these k² slice additions.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: int) -> Tensor:
        height, width, channels, batch = maps.shape
        rows, columns = height - kernel + 1, width - kernel + 1
        patches = maps.new_empty(rows, columns, kernel * kernel, channels, batch)
        for i in range(kernel):
            for j in range(kernel):
                patches[:, :, i * kernel + j] = maps[i : i + rows, j : j + columns]
        ctx.kernel, ctx.shape = kernel, maps.shape
        return patches.view(rows * columns, -1, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        kernel, (height, width, channels, batch) = ctx.kernel, ctx.shape
        rows, columns = height - kernel + 1, width - kernel + 1
        grad = grad.reshape(rows, columns, kernel * kernel, channels, batch)
        out = grad.new_zeros(height, width, channels, batch)
        for i in range(kernel):
            for j in range(kernel):
                out[i : i + rows, j : j + columns] += grad[:, :, i * kernel + j]
        return out, None


class LocallyConnected2d(nn.Module):
    """A convolution whose filters are not shared between places: its own weights and bias at every location.

    The "unshared" filters of TCDCN (Zhang et al. 2014, Section 3.1). No padding, stride 1. Maps are location-first,
    [H, W, C, B], so that every location is one contiguous matrix product; `to_locations` and `from_locations` convert.

    weight [H'·W', out, k·k·C] with (row, column, channel) order inside a patch, bias [H'·W', out, 1].
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, in_size: int) -> None:
        super().__init__()
        self.kernel, self.out_size = kernel, in_size - kernel + 1
        self.in_channels, self.out_channels = in_channels, out_channels
        fan_in = in_channels * kernel * kernel
        bound = 1 / math.sqrt(fan_in)  # nn.Conv2d's own default
        self.weight = nn.Parameter(torch.empty(self.out_size**2, out_channels, fan_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(self.out_size**2, out_channels, 1).uniform_(-bound, bound))

    def forward(self, maps: Tensor) -> Tensor:
        """[H, W, C, B] → [H−k+1, W−k+1, out, B]."""
        out = torch.baddbmm(self.bias, self.weight, _Patches.apply(maps, self.kernel))
        return out.view(self.out_size, self.out_size, self.out_channels, maps.shape[3])


def to_locations(images: Tensor) -> Tensor:
    """[B, C, H, W] → [H, W, C, B]."""
    return images.permute(2, 3, 1, 0).contiguous()


def from_locations(maps: Tensor) -> Tensor:
    """[H, W, C, B] → [B, C, H, W]."""
    return maps.permute(3, 2, 0, 1)


class _Pool(torch.autograd.Function):
    """2×2 max pooling over the first two dimensions; the first of equal values gets the gradient, as in PyTorch."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        corners = _corners(maps)
        largest = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
        ctx.save_for_backward(maps, largest)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        maps, largest = ctx.saved_tensors
        out = torch.zeros_like(maps)
        free = torch.ones_like(largest, dtype=torch.bool)
        for corner, part in zip(_corners(maps), _corners(out), strict=True):
            hit = (corner == largest) & free
            torch.mul(grad, hit, out=part)
            free ^= hit
        return out


def _corners(maps: Tensor) -> list[Tensor]:
    height, width = maps.shape[0] // 2 * 2, maps.shape[1] // 2 * 2
    return [maps[i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def pool_locations(maps: Tensor) -> Tensor:
    """2×2 max pooling of [H, W, C, B], odd edges dropped as `max_pool2d` does."""
    pooled: Tensor = _Pool.apply(maps)
    return pooled
