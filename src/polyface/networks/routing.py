"""Parts for some faces: who sees which rows of a batch, and how their answers are brought together again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape, length_of


@dataclass(frozen=True)
class Rows:
    """The faces of a routed part: those whose class of `task`, the place of a word in its vocabulary, is in
    `classes`."""

    task: str
    classes: tuple[int, ...]


@dataclass
class Walk:
    """What of a batch is known so far. maps: by the names that parts read; routes: labels by task; outputs: by task."""

    maps: dict[str, Tensor]
    routes: Mapping[str, Tensor]
    outputs: dict[str, Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)

    def classes(self, task: str) -> Tensor:
        """int64 [B]: the label of each face, or the network's answer where it is −1 or not given."""
        answers = self.outputs[task].argmax(1)
        if task not in self.routes:
            return answers
        label = self.routes[task]
        return torch.where(label < 0, answers, label)

    def members(self, rows: Rows) -> Tensor:
        """Bool [B]: the faces of these rows."""
        classes = self.classes(rows.task)
        return torch.stack([classes == one for one in rows.classes]).any(0)


def on_own_rows(part: nn.Module, reads: Sequence[Tensor], own: Tensor) -> dict[str, Tensor]:
    """What a part in training makes of the faces in `own` (bool [B]) alone; the rows of all others are 0.

    Batch norms keep their statistics where there are fewer than two faces. Of none, the first face of the batch is
    computed and counts 0 times, since under DDP every parameter needs a gradient.
    """
    rows = own.nonzero().flatten()
    taken = rows if len(rows) else rows.new_zeros(1)
    held = [m for m in part.modules() if isinstance(m, _BatchNorm) and m.training and len(rows) < 2]
    for norm in held:
        norm.eval()
    given = part([read[taken] for read in reads])
    for norm in held:
        norm.train()
    counted = 1.0 if len(rows) else 0.0
    return {
        name: values.new_zeros(len(own), *values.shape[1:]).index_copy(0, taken, counted * values)
        for name, values in ({"": given} if isinstance(given, Tensor) else given).items()
    }


# ------------------------------------------------------------------------------------------------ merging


@dataclass(frozen=True)
class Join:
    """Several vectors as one [B, D]. merge: one of `MERGES`; rows: those of what is routed among `reads`."""

    reads: tuple[str, ...] = ()
    merge: str = "concat"
    rows: Mapping[str, Rows] = field(default_factory=dict)

    def __call__(self, walk: Walk) -> Tensor:
        return MERGES[self.merge](self, walk)

    def length(self, shapes: Mapping[str, Shape], where: str) -> int:
        """D; vectors that take each other's place count once, and must be of one length."""
        lengths = {read: length_of(read, shapes, where) for read in self.reads}
        if self.merge == "concat":
            return sum(lengths.values())
        routed = sorted({lengths[read] for read in self.rows})
        if len(routed) != 1:
            raise PolyfaceError(f"{where}: merge {self.merge} needs vectors of one length, not of {routed}")
        return sum(lengths[read] for read in self.alone()) + routed[0]

    def alone(self) -> list[str]:
        """What no other can take the place of."""
        return [read for read in self.reads if read not in self.rows]

    @cached_property
    def routed_by(self) -> str:
        """The task whose classes route."""
        (task,) = {rows.task for rows in self.rows.values()}
        return task

    @cached_property
    def places(self) -> list[list[float]]:
        """Which class of that task is in the rows of which part: 1 or 0, [classes, routed parts]."""
        classes = range(sum(len(rows.classes) for rows in self.rows.values()))  # each is in one part's rows
        return [[float(one in rows.classes) for rows in self.rows.values()] for one in classes]


def _concat(join: Join, walk: Walk) -> Tensor:
    vectors = [walk.maps[read] for read in join.reads]
    return torch.cat(vectors, 1) if len(vectors) > 1 else vectors[0]


def _rows(join: Join, walk: Walk) -> Tensor:
    """What is not routed, then of every face the vector of the part whose rows it is in."""
    return torch.cat([*_alone(join, walk), _own(join, walk, _routed(join, walk))], 1)


def _expected(join: Join, walk: Walk) -> Tensor:
    """What is not routed, then Σ pᵢ·yᵢ over what is, pᵢ the probability that a face is in the rows of part i."""
    return torch.cat([*_alone(join, walk), _mean(join, walk, _routed(join, walk))], 1)


def _hard(join: Join, walk: Walk) -> Tensor:
    """Stochastic routing with all probability on the part whose rows a face is in: of length 1.

    With one that is not routed, the inner product of two faces is ½·h(d, d') + ½·h(i, j), i and j their own parts.
    """
    return _in_equal_shares([*map(_unit, _alone(join, walk)), _own(join, walk, _unit(_routed(join, walk)))])


def _stochastic(join: Join, walk: Walk) -> Tensor:
    """[ŷ of each that is not routed, Σ pᵢ·ŷᵢ over those that are] / √(their number), ŷ of length 1 (Yin & Liu 2018).

    With one that is not routed, the inner product of two faces is ½·h(d, d') + ½·Σᵢ Σⱼ pᵢ·p'ⱼ·h(i, j), h the cosine.
    """
    return _in_equal_shares([*map(_unit, _alone(join, walk)), _mean(join, walk, _unit(_routed(join, walk)))])


def _alone(join: Join, walk: Walk) -> list[Tensor]:
    return [walk.maps[read] for read in join.alone()]


def _routed(join: Join, walk: Walk) -> Tensor:
    """The vectors of all routed parts, [B, parts, D]."""
    return torch.stack([walk.maps[read] for read in join.rows], 1)


def _own(join: Join, walk: Walk, vectors: Tensor) -> Tensor:
    """Of the vectors [B, parts, D] of each face that of the part whose rows it is in: [B, D]."""
    own = vectors.new_tensor(join.places)[walk.classes(join.routed_by)]
    return torch.where(own[:, :, None] > 0, vectors, 0.0).sum(1)


def _mean(join: Join, walk: Walk, vectors: Tensor) -> Tensor:
    """Their mean [B, D] by how probable the network holds a part's rows; these get no gradient from here."""
    shares = walk.outputs[join.routed_by].detach().softmax(1) @ vectors.new_tensor(join.places)
    return (shares[:, :, None] * vectors).sum(1)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1, eps=1e-5)


def _in_equal_shares(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks of length 1 as one vector, in whose inner product with another each counts alike: at most 1."""
    return torch.cat(list(blocks), 1) / math.sqrt(len(blocks))


MERGES: dict[str, Callable[[Join, Walk], Tensor]] = {
    "concat": _concat,
    "rows": _rows,
    "expected": _expected,
    "hard": _hard,
    "stochastic": _stochastic,
}
