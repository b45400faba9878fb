"""One self-contained HTML page about a trained network: figures, curves, tables, faces and the recipe.

A report is a list of sections. Each turns itself into blocks (a paragraph, a table, pictures, …), which is all that the
template knows; other parts of the project add sections of their own by the same `Section` protocol. Images are
inlined, nothing is fetched, and every text is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar, Protocol

from polyface.files import atomic_path
from polyface.metrics import sections as plain
from polyface.metrics.result import Result, Row
from polyface.metrics.sections import Curve, Curves, Table, Text
from polyface.report.faces import Picture, as_image
from polyface.report.plots import plot, plot_curves
from polyface.report.published import Published, Statement
from polyface.report.results import format_number, format_row


@dataclass(frozen=True)
class Notes:
    """Notes numbered from 1, which table cells refer to."""

    kind: ClassVar[str] = "notes"
    notes: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Preformatted text, such as a recipe."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Figure:
    """An encoded picture (PNG or JPEG bytes) with what it shows (`alt`) and an optional caption."""

    image: bytes
    alt: str
    caption: str = ""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        kind = "jpeg" if self.image.startswith(b"\xff\xd8") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(self.image).decode()}"


@dataclass(frozen=True)
class Figures:
    """Pictures side by side: `wide` ones take the page's width, others a small cell each."""

    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]
    wide: bool = False
    caption: str = ""


Block = Text | Notes | Code | Table | Figures


class Section(Protocol):
    """A titled part of a report."""

    @property
    def title(self) -> str: ...

    def blocks(self) -> Sequence[Block]: ...


def photo(picture: Picture, alt: str, caption: str = "", longest: int = 1200) -> Figure:
    """A photo as JPEG, reduced to at most `longest` pixels a side so that a page of faces stays small."""
    image = as_image(picture)
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return Figure(buffer.getvalue(), alt, caption)


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns in which no row says anything."""
    kept = [place for place in range(len(header)) if any(row[place] for row in rows)]
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]


@dataclass(frozen=True)
class TextSection:
    """Paragraphs."""

    title: str
    paragraphs: Sequence[str]

    def blocks(self) -> Sequence[Block]:
        """A paragraph each."""
        return [Text(paragraph) for paragraph in self.paragraphs]


@dataclass(frozen=True)
class MeasuredSection:
    """Measured figures beside the published ones of the same row and metric, and what differs between the two."""

    title: str
    rows: Sequence[Row]
    published: Sequence[Published] = ()
    statements: Sequence[Statement] = ()
    text: str = ""

    def blocks(self) -> Sequence[Block]:
        """The table of measured figures, the remaining published figures, and the paper's statements."""
        papers = {(figure.row, figure.metric): figure for figure in self.published}
        notes: dict[str, int] = {}  # text → its number; said once below, however many rows share it

        def marks(*texts: str) -> str:
            return ", ".join(str(notes.setdefault(text, len(notes) + 1)) for text in texts if text)

        body = []
        for row in self.rows:
            paper = papers.pop(row.key, None)
            value = row.published if row.published is not None or paper is None else paper.value
            shown = "" if value is None else format_number(value, row.unit)
            faces = "" if row.n is None else f"{row.n:,}"
            about = marks(row.note, *((paper.differs, paper.source) if paper else ()))
            figure = f"{format_row(row)} {row.unit}".strip()
            body.append([row.row, row.metric, figure, shown, str(len(row.seeds) or ""), faces, about])
        header = ["row", "metric", ">measured", ">published", ">seeds", ">n", "notes"]
        caption = "Mean ± standard deviation over seeds; in parentheses the 95 % bootstrap interval."
        blocks: list[Block] = [Text(self.text)] if self.text else []
        blocks.append(Table(*_without_empty(header, body), caption))
        if papers:
            others = [
                [p.row, p.metric, f"{format_number(p.value, p.unit)} {p.unit}", marks(p.differs, p.source)]
                for p in papers.values()
            ]
            blocks.append(Table(*_without_empty(["row", "metric", ">published", "notes"], others), "Published only."))
        if notes:
            blocks.append(Notes(list(notes)))
        for statement in self.statements:
            origin = "; ".join(filter(None, [statement.source, statement.differs]))
            blocks.append(Text(f"{statement.text} ({origin})"))
        return blocks


