"""dlib's face recognition network as a trunk and a branch: 29 convolutions, trained by its author on 3 M photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyface.errors import PolyfaceError
from polyface.networks.layers import PartlyFrozen, freeze
from polyface.networks.shapes import Shape

SIDE = 150  # of the pictures that the published weights were trained on
LEVELS = ((32, 3), (64, 4), (128, 3), (256, 3))
"""Channels and blocks of the trunk's levels; each but the first halves the map."""
WIDTH = LEVELS[-1][0]
MEANS = (122.782, 117.001, 104.298)  # of red, green and blue, subtracted before all is divided by 256


class Unit(nn.Module):
    """A convolution and its batch norm."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2 if stride == 1 else 0)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]

    @torch.no_grad()
    def unfold(self, mean: Tensor, var: Tensor) -> None:
        """Let the batch norm, which scales and shifts alone so far, normalise by these statistics [C] of what it reads,
        with the same answers; and bring the convolution to the deviation that He et al. 2015 start from."""
        norm, held = self.norm, (self.norm.running_mean, self.norm.running_var)
        assert held[0] is not None  # they track statistics
        assert held[1] is not None
        gain = (2 / self.conv.weight[0].numel()) ** 0.5 / self.conv.weight.std()
        scale = norm.weight / (held[1] + norm.eps).sqrt()
        norm.bias.add_(scale * (mean - held[0]))
        norm.weight.copy_(scale * (var + norm.eps / gain**2).sqrt())
        held[0].copy_(mean * gain)
        held[1].copy_(var * gain**2)
        self.conv.weight.mul_(gain)
        if self.conv.bias is not None:
            self.conv.bias.mul_(gain)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the map itself. With `down` the first has stride 2 and no padding, and the map beside
    it is averaged by 2×2; as in dlib, the smaller of the two is filled up with zeros below and to the right."""

    def __init__(self, channels: int, width: int, down: bool = False) -> None:
        super().__init__()
        self.first, self.second = Unit(channels, width, 3, 2 if down else 1), Unit(width, width, 3)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        change = self.second(self.first(x).relu())
        if self.down:
            x = F.avg_pool2d(x, 2)
            shape = [max(a, b) for a, b in zip(x.shape[1:], change.shape[1:], strict=True)]
            x, change = _filled(x, shape), _filled(change, shape)
        return torch.relu(x + change)


def _filled(x: Tensor, shape: Sequence[int]) -> Tensor:
    channels, rows, columns = (wanted - has for wanted, has in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, columns, 0, rows, 0, channels)) if channels or rows or columns else x


def level(channels: int, width: int, blocks: int, down: bool) -> nn.Sequential:
    """Residual blocks one after another, of which the first may halve the map."""
    return nn.Sequential(*(ResidualBlock(channels if i == 0 else width, width, down and i == 0) for i in range(blocks)))


class FaceResNet(PartlyFrozen):
    """dlib's network but for its last level, which is a branch of kind "residual" (King 2017, dlib.net).

    size: input side in pixels; a picture of another side than 150 is enlarged or shrunk to that, which the published
    weights expect. frozen: names of modules (stem, levels.0 …) that stay as they start. Pixels are expected as they
    are (normalise: {mean: 0, std: 1}). The shared map is [B, 256, 4, 4]; with the branch 5.6 M parameters.
    """

    in_channels, any_size = 3, True  # any picture is brought to `SIDE`
    means: Tensor

    def __init__(self, size: int = SIDE, frozen: Sequence[str] = ()) -> None:
        super().__init__()
        if size < 32:
            raise PolyfaceError(f"size is {size}; expected 32 or more (its network sees {SIDE})")
        self.size = size
        self.maps = {f"level{number}": Shape(width, 2 << number) for number, (width, _) in enumerate(LEVELS, 1)}
        self.maps["shared"] = Shape(WIDTH, 2 << len(LEVELS))
        self.stem = Unit(3, 32, 7, 2)
        widths = [32, *(width for width, _ in LEVELS)]
        self.levels = nn.Sequential(
            *(level(widths[i], width, blocks, down=i > 0) for i, (width, blocks) in enumerate(LEVELS))
        )
        self.register_buffer("means", torch.tensor(MEANS).view(3, 1, 1), persistent=False)
        self.frozen = freeze(self, frozen)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pixels [B, 3, size, size] in 0..255 → {"level1" …: maps, "shared": the last [B, 256, 4, 4]}."""
        x = images.to(memory_format=torch.channels_last)
        if x.shape[-1] != SIDE:
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = F.max_pool2d(self.stem((x - self.means) / 256).relu(), 3, 2)
        maps: dict[str, Tensor] = {}
        for number, blocks in enumerate(self.levels, 1):
            x = maps[f"level{number}"] = blocks(x)
        return maps | {"shared": x}

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the published weights (`polyface.networks.pretrained.dlib`)."""
        self.load_state_dict({name: weights[name] for name in self.state_dict()})


@torch.no_grad()
def unfold(network: nn.Module, images: Tensor, kept: Sequence[nn.Module] = ()) -> None:
    """Give every batch norm of a network's `Unit`s the statistics that it would have, over images [B, C, S, S].

    The published weights hold none: they were folded into scale and shift, so that a step of training with batch
    statistics would begin from another function. Afterwards the answers are what they were. kept: modules whose norms
    stay as they are.
    """
    with _statistics(network) as found:
        network.eval()(images)
    left = {module for one in kept for module in one.modules()}
    for unit, (mean, var) in found.items():
        if unit not in left:
            unit.unfold(mean, var)


@contextmanager
def _statistics(network: nn.Module) -> Iterator[dict[Unit, tuple[Tensor, Tensor]]]:
    """Mean and variance over all places of what each unit's batch norm reads."""
    found: dict[Unit, tuple[Tensor, Tensor]] = {}
    training, hooks = network.training, []

    def watch(unit: Unit) -> None:
        def look(_: nn.Module, given: tuple[Tensor]) -> None:
            found[unit] = given[0].float().mean((0, 2, 3)), given[0].float().var((0, 2, 3), correction=0)

        hooks.append(unit.norm.register_forward_pre_hook(look))

    for module in network.modules():
        if isinstance(module, Unit):
            watch(module)
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
