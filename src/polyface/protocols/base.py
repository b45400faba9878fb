"""What a protocol is given and gives."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.data.readers import READERS, reader
from polyface.data.table import FaceTable
from polyface.data.writing import Reader
from polyface.errors import NoDataError, PolyfaceError, nearest
from polyface.metrics.clusters import clustered
from polyface.metrics.groups import groups_of
from polyface.metrics.recognition.pairs import Indices, pair_distances, squared_distances
from polyface.metrics.resampling import Bools, Floats
from polyface.metrics.result import Result
from polyface.networks.heads import EMBEDDED
from polyface.schema import VOCABULARIES
from polyface.tasks import Task

Answers = Mapping[str, Mapping[str, NDArray[Any]]]
"""{task: {"probabilities": [N, K], "embedding": [N, E] of unit length, …}} over the faces of a table; "inner" in place
of "embedding" where it is compared by its product as it is. An embedding that is no task's is under its own name."""

MIXED = "mixed"
PEOPLE = "people"

Words = Mapping[str, str | Sequence[str]]
"""Column → the word, or the words, that its faces have there: {"modality": "photo"}."""


@dataclass(frozen=True)
class EvaluationSet:
    """The faces that a model is evaluated on, and what is known of them.

    part: the split that they are (test, val). data: the folder with the data sets. sources: the data sets that they are
    from, each with the options of its reader. tasks: those of the model; main: the one that selects. offered: what
    readers were asked for, so that a list is read once.
    """

    table: FaceTable
    part: str = "test"
    data: Path | None = None
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    main: str = ""
    offered: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, words: Words) -> Indices:
        """The rows of the faces with these words; an error if there are none."""
        keep = np.ones(len(self.table), dtype=bool)
        for column, wanted in words.items():
            keep &= self.table.holding(column, wanted)
        if not keep.any():
            told = " and ".join(f"{column} {wanted}" for column, wanted in words.items())
            raise PolyfaceError(f"none of the {len(self.table)} faces is one of {told or 'any kind'}: some are needed")
        return np.flatnonzero(keep)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {self.table.path(row): row for row in range(len(self.table))}

    def rows_of(self, paths: Sequence[str], what: str) -> Indices:
        """The rows of the faces with these paths, which a list of `what` names; an error if one is no face's."""
        if absent := list(dict.fromkeys(path for path in paths if path not in self._row_of)):
            raise PolyfaceError(
                f"{len(absent)} of {len(set(paths))} images of the {what} are not in the table, such as {absent[0]}: "
                f"give the faces of the part that the {what} are of"
            )
        return np.array([self._row_of[path] for path in paths], dtype=np.intp)

    def ask(self, name: str, what: str, *wanted: Any) -> Any:
        """What the reader of a data set offers of this part (`pairs`, `searches`), by the options that the faces were
        read with. Without a name: the reader of the first data set that offers it."""
        offering = [one for one in self.sources if one in READERS and hasattr(READERS.get(one), what)]
        name = name or next(iter(offering), "")
        if not name:
            raise PolyfaceError(f"no data set of these faces has {what}: name the one that has by the option reader")
        made = reader(name, **self.sources.get(name, {}))
        if not hasattr(made, what):
            raise PolyfaceError(f"reader '{name}' has no {what}; {nearest(name, offering)}")
        root = self._root(name, made)
        key = f"{made} {what} {root} {self.part} {wanted}"
        if key not in self.offered:
            self.offered[key] = getattr(made, what)(root, self.part, *(one for one in wanted if one))
        return self.offered[key]

    def _root(self, name: str, made: Reader) -> Path:
        """Where a data set lies; one that its reader draws lies nowhere."""
        if getattr(made, "drawn", False):
            return Path()
        if self.data is None:
            raise NoDataError(f"data set '{name}': no data folder was given; pass --data DIR that holds {name}/")
        places = (self.data / one for one in (name, getattr(made, "folder", name)))
        return next((place for place in places if place.exists()), self.data / name)


