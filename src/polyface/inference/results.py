"""What an analysis says, typed, and how it is written down: JSON lines and Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyface.errors import utf8
from polyface.files import atomic_path, check_output

_ROWS = 4096  # of a Parquet row group


@dataclass(frozen=True, eq=False)
class FaceResult:
    """One face, in pixels of its image as displayed (pixel centres at integers, x to the right, y down).

    box: float32 [4], x0, y0, x1, y1. score: the detector's, 0…1; None for a box of one's own. points: {task: float32
    [P, 2]}. labels: {task: (word, probability 0…1)}. probabilities: {task: {word: probability}}, in class order.
    attributes: {task: names of those that the face has}; scores: {task: {name: score}} of all that were asked for (the
    face has those whose score is above the threshold that the model has for them). other: what tasks of further kinds
    answer, {task: {key: value}}.
    """

    box: np.ndarray
    score: float | None
    points: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, tuple[str, float]] = field(default_factory=dict)
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    other: dict[str, dict[str, Any]] = field(default_factory=dict)
    best_of: dict[str, int] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, float]:
        """What tasks of further kinds answer by a number: {task: value}, or {task_key: value} of another key."""
        return {
            task if key == "value" else f"{task}_{key}": float(value)
            for task, answers in self.other.items()
            for key, value in answers.items()
            if isinstance(value, int | float | np.number)
        }

    def to_dict(self, exact: bool = False) -> dict[str, Any]:
        """Plain values: points to a hundredth of a pixel, probabilities and scores to four digits, or with `exact` all
        that there are; NaN becomes None."""

        def plain(value: Any, digits: int) -> Any:
            return _plain(value, None if exact else digits)

        told: dict[str, Any] = {"box": plain(self.box, 2), "score": plain(self.score, 4)}
        told["points"] = {task: plain(points, 2) for task, points in self.points.items()}
        told["labels"] = {
            task: {"label": word, "probability": plain(probability, 4)}
            for task, (word, probability) in self.labels.items()
        }
        told["probabilities"] = plain(self.probabilities, 4)
        if self.attributes:
            told |= {"attributes": plain(self.attributes, 4), "scores": plain(self.scores, 4)}
        told |= {"best_of": self.best_of} if self.best_of else {}
        return told | ({"other": plain(self.other, 6)} if self.other else {})

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> FaceResult:
        """What `to_dict` told; None among numbers becomes NaN."""
        return cls(
            np.array(told["box"], np.float32),
            told["score"],
            {task: np.array(points, np.float32) for task, points in told["points"].items()},
            {task: (said["label"], _number(said["probability"])) for task, said in told["labels"].items()},
            _numbers(told["probabilities"]),
            {task: tuple(names) for task, names in told.get("attributes", {}).items()},
            _numbers(told.get("scores", {})),
            _numbers(told.get("other", {})),
            dict(told.get("best_of", {})),
        )


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image. path: its file, None for a picture from memory. width, height: pixels as displayed, 0 if unreadable.
    faces: best score first, or in the order of one's own boxes; empty where there is none. error: why it could not be
    read, None if it could."""

    path: str | None
    width: int
    height: int
    faces: tuple[FaceResult, ...] = ()
    error: str | None = None

    def table(self) -> list[dict[str, str]]:
        """What a person reads: for each face its number, its score and place, and what it was found to be."""
        rows = []
        for number, face in enumerate(self.faces, 1):
            x0, y0, x1, y1 = (f"{value:.0f}" for value in face.box)
            row = {">face": str(number), ">score": "" if face.score is None else f"{face.score:.2f}"}
            row |= {"box": f"{x0}, {y0} – {x1}, {y1}"}
            row |= {task: f"{word} ({100 * chance:.0f} %)" for task, (word, chance) in face.labels.items()}
            row |= {task: ", ".join(names) or "none" for task, names in face.attributes.items()}
            row |= {f">{name}": f"{value:.3g}" for name, value in face.numbers.items()}
            rows.append(row)
        return rows

    def to_dict(self, exact: bool = False) -> dict[str, Any]:
        """Plain values, as a line of JSON holds them."""
        told: dict[str, Any] = {"path": self.path and utf8(self.path), "width": self.width, "height": self.height}
        told["faces"] = [face.to_dict(exact) for face in self.faces]
        return told | ({"error": self.error} if self.error else {})

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> ImageResult:
        """What `to_dict` told."""
        faces = tuple(map(FaceResult.from_dict, told["faces"]))
        return cls(told["path"], told["width"], told["height"], faces, told.get("error"))


