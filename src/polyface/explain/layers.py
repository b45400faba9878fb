"""The maps inside a network by name, and one of them caught on its way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError, check_names
from polyface.networks.graph import AnyNode
from polyface.networks.network import FaceNetwork
from polyface.networks.shapes import Shape

TRUNK = "trunk"


def map_names(network: FaceNetwork) -> list[str]:
    """The names of all maps [B, C, h, w]: "trunk.stage1" …, and "emotion.block1" … of a part that declares them. Those
    of one owner are in the order in which it declares them, the last one at the end."""
    return [f"{owner}.{name}" if name else owner for owner in _owners(network) for name in _maps_of(network, owner)]


def map_named(network: FaceNetwork, name: str) -> str:
    """The map of a name; of an owner's name alone, "trunk" or a part's, its last one.

    Raises:
        PolyfaceError: nothing has that name, or what has it holds no map.
    """
    own = {owner: maps for owner in _owners(network) if (maps := _maps_of(network, owner))}
    check_names([name], dict.fromkeys([*own, *map_names(network)]), "layer")
    return _full(name, own[name][-1]) if name in own else name


def map_before(network: FaceNetwork, node: AnyNode) -> str:
    """The last map on the way to a head or embedding: of the part nearest to it that declares one (such as a column of
    its own), or else the trunk's.

    Raises:
        PolyfaceError: neither declares any.
    """
    parts = [one.name for one in network.graph.needed([node], routing=False) if one.kept_in == "branches"]
    for owner in (*reversed(parts), TRUNK):
        if maps := _maps_of(network, owner):
            return _full(owner, maps[-1])
    raise PolyfaceError("the network names no map of its trunk or parts, and an explanation by a layer needs one")


def _owners(network: FaceNetwork) -> list[str]:
    return [TRUNK, *network.graph.parts]


def _maps_of(network: FaceNetwork, owner: str) -> list[str]:
    """The names of an owner's maps, as it has them, the last in its order last; what it ends in, if that is a map, is
    named "shared" by a trunk and "" by a part."""
    module = network.trunk if owner == TRUNK else network.branches[owner]
    shapes: Mapping[str, Shape] = module.maps  # type: ignore[assignment]  # declared by all
    names = [name for name, shape in shapes.items() if shape.stride]
    end = "shared" if owner == TRUNK else ""
    return [*(name for name in names if name != end), *(name for name in names if name == end)]


def _full(owner: str, name: str) -> str:
    return f"{owner}.{name}" if name else owner


@contextmanager
def caught(network: FaceNetwork, name: str) -> Iterator[dict[str, Tensor]]:
    """While this lasts, every forward pass of the network leaves its map of that name here."""
    owner, _, inner = name.partition(".")
    module: nn.Module = network.trunk if owner == TRUNK else network.branches[owner]
    found: dict[str, Tensor] = {}

    def keep(_: nn.Module, __: Sequence[Any], given: Any) -> None:
        found[name] = given if isinstance(given, Tensor) else given[inner]

    hook = module.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def asked(network: FaceNetwork) -> Iterator[None]:
    """The network in evaluation mode and with gradients, whatever it was in; afterwards it is as it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
