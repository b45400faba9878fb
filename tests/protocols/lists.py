"""Tables of people on caricatures and photos, answers about them, and a made-up data set whose reader offers lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from polyface import protocols, tasks
from polyface.data.readers.common import Pair
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.metrics.result import Result
from polyface.protocols.base import EvaluationSet

PEOPLE = ["ann", "bob", "cid"]
KINDS = ("caricature", "photo")
Answers = dict[str, dict[str, np.ndarray]]


def table_of(file: Path, faces: Sequence[tuple[str | None, str]], **labels: Sequence[Any]) -> FaceTable:
    """Faces (person, modality) in that order; each one's path is <modality>/<person>/<row>."""
    records = [
        Record(
            np.zeros((2, 2, 3), np.uint8),
            f"row {row}",
            f"{modality}/{person}/{row}",
            {"identity": person, "modality": modality} | {name: words[row] for name, words in labels.items()},
        )
        for row, (person, modality) in enumerate(faces)
    ]
    write_table(records, file)
    return FaceTable.open(file)


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# Rows: ann's caricature and photo, bob's, cid's.
HAND: Answers = {
    "verification": {"embedding": on_circle(0, 40, 100, 190, 270, 285)},
    "visual": {
        "probabilities": np.array(
            [[8, 1, 1], [5, 3, 2], [4, 3, 3], [6, 2, 2], [3, 4, 3], [2, 3, 5]],
            np.float32,  # of ann, bob, cid
        )
    },
    "caricature": {
        "probabilities": np.array([[5, 4, 1], [4, 4, 2], [1, 8, 1], [1, 7, 2], [2, 3, 5], [6, 3, 1]], np.float32)
    },
}


def system(table: FaceTable, seed: int = 0, noise: float = 0.25) -> Answers:
    """Answers that are right more often the less noise there is."""
    vocabulary = sorted(set(table.words("identity")))
    generator = np.random.default_rng([seed, 5])
    own = np.eye(len(vocabulary))[table.classes("identity", vocabulary)]

    def noisy() -> np.ndarray:
        values = own + noise * generator.normal(size=own.shape)
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    return {task: {"embedding": noisy(), "probabilities": noisy()} for task in ("verification", "visual", "caricature")}


def everybody(table: FaceTable) -> list[Pair]:
    """Every caricature of a table with every photo of it."""
    kinds, names = table.words("modality"), table.words("identity")
    rows = {kind: np.flatnonzero(kinds == kind) for kind in KINDS}
    return [
        Pair(table.path(c), table.path(p), bool(names[c] == names[p]))
        for c in rows["caricature"]
        for p in rows["photo"]
    ]


@dataclass
class MadeUp:
    """The reader of a data set that nobody publishes: its lists are those in `offered`."""

    fold: str = "1"

    name = "made-up"
    verified = False
    about = "made up"
    layout = "nothing"
    protocol: ClassVar[dict[str, Any]] = {
        "name": "listed-pairs",
        "reader": "made-up",
        "embedding": "verification",
        "identification": {
            "visual id": {"task": "visual", "faces": {"modality": "photo"}},
            "visual model on caricatures": {"task": "visual", "faces": {"modality": "caricature"}},
        },
    }
    offered: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[list[tuple[Path, str, str, str]]] = []

    def records(self, root: Path) -> Iterator[Record]:
        yield from ()

    def pairs(self, root: Path, part: str, list: str = "") -> list[Pair]:
        self.asked.append((root, part, self.fold, list))
        found: list[Pair] = self.offered["pairs"]
        return found

    def templates(self, root: Path, part: str, list: str = "") -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.offered["templates"]
        return found

    def searches(self, root: Path, part: str, list: str = "") -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.offered["searches"]
        return found


def evaluation_set(table: FaceTable, people: Sequence[str] = PEOPLE, **options: Any) -> EvaluationSet:
    known = {name: tasks.build(name, {"kind": "identity", "people": [*people]}) for name in ("visual", "caricature")}
    return EvaluationSet(table, "test", Path("data"), {"made-up": options}, known)


def results(
    name: str, answers: Answers, table: FaceTable, people: Sequence[str] = PEOPLE, **options: Any
) -> Mapping[str, Result]:
    """The results of a protocol with options; a data set's name means what its reader says."""
    protocol = protocols.build(protocols.settings(name) | options)
    return protocol.evaluate(answers, protocol.cases(evaluation_set(table, people)))


def listed(answers: Answers, table: FaceTable, pairs: Sequence[Pair] | None = None, **options: Any) -> Any:
    """By the pairs that a reader lists (every caricature with every photo), and the identification of the real one."""
    MadeUp.offered["pairs"] = everybody(table) if pairs is None else pairs
    people = sorted(set(table.words("identity")))
    return results("cavi", answers, table, people, **{"reader": "made-up"} | options)


def figures(result: Result) -> dict[str, float]:
    return {metric.name: result.figure(metric) for metric in result.metrics}
