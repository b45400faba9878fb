"""A network's config read as a graph: parts, heads and embeddings, what each of them reads, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyface.errors import PolyfaceError, check_names, nearest
from polyface.networks.heads import LAYERS, SIMILARITIES, Embedding, Given, GroupedHead
from polyface.networks.layers import CosineLinear
from polyface.networks.parts import PARTS
from polyface.networks.routing import MERGES, Join, Rows, Walk, on_own_rows
from polyface.networks.shapes import Shape, declared, length_of, shape_of

KEYS = ("kind", "reads", "frozen", "rows", "similarity")
"""What stands beside the options of a part."""
TAKEN = ("trunk", "reads", "of", "merge", "outputs", "frozen", "layer")
"""Names that a part cannot have, since they mean something where parts are named."""


@dataclass(frozen=True)
class Node:
    """where: the recipe key that declares it, in errors and as its identity. reads: names of maps. rows: of a part."""

    name: str
    where: str
    reads: tuple[str, ...]
    frozen: bool = False
    rows: Rows | None = None


@dataclass(frozen=True)
class PartNode(Node):
    kept_in = "branches"
    """The attribute of the network that holds what `build` makes, by name."""
    kind: str = "pool"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def any_size(self) -> bool:
        """Whether its kind can be built without the sides of the maps that it reads."""
        return bool(getattr(PARTS.get(self.kind), "any_size", True))

    def build(self, shapes: dict[str, Shape]) -> nn.Module:
        """The part on maps of these shapes, to which its own are added."""
        reads = [shape_of(read, shapes, self.where) for read in self.reads]
        named_by = f"{self.where}.kind"
        part: nn.Module = PARTS.make(self.kind, self.options, reads, where=self.where, named=named_by, beside=KEYS)
        shapes |= declared(part, self.name, "", f"{self.where} ({self.kind})")
        return part

    def step(self, part: nn.Module, walk: Walk) -> None:
        """Add the part's maps to what is known of a batch; in training a routed part sees its own rows alone."""
        reads = [walk.maps[read] for read in self.reads]
        apart = self.rows if part.training else None
        given = part(reads) if apart is None else on_own_rows(part, reads, walk.members(apart))
        for name, values in ({"": given} if isinstance(given, Tensor) else given).items():
            walk.maps[f"{self.name}.{name}" if name else self.name] = values.float() if values.ndim == 2 else values


@dataclass(frozen=True)
class HeadNode(Node):
    """A task's linear layer on `join`; or with groups, part → places of its outputs in the task's, one on each part.
    layer: "none" where `join` is the task's output already."""

    kept_in = "heads"
    outputs: int = 0
    join: Join = field(default_factory=Join)
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    cosine: bool = False
    layer: str = "linear"

    def build(self, shapes: dict[str, Shape]) -> nn.Module:
        if self.groups:
            lengths = {part: length_of(part, shapes, self.where) for part in self.groups}
            return GroupedHead(lengths, self.groups, self.cosine)
        length = self.join.length(shapes, self.where)
        if self.layer == "linear":
            return (CosineLinear if self.cosine else nn.Linear)(length, self.outputs)
        if length != self.outputs or self.cosine:
            wrong = "cosines come from a layer of the head" if self.cosine else f"what it reads has {length} numbers"
            raise PolyfaceError(f"{self.where}: layer none, but {wrong}, and the task has {self.outputs} outputs")
        return Given(self.outputs)

    def step(self, head: nn.Module, walk: Walk) -> None:
        """Add the task's outputs, in float32: bfloat16 coordinates would be 0.3 % of a crop apart."""
        with torch.autocast(walk.maps["trunk"].device.type, enabled=False):
            walk.outputs[self.name] = head(walk.maps if self.groups else self.join(walk))


@dataclass(frozen=True)
class EmbeddingNode(Node):
    kept_in = "embeddings"
    join: Join = field(default_factory=Join)
    similarity: str = "cosine"

    def build(self, shapes: dict[str, Shape]) -> Embedding:
        if self.similarity not in SIMILARITIES:
            hint = nearest(self.similarity, SIMILARITIES)
            raise PolyfaceError(f"{self.where}: no similarity is called '{self.similarity}'; {hint}")
        return Embedding(self.join.length(shapes, self.where), self.similarity)

    def step(self, embedding: Embedding, walk: Walk) -> None:
        """Add the embedding, in float32."""
        with torch.autocast(walk.maps["trunk"].device.type, enabled=False):
            walk.embeddings[self.name] = embedding(self.join(walk))


