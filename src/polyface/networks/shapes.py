"""What parts of a network say of the maps and vectors that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from polyface.errors import PolyfaceError, check_names


@dataclass(frozen=True)
class Shape:
    """A map [B, channels, H, W], or a vector [B, channels] where `stride` is 0. stride: the pixels of the picture that
    the trunk computes on, from one place of the map to the next. side: H and W for a picture of the network's own size,
    which a trunk need not declare: it is measured for the kinds of part that ask for it (see `PARTS`)."""

    channels: int
    stride: int = 0
    side: int = 0


def declared(module: nn.Module, owner: str, output: str, where: str) -> dict[str, Shape]:
    """What a trunk or part says of its maps, under the names by which others read them: its `output` as `owner`.

    Raises:
        PolyfaceError: it does not declare its output.
    """
    maps: Mapping[str, Shape] = getattr(module, "maps", {})
    if output not in maps:
        raise PolyfaceError(f"{where}: it does not declare what it gives: set self.maps['{output}'] to a Shape")
    return {owner: maps[output]} | {f"{owner}.{name}": shape for name, shape in maps.items() if name}


def shape_of(read: str, shapes: Mapping[str, Shape], where: str) -> Shape:
    """The shape of what `where`, a recipe key, reads.

    Raises:
        PolyfaceError: nothing has that name; the nearest is told.
    """
    check_names([read], shapes, where)
    return shapes[read]


def length_of(read: str, shapes: Mapping[str, Shape], where: str) -> int:
    """The same of a vector: its length.

    Raises:
        PolyfaceError: as `shape_of`; or it is a map.
    """
    shape = shape_of(read, shapes, where)
    if shape.stride:
        trunk = ", or set network.trunk.pool to one that gives a vector" if read == "trunk" else ""
        raise PolyfaceError(f"{where} reads '{read}', which is a map: let it read a part that pools it{trunk}")
    return shape.channels


def single_map(reads: Sequence[Shape]) -> Shape:
    """The shape of the one map that a part reads.

    Raises:
        PolyfaceError: it reads several, or a vector.
    """
    if len(reads) != 1 or not reads[0].stride:
        what = "a vector" if len(reads) == 1 else f"{len(reads)} of them"
        raise PolyfaceError(f"it reads {what}; expected one map (of the trunk: set network.trunk.pool to map)")
    return reads[0]


def joined_length(reads: Sequence[Shape]) -> int:
    """The length of the vectors that a part reads, one after another.

    Raises:
        PolyfaceError: one of them is a map.
    """
    if any(shape.stride for shape in reads):
        raise PolyfaceError("it reads a map; expected vectors: let it read a part that pools the map")
    return sum(shape.channels for shape in reads)
