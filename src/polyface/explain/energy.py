"""Which dimensions of a vector the tasks' linear heads use: energy-based weight analysis (Yin & Liu 2018).

Tasks t read one vector x [D] by matrices W^t [D, outputs]. The energy of dimension i for task t is s_i = Σ_n |W_{i,n}|,
the mass of its row. The paper sorts it (Fig. 5a), shows |W| with the dimensions in the order of the tasks that use them
(Fig. 5b), and takes dimensions out of x (Fig. 5c): those with most side-task energy should cost identity least.

The section is known from its description; whether the authors bring columns to one length first is not. Here they do
not by default (`normalise=False`), and powers other than 1 are an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError, check_names
from polyface.explain.weights import LinearHead, linear_head
from polyface.metrics.resampling import Floats
from polyface.networks import FaceNetwork

Indices = NDArray[np.intp]

TOP = 0.25
"""The share of the dimensions that are a task's own: those with most of its energy."""
SIDE, RANDOM = "side-task", "random"


def task_energy(weight: ArrayLike, p: float = 1, normalise: bool = False) -> Floats:
    """Energy [D] of each dimension: s_i = Σ_n |W_{i,n}|^p, of a weight W [D, outputs]. normalise: columns are brought
    to length 1 first, so that every output counts as much.

    Scaling W by c scales it by |c|^p, unless columns are normalised. A column of zeros stays one.

    Raises:
        PolyfaceError: no matrix, a value that is not finite, or p ≤ 0.
    """
    matrix = np.asarray(weight, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise PolyfaceError(f"a weight must be a finite matrix [dimensions, outputs], found {list(matrix.shape)}")
    if not 0 < p < np.inf:
        raise PolyfaceError(f"p is {p}: the power of the weights must be above 0 (1: their sum, 2: their squares)")
    if normalise:
        lengths = np.linalg.norm(matrix, axis=0)
        matrix = matrix / np.where(lengths > 0, lengths, 1)
    return np.asarray((np.abs(matrix) ** p).sum(1))


def rank_dims(energy: ArrayLike) -> Indices:
    """The dimensions in the order of decreasing energy [D]; of equal ones the first comes first."""
    return np.argsort(-np.asarray(energy, dtype=np.float64), kind="stable")


def mask_dims(x: ArrayLike, dims: ArrayLike) -> Floats:
    """Vectors x [N, D] with these dimensions 0; all others are as they were.

    Raises:
        PolyfaceError: dimensions that x does not have, or all of them: nothing would be left to compare.
    """
    masked, taken = np.array(x, dtype=np.float64), np.unique(np.asarray(dims, dtype=np.intp))
    width = masked.shape[-1]
    if taken.size and (taken[0] < 0 or taken[-1] >= width):
        raise PolyfaceError(f"dimension {taken[0] if taken[0] < 0 else taken[-1]} of {width} cannot be taken out")
    if len(taken) == width:
        raise PolyfaceError(f"all {width} dimensions would be taken out: leave at least one")
    masked[..., taken] = 0
    return masked


def share_of(share: float, width: int) -> int:
    """How many of `width` dimensions a share is, rounded to the nearest (a half up)."""
    if not 0 <= share <= 1:
        raise PolyfaceError(f"{share} is no share of the dimensions: expected 0 … 1")
    return int(np.floor(share * width + 0.5))


# ------------------------------------------------------------------------------------------------ how tasks share x


def relative(energy: ArrayLike) -> Floats:
    """Energy [D] as shares of its sum; all 0 where there is none."""
    values = np.asarray(energy, dtype=np.float64)
    return np.asarray(values / (values.sum() or 1))


def side_energy(energies: Mapping[str, ArrayLike], main: str) -> Floats:
    """Energy [D] of all tasks but the main one: the sum of their relative energies, so that every task counts as much
    however many outputs it has, and however large its weights are."""
    return np.asarray(sum(relative(energy) for task, energy in energies.items() if task != main), dtype=np.float64)


def dims_for(energy: ArrayLike, share: float) -> int:
    """The fewest dimensions that hold so large a share of the energy [D]."""
    held = np.cumsum(np.sort(relative(energy))[::-1])
    return int(np.searchsorted(held, share - 1e-12) + 1)


def held_by(energy: ArrayLike, top: float = TOP) -> float:
    """The share of the energy [D] that the top dimensions hold; `top` where all have the same. NaN: there is none."""
    values = np.asarray(energy, dtype=np.float64)
    best = values[rank_dims(values)[: share_of(top, len(values))]]
    return float(best.sum() / values.sum()) if values.any() else np.nan


def effective_number(energy: ArrayLike) -> float:
    """How many dimensions carry the energy [D]: (Σ s)² / Σ s², D where all have the same, 1 where one has it all.
    NaN: there is none."""
    values = np.asarray(energy, dtype=np.float64)
    return float(values.sum() ** 2 / (values**2).sum()) if values.any() else np.nan


def overlap(a: ArrayLike, b: ArrayLike) -> float:
    """|A ∩ B| / k of two sets of k dimensions each. Of sets drawn by chance from D it is k / D on average."""
    first, second = set(np.asarray(a).tolist()), set(np.asarray(b).tolist())
    if len(first) != len(second) or not first:
        raise PolyfaceError(f"sets of {len(first)} and of {len(second)} dimensions: expected two of one size")
    return len(first & second) / len(first)


def blocks(energies: Mapping[str, ArrayLike], main: str, share: float = 0.5) -> dict[str, Indices]:
    """The dimensions in the order of the tasks that use them, {task: dims}, each once: the tasks beside the main one
    get their top dimensions, `share` of all at most together, and the main one all others (Fig. 5b).

    A dimension that is at the top of several is that task's of whose energy it has the larger share. In a block the
    dimensions with most of the task's energy come first.
    """
    sides = {task: relative(energy) for task, energy in energies.items() if task != main}
    width = len(np.asarray(energies[main]))
    each = share_of(share / max(len(sides), 1), width)
    top = np.zeros((len(sides), width))
    for row, energy in zip(top, sides.values(), strict=True):
        own = rank_dims(energy)[:each]
        row[own] = energy[own]
    owner = np.where(top.any(0), top.argmax(0), -1) if sides else np.full(width, -1)
    found = {}
    for place, task in [*enumerate(sides), (-1, main)]:
        ranked = rank_dims(energies[task])
        found[task] = ranked[owner[ranked] == place]
    return found


# ------------------------------------------------------------------------------------------------ taking dimensions out


def removal_orders(
    energies: Mapping[str, ArrayLike], main: str, draws: int = 5, seed: int = 0
) -> dict[str, list[Indices]]:
    """In which order dimensions are taken out of x, by what they are chosen by; each a permutation of all:

    "side-task": those with most side-task energy first (`side_energy`); the main task's name: those with most of its
    energy; "least <main>": those with least of it, so that the top k of it are kept to the last; "random": `draws`
    permutations by `seed`, the control.
    """
    check_names([main], energies, "main")
    if len(energies) < 2:
        raise PolyfaceError(f"'{main}' is the only task: side-task dimensions need another one")
    own, generator = rank_dims(energies[main]), np.random.default_rng(seed)
    return {
        SIDE: [rank_dims(side_energy(energies, main))],
        main: [own],
        f"least {main}": [own[::-1]],
        RANDOM: [generator.permutation(len(own)) for _ in range(draws)],
    }


def without(x: ArrayLike, order: Indices, share: float) -> Floats:
    """Vectors x [N, D] without the first dimensions of an order, so large a share of them: they are 0."""
    return mask_dims(x, order[: share_of(share, len(order))])


def kept_dims(orders: Mapping[str, Sequence[Indices]], main: str) -> dict[str, Indices]:
    """Dimensions that are worth a look by themselves, by name: all; without those with most side-task energy, or as
    many random ones; and the top of the main task's."""
    own = orders[main][0]
    found = {"all": np.arange(len(own))}
    for kind, share in ((SIDE, TOP), (SIDE, 0.5), (RANDOM, 0.5)):
        found[f"without {100 * share:.0f}% {kind}"] = orders[kind][0][share_of(share, len(own)) :]
    return found | {f"top {100 * TOP:.0f}% {main}": own[: max(1, share_of(TOP, len(own)))]}


def directions(vectors: ArrayLike) -> Floats:
    """Vectors [N, D] at length 1, whose product is their cosine. One of which nothing is left stays 0: it is as near to
    all as to itself."""
    given = np.asarray(vectors, dtype=np.float64)
    return np.asarray(given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1e-12))


