"""Anybody's labels in a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers._labels import LabelReader, Layout, Row, layout
from polyface.data.readers.common import demand, lacking, read_text
from polyface.data.writing import Skipped
from polyface.errors import PolyfaceError


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
        lines = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
        rows: list[Row | Skipped] = []
        try:
            names = [name.strip() for name in next(lines, [])]
            for fields in lines:
                where = f"{root.name}:{lines.line_num}"
                if fields and len(fields) != len(names):
                    rows.append(Skipped(where, f"{len(fields)} fields, expected {len(names)} as in the first line"))
                elif fields:
                    rows.append((where, root, dict(zip(names, fields, strict=True))))
        except csv.Error as error:
            raise PolyfaceError(f"{root}:{lines.line_num}: not CSV ({error}); mend the line") from error
        if not names:
            raise lacking(root, "is empty", self)
        return layout(names, rows, self, root.name), rows
