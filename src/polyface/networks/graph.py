"""A network's config read as a graph: parts, heads and embeddings, what each of them reads, and in which order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from polyface.errors import PolyfaceError, nearest
from polyface.networks.heads import SIMILARITIES, Embedding, GroupedHead
from polyface.networks.layers import CosineLinear
from polyface.networks.parts import PARTS
from polyface.networks.routing import MERGES, Join, Rows, Walk, by_name, on_own_rows
from polyface.networks.shapes import Shape, declared, length_of, named, shape_of

KEYS = ("kind", "reads", "frozen", "rows", "similarity")
"""What stands beside the options of a part."""


@dataclass(frozen=True)
class Node(ABC):
    """A part, head or embedding. where: the recipe key that declares it, in errors and as its identity; reads: names
    of maps."""

    kept_in = ""
    """The attribute of the network that holds what `build` made, by name."""
    name: str
    where: str
    reads: tuple[str, ...]
    frozen: bool = False
    rows: Rows | None = None

    @abstractmethod
    def build(self, shapes: dict[str, Shape]) -> Any:
        """What the network keeps, made for maps of these shapes; a part adds its own.

        Raises:
            PolyfaceError: an unknown kind, option or map, or one that does not fit.
        """

    @abstractmethod
    def step(self, built: Any, walk: Walk) -> None:
        """Add what this node computes to what is known of a batch."""


@dataclass(frozen=True)
class PartNode(Node):
    kept_in = "branches"
    kind: str = "pool"
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, shapes: dict[str, Shape]) -> nn.Module:
        reads = [shape_of(read, shapes, self.where) for read in self.reads]
        named_by = f"{self.where}.kind"
        part: nn.Module = PARTS.make(self.kind, self.options, reads, where=self.where, named=named_by, beside=KEYS)
        shapes |= named(self.name, declared(part, "", f"{self.where} ({self.kind})"))
        return part

    def step(self, built: nn.Module, walk: Walk) -> None:
        """In training a routed part sees its own rows alone."""
        reads = [walk.maps[read] for read in self.reads]
        apart = self.rows if built.training else None
        given = built(reads) if apart is None else on_own_rows(built, reads, walk.members(apart))
        for name, values in by_name(given).items():
            walk.maps[f"{self.name}.{name}" if name else self.name] = values.float() if values.ndim == 2 else values


@dataclass(frozen=True)
class JoinNode(Node):
    """What reads vectors as one."""

    join: Join = field(default_factory=Join)

    def lengths(self, shapes: Mapping[str, Shape]) -> dict[str, int]:
        """Of each vector that is read."""
        return {read: length_of(read, shapes, self.where) for read in self.reads}

    def length(self, shapes: Mapping[str, Shape]) -> int:
        """Of the one vector that they become."""
        lengths = self.lengths(shapes)
        try:
            return self.join.length(lengths)
        except PolyfaceError as error:
            raise PolyfaceError(f"{self.where}: {error}") from error


@dataclass(frozen=True)
class HeadNode(JoinNode):
    """A task's linear layer on `join`; or with groups, part → places of its outputs in the task's, one on each part."""

    kept_in = "heads"
    outputs: int = 0
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    cosine: bool = False

    def build(self, shapes: dict[str, Shape]) -> nn.Module:
        if self.groups:
            return GroupedHead(self.lengths(shapes), self.groups, self.cosine)
        return (CosineLinear if self.cosine else nn.Linear)(self.length(shapes), self.outputs)

    def step(self, built: nn.Module, walk: Walk) -> None:
        """In float32: bfloat16 coordinates would be 0.3 % of a crop apart."""
        with torch.autocast(walk.maps["trunk"].device.type, enabled=False):
            walk.outputs[self.name] = built(walk.maps if self.groups else self.join(walk))


@dataclass(frozen=True)
class EmbeddingNode(JoinNode):
    kept_in = "embeddings"
    similarity: str = "cosine"

    def build(self, shapes: dict[str, Shape]) -> Embedding:
        if self.similarity not in SIMILARITIES:
            hint = nearest(self.similarity, SIMILARITIES)
            raise PolyfaceError(f"{self.where}: no similarity is called '{self.similarity}'; {hint}")
        return Embedding(self.length(shapes), self.similarity)

    def step(self, built: Embedding, walk: Walk) -> None:
        with torch.autocast(walk.maps["trunk"].device.type, enabled=False):
            walk.embeddings[self.name] = built(self.join(walk))


class Graph:
    """A network's parts, heads and embeddings by name, and their `order`, each after what it needs.

    Raises:
        PolyfaceError: a name that nothing has, a cycle, a part that learns though nothing reads it, rows that do not
            fit the task which they are routed by.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        branches, parts = config.get("branches", {}), config.get("parts", {})
        if twice := [name for name in parts if name in branches]:
            raise PolyfaceError(f"network.parts.{twice[0]}: network.branches has one of this name; rename one")
        given = {f"network.branches.{name}": (name, part) for name, part in branches.items()}
        given |= {f"network.parts.{name}": (name, part) for name, part in parts.items()}
        cosine = config.get("cosine", ())
        self.owned: Mapping[str, Any] = config.get("embeddings", {})  # by task, beside those of parts
        self.parts = {name: _part(name, where, part) for where, (name, part) in given.items()}
        self.heads = {name: self._head(name, head, name in cosine) for name, head in config["heads"].items()}
        self.embeddings = {
            name: EmbeddingNode(name, f"{where}.similarity", (name,), join=Join((name,)), similarity=str(similarity))
            for where, (name, part) in given.items()
            if (similarity := part.get("similarity")) is not None
        }
        if twice := [name for name in self.owned if name in self.embeddings]:
            hint = "its part has a similarity already; remove one of them"
            raise PolyfaceError(f"network.embeddings.{twice[0]}: {hint}")
        self.embeddings |= {name: self._embedding(name, one) for name, one in self.owned.items()}
        joined: list[JoinNode] = [*self.heads.values(), *self.embeddings.values()]
        self.order = self.needed([*self.parts.values(), *joined])
        self._check_parts(self.needed(joined))
        self._check_merges(joined)

    def needed(self, nodes: Iterable[Node], routing: bool = True) -> list[Node]:
        """These nodes and all that they read, directly or through others, each after what it needs. routing: also the
        heads by whose answers parts are routed."""
        done: dict[str, Node] = {}
        path: list[str] = []

        def visit(node: Node) -> None:
            if node.where in path:
                cycle = " → ".join([*path[path.index(node.where) :], node.where])
                raise PolyfaceError(f"{node.where} needs its own result ({cycle}): let one of them read another part")
            path.append(node.where)
            for source in [] if node.where in done else self._sources(node, routing):
                visit(source)
            path.pop()
            done.setdefault(node.where, node)

        for node in nodes:
            visit(node)
        return list(done.values())

    def _sources(self, node: Node, routing: bool) -> list[Node]:
        owners = [read.partition(".")[0] for read in node.reads]
        for read, owner in zip(node.reads, owners, strict=True):
            if owner not in ("trunk", *self.parts):
                raise PolyfaceError(f"{node.where} names '{read}'; {nearest(read, ['trunk', *self.parts])}")
        sources: list[Node] = [self.parts[owner] for owner in owners if owner != "trunk"]
        if node.rows and node.rows.task not in self.heads:
            hint = nearest(node.rows.task, self.heads)
            raise PolyfaceError(f"{node.where}.rows.task names '{node.rows.task}'; {hint}")
        return [*sources, self.heads[node.rows.task]] if node.rows and routing else sources

    def _check_parts(self, read: Iterable[Node]) -> None:
        """Refuse parts that would learn nothing, and rows of classes that there are not."""
        known = {node.where for node in read}
        for part in self.parts.values():
            if not part.frozen and part.where not in known:
                raise PolyfaceError(f"{part.where}: no head and no embedding reads it: let one read it, or freeze it")
            if part.rows is None:
                continue
            classes = range(self.heads[part.rows.task].outputs)
            if not part.rows.classes or not set(part.rows.classes) <= set(classes):
                raise PolyfaceError(
                    f"{part.where}.rows.classes is {list(part.rows.classes)}; expected some of 0 … {classes[-1]}, "
                    f"the classes of {part.rows.task}"
                )

    def _check_merges(self, joined: Iterable[JoinNode]) -> None:
        """Refuse merges that would have nothing, or two vectors, for some faces."""
        for node in joined:
            if node.join.merge == "concat":
                continue
            tasks = {rows.task for rows in node.join.rows.values()}
            classes = sorted(one for rows in node.join.rows.values() for one in rows.classes)
            if len(tasks) != 1 or classes != list(range(self.heads[min(tasks)].outputs)):
                raise PolyfaceError(
                    f"{node.where}: merge {node.join.merge} needs parts whose rows hold every class of one task once; "
                    f"these hold {classes} of {', '.join(sorted(tasks)) or 'no task'}"
                )

    # ------------------------------------------------------------------------------------------------ reading a config

    def _head(self, name: str, given: int | Mapping[str, Any], cosine: bool) -> HeadNode:
        where = f"network.heads.{name}"
        if not isinstance(given, Mapping):
            return HeadNode(name, where, ("trunk",), outputs=given, join=Join(("trunk",)), cosine=cosine)
        frozen = bool(given.get("frozen", False))
        if "outputs" in given:
            join = self._join(given, where, ("outputs", "frozen"))
            return HeadNode(name, where, join.reads, frozen, outputs=given["outputs"], join=join, cosine=cosine)
        groups = {part: places for part, places in given.items() if part != "frozen"}
        if unknown := [part for part in groups if part not in self.parts]:
            raise PolyfaceError(f"{where} names '{unknown[0]}'; {nearest(unknown[0], self.parts)}")
        outputs = sum(len(places) for places in groups.values())
        return HeadNode(name, where, tuple(groups), frozen, outputs=outputs, groups=groups, cosine=cosine)

    def _embedding(self, name: str, given: Mapping[str, Any]) -> EmbeddingNode:
        where = f"network.embeddings.{name}"
        join = self._join(given, where, ("similarity",))
        similarity = str(given.get("similarity", "cosine"))
        return EmbeddingNode(name, where, join.reads, join=join, similarity=similarity)

    def _join(self, given: Mapping[str, Any], where: str, beside: Sequence[str]) -> Join:
        """{reads, merge}; `of` is another word for `reads`."""
        known = ("reads", "of", "merge", *beside)
        if unknown := [key for key in given if key not in known]:
            raise PolyfaceError(f"{where}: unknown key '{unknown[0]}'; {nearest(unknown[0], known)}")
        reads, merge = _reads(given.get("reads", given.get("of")), where), str(given.get("merge", "concat"))
        if merge not in MERGES:
            raise PolyfaceError(f"{where}: merge is '{merge}'; {nearest(merge, MERGES)}")
        owners = {read: self.parts.get(read.partition(".")[0]) for read in reads}
        return Join(reads, merge, {read: part.rows for read, part in owners.items() if part and part.rows})


def _part(name: str, where: str, given: Mapping[str, Any]) -> PartNode:
    rows = given.get("rows")
    if rows is not None and not (
        isinstance(rows, Mapping) and set(rows) == {"task", "classes"} and isinstance(rows["classes"], list | tuple)
    ):
        raise PolyfaceError(f"{where}.rows is {rows!r}; expected {{task: name, classes: [of its classes]}}")
    return PartNode(
        name,
        where,
        _reads(given.get("reads", ["trunk"]), where),
        bool(given.get("frozen", False)),
        None if rows is None else Rows(str(rows["task"]), tuple(rows["classes"])),
        kind=str(given.get("kind", "pool")),
        options={key: value for key, value in given.items() if key not in KEYS},
    )


def _reads(given: Any, where: str) -> tuple[str, ...]:
    names = isinstance(given, list | tuple) and all(isinstance(read, str) for read in given)
    if not names or not 0 < len(given) == len(set(given)):
        raise PolyfaceError(f"{where}: reads is {given!r}; expected a list of names, such as [trunk], each once")
    return tuple(given)
