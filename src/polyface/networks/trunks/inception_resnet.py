"""Inception-ResNet-v1 (Szegedy et al. 2017) as facenet has it: the trunk of Ming et al. 2021, and its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape

EPSILON = 1e-3
MOMENTUM = 0.005  # TensorFlow's decay .995: PyTorch's momentum is what a new batch weighs
SMALLEST = 75

Kernel = int | tuple[int, int]
Layers = Sequence[tuple[int, Kernel]]
"""Channels and kernel of convolutions one after another."""


def convolution(channels: int, width: int, kernel: Kernel = 1, stride: int = 1, pad: bool = True) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; `pad` (odd kernels): to the size of its input, at stride 1."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (rows // 2, columns // 2) if pad else 0
    return nn.Sequential(
        nn.Conv2d(channels, width, (rows, columns), stride, padding, bias=False),
        nn.BatchNorm2d(width, eps=EPSILON),
        nn.ReLU(inplace=True),
    )


def tower(channels: int, layers: Layers, stride: int = 1) -> nn.Sequential:
    """Padded convolutions one after another; with a stride above 1, the last has it and is not padded."""
    widths = [channels, *(width for width, _ in layers)]
    last = len(layers) - 1
    return nn.Sequential(
        *(
            convolution(widths[i], width, kernel, stride if i == last else 1, pad=stride == 1 or i < last)
            for i, (width, kernel) in enumerate(layers)
        )
    )


class InceptionBlock(nn.Module):
    """x + scale · U(towers(x)), then ReLU unless `relu` is false: [B, C, H, W] → the same.

    The towers' maps are joined and brought back to C channels by U, a 1×1 convolution with bias and no batch norm.
    """

    def __init__(self, channels: int, towers: Sequence[Layers], scale: float, relu: bool = True) -> None:
        super().__init__()
        self.towers = nn.ModuleList(tower(channels, layers) for layers in towers)
        self.up = nn.Conv2d(sum(layers[-1][0] for layers in towers), channels, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        change = self.up(torch.cat([tower(x) for tower in self.towers], 1))
        x = torch.add(x, change, alpha=self.scale)
        return x.relu_() if self.relu else x


def block35(channels: int) -> InceptionBlock:
    return InceptionBlock(channels, [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (32, 3), (32, 3)]], scale=0.17)


def block17(channels: int) -> InceptionBlock:
    return InceptionBlock(channels, [[(128, 1)], [(128, 1), (128, (1, 7)), (128, (7, 1))]], scale=0.10)


def block8(channels: int, scale: float = 0.20, relu: bool = True) -> InceptionBlock:
    towers: list[Layers] = [[(192, 1)], [(192, 1), (192, (1, 3)), (192, (3, 1))]]
    return InceptionBlock(channels, towers, scale, relu)


class Reduction(nn.Module):
    """Towers of stride 2 beside a 3×3 maximum of stride 2, joined: [B, C, H, W] → [B, C + towers', (H−1)//2, …]."""

    def __init__(self, channels: int, towers: Sequence[Layers]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(tower(channels, layers, stride=2) for layers in towers)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(tower(x) for tower in self.towers), self.pool(x)], 1)


def start_as_facenet(module: nn.Module, momentum: float) -> None:
    """Xavier weights, biases of 0, and the momentum of every batch norm."""
    if not 0 < momentum <= 1:
        raise PolyfaceError(f"momentum of batch norm is {momentum}; expected above 0, at most 1")
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class InceptionResNet(nn.Module):
    """Inception-ResNet-v1 up to Reduction-B: what the branches of Ming et al. 2021 share (spec 2.2, after their code).

    repeats: Block35s and Block17s. (1, 1) is the paper's, 6,439,296 parameters; (5, 10) facenet's original. size: input
    side in pixels, at least 75; the shared map Z is 1792×3×3 at 160 (139 … 170), 2×2 from 107, 1×1 below. momentum: of
    batch norm, 0.005 for TensorFlow's decay .995, which takes many hundred steps to forget the start: short runs want
    more. Batch norm has a scale, which the code leaves out and the parameter count includes.
    """

    any_size = True
    maps: Mapping[str, Shape] = {
        "conv1": Shape(32, 2), "conv2": Shape(32, 2), "conv3": Shape(64, 2),
        "maxpool1": Shape(64, 4), "conv4": Shape(80, 4), "conv5": Shape(192, 4),
        "conv6": Shape(256, 8), "inception1": Shape(256, 8), "inception2": Shape(896, 16),
        "inception3": Shape(896, 16), "inception4": Shape(1792, 32), "shared": Shape(1792, 32),
    }  # fmt: skip

    def __init__(
        self, size: int = 160, channels: int = 3, repeats: Sequence[int] = (1, 1), momentum: float = MOMENTUM
    ) -> None:
        super().__init__()
        if size < SMALLEST:
            raise PolyfaceError(f"size is {size}, which leaves no map; expected {SMALLEST} or more")
        if not isinstance(repeats, list | tuple) or len(repeats) != 2 or min(repeats) < 0:
            raise PolyfaceError(
                f"repeats is {repeats}; expected how many Block35 and Block17, "
                "[1, 1] for the paper, [5, 10] for facenet"
            )
        self.size, self.in_channels = size, channels
        stages: dict[str, nn.Module] = {
            "conv1": convolution(channels, 32, 3, stride=2, pad=False),
            "conv2": convolution(32, 32, 3, pad=False),
            "conv3": convolution(32, 64, 3),
            "maxpool1": nn.MaxPool2d(3, 2),
            "conv4": convolution(64, 80),
            "conv5": convolution(80, 192, 3, pad=False),
            "conv6": convolution(192, 256, 3, stride=2, pad=False),
            "inception1": nn.Sequential(*(block35(256) for _ in range(repeats[0]))),
            "inception2": Reduction(256, [[(384, 3)], [(192, 1), (192, 3), (256, 3)]]),
            "inception3": nn.Sequential(*(block17(896) for _ in range(repeats[1]))),
            "inception4": Reduction(896, [[(256, 1), (384, 3)], [(256, 1), (256, 3)], [(256, 1), (256, 3), (256, 3)]]),
        }
        self.stages = nn.ModuleDict(stages)
        start_as_facenet(self, momentum)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, C, size, size] → {"conv1" … "inception4": maps as in Table 1, "shared": the last}."""
        x = images.to(memory_format=torch.channels_last)
        maps: dict[str, Tensor] = {}
        for name, stage in self.stages.items():
            x = maps[name] = stage(x)
        return maps | {"shared": x}