@dataclass(frozen=True)
class ResultSection:
    """What a result has to show, drawn; `picture` draws one of its faces."""

    title: str
    section: plain.Section
    picture: Callable[[plain.Face], Picture] | None = None

    def blocks(self) -> Sequence[Block]:
        """Curves as a plot, faces as pictures; all else as it is. Faces are left out where nobody draws them."""
        return [block for one in self.section.blocks if (block := self._drawn(one))]

    def _drawn(self, block: Text | Table | Curves | plain.Faces) -> Block | None:
        if isinstance(block, Curves):
            alt = f"{block.y_label} over {block.x_label} of {', '.join(name or self.title for name in block.curves)}"
            return Figures([Figure(plot(block), alt, block.caption)], wide=True)
        if isinstance(block, plain.Faces):
            faces = [(self.picture(face), face.caption) for face in block.faces] if self.picture else []
            shown = [photo(picture, f"{block.caption}: {text}", text, 320) for picture, text in faces]
            return Figures(shown, caption=block.caption) if shown else None
        return block


def side_by_side(results: Mapping[str, Result], about: str = "", note: str = "") -> list[Section]:
    """The curves of several results in one plot each, and their tables of one line or of one column in one table;
    longer tables and faces are of a single result. Results are compared only where they are over the same units: those
    of each kind of units have sections of their own. about: for the titles; note: for the captions ("First seed.")."""
    alike: dict[str, dict[str, list[plain.Section]]] = {}
    for name, result in results.items():
        alike.setdefault(result.key, {})[name] = result.sections()
    made: list[Section] = []
    for group in alike.values():
        first, *others = group
        of = [first + (f" and {len(others)} others" if others else "")] if len(alike) > 1 else []
        told = ", ".join(filter(None, [about, *of]))
        titles = dict.fromkeys(section.title for sections in group.values() for section in sections)
        for title in titles:
            having = {
                name: section for name, sections in group.items() for section in sections if section.title == title
            }
            columns = zip_longest(*(section.blocks for section in having.values()))
            blocks = [block for column in columns if (block := _merged(dict(zip(having, column, strict=True)), note))]
            if blocks:
                heading = title[:1].upper() + title[1:] + (f": {told}" if told else "")
                made.append(ResultSection(heading, plain.Section(heading, blocks)))
    return made


def _merged(blocks: Mapping[str, object], note: str) -> Curves | Table | None:
    """One plot or table of those of several results, if they are of a kind that can be put together."""
    first = next(iter(blocks.values()))
    if isinstance(first, Curves):
        curves = {
            f"{name}{f' {own}' if own else ''}{f' ({block.legend})' if block.legend else ''}": curve
            for name, block in blocks.items()
            if isinstance(block, Curves)
            for own, curve in block.curves.items()
        }
        return replace(first, curves=curves, legend="", caption=f"{first.caption} {note}".strip())
    tables = {name: block for name, block in blocks.items() if isinstance(block, Table)}
    if not isinstance(first, Table) or len({tuple(table.header) for table in tables.values()}) > 1:
        return None
    if not first.header[0]:
        return replace(first, rows=[[name, *line[1:]] for name, table in tables.items() for line in table.rows])
    if len(first.header) == 2 and len({tuple(line[0] for line in table.rows) for table in tables.values()}) == 1:
        each = zip(*(table.rows for table in tables.values()), strict=True)
        body = [[lines[0][0], *(line[1] for line in lines)] for lines in each]
        return Table([first.header[0], *(f">{name}" for name in tables)], body, first.header[1].lstrip(">"))
    return None