@dataclass(frozen=True)
class Cases:
    """What a protocol compares, of one evaluation set. units: a result's prefix → for each of its units (face, pair,
    probe, person) the rows of the faces that it is of."""

    faces: EvaluationSet
    units: Mapping[str, Iterable[Indices]]

    def groups(self, prefix: str, column: str) -> dict[str, Bools]:
        """Which units of a result are of which word of a column: the word that all faces of a unit have, or "mixed";
        those with a face of no word are in no group."""
        words = self.faces.table.words(column)

        def label(rows: Indices) -> str | None:
            found = set(words[rows])
            return None if None in found else found.pop() if len(found) == 1 else MIXED

        return groups_of([label(rows) for rows in self.units.get(prefix, ())], VOCABULARIES.get(column, ()))


class Protocol(typing.Protocol):
    """A way to evaluate a model. Its options are its constructor's."""

    def cases(self, faces: EvaluationSet) -> Any:
        """What is compared, of these faces: `Cases`, or a class made from it."""

    def evaluate(self, answers: Answers, cases: Any) -> Mapping[str, Result]:
        """The figures of a model's answers, by the prefix that the names of their metrics have ("", "C2P ")."""


def people_of(faces: EvaluationSet, rows: Indices, what: str) -> NDArray[Any]:
    """Who is on each of these faces, by name."""
    names = faces.table.words("identity")[rows]
    if nameless := sum(name is None for name in names):
        raise PolyfaceError(f"{nameless} of the {len(rows)} faces of the {what} have no identity: leave them out")
    return names.astype(str)


def rows_by_person(faces: EvaluationSet, rows: Indices, what: str) -> list[Indices]:
    """These rows, those of each person together, by name."""
    names = people_of(faces, rows, what)
    return [rows[names == name] for name in np.unique(names)]


def tasks_by_person(answers: Answers, faces: EvaluationSet, names: Sequence[str]) -> dict[str, Result]:
    """How these tasks do, those that the model has, over people with all their faces."""
    everybody = people_of(faces, np.arange(len(faces.table)), "tasks")
    known = [name for name in names if name in faces.tasks and name in answers]
    found = {name: faces.tasks[name].evaluate(answers[name], faces.table) for name in known}
    return {name: clustered(one, everybody, PEOPLE) for name, one in found.items()}


def answer(answers: Answers, task: str, key: str, table: FaceTable) -> NDArray[Any]:
    """A task's answer [N, …] over the faces of the table."""
    if key not in answers[task]:
        raise PolyfaceError(f"task '{task}' has no {key}; its answers are: {', '.join(answers[task]) or 'none'}")
    found = np.asarray(answers[task][key])
    if found.ndim != 2 or len(found) != len(table):
        raise PolyfaceError(f"task '{task}': {key} {list(found.shape)} for a table of {len(table)} faces")
    return found


def embedding_name(answers: Answers, wanted: str = "") -> str:
    """The task, or the embedding that is no task's, by which faces are compared: the wanted one, or else the only
    one."""
    having = [name for name in answers if answers[name].keys() & set(EMBEDDED)]
    if wanted in having:
        return wanted
    if not having:
        raise PolyfaceError(f"answers of {', '.join(answers) or 'no task'}: none has an embedding to compare faces by")
    if len(having) > 1:
        told = f"there is no '{wanted}' among the embeddings" if wanted else "there are embeddings of"
        raise PolyfaceError(f"{told} {', '.join(having)}: name one by the protocol's option embedding")
    return having[0]


@dataclass(frozen=True)
class Embedded:
    """Embeddings [N, E] by which faces are compared: of length 1; or as they are, by their product (`inner`)."""

    vectors: NDArray[Any]
    inner: bool = False

    def pairs(self, first: Indices, second: Indices) -> Floats:
        """The distance of each listed pair of rows, [pairs]: the smaller, the more alike."""
        return pair_distances(self.vectors[first], self.vectors[second], inner=self.inner)

    def between(self, probes: Indices, gallery: Indices) -> Floats:
        """The distances of all rows of both, [probes, gallery]."""
        return squared_distances(self.vectors[probes], self.vectors[gallery], inner=self.inner)


def embedded(answers: Answers, wanted: str, table: FaceTable) -> Embedded:
    """The embeddings of the faces of a table that a protocol compares (`embedding_name`)."""
    name = embedding_name(answers, wanted)
    inner = "inner" in answers[name]
    return Embedded(answer(answers, name, "inner" if inner else "embedding", table), inner)
