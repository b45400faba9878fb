"""What stands between a trunk's map and the heads of a group of answers, and what of it can be compared."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError, nearest
from polyface.networks.layers import CosineLinear
from polyface.networks.trunks.face_resnet import WIDTH, level
from polyface.networks.trunks.inception_resnet import MOMENTUM, block8, start_as_facenet

SIMILARITIES = ("cosine", "euclidean")


class SpatialPyramid(nn.Module):
    """Spatial pyramid pooling (He et al. 2014): maxima over an n×n grid of bins for n = 1 … levels, one after another.

    [B, C, H, W] of any size → [B, C · Σ n²], each level [C, n, n] in row order; the first C entries are the global
    maxima. Bins begin at floor(i·H/n) and end at ceil((i+1)·H/n), so those of a map smaller than n overlap. The pyramid
    is cumulative: Mao et al. 2020 have 14 · 2048 = 28,672 numbers at 3 levels.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 1:
            raise PolyfaceError(f"a spatial pyramid has at least 1 level, not {levels}")
        self.levels = levels
        self.bins = sum(n * n for n in range(1, levels + 1))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self._level(maps, n) for n in range(1, self.levels + 1)], 1)

    def _level(self, maps: Tensor, n: int) -> Tensor:
        # adaptive_max_pool2d has the same bins, but ONNX can only say it where n divides the map's sides
        rows, columns = ([(i * size // n, -(-(i + 1) * size // n)) for i in range(n)] for size in maps.shape[2:])
        bins = [maps[:, :, top:bottom, left:right].amax((2, 3)) for top, bottom in rows for left, right in columns]
        return torch.stack(bins, 2).flatten(1)


class PoolBranch(nn.Module):
    """A trunk's map [B, channels, H, W] → [B, out_dim]: pooling, then fully connected layers with ReLU.

    levels: of the spatial pyramid; 0: the average over the map. hidden: lengths of the fully connected layers (none:
    what was pooled goes to the heads), norm: each with batch norm before its ReLU, which short runs want. dropout: of
    what each of them reads, and of what the heads read.
    """

    def __init__(
        self, channels: int, levels: int = 1, hidden: Sequence[int] = (), dropout: float = 0.0, norm: bool = False
    ) -> None:
        super().__init__()
        self.pool: nn.Module = (
            SpatialPyramid(levels) if levels else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        )
        width = channels * (self.pool.bins if isinstance(self.pool, SpatialPyramid) else 1)
        layers: list[nn.Module] = []
        for length in hidden:
            layers += [nn.Dropout(dropout), nn.Linear(width, length), *[nn.BatchNorm1d(length)] * norm, nn.ReLU()]
            width = length
        self.fc = nn.Sequential(*layers, nn.Dropout(dropout))
        self.out_dim = width

    def forward(self, maps: Tensor) -> Tensor:
        return self.fc(self.pool(maps))  # type: ignore[no-any-return]


class InceptionBranch(nn.Module):
    """The last stage of Inception-ResNet-v1 on a trunk's map [B, channels, H, W] → [B, out_dim] (Ming et al. 2021).

    `blocks` Block8s (scale .20, ReLU; facenet's original has 5), one more of scale 1 without ReLU, the average over the
    map, dropout, and with `bottleneck` a linear layer to that length (without: as many numbers as the map has
    channels). A block's towers have 192 channels whatever the map's: with 1792 and one block 3,201,536 parameters. On a
    map of 1×1 the 1×3 and 3×1 convolutions see padding beside their middle. momentum: of batch norm.
    """

    def __init__(
        self,
        channels: int,
        blocks: int = 1,
        dropout: float = 0.5,
        bottleneck: int | None = None,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__()
        if blocks < 0 or (bottleneck is not None and bottleneck < 1):
            raise PolyfaceError(f"blocks is {blocks}, bottleneck {bottleneck}; expected 0 or more, 1 or more (or null)")
        self.blocks = nn.Sequential(*(block8(channels) for _ in range(blocks)), block8(channels, scale=1.0, relu=False))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.bottleneck = nn.Identity() if bottleneck is None else nn.Linear(channels, bottleneck)
        self.out_dim = bottleneck or channels
        start_as_facenet(self, momentum)

    def forward(self, maps: Tensor) -> Tensor:
        return self.bottleneck(self.pool(self.blocks(maps)))  # type: ignore[no-any-return]


class ResidualBranch(nn.Module):
    """The last level of dlib's network on the map of a trunk "face-resnet": a residual block that halves it, the
    average over what is left, dropout, and with `bottleneck` a linear layer without bias (dlib's has 128).

    [B, 256, 4, 4] → [B, 256] or [B, bottleneck]; without bottleneck 1.2 M parameters.
    """

    def __init__(self, channels: int, dropout: float = 0.0, bottleneck: int | None = None) -> None:
        super().__init__()
        if channels != WIDTH:
            raise PolyfaceError(f"kind residual reads a map of {WIDTH} channels, that of trunk face-resnet")
        self.blocks = level(channels, WIDTH, 1, down=True)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.bottleneck = nn.Identity() if bottleneck is None else nn.Linear(WIDTH, bottleneck, bias=False)
        self.out_dim = bottleneck or WIDTH

    def forward(self, maps: Tensor) -> Tensor:
        return self.bottleneck(self.pool(self.blocks(maps)))  # type: ignore[no-any-return]

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the published weights (`polyface.networks.pretrained.dlib`)."""
        own = self.state_dict()
        if "bottleneck.weight" in own and own["bottleneck.weight"].shape != weights["bottleneck.weight"].shape:
            raise PolyfaceError(f"dlib's network has a bottleneck of 128, not {self.out_dim}: set bottleneck to 128")
        self.load_state_dict({name: weights[name] for name in own})


KINDS: dict[str, type[nn.Module]] = {"pool": PoolBranch, "inception": InceptionBranch, "residual": ResidualBranch}


@dataclass(frozen=True)
class Embedding:
    """What of a branch is compared between faces, and how. dim: its length. similarity: "cosine", the features at
    length 1, compared by their product; "euclidean", the features as they are, compared by their distance."""

    dim: int
    similarity: str

    def __call__(self, features: Tensor) -> Tensor:
        """A branch's features [B, dim], as the heads read them, → the embedding [B, dim]."""
        return nn.functional.normalize(features, eps=1e-5) if self.similarity == "cosine" else features


class GroupedHead(nn.Module):
    """One task's outputs from several branches: a linear layer each, and every output in its own place.

    groups: branch → places of its outputs in the task's output, each place exactly once, so that the answer is in the
    data set's order whatever the groups. cosine: the outputs are cosines (`CosineLinear`).
    """

    order: Tensor

    def __init__(self, widths: Mapping[str, int], groups: Mapping[str, Sequence[int]], cosine: bool = False) -> None:
        super().__init__()
        places = [place for group in groups.values() for place in group]
        if sorted(places) != list(range(len(places))):
            raise PolyfaceError(f"a head's groups must name every output exactly once, not {sorted(places)}")
        linear: type[nn.Module] = CosineLinear if cosine else nn.Linear
        self.parts = nn.ModuleDict({branch: linear(widths[branch], len(group)) for branch, group in groups.items()})
        self.register_buffer("order", torch.tensor(places).argsort(), persistent=False)
        self.out_features = len(places)

    def forward(self, branches: Mapping[str, Tensor]) -> Tensor:
        """Outputs of the branches → [B, outputs]."""
        outputs = torch.cat([part(branches[branch]) for branch, part in self.parts.items()], 1)
        return outputs.index_select(1, self.order)  # in ONNX one operation, where indexing is ten


def build_branches(config: Mapping[str, Mapping[str, Any]], channels: int) -> nn.ModuleDict:
    """Branches by name from their options, in declared order; `kind` says which (pool, inception, residual)."""
    return nn.ModuleDict({name: _branch(name, options, channels) for name, options in config.items()})


def _branch(name: str, given: Mapping[str, Any], channels: int) -> nn.Module:
    where = f"network.branches.{name}"
    options = {key: value for key, value in given.items() if key not in ("kind", "similarity")}
    kind = str(given.get("kind", "pool"))
    if kind not in KINDS:
        raise PolyfaceError(f"{where}: kind is '{kind}'; {nearest(kind, KINDS)}")
    known = [*inspect.signature(KINDS[kind]).parameters][1:]
    if unknown := [key for key in options if key not in known]:
        raise PolyfaceError(
            f"{where}: unknown key '{unknown[0]}'; {nearest(unknown[0], [*known, 'kind', 'similarity'])}"
        )
    try:
        return KINDS[kind](channels, **options)
    except (PolyfaceError, TypeError, ValueError) as error:
        raise PolyfaceError(f"{where}: {error}") from error


def embeddings(config: Mapping[str, Mapping[str, Any]], branches: nn.ModuleDict) -> dict[str, Embedding]:
    """The embeddings by branch: of those that declare their `similarity`."""
    found = {}
    for name, options in config.items():
        similarity = options.get("similarity")
        if similarity is None:
            continue
        if similarity not in SIMILARITIES:
            raise PolyfaceError(
                f"network.branches.{name}: similarity is '{similarity}'; {nearest(str(similarity), SIMILARITIES)}"
            )
        found[name] = Embedding(int(branches[name].out_dim), similarity)  # type: ignore[arg-type]
    return found
