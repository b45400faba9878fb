"""Inception-ResNet-v1 by the names of facenet-pytorch, whose weights are a user's own to fetch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.network import FaceNetwork
from polyface.networks.parts.inception import InceptionPart
from polyface.networks.trunks.inception_resnet import InceptionBlock, InceptionResNet, Reduction

STEM = {
    "conv1": "conv2d_1a", "conv2": "conv2d_2a", "conv3": "conv2d_2b",
    "conv4": "conv2d_3b", "conv5": "conv2d_4a", "conv6": "conv2d_4b",
}  # fmt: skip
REPEATED = {"inception1": "repeat_1", "inception3": "repeat_2"}
REDUCTIONS = {"inception2": "mixed_6a", "inception4": "mixed_7a"}
NORM_EPSILON = 1e-3  # of last_bn


class FacenetTensors:
    """The tensors of a file, given to the modules of a network of ours. source: what errors call it."""

    def __init__(self, source: str, tensors: Mapping[str, Tensor]) -> None:
        self.source, self.tensors = source, tensors

    def start(self, network: FaceNetwork, parts: Sequence[str]) -> None:
        """Copy them over the trunk and, where they are asked for, over all branches.

        The layer to an embedding of 512 numbers has no bias there and a batch norm behind it: here it has what both do
        in evaluation. The layer that names people is left out.
        """
        trunk, branches = network.trunk, list(network.branches.values()) if "branches" in parts else []
        wrong = not isinstance(trunk, InceptionResNet) or not all(isinstance(one, InceptionPart) for one in branches)
        if wrong or "heads" in parts or "trunk" not in parts:
            raise PolyfaceError(
                f"init.source {self.source} is for trunk inception-resnet and branches of kind inception: init.parts "
                "are [trunk] or [trunk, branches]"
            )
        assert isinstance(trunk, InceptionResNet)
        for key, module in trunk.stages.items():
            if key in STEM:
                self._unit(module, STEM[key])
            elif key in REDUCTIONS:
                self._towers(module, REDUCTIONS[key])
            elif key in REPEATED:
                self._repeated(list(module.children()), REPEATED[key], "network.trunk.repeats to [5, 10]")
        for part in branches:
            assert isinstance(part, InceptionPart)
            *repeated, last = part.blocks
            self._repeated(repeated, "repeat_3", "blocks of the branches to 5")
            self._towers(last, "block8")
            if isinstance(part.bottleneck, nn.Linear):
                part.bottleneck.load_state_dict(self._bottleneck(part.bottleneck.out_features))

    def _take(self, name: str, like: Tensor) -> Tensor:
        if name not in self.tensors:
            raise PolyfaceError(f"{self.source}: has no {name}: not the weights of facenet-pytorch's InceptionResnetV1")
        found = self.tensors[name]
        if found.shape != like.shape:
            raise PolyfaceError(f"{self.source}: {name} is {list(found.shape)}; expected {list(like.shape)}")
        return found

    def _load(self, module: nn.Module, name: str) -> None:
        """Give a module without others in it its tensors, which are there under that name."""
        own = module.state_dict()
        module.load_state_dict({key: self._take(f"{name}.{key}", value) for key, value in own.items()})

    def _unit(self, module: nn.Module, name: str) -> None:
        """A convolution, its batch norm, ReLU."""
        convolution, norm, _ = module.children()
        self._load(convolution, f"{name}.conv")
        self._load(norm, f"{name}.bn")

    def _towers(self, module: nn.Module, name: str) -> None:
        assert isinstance(module, InceptionBlock | Reduction)
        for number, tower in enumerate(module.towers):
            for unit, place in _places(tower, f"{name}.branch{number}"):
                self._unit(unit, place)
        if isinstance(module, InceptionBlock):
            self._load(module.up, f"{name}.conv2d")

    def _repeated(self, blocks: Sequence[nn.Module], name: str, needed: str) -> None:
        there = len({key.split(".")[1] for key in self.tensors if key.startswith(f"{name}.")})
        if there and len(blocks) != there:
            raise PolyfaceError(f"{self.source}: {name} is {there} blocks, and here are {len(blocks)}: set {needed}")
        for number, block in enumerate(blocks):
            self._towers(block, f"{name}.{number}")

    def _bottleneck(self, length: int) -> dict[str, Tensor]:
        """The last layer with the batch norm behind it, as one layer."""
        weight = self.tensors.get("last_linear.weight")
        if weight is not None and weight.ndim == 2 and len(weight) != length:
            raise PolyfaceError(f"{self.source} has a bottleneck of {len(weight)}, not {length}: set it so, or to null")
        like = torch.zeros(length)
        scale, shift, mean, var = (
            self._take(f"last_bn.{name}", like) for name in ("weight", "bias", "running_mean", "running_var")
        )
        gain = scale / (var + NORM_EPSILON).sqrt()
        last = self._take("last_linear.weight", torch.zeros(length, 1792))
        return {"weight": gain[:, None] * last, "bias": shift - gain * mean}


def _places(tower: nn.Module, name: str) -> Iterator[tuple[nn.Module, str]]:
    """The units of a tower by their names there: a tower of one is no list."""
    units = list(tower.children())
    for number, unit in enumerate(units):
        yield unit, name if len(units) == 1 else f"{name}.{number}"