def parts_section(title: str, heading: str, lines: Mapping[str, Sequence[Row]]) -> TableSection:
    """Rows of results as a table: a line for each part of a question ({"left profile": rows}), a column a metric."""
    metrics = list(dict.fromkeys(row.metric for rows in lines.values() for row in rows))
    body = []
    for part, rows in lines.items():
        found = {row.metric: row for row in rows}
        cells = [format_row(found[metric]) if metric in found else "" for metric in metrics]
        body.append([part, *("" if row.n is None else f"{row.n:,}" for row in rows[:1]), *cells])
    header = [heading, ">n", *(f">{metric}" for metric in metrics)]
    return TableSection(title, Table(header, body, "In parentheses the 95 % bootstrap interval."))


@dataclass(frozen=True)
class TableSection:
    """A table, and above it what it shows."""

    title: str
    table: Table
    text: str = ""

    def blocks(self) -> Sequence[Block]:
        """The text, then the table."""
        return [*([Text(self.text)] if self.text else []), self.table]


@dataclass(frozen=True)
class TrainingSection:
    """Training curves: losses and weights per task {task: (steps, values)}, and the step at which each task stopped."""

    title: str
    losses: Mapping[str, Curve]
    weights: Mapping[str, Curve] = field(default_factory=dict)
    validation: Mapping[str, Curve] = field(default_factory=dict)
    stopped: Mapping[str, float] = field(default_factory=dict)
    x_label: str = "step"

    def blocks(self) -> Sequence[Block]:
        """One plot for each kind of curve, and the stops in words."""
        curves = {"loss": self.losses, "validation loss": self.validation, "weight": self.weights}
        figures = [
            Figure(
                plot_curves(tasks, x_label=self.x_label, y_label=name, marks=self.stopped, y_log=name != "weight"),
                f"{name} per task over training: {', '.join(tasks)}",
                f"{name.capitalize()} per task" + (" (dotted: the task was stopped)" if self.stopped else ""),
            )
            for name, tasks in curves.items()
            if tasks
        ]
        blocks: list[Block] = [Figures(figures, wide=True)]
        if self.stopped:
            stops = [[task, f"{step:,.0f}"] for task, step in sorted(self.stopped.items(), key=lambda item: item[1])]
            blocks.append(Table(["task", f">stopped at {self.x_label}"], stops))
        return blocks


@dataclass(frozen=True)
class FacesSection:
    """Faces with their drawn landmarks, in named groups: {group: [(picture, caption)]}."""

    title: str
    groups: Mapping[str, Sequence[tuple[Picture, str]]]
    text: str = ""

    def blocks(self) -> Sequence[Block]:
        """A row of pictures per group."""
        blocks: list[Block] = [Text(self.text)] if self.text else []
        return blocks + [
            Figures([photo(picture, f"{name}: {text}", text, 320) for picture, text in faces], caption=name)
            for name, faces in self.groups.items()
            if faces
        ]


@dataclass(frozen=True)
class PhotoSection:
    """One large picture, for example a photo with every analysed face drawn on it, and what was found as a table."""

    title: str
    picture: Picture
    caption: str = ""
    found: Sequence[Mapping[str, str]] = ()

    def blocks(self) -> Sequence[Block]:
        """The picture, then one line per face."""
        blocks: list[Block] = [Figures([photo(self.picture, self.caption or self.title, self.caption)], wide=True)]
        if self.found:
            header = list(dict.fromkeys(key for face in self.found for key in face))
            blocks.append(Table(header, [[face.get(key, "") for key in header] for face in self.found]))
        return blocks


@dataclass(frozen=True)
class RecipeSection:
    """The recipe (or any other text file) as it is, with the command that runs it."""

    title: str
    recipe: str
    command: str = ""

    def blocks(self) -> Sequence[Block]:
        """The command, then the text."""
        return [*([Code(self.command)] if self.command else []), Code(self.recipe)]


def render_report(title: str, sections: Sequence[Section]) -> str:
    """The report as HTML text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = [{"title": section.title, "blocks": section.blocks()} for section in sections]
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("report.html").render(title=title, sections=parts, date=date)


def write_report(path: Path | str, title: str, sections: Sequence[Section]) -> Path:
    """Write the report, whole or not at all, and return its path."""
    text = render_report(title, sections)
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)
