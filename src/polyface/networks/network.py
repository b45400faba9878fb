"""One network, many answers: trunk → parts → heads, an ordered graph that is walked once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError
from polyface.networks.graph import AnyNode, Graph
from polyface.networks.heads import Embedding
from polyface.networks.layers import PartlyFrozen, fingerprint
from polyface.networks.routing import Walk
from polyface.networks.shapes import Shape, declared
from polyface.networks.trunks import TRUNKS


@dataclass
class FaceOutput:
    """What the network says: shared [B, D], or a map [B, D, h, w] where the trunk ends in one; outputs[task]
    [B, output_dim]; embeddings[name] [B, E], ready to be compared as the embedding's `similarity` says."""

    shared: Tensor
    outputs: dict[str, Tensor]
    embeddings: dict[str, Tensor] = field(default_factory=dict)


class FaceNetwork(PartlyFrozen):
    """A trunk, parts that read it or each other, and a linear head a task, normalisation included.

    `config` (see `build`) is kept as it was given and rebuilds the network: `build(network.config)`. `graph` is how it
    was understood. All parts are in `branches`, whatever key declared them, so that names of tensors stay.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.trunk = trunk
        self.config, self.graph = dict(config), Graph(config)
        self.branches, self.heads = nn.ModuleDict(), nn.ModuleDict()
        self.embeddings: dict[str, Embedding] = {}
        normalise = self.config.get("normalise", {})
        self.per_image = _per_image(normalise)
        self.register_buffer("mean", _by_channel("mean", normalise.get("mean", 127.5), self.channels), persistent=False)
        self.register_buffer("std", _by_channel("std", normalise.get("std", 128.0), self.channels), persistent=False)
        shapes = declared(trunk, "trunk", "shared", "network.trunk")
        if not all(part.any_size for part in self.graph.parts.values()):
            shapes = self._measured(shapes)
        frozen = [trunk] if self.config.get("trunk", {}).get("frozen") is True else []
        for node in self.graph.order:
            getattr(self, node.kept_in)[node.name] = node.build(shapes)
            frozen += [getattr(self, node.kept_in)[node.name]] if node.frozen else []
        self.frozen = [module.requires_grad_(False).eval() for module in frozen]

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        routes: Mapping[str, Tensor] | None = None,
        nodes: Sequence[AnyNode] | None = None,
    ) -> FaceOutput:
        """Images [B, C, S, S], uint8 or float in 0..255 → FaceOutput; every part and head is computed every time.

        In place of images, what `features` made of them: those of `trunk_maps`.

        routes: prepared labels [B] of the tasks in `routed_by`, −1 where there is none: there, and without routes, the
        network's own answer says in whose rows a face is. nodes: all that is computed (`nodes_for`); by default the
        whole graph.
        """
        maps = self.features(images) if isinstance(images, Tensor) else images
        shared = maps["shared"].float() if maps["shared"].ndim == 2 else maps["shared"]
        walk = Walk({"trunk": shared} | {f"trunk.{name}": values for name, values in maps.items()}, routes or {})
        for node in self.graph.order if nodes is None else nodes:
            node.step(getattr(self, node.kept_in)[node.name], walk)
        return FaceOutput(shared, walk.outputs, walk.embeddings)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Images [B, C, S, S], uint8 or float in 0..255 → the trunk's maps by name."""
        return self.trunk(self._normalised(images.float()))  # type: ignore[no-any-return]

    def _normalised(self, images: Tensor) -> Tensor:
        if not self.per_image:
            return (images - self.mean) / self.std
        apart = images - images.mean((1, 2, 3), keepdim=True)
        least = 1 / images[0].numel()  # of a picture of one colour: TensorFlow's per_image_standardization
        return apart / apart.square().mean((1, 2, 3), keepdim=True).clamp(min=least).sqrt()

    @property
    def trunk_maps(self) -> list[str]:
        """The names of those of the trunk's maps that are read."""
        reads = (read.partition(".") for node in self.graph.order for read in node.reads)
        return sorted({"shared"} | {name for owner, _, name in reads if owner == "trunk" and name})

    def nodes_for(self, tasks: Collection[str]) -> list[AnyNode]:
        """What the outputs and embeddings of these tasks need, and all that learns, in the order of the walk."""
        wanted = {*tasks, *map(self.embedding_of, tasks)}
        ends: list[AnyNode] = [*self.graph.heads.values(), *self.graph.embeddings.values()]
        needed = self.graph.needed(node for node in ends if node.name in wanted or self._learns(node))
        places = {node.where for node in needed}
        return [node for node in self.graph.order if node.where in places]

    def _learns(self, node: AnyNode) -> bool:
        """Whether a parameter learns of a node, or of what it reads."""
        read = [getattr(self, one.kept_in)[one.name] for one in self.graph.needed([node], routing=False)]
        modules = [self.trunk, *(one for one in read if isinstance(one, nn.Module))]
        return any(p.requires_grad for module in modules for p in module.parameters())

    def grounds(self, part: str) -> dict[str, str]:
        """What a part stands on, the trunk and all parts that it reads, and it itself, by name: 64 hex digits each."""
        normalise = "per image" if self.per_image else [self.mean.tolist(), self.std.tolist()]
        told = {"normalise": normalise, "trunk": type(self.trunk).__name__}
        read = self.graph.needed([self.graph.parts[part]], routing=False)
        return {"trunk": fingerprint(self.trunk, told)} | {
            node.name: fingerprint(self.branches[node.name], {}) for node in read
        }

    def embedding_of(self, task: str) -> str | None:
        """The embedding of a task: that of its name, or of the one part that it reads; None where there is neither."""
        if task in self.embeddings:
            return task
        reads = self.graph.heads[task].reads
        return reads[0] if len(reads) == 1 and reads[0] in self.embeddings else None

    def output_layer(self, task: str) -> tuple[nn.Module, tuple[str, ...], str]:
        """(what gives a task's outputs, the names of what it reads, how these are merged): the head; or, of a head
        without a layer, the fully connected part that it reads."""
        head = self.graph.heads[task]
        part = self.graph.parts.get(head.reads[0]) if head.layer == "none" and len(head.reads) == 1 else None
        layer = getattr(self.branches[part.name], "layer", None) if part else None
        if part is None or layer is None:
            return self.heads[task], head.reads, head.join.merge
        return layer, part.reads, "concat"

    @property
    def own_embeddings(self) -> list[str]:
        """The embeddings that are no task's."""
        read = {self.embedding_of(task) for task in self.heads}
        return [name for name in self.embeddings if name not in read]

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters that learn and that tasks share: the trunk's, and those of parts that two or more read."""
        readers = Counter(
            node.where for head in self.graph.heads.values() for node in self.graph.needed([head], routing=False)
        )
        shared = [self.branches[name] for name, part in self.graph.parts.items() if readers[part.where] > 1]
        return [p for module in (self.trunk, *shared) for p in module.parameters() if p.requires_grad]

    @property
    def routed_by(self) -> list[str]:
        """The tasks by whose answers parts are routed."""
        return list(dict.fromkeys(part.rows.task for part in self.graph.parts.values() if part.rows))

    @property
    def any_size(self) -> bool:
        """Whether pictures of other sides than `size` may be given."""
        return bool(getattr(self.trunk, "any_size", False)) and all(
            getattr(part, "any_size", True) for part in self.branches.values()
        )

    @property
    def shared_dim(self) -> int:
        return int(self.trunk.maps["shared"].channels)  # type: ignore[index, union-attr]

    def shared_shape(self) -> list[int]:
        """The shape of what the trunk ends in, for one picture: [D], or [D, h, w]."""
        return list(self._looked()["shared"].shape[1:])

    @torch.no_grad()
    def _looked(self) -> dict[str, Tensor]:
        """The trunk's maps of one empty picture, of which nothing in it takes notice."""
        modes = [(module, module.training) for module in self.trunk.modules()]
        self.trunk.eval()
        maps = self.features(self.mean.new_zeros(1, self.channels, self.size, self.size))
        for module, mode in modes:
            module.training = mode
        return maps

    def _measured(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """The shapes of the trunk's maps with their sides."""
        found = self._looked()
        maps = {"trunk": found["shared"]} | {f"trunk.{name}": values for name, values in found.items()}
        return {
            name: replace(shape, side=maps[name].shape[-1]) if shape.stride else shape for name, shape in shapes.items()
        }

    @property
    def size(self) -> int:
        return int(self.trunk.size)  # type: ignore[arg-type]

    @property
    def channels(self) -> int:
        return int(self.trunk.in_channels)  # type: ignore[arg-type]


def _per_image(normalise: Mapping[str, Any]) -> bool:
    """Whether each picture is normalised by its own mean and deviation."""
    if "per" not in normalise:
        return False
    if normalise["per"] != "image":
        raise PolyfaceError(f"network.normalise.per is {normalise['per']!r}; expected image, or mean and std instead")
    if others := normalise.keys() - {"per"}:
        raise PolyfaceError(f"network.normalise: per: image leaves nothing to {min(others)}; leave one of them out")
    return True


def _by_channel(name: str, given: float | Sequence[float], channels: int) -> Tensor:
    """A mean or standard deviation of pixel values: one number, or [C, 1, 1] of one a channel."""
    numbers: Sequence[Any] = given if isinstance(given, list | tuple) else [given] * channels
    sound = all(isinstance(one, int | float) and math.isfinite(one) and (one > 0 or name == "mean") for one in numbers)
    if not sound or len(numbers) != channels:
        expected = "a finite number" if name == "mean" else "a finite number above 0"
        raise PolyfaceError(f"network.normalise.{name} is {given!r}; expected {expected}, or a list of {channels}")
    values = torch.tensor([float(one) for one in numbers])
    return values.view(-1, 1, 1) if numbers is given else values[0]


def build(config: Mapping[str, Any]) -> FaceNetwork:
    """A network from its config, which is a recipe's `network` with heads as numbers:

    trunk: {name, options…, frozen: true}. parts (or branches, as older configs say): name → {kind, options…, reads,
    frozen, rows: {task, classes}, similarity}. heads: task → the number of its outputs on the trunk's vector, {part:
    places of its outputs} or {reads (or of), merge, outputs, layer}, both with frozen. embeddings: name, that of a task
    or another → {reads, merge, similarity}. cosine: tasks whose outputs are cosines. normalise: {mean, std} of pixel
    values 0..255, subtracted and divided here so that a network is whole without the code that trained it; numbers or
    lists of one a channel; or {per: image}, every picture's own.

    Raises:
        PolyfaceError: what is wrong, by the recipe's key.
    """
    options = dict(config["trunk"])
    name = str(options.pop("name", ""))
    if isinstance(options.get("frozen"), bool):  # the whole trunk, which is the network's to keep
        del options["frozen"]
    trunk = TRUNKS.make(name, options, where="network.trunk", named="network.trunk.name", beside=("name", "frozen"))
    # channels-last weights make every convolution's output channels-last: twice as fast in bfloat16 on a CPU
    return FaceNetwork(trunk, config).to(memory_format=torch.channels_last)