AnyNode = PartNode | HeadNode | EmbeddingNode


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
        embeddings: Mapping[str, Any] = config.get("embeddings", {})  # beside those of parts
        self.parts = {name: _part(name, where, part) for where, (name, part) in given.items()}
        self.heads = {name: self._head(name, head, name in cosine) for name, head in config["heads"].items()}
        self.embeddings = {
            name: EmbeddingNode(name, f"{where}.similarity", (name,), join=Join((name,)), similarity=str(similarity))
            for where, (name, part) in given.items()
            if (similarity := part.get("similarity")) is not None
        }
        if twice := [name for name in embeddings if name in self.embeddings]:
            hint = "its part has a similarity already; remove one of them"
            raise PolyfaceError(f"network.embeddings.{twice[0]}: {hint}")
        self.embeddings |= {name: self._embedding(name, one) for name, one in embeddings.items()}
        self.order = self.needed([*self.parts.values(), *self.heads.values(), *self.embeddings.values()])
        self._check()

    def needed(self, nodes: Iterable[AnyNode], routing: bool = True) -> list[AnyNode]:
        """These nodes and all that they read, directly or through others, each after what it needs. routing: also the
        heads by whose answers parts are routed."""
        done: dict[str, AnyNode] = {}
        path: list[str] = []

        def visit(node: AnyNode) -> None:
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

    def _sources(self, node: AnyNode, routing: bool) -> Iterator[AnyNode]:
        """What a node reads, and what it is routed by."""
        for read in node.reads:
            owner = read.partition(".")[0]
            if owner not in ("trunk", *self.parts):
                raise PolyfaceError(f"{node.where} names '{read}'; {nearest(read, ['trunk', *self.parts])}")
            if owner != "trunk":
                yield self.parts[owner]
        if node.rows:
            check_names([node.rows.task], self.heads, f"{node.where}.rows.task")
            if routing:
                yield self.heads[node.rows.task]

    def _check(self) -> None:
        """Refuse names that cannot be, parts that would learn nothing, and rows and merges that would leave faces
        without a vector."""
        for node in (*self.parts.values(), *self.heads.values(), *self.embeddings.values()):
            name: Any = node.name  # YAML has keys that are no words
            word = isinstance(name, str) and name and not set(name) & {".", "/"}
            if not word or hasattr(nn.ModuleDict, node.name) or (node.name in TAKEN and node.name in self.parts):
                raise PolyfaceError(f"{node.where}: nothing can be called '{node.name}' here; take another name")
        joined: list[HeadNode | EmbeddingNode] = [*self.heads.values(), *self.embeddings.values()]
        read = {node.where for node in self.needed(joined)}
        for part in self.parts.values():
            if not part.frozen and part.where not in read:
                raise PolyfaceError(f"{part.where}: no head and no embedding reads it: let one read it, or freeze it")
            if part.rows and not set(part.rows.classes) <= set(range(self.heads[part.rows.task].outputs)):
                last = self.heads[part.rows.task].outputs - 1
                hint = f"expected classes of {part.rows.task}, 0 … {last}"
                raise PolyfaceError(f"{part.where}.rows.classes is {list(part.rows.classes)}; {hint}")
        for node in (node for node in joined if node.join.merge != "concat"):
            tasks = sorted({rows.task for rows in node.join.rows.values()})
            classes = sorted(one for rows in node.join.rows.values() for one in rows.classes)
            if len(tasks) != 1 or classes != list(range(self.heads[tasks[0]].outputs)):
                raise PolyfaceError(
                    f"{node.where}: merge {node.join.merge} needs parts whose rows hold every class of one task once; "
                    f"these hold {classes} of {', '.join(tasks) or 'no task'}"
                )

    # ------------------------------------------------------------------------------------------------ reading a config

    def _head(self, name: str, given: int | Mapping[str, Any], cosine: bool) -> HeadNode:
        where = f"network.heads.{name}"
        if not isinstance(given, Mapping):
            given = {"reads": ["trunk"], "outputs": given}
        frozen = bool(given.get("frozen", False))
        if "outputs" in given:
            join, layer = self._join(given, where, ("outputs", "frozen", "layer")), str(given.get("layer", "linear"))
            if layer not in LAYERS:
                raise PolyfaceError(f"{where}: layer is '{layer}'; {nearest(layer, LAYERS)}")
            outputs = given["outputs"]
            return HeadNode(name, where, join.reads, frozen, outputs=outputs, join=join, cosine=cosine, layer=layer)
        groups = {part: places for part, places in given.items() if part != "frozen"}
        check_names(groups, self.parts, where)
        outputs = sum(map(len, groups.values()))
        return HeadNode(name, where, tuple(groups), frozen, outputs=outputs, groups=groups, cosine=cosine)

    def _embedding(self, name: str, given: Mapping[str, Any]) -> EmbeddingNode:
        where = f"network.embeddings.{name}"
        join = self._join(given, where, ("similarity",))
        return EmbeddingNode(name, where, join.reads, join=join, similarity=str(given.get("similarity", "cosine")))

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
    rows, options = given.get("rows"), {key: value for key, value in given.items() if key not in KEYS}
    if rows is not None:
        if not isinstance(rows, Mapping) or set(rows) != {"task", "classes"} or not _is_list(rows["classes"]):
            raise PolyfaceError(f"{where}.rows is {rows!r}; expected {{task: name, classes: [of its classes]}}")
        rows = Rows(str(rows["task"]), tuple(rows["classes"]))
    kind, frozen = str(given.get("kind", "pool")), bool(given.get("frozen", False))
    reads = _reads(given.get("reads", ["trunk"]), where)
    if spelled := getattr(PARTS.get(kind, f"{where}.kind"), "spelled", None):
        reads = tuple(spelled(reads, options))
    return PartNode(name, where, reads, frozen, rows, kind=kind, options=options)


def _reads(given: Any, where: str) -> tuple[str, ...]:
    if not _is_list(given) or not all(isinstance(read, str) for read in given) or len(given) > len(set(given)):
        raise PolyfaceError(f"{where}: reads is {given!r}; expected a list of names, such as [trunk], each once")
    return tuple(given)


def _is_list(given: Any) -> bool:
    return isinstance(given, list | tuple) and len(given) > 0
