"""Which pairs of faces a network takes for one person or for two, wrongly, and is the surest of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.data.table import FaceTable
from polyface.metrics.recognition.pairs import Indices, squared_distances
from polyface.metrics.recognition.verification import VerificationResult, mistakes


class WrongPair(NamedTuple):
    """The rows of two faces, and their squared distance."""

    first: int
    second: int
    distance: float


Wrong = Mapping[str, Sequence[WrongPair]]
"""The clearest mistakes first: "false positives" (different people who are close), "false negatives" (one person who is
far from himself)."""


def of_listed_pairs(result: VerificationResult, pairs: Indices) -> Wrong:
    """The pairs [N, 2] of rows that a result over them has wrong."""
    return {
        kind: [WrongPair(int(pairs[at, 0]), int(pairs[at, 1]), float(result.distances[at])) for at in places]
        for kind, places in mistakes(result, result.n).items()
    }


def of_all_pairs(embedding: ArrayLike, table: FaceTable, first: Indices, second: Indices, most: int = 2000) -> Wrong:
    """Of every face at the rows `first` with every one at `second`, by embeddings [N, E] of the whole table: the `most`
    different people who are closest, and the `most` times that one person is farthest."""
    vectors, names = np.asarray(embedding), table.words("identity")
    distances = squared_distances(vectors[first], vectors[second])
    same: NDArray[np.bool_] = names[first][:, None] == names[second][None]
    found = {}
    for kind, of, sign in (("false positives", ~same, 1), ("false negatives", same, -1)):
        where = np.flatnonzero(of)
        worst = where[np.argsort(sign * distances.ravel()[where], kind="stable")[:most]]
        found[kind] = [
            WrongPair(int(first[i]), int(second[j]), float(distances[i, j]))
            for i, j in zip(*np.unravel_index(worst, same.shape), strict=True)
        ]
    return found


def apart(wrong: Sequence[WrongPair]) -> Iterator[WrongPair]:
    """Those of the pairs that share no face with one before."""
    seen: set[int] = set()
    for pair in wrong:
        if not seen & {pair.first, pair.second}:
            seen |= {pair.first, pair.second}
            yield pair