def json_line(told: Any) -> str:
    """Plain values as JSON in one line, with its line break."""
    return json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def to_json_lines(results: Iterable[ImageResult]) -> str:
    """One JSON object a line, one line an image; ends with a line break unless there is no image."""
    return "".join(json_line(result.to_dict()) for result in results)


def to_parquet(
    results: Iterable[ImageResult],
    path: Path | str,
    *,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
) -> int:
    """Write one row a face as Parquet, whole or not at all; returns the number of rows.

    Columns: path, width, height, face (its index in the image), box, score; for a task with points fixed-size lists
    x, y, x, y, … under its name; for one with words its name, `<task>_probability`, and `<task>_probabilities`
    (a struct, one field a word); for one with attributes a list of those the face has under its name, and
    `<task>_scores` (a struct, one field an attribute); for one with a number this under its name. Of a task in
    `best_of` probabilities or scores are a list of structs of a name and a number. Images without a face, or
    unreadable, have no row.

    overwrite: whether a file that Polyface did not write may be replaced. about: what the file's metadata says under
    "polyface".
    """
    path, total = Path(path), 0
    check_output(path, overwrite)
    faces = ((result, index, face) for result in results for index, face in enumerate(result.faces))
    first = list(islice(faces, 1))
    rows, schema = starmap(_row, chain(first, faces)), _schema(first[0][2] if first else None)
    schema = schema.with_metadata({"polyface": json.dumps(dict(about or {}))})
    with atomic_path(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        while some := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            total += len(some)
    return total


def _schema(face: FaceResult | None) -> pa.Schema:
    columns = [("path", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("face", pa.int32())]
    columns += [("box", pa.list_(pa.float32(), 4)), ("score", pa.float32())]
    if face is not None:
        columns += [(task, pa.list_(pa.float32(), points.size)) for task, points in face.points.items()]
        for task, classes in face.probabilities.items():
            columns += [(task, pa.string()), (f"{task}_probability", pa.float32())]
            columns += [(f"{task}_probabilities", _words(classes, "probability", task in face.best_of))]
        for task, scores in face.scores.items():
            columns += [(task, pa.list_(pa.string()))]
            columns += [(f"{task}_scores", _words(scores, "score", task in face.best_of))]
        columns += [(name, pa.float32()) for name in face.numbers]
    return pa.schema(columns)


def _words(words: Iterable[str], number: str, best: bool) -> pa.DataType:
    """How words with a number each are held."""
    if best:
        return pa.list_(pa.struct([("name", pa.string()), (number, pa.float32())]))
    return pa.struct([(word, pa.float32()) for word in words])


def _row(result: ImageResult, index: int, face: FaceResult) -> dict[str, Any]:
    row: dict[str, Any] = {"path": result.path and utf8(result.path), "width": result.width, "height": result.height}
    row |= {"face": index, "box": face.box.tolist(), "score": face.score}
    row |= {task: points.ravel().tolist() for task, points in face.points.items()}
    for task, (word, probability) in face.labels.items():
        row |= {task: word, f"{task}_probability": probability}
    for task, names in face.attributes.items():
        row |= {task: list(names)}
    for task, words in face.probabilities.items():
        row[f"{task}_probabilities"] = _listed(words, "probability") if task in face.best_of else words
    for task, words in face.scores.items():
        row[f"{task}_scores"] = _listed(words, "score") if task in face.best_of else words
    return row | face.numbers


def _listed(words: Mapping[str, float], number: str) -> list[dict[str, Any]]:
    return [{"name": word, number: value} for word, value in words.items()]


def _plain(value: Any, digits: int | None) -> Any:
    """Arrays as lists, floats rounded, NaN and infinities as None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return (value if digits is None else round(value, digits)) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item, digits) for key, item in value.items()}
    return [_plain(item, digits) for item in value] if isinstance(value, list | tuple) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _numbers(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {task: {key: _number(value) for key, value in words.items()} for task, words in answers.items()}
