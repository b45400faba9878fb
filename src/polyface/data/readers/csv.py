"""Anybody's labels in a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers._labels import LabelReader, Layout, Row, layout
from polyface.data.readers.common import demand, lacking, read_text
from polyface.data.writing import Skipped


@dataclass(frozen=True)
class Csv(LabelReader):
    """Rows of a CSV file, one a face: a column of image paths and any columns of labels.

    Layout: names in the first line; fields between commas, semicolons or tabs (whichever the first line has most of).

    Labels: every column, as its name and values say or as options do (:class:`LabelReader`); an empty field is not
    labelled. A list or an object in a field is read as JSON.

    Licence and source: those of the file.
    """

    name = "csv"
    verified = True
    about = "your own labels: a CSV file with a column of image paths and any columns of labels"
    layout = "a .csv file with the columns' names in its first line, one of them the images' paths"

    def _read(self, root: Path) -> tuple[Layout, list[Row | Skipped]]:
        text = read_text(demand(root, self))
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        names: list[str] = []
        rows: list[Row | Skipped] = []
        for number, fields in _lines(text, delimiter):
            where = f"{root.name}:{number}"
            if isinstance(fields, csv.Error):
                rows.append(Skipped(where, f"not CSV ({fields})"))
                if not names:
                    break
            elif not names:
                names = [name.strip() for name in fields]
            elif fields and len(fields) != len(names):
                rows.append(Skipped(where, f"{len(fields)} fields, expected {len(names)} as in the first line"))
            elif fields:
                rows.append((where, root, dict(zip(names, fields, strict=True))))
        if rows and all(isinstance(row, Skipped) for row in rows):
            raise lacking(root, f"no row can be read (first: {rows[0]})", self)
        if not names:
            raise lacking(root, "is empty", self)
        return layout(names, rows, self, root.name), rows


def _lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The fields of each line with its number from 1, or what is wrong with it.

    A field in quotes may hold line breaks. Of one that is not closed the first line alone is lost: the next is read as
    a line again.
    """
    lines = io.StringIO(text, newline="").readlines()
    start = 0
    while start < len(lines):
        found = csv.reader(lines[start:], delimiter=delimiter, strict=True)
        done = 0
        try:
            for fields in found:
                yield start + found.line_num, fields
                done = found.line_num
            return
        except csv.Error as error:
            start += done + 1
            yield start, error