# ------------------------------------------------------------------------------------------------ of a network


@dataclass(frozen=True)
class CommonHeads:
    """The linear heads of a network that read one vector x. main: the task that the others are compared with. left_out:
    {task: why} of the others."""

    main: str
    heads: Mapping[str, LinearHead]
    left_out: Mapping[str, str]

    @property
    def first(self) -> LinearHead:
        return self.heads[self.main]

    def energies(self, p: float = 1, normalise: bool = False) -> dict[str, Floats]:
        """The energy [D] of each task."""
        return {task: task_energy(head.weight.T, p, normalise) for task, head in self.heads.items()}


def common_heads(network: FaceNetwork, main: str = "", prefer: Sequence[str] = ()) -> CommonHeads:
    """The heads that read the same vector as the main task's. main: by default the first of `prefer` that has a linear
    head, or else the first task of the largest group of heads on one vector.

    Raises:
        PolyfaceError: an unknown task, one without a linear head, or one whose vector no other head reads.
    """
    heads: dict[str, LinearHead] = {}
    left: dict[str, str] = {}
    for task in network.graph.heads:
        try:
            heads[task] = linear_head(network, task)
        except PolyfaceError as reason:
            left[task] = str(reason)
    if main:
        check_names([main], network.heads, "main")
        if main in left:
            raise PolyfaceError(left[main])
    if not heads:
        raise PolyfaceError("the network has no linear head, so there are no weights to compare")
    groups: dict[tuple[object, ...], list[str]] = {}
    for task, head in heads.items():
        groups.setdefault((head.reads, head.merge), []).append(task)
    main = main or next((task for task in prefer if task in heads), "") or max(groups.values(), key=len)[0]
    chosen = groups[heads[main].reads, heads[main].merge]
    if len(chosen) < 2:
        others = ", ".join(f"{task} ({', '.join(head.reads)})" for task, head in heads.items() if task != main)
        raise PolyfaceError(
            f"'{main}' reads {', '.join(heads[main].reads)}, which no other linear head does (others: "
            f"{others or 'none'}): energies are compared between two tasks or more"
        )
    left |= {task: f"reads {', '.join(head.reads)}" for task, head in heads.items() if task not in chosen}
    return CommonHeads(main, {task: heads[task] for task in chosen}, left)
