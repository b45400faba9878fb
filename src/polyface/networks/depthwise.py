"""Depthwise convolutions that train quickly in bfloat16 on a CPU. Imports timm: import it where timm is needed."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose backward consists of kernels that are quick on a CPU.

    There, two of PyTorch's own are 10 … 100 times slower than the forward pass in bfloat16: the gradient of an input
    read with a stride (here: the gradient spread out, then a convolution without stride), and that of filters larger
    than 3×3 (here: the 3×3 tiles that cover the filter).
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return nn.functional.conv2d(maps, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, weight = ctx.saved_tensors
        stride, padding, channels, side = ctx.stride, ctx.padding, len(weight), weight.shape[-1]
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            spread = grad
            if stride > 1:
                rows, columns = (size + 2 * padding - side + 1 for size in maps.shape[2:])
                shape, last = (len(grad), channels, rows, columns), torch.channels_last
                spread = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=last).zero_()
                spread[:, :, ::stride, ::stride] = grad
            of_maps = nn.functional.conv2d(spread, weight.flip(2, 3), None, 1, side - 1 - padding, 1, channels)
        if ctx.needs_input_grad[1]:
            of_weight = torch.empty_like(weight)
            padded = nn.functional.pad(maps, (padding,) * 4)
            rows, columns = ((size - 1) * stride + 3 for size in grad.shape[2:])
            for i in range(0, side - 1, 2):
                for j in range(0, side - 1, 2):
                    part = padded[:, :, i : i + rows, j : j + columns].contiguous(memory_format=torch.channels_last)
                    tile = conv2d_weight(part, (channels, 1, 3, 3), grad, stride, 0, 1, channels)  # type: ignore[no-untyped-call]
                    of_weight[:, :, i : i + 3, j : j + 3] = tile
        return of_maps, of_weight, None, None


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that trains quickly in bfloat16 on CPUs too; parameters and answers of `nn.Conv2d`.

    `same`: zeros are added as TensorFlow does, more of them at the end.
    """

    same = False

    @classmethod
    def replace(cls, network: nn.Module) -> None:
        """Put one in the place of every depthwise convolution of a network that this one can stand for."""
        for parent in network.modules():
            for name, conv in parent.named_children():
                if isinstance(conv, nn.Conv2d) and (own := cls._standing_for(conv)):
                    setattr(parent, name, own)

    @classmethod
    def _standing_for(cls, conv: nn.Conv2d) -> DepthwiseConv2d | None:
        (side, other), (stride, across) = conv.kernel_size, conv.stride
        padding = (0, 0) if isinstance(conv, Conv2dSame) or isinstance(conv.padding, str) else conv.padding
        if (
            type(conv) not in (nn.Conv2d, Conv2dSame)
            or not 1 < conv.groups == conv.in_channels == conv.out_channels
            or (side, stride) != (other, across)
            or side % 2 == 0
            or side == 1
            or conv.bias is not None
            or conv.dilation != (1, 1)
            or conv.padding_mode != "zeros"
            or isinstance(conv.padding, str)
            or not padding[0] == padding[-1] < side
        ):
            return None
        own = cls(conv.groups, conv.groups, side, stride, padding[0], groups=conv.groups, bias=False)
        own.weight, own.same = conv.weight, isinstance(conv, Conv2dSame)
        return own.train(conv.training)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H', W']."""
        stride, padding = self.stride[0], int(self.padding[0])
        if self.same:
            maps = pad_same(maps, list(self.kernel_size), list(self.stride))
        weight = self.weight
        if maps.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            maps, weight = (t.to(torch.get_autocast_dtype("cpu")) for t in (maps, weight))
        slow = maps.device.type == "cpu" and weight.dtype == torch.bfloat16  # PyTorch's float32 backward is quick
        if not slow or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return nn.functional.conv2d(maps, weight, None, stride, padding, 1, self.groups)
        return _Depthwise.apply(maps, weight, stride, padding)  # type: ignore[no-any-return]
