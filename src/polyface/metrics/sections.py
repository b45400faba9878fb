"""What a result has to show beside its figures, as plain data: paragraphs, tables, curves, faces. `report` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

Curve = tuple[ArrayLike, ArrayLike]
"""x and y, of one length."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A table; columns whose header starts with `>` hold numbers and are set right-aligned."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


def mean_curve(of_seeds: Sequence[Curve]) -> Curve:
    """The mean of the curves of several runs, which have the same places, as far as all of them go."""
    length = min(len(np.asarray(x)) for x, _ in of_seeds)
    return np.asarray(of_seeds[0][0])[:length], np.mean([np.asarray(y)[:length] for _, y in of_seeds], axis=0)


@dataclass(frozen=True)
class Curves:
    """A plot of curves {name: (x, y)}; one of a single result is named "", and `legend` adds a figure to its name.

    `x_log`, `y_log`: logarithmic axes. `percent`: y goes from 0 to 100. `marks`: {name: x} of vertical lines. `bands`:
    {name of a curve: (low, high)}, the interval of each of its points.
    """

    curves: Mapping[str, Curve]
    x_label: str
    y_label: str
    caption: str = ""
    legend: str = ""
    x_log: bool = False
    y_log: bool = False
    percent: bool = False
    marks: Mapping[str, float] = field(default_factory=dict)
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] = field(default_factory=dict)


@dataclass(frozen=True)
class Face:
    """The face at a row of the evaluated table, to be drawn with predicted and true points [P, 2], in pixels of its
    image (NaN where invisible), and what is written below it."""

    row: int
    caption: str
    points: ArrayLike | None = None
    truth: ArrayLike | None = None


@dataclass(frozen=True)
class Faces:
    """A row of faces with a caption."""

    faces: Sequence[Face]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: Sequence[Text | Table | Curves | Faces]


def cell(value: float | None, digits: int = 2) -> str:
    """A figure as a table's cell: "–" where it is not defined, empty where there is none."""
    return "" if value is None else "–" if value != value else f"{value:.{digits}f}"
