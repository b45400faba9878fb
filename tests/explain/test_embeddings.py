"""Maps of embeddings: who is alike lies together, and who is chosen to be shown."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.explain.embeddings import most_pictured, plane


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_faces_that_are_alike_are_laid_out_together() -> None:
    people = np.repeat(np.arange(5), 5)
    values = np.eye(5)[people] + 0.05 * np.random.default_rng(0).normal(size=(25, 5))
    places = plane(values / np.linalg.norm(values, axis=1, keepdims=True))
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + np.where(np.eye(25), np.inf, 0)
    assert (people[apart.argmin(1)] == people).all()


def test_without_scikit_learn_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PolyfaceError, match=r"t-SNE needs scikit-learn, `pip install polyface\[explain\]`"):
        plane(np.eye(3))


def test_the_most_pictured_people_are_chosen(tmp_path: Path) -> None:
    counts = {"a": (9, 0), "b": (2, 3), "c": (5, 2), "d": (1, 9), "e": (3, 3)}
    kinds = ("caricature", "photo")
    faces = [(who, kind) for who, many in counts.items() for kind, n in zip(kinds, many, strict=True) for _ in range(n)]
    records = [
        Record(np.zeros((2, 2, 3), np.uint8), "", f"{row}", {"identity": who, "modality": kind})
        for row, (who, kind) in enumerate(faces)
    ]
    write_table(records, tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert most_pictured(table, "modality", kinds, 2) == ["b", "e"]
    assert most_pictured(table, "modality", kinds, 9) == ["b", "c", "d", "e"]
    with pytest.raises(PolyfaceError, match="nobody in the table has faces of every modality caricature, photo"):
        most_pictured(table.where(identity="a"), "modality", kinds, 2)
