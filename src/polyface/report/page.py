"""One self-contained HTML page about a trained network: figures, curves, tables, faces and the recipe.

A report is a list of sections, each a title and blocks (a paragraph, a table, curves, pictures, …), which are all that
the template knows; the functions here make the sections that are shown often. Images are inlined, nothing is fetched,
and every text is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

from polyface.files import atomic_path
from polyface.metrics import sections as plain
from polyface.metrics.result import Result, Row
from polyface.metrics.sections import Curves, Table, Text
from polyface.report.faces import Picture, as_image
from polyface.report.plots import plot
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


Block = Text | Notes | Code | Table | Figures | Curves


@dataclass(frozen=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: Sequence[Block]


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


def measured_section(
    title: str,
    rows: Sequence[Row],
    published: Sequence[Published] = (),
    statements: Sequence[Statement] = (),
    text: str = "",
) -> Section:
    """Measured figures beside the published ones of the same row and metric, and what differs between the two; then the
    remaining published figures, and the paper's statements."""
    papers = {(figure.row, figure.metric): figure for figure in published}
    notes: dict[str, int] = {}  # text → its number; said once below, however many rows share it

    def marks(*texts: str) -> str:
        return ", ".join(str(notes.setdefault(text, len(notes) + 1)) for text in texts if text)

    body = []
    for row in rows:
        paper = papers.pop(row.key, None)
        value = row.published if row.published is not None or paper is None else paper.value
        shown = "" if value is None else format_number(value, row.unit)
        faces = "" if row.n is None else f"{row.n:,}"
        about = marks(*row.notes, *((paper.differs, paper.source) if paper else ()))
        figure = f"{format_row(row)} {row.unit}".strip()
        body.append([row.row, row.metric, figure, shown, str(len(row.seeds) or ""), faces, about])
    header = ["row", "metric", ">measured", ">published", ">seeds", ">n", "notes"]
    caption = "Mean ± standard deviation over seeds; in parentheses the 95 % bootstrap interval."
    blocks: list[Block] = [Text(text)] if text else []
    blocks.append(Table(*_without_empty(header, body), caption))
    if papers:
        others = [
            [p.row, p.metric, f"{format_number(p.value, p.unit)} {p.unit}", marks(p.differs, p.source)]
            for p in papers.values()
        ]
        blocks.append(Table(*_without_empty(["row", "metric", ">published", "notes"], others), "Published only."))
    if notes:
        blocks.append(Notes(list(notes)))
    for statement in statements:
        origin = "; ".join(filter(None, [statement.source, statement.differs]))
        blocks.append(Text(f"{statement.text} ({origin})"))
    return Section(title, blocks)


def result_section(
    title: str, section: plain.Section, picture: Callable[[plain.Face], Picture] | None = None
) -> Section:
    """What a result has to show; `picture` draws one of its faces, which are left out where nobody draws them."""
    blocks: list[Block] = []
    for block in section.blocks:
        if not isinstance(block, plain.Faces):
            blocks.append(block)
        elif picture and block.faces:
            faces = [
                photo(picture(face), f"{block.caption}: {face.caption}", face.caption, 320) for face in block.faces
            ]
            blocks.append(Figures(faces, caption=block.caption))
    return Section(title, blocks)


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
                made.append(Section(title[:1].upper() + title[1:] + (f": {told}" if told else ""), blocks))
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


def parts_section(
    title: str,
    heading: str,
    lines: Mapping[str, Sequence[Row]],
    caption: str = "",
) -> Section:
    """Rows of results as a table: a line for each part of a question ({"left profile": rows}), a column a metric."""
    only = next((row.only for rows in lines.values() for row in rows if row.only), "")
    of_one = f"; of one seed it is over {only}" if only else ""
    metrics = list(dict.fromkeys(row.metric for rows in lines.values() for row in rows))
    counted = any(row.n is not None for rows in lines.values() for row in rows)
    body = []
    for part, rows in lines.items():
        found = {row.metric: row for row in rows}
        cells = [format_row(found[metric]) if metric in found else "" for metric in metrics]
        body.append([part, *("" if row.n is None else f"{row.n:,}" for row in rows[:1] if counted), *cells])
    header = [heading, *([">n"] if counted else []), *(f">{metric}" for metric in metrics)]
    return Section(title, [Table(header, body, caption or f"In parentheses the 95 % bootstrap interval{of_one}.")])


def faces_section(title: str, groups: Mapping[str, Sequence[tuple[Picture, str]]], text: str = "") -> Section:
    """Faces with their drawn landmarks, in named groups: {group: [(picture, caption)]}, a row of pictures each."""
    blocks: list[Block] = [Text(text)] if text else []
    for name, faces in groups.items():
        if faces:
            pictures = [photo(picture, f"{name}: {caption}", caption, 320) for picture, caption in faces]
            blocks.append(Figures(pictures, caption=name))
    return Section(title, blocks)


def photo_section(title: str, picture: Picture, caption: str = "", found: Sequence[Mapping[str, str]] = ()) -> Section:
    """One large picture, for example a photo with every analysed face drawn on it, and what was found as a table, a
    line a face."""
    blocks: list[Block] = [Figures([photo(picture, caption or title, caption)], wide=True)]
    if found:
        header = list(dict.fromkeys(key for face in found for key in face))
        blocks.append(Table(header, [[face.get(key, "") for key in header] for face in found]))
    return Section(title, blocks)


def _drawn(block: Block, title: str) -> Block:
    """A block as the template takes it: curves as a plot. title: of the section, for curves without a name."""
    if not isinstance(block, Curves):
        return block
    alt = f"{block.y_label} over {block.x_label} of {', '.join(name or title for name in block.curves)}"
    return Figures([Figure(plot(block), alt, block.caption)], wide=True)


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
    parts = [Section(one.title, [_drawn(block, one.title) for block in one.blocks]) for one in sections]
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("report.html").render(title=title, sections=parts, date=date)


def write_report(path: Path | str, title: str, sections: Sequence[Section]) -> Path:
    """Write the report, whole or not at all, and return its path."""
    text = render_report(title, sections)
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)
