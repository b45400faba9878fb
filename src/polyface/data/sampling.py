"""The order in which training shows faces when groups of them are to be seen equally often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import numpy as np


def balanced(groups: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """As many rows as there are faces, in an order that shows every word of each of `groups` equally often.

    groups: columns of words [N]; those of the first are taken in turn (a batch of even size holds as many photos as
    caricatures), within each those of the second in turn, and so on; each turn is shuffled. The faces of the last are
    shown once before one is shown again. A null is a word of its own.
    """
    words = [np.array([str(word) for word in column]) for column in groups]
    rows = np.arange(len(words[0]))
    return np.fromiter(islice(_turns(rows, words, generator), len(rows)), np.int64, len(rows))


def _turns(rows: np.ndarray, words: Sequence[np.ndarray], generator: np.random.Generator) -> Iterator[int]:
    """Rows without end."""
    if not words:
        while True:
            yield from generator.permutation(rows).tolist()
    column, *rest = words
    each = [_turns(rows[column[rows] == word], rest, generator) for word in np.unique(column[rows])]
    if not rest:  # people: a new order every turn
        while True:
            for place in generator.permutation(len(each)):
                yield next(each[place])
    for turn in cycle(each):
        yield next(turn)
