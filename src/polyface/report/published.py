"""What a paper reports, where it reports it, and what differs from what is measured here: the file `published.yaml`.

A figure stands there only if its paper prints it as a number; what a paper says in words, or shows in a plot alone, is
a `Statement`. `differs` names the details of the protocol that keep the figure from being compared directly. ::

    tables:
      - source: Doe 2020, Table 1
        differs: trained on more images
        metric: "mean error, {column}"
        columns: [common, challenging]
        lines:
          Their method: [5.6, ~]
          Another: [[4.9, 0.2], 11.9]

A cell is a figure, a figure and its spread over seeds or folds, or ~ where there is none. It is a figure of `row` and
`metric`, by default the line's and the column's name. Of a table with `detail: true` the page shows the figures that
are measured too, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from polyface.errors import PolyfaceError


@dataclass(frozen=True)
class Published:
    """One printed figure of a paper, with its spread if that is printed as well. `row` is the method as the paper names
    it; `differs` is empty if nothing does."""

    row: str
    metric: str
    value: float
    source: str
    differs: str = ""
    unit: str = "%"
    std: float | None = None
    detail: bool = False


@dataclass(frozen=True)
class Statement:
    """What a paper says without a table of numbers behind it."""

    text: str
    source: str
    differs: str = ""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Table(_Strict):
    source: str
    differs: str = ""
    unit: str = "%"
    row: str = "{line}"
    metric: str = "{column}"
    detail: bool = False
    columns: list[str]
    lines: dict[str, list[float | tuple[float, float] | None]]

    def figures(self) -> Iterator[Published]:
        for line, cells in self.lines.items():
            if len(cells) != len(self.columns):
                raise ValueError(f"'{line}' has {len(cells)} cells for {len(self.columns)} columns")
            for column, cell in zip(self.columns, cells, strict=True):
                if cell is not None:
                    value, std = cell if isinstance(cell, tuple) else (cell, None)
                    row, metric = (text.format(line=line, column=column) for text in (self.row, self.metric))
                    yield Published(row, metric, value, self.source, self.differs, self.unit, std, self.detail)


class _File(_Strict):
    texts: dict[str, str] = {}  # that several tables share by YAML's anchors
    tables: list[_Table] = []
    statements: list[Statement] = []


def read_published(path: Path) -> tuple[list[Published], list[Statement]]:
    """The figures and statements of a paper.

    Raises:
        PolyfaceError: the file cannot be read, has an unknown key, or a figure twice.
    """
    try:
        read = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        figures = [figure for table in read.tables for figure in table.figures()]
    except ValidationError as error:
        first = error.errors()[0]
        raise PolyfaceError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise PolyfaceError(f"{path}: {str(error).splitlines()[0]}") from error
    seen: set[tuple[str, str]] = set()
    for figure in figures:
        if (key := (figure.row, figure.metric)) in seen:
            raise PolyfaceError(f"{path}: '{figure.row}', '{figure.metric}' is there twice; keep one of them")
        seen.add(key)
    return figures, read.statements
