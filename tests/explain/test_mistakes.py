"""The clearest mistakes among pairs of faces, against a search through all of them."""

from __future__ import annotations

import numpy as np
import pytest

from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.explain.mistakes import WrongPair, apart, of_all_pairs, of_listed_pairs
from polyface.metrics.recognition.verification import evaluate_verification

PEOPLE = ["ann", "bob", "cid", "dan"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    """Three faces each of four people."""
    records = [Record(np.zeros((2, 2, 3), np.uint8), "", f"{row}", {"identity": PEOPLE[row % 4]}) for row in range(12)]
    path = tmp_path_factory.mktemp("faces") / "t.parquet"
    write_table(records, path)
    return FaceTable.open(path)


def test_of_all_pairs(table: FaceTable) -> None:
    values = np.random.default_rng(0).normal(size=(12, 3))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    first, second = np.arange(0, 12, 2), np.arange(1, 12, 2)
    first = np.append(first, 3)  # who is among the second ones as well
    names = table.words("identity")
    wrong = of_all_pairs(values, table, first, second, most=3)
    assert all(len(wrong[kind]) <= 3 for kind in wrong)
    for kind, same, sign in (("false positives", False, 1), ("false negatives", True, -1)):
        every = [
            (float(np.square(values[i] - values[j]).sum()), i, j)
            for i in first
            for j in second
            if (names[i] == names[j]) == same
        ]
        expected = sorted(every, key=lambda one: sign * one[0])[:3]
        assert [(pair.first, pair.second) for pair in wrong[kind]] == [(i, j) for _, i, j in expected]
        assert [pair.distance for pair in wrong[kind]] == pytest.approx([d for d, _, _ in expected])


def test_of_listed_pairs() -> None:
    """Two folds: each one's threshold is right on all of its own pairs, 1.0 here and 3.0 there."""
    distances, same = [0.5, 1.0, 2.0, 2.5, 3.0, 4.0], [True, True, False, True, True, False]
    result = evaluate_verification(distances, same, folds=[0, 0, 0, 1, 1, 1])
    pairs = np.array([[row, 10 + row] for row in range(6)])
    wrong = of_listed_pairs(result, pairs)
    assert wrong["false positives"] == [WrongPair(2, 12, 2.0)]
    assert wrong["false negatives"] == [WrongPair(4, 14, 3.0), WrongPair(3, 13, 2.5)]


def test_no_face_is_among_the_mistakes_twice() -> None:
    wrong = [WrongPair(1, 7, 0.0), WrongPair(0, 8, 1.0), WrongPair(0, 7, 2.0), WrongPair(1, 8, 3.0)]
    assert [pair.distance for pair in apart(wrong)] == [0, 1]
