"""One network, many heads: trunk → shared features (→ branches) → a linear head a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError, nearest
from polyface.networks.branches import GroupedHead, build_branches, embeddings
from polyface.networks.layers import CosineLinear


@dataclass
class FaceOutput:
    """What the network says: shared [B, D] (a map [B, D, h, w] where branches read it), outputs[task] [B, output_dim],
    embeddings[branch] [B, E], ready to be compared as the branch's `similarity` says."""

    shared: Tensor
    outputs: dict[str, Tensor]
    embeddings: dict[str, Tensor] = field(default_factory=dict)


class FaceNetwork(nn.Module):
    """A trunk, branches if there are any, and one linear head a task, normalisation included.

    trunk: maps normalised images [B, C, S, S] to named feature maps, of which "shared" is [B, D], or [B, D, h, w] for
    branches to pool. heads: task → output_dim, on the shared features; or {branch: places}, which outputs of the task
    come from which branch. cosine: tasks whose outputs are cosines. embeddings: by branch, what of it can be compared
    between faces. mean, std: of pixel values 0..255, subtracted and divided here, so that a network is whole without
    the code that trained it. `config` rebuilds it: `build(network.config)`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.trunk = trunk
        self.config: dict[str, Any] = dict(config)
        chosen = self.config.get("branches", {})
        self.branches = build_branches(chosen, self.shared_dim)
        self.embeddings = embeddings(chosen, self.branches)
        self.heads = nn.ModuleDict({name: self._head(name, head) for name, head in self.config["heads"].items()})
        normalise = self.config.get("normalise", {})
        self.register_buffer("mean", torch.tensor(float(normalise.get("mean", 127.5))), persistent=False)
        self.register_buffer("std", torch.tensor(float(normalise.get("std", 128.0))), persistent=False)

    def _head(self, name: str, head: int | Mapping[str, Sequence[int]]) -> nn.Module:
        cosine = name in self.config.get("cosine", ())
        if isinstance(head, Mapping):
            widths = {branch: int(module.out_dim) for branch, module in self.branches.items()}  # type: ignore[arg-type]
            if unknown := [branch for branch in head if branch not in widths]:
                raise PolyfaceError(f"network.heads.{name} names '{unknown[0]}'; {nearest(unknown[0], widths)}")
            return GroupedHead(widths, head, cosine)
        return (CosineLinear if cosine else nn.Linear)(self.shared_dim, head)

    def embedding_of(self, task: str) -> str | None:
        """The branch whose embedding a task's answer comes from; None where it reads none, or several branches."""
        head = self.config["heads"][task]
        read = list(head) if isinstance(head, Mapping) else []
        return read[0] if len(read) == 1 and read[0] in self.embeddings else None

    @property
    def shared_dim(self) -> int:
        return int(self.trunk.shared_dim)  # type: ignore[arg-type]

    @property
    def size(self) -> int:
        return int(self.trunk.size)  # type: ignore[arg-type]

    @property
    def channels(self) -> int:
        return int(self.trunk.in_channels)  # type: ignore[arg-type]

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Images [B, C, S, S], uint8 or float in 0..255 → the trunk's named maps."""
        return self.trunk((images.float() - self.mean) / self.std)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> FaceOutput:
        """Images [B, C, S, S], uint8 or float in 0..255 → FaceOutput; every head is evaluated every time."""
        shared = self.features(images)["shared"]
        if self.branches and shared.ndim != 4:
            raise PolyfaceError(
                "network.branches need the trunk's last map, not a vector: set network.trunk.pool to map"
            )
        branches = {name: branch(shared).float() for name, branch in self.branches.items()}
        with torch.autocast(shared.device.type, enabled=False):  # bfloat16 coordinates would be 0.3 % of a crop apart
            if not branches:
                shared = shared.float()
            given = {name: branches if isinstance(head, GroupedHead) else shared for name, head in self.heads.items()}
            outputs = {name: head(given[name]) for name, head in self.heads.items()}
            return FaceOutput(shared, outputs, {name: form(branches[name]) for name, form in self.embeddings.items()})


def _trunks() -> dict[str, Any]:
    from importlib.metadata import entry_points

    from polyface.networks.trunks.face_resnet import FaceResNet
    from polyface.networks.trunks.inception_resnet import InceptionResNet
    from polyface.networks.trunks.tcdcn import TCDCN

    def timm_trunk(**options: Any) -> nn.Module:
        from polyface.networks.trunks.timm_trunk import TimmTrunk

        return TimmTrunk(**options)

    found: dict[str, Any] = {"tcdcn": TCDCN, "timm": timm_trunk}
    found |= {"face-resnet": FaceResNet, "inception-resnet": InceptionResNet}
    return found | {p.name: p.load() for p in entry_points(group="polyface.trunks")}


def build(config: Mapping[str, Any]) -> FaceNetwork:
    """A network from its config: {"trunk": {"name", options}, "branches": {name: options}, "heads": {task: dim or
    {branch: places}}, "cosine": [tasks], "normalise": {"mean", "std"}}."""
    options = dict(config["trunk"])
    name, known = str(options.pop("name", "")), _trunks()
    if name not in known:
        raise PolyfaceError(f"network.trunk.name is '{name}'; {nearest(name, known)}")
    try:
        trunk = known[name](**options)
    except TypeError as error:
        raise PolyfaceError(f"network.trunk ({name}): {str(error).split('() ')[-1]}") from error
    # channels-last weights make every convolution's output channels-last: twice as fast in bfloat16 on a CPU
    return FaceNetwork(trunk, config).to(memory_format=torch.channels_last)
