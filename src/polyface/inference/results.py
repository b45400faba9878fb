"""What an analysis says, typed, and how it is written down: JSON lines and Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyface.errors import PolyfaceError, utf8
from polyface.files import atomic_path

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

    @property
    def numbers(self) -> dict[str, float]:
        """What tasks of further kinds answer by a number: {task: value}, or {task_key: value} of another key."""
        return {
            task if key == "value" else f"{task}_{key}": float(value)
            for task, answers in self.other.items()
            for key, value in answers.items()
            if isinstance(value, int | float | np.number)
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values: points to a hundredth of a pixel, probabilities and scores to four digits; NaN becomes None."""
        told: dict[str, Any] = {"box": _plain(self.box, 2), "score": _plain(self.score, 4)}
        told["points"] = {task: _plain(points, 2) for task, points in self.points.items()}
        told["labels"] = {
            task: {"label": word, "probability": _plain(probability, 4)}
            for task, (word, probability) in self.labels.items()
        }
        told["probabilities"] = _plain(self.probabilities, 4)
        if self.attributes:
            told |= {"attributes": _plain(self.attributes, 4), "scores": _plain(self.scores, 4)}
        return told | ({"other": _plain(self.other, 6)} if self.other else {})


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a line of JSON holds them."""
        told: dict[str, Any] = {"path": self.path and utf8(self.path), "width": self.width, "height": self.height}
        told["faces"] = [face.to_dict() for face in self.faces]
        return told | ({"error": self.error} if self.error else {})


def to_json_lines(results: Iterable[ImageResult]) -> str:
    """One JSON object a line, one line an image; ends with a line break unless there is no image."""
    return "".join(
        json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        for result in results
    )


def to_parquet(results: Iterable[ImageResult], path: Path | str) -> int:
    """Write one row a face as Parquet, whole or not at all; returns the number of rows.

    Columns: path, width, height, face (its index in the image), box, score; for a task with points fixed-size lists
    x, y, x, y, … under its name; for one with words its name, `<task>_probability`, and `<task>_probabilities`
    (a struct, one field a word); for one with attributes a list of those the face has under its name, and
    `<task>_scores` (a struct, one field an attribute); for one with a number this under its name. Images without a
    face, or unreadable, have no row.
    """
    path, total = Path(path), 0
    if path.is_dir():
        raise PolyfaceError(f"{path}: is a folder; name a file such as {path / 'faces.parquet'}")
    faces = ((result, index, face) for result in results for index, face in enumerate(result.faces))
    first = list(islice(faces, 1))
    rows, schema = starmap(_row, chain(first, faces)), _schema(first[0][2] if first else None)
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
            columns += [(f"{task}_probabilities", pa.struct([(word, pa.float32()) for word in classes]))]
        for task, scores in face.scores.items():
            columns += [(task, pa.list_(pa.string()))]
            columns += [(f"{task}_scores", pa.struct([(name, pa.float32()) for name in scores]))]
        columns += [(name, pa.float32()) for name in face.numbers]
    return pa.schema(columns)


def _row(result: ImageResult, index: int, face: FaceResult) -> dict[str, Any]:
    row: dict[str, Any] = {"path": result.path and utf8(result.path), "width": result.width, "height": result.height}
    row |= {"face": index, "box": face.box.tolist(), "score": face.score}
    row |= {task: points.ravel().tolist() for task, points in face.points.items()}
    for task, (word, probability) in face.labels.items():
        row |= {task: word, f"{task}_probability": probability, f"{task}_probabilities": face.probabilities[task]}
    for task, names in face.attributes.items():
        row |= {task: list(names), f"{task}_scores": face.scores[task]}
    return row | face.numbers


def _plain(value: Any, digits: int) -> Any:
    """Arrays as lists, floats rounded, NaN and infinities as None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return round(value, digits) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item, digits) for key, item in value.items()}
    return [_plain(item, digits) for item in value] if isinstance(value, list | tuple) else value
