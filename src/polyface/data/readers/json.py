"""Anybody's labels in a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers._labels import LabelReader, Layout, Row, layout
from polyface.data.readers.common import demand, lacking, read_text
from polyface.data.writing import Skipped
from polyface.errors import PolyfaceError


@dataclass(frozen=True)
class Json(LabelReader):
    """Objects of a JSON file, one a face: an image path and any labels.

    Layout: a list of objects, or JSON lines (an object a line). Objects may lack names that others have.

    Labels: every name, as it and its values say or as options do (:class:`LabelReader`); null is not labelled. A list
    of pairs is points, an object of numbers is soft labels, a list of four numbers called box a box.

    Licence and source: those of the file.
    """

    name = "json"
    verified = True
    about = "your own labels: a JSON file (a list of objects, or an object a line) with image paths and any labels"
    layout = "a .json or .jsonl file: a list of objects, or an object a line, each with an image path"

    def _read(self, root: Path) -> tuple[Layout, list[Row | Skipped]]:
        text = read_text(demand(root, self))
        rows = [_row(where, root, value) for where, value in _values(root, text)]
        if all(isinstance(row, Skipped) for row in rows):
            raise lacking(root, "holds no object", self)
        names = dict.fromkeys(name for row in rows if not isinstance(row, Skipped) for name in row[2])
        return layout(list(names), rows, self, root.name), rows


def _values(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise PolyfaceError(f"{file}: not JSON ({error}); mend it") from error
        for number, value in enumerate(values):
            yield f"{file.name} item {number}", value
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{file.name}:{number}", json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                yield f"{file.name}:{number}", error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a name that is there twice has the error that says so, as nobody knows which value is meant."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        found[name] = ValueError("is there twice") if name in found else value
    return found


def _row(where: str, file: Path, value: Any) -> Row | Skipped:
    if isinstance(value, Exception):
        return Skipped(where, f"not JSON ({value})")
    return (where, file, value) if isinstance(value, dict) else Skipped(where, "not an object of names and values")
