"""One self-contained HTML page about a trained network: figures, curves, tables, faces and the recipe.

A report is a list of sections. Each turns itself into blocks (a paragraph, a table, pictures, …), which is all that the
template knows; other parts of the project add sections of their own by the same `Section` protocol. Images are
inlined, nothing is fetched, and every text is escaped.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Protocol

from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.files import atomic_path
from polyface.metrics.landmarks import LandmarkResult, auc, extremes, failure_rate, mean_error
from polyface.metrics.resampling import Interval, Row
from polyface.report.faces import Picture, as_image, png
from polyface.report.plots import Curve, plot_ced, plot_curves
from polyface.report.published import Published, Statement
from polyface.report.results import format_number, format_row


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


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
class Table:
    """A table; columns whose header starts with `>` hold numbers and are set right-aligned."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


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


def _figure(value: float, interval: Interval | None = None) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if interval is None else f"{value:.2f} ({interval.low:.2f}–{interval.high:.2f})"


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
class TableSection:
    """A table, and above it what it shows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""

    def blocks(self) -> Sequence[Block]:
        """The text, then the table."""
        return [*([Text(self.text)] if self.text else []), Table(self.header, self.rows)]


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
class CedSection:
    """Cumulative error distributions of face errors {name: [N], percent} up to `to` percent."""

    title: str
    errors: Mapping[str, ArrayLike]
    to: float = 10.0

    def blocks(self) -> Sequence[Block]:
        """The plot and its figures as a table."""
        body = [
            [name, _figure(mean_error(errors)), _figure(failure_rate(errors, self.to)), _figure(auc(errors, self.to))]
            for name, errors in self.errors.items()
        ]
        header = ["", ">mean error, %", f">failures (above {self.to:g} %), %", ">AUC, %"]
        figure = Figure(plot_ced(self.errors, self.to), "Cumulative error distribution of " + ", ".join(self.errors))
        return [Figures([figure], wide=True), Table(header, body)]


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
class LandmarkSection:
    """Mean error per landmark of one or more results over the same layout; `names` are the points' names."""

    title: str
    results: Mapping[str, LandmarkResult]
    names: Sequence[str] = ()

    def blocks(self) -> Sequence[Block]:
        """A column per result; the last line is the mean over faces."""
        count = max(len(result.per_point) for result in self.results.values())
        names = list(self.names) or [str(i) for i in range(count)]
        if any(len(result.per_point) != len(names) for result in self.results.values()):
            raise PolyfaceError(f"section '{self.title}': every result must have the {len(names)} landmarks named")
        body = [
            [name, *(_figure(result.per_point[i]) for result in self.results.values())] for i, name in enumerate(names)
        ]
        body.append(["all", *(_figure(r.mean_error, r.mean_error_interval) for r in self.results.values())])
        return [Table(["landmark", *(f">{name}" for name in self.results)], body, "Mean error in percent.")]


@dataclass(frozen=True)
class GroupSection:
    """Mean error and failure rate per group of one grouping ("pose") of one or more results."""

    title: str
    grouping: str
    results: Mapping[str, LandmarkResult]

    def blocks(self) -> Sequence[Block]:
        """Two columns per result: mean error and failure rate, with their intervals."""
        tables = {name: result.per_group.get(self.grouping, {}) for name, result in self.results.items()}
        labels = list(dict.fromkeys(label for groups in tables.values() for label in groups))
        if not labels:
            raise PolyfaceError(f"section '{self.title}': no result has the grouping '{self.grouping}'")
        header, body = [self.grouping, ">n"], [[label] for label in labels]
        for line, label in zip(body, labels, strict=True):
            line.append(f"{max(groups[label].n for groups in tables.values() if label in groups):,}")
        for name, groups in tables.items():
            header += [f">{name}: mean error, %", ">failure rate, %"]
            for line, label in zip(body, labels, strict=True):
                one = groups.get(label)
                line.append("" if one is None else _figure(one.mean_error, one.mean_error_interval))
                line.append("" if one is None else _figure(one.failure_rate, one.failure_rate_interval))
        return [Table(header, body, "In parentheses the 95 % bootstrap interval.")]


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


def best_median_worst(
    title: str, result: LandmarkResult, picture: Callable[[int], Picture], count: int = 6
) -> FacesSection:
    """The best, median and worst faces of a result; `picture(row)` draws the face of a row (see `draw_face`)."""
    groups = extremes(result.face_errors, count)
    faces = {
        name: [(picture(row), f"{result.face_errors[row]:.1f} %") for row in rows] for name, rows in groups.items()
    }
    text = "Blue: predicted; orange: labelled. Below each face, its error in percent of the normalising distance."
    return FacesSection(title, {name.capitalize(): pictures for name, pictures in faces.items()}, text)


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
class PlotSection:
    """An already drawn plot, as PNG bytes."""

    title: str
    image: bytes | Picture
    alt: str
    caption: str = ""

    def blocks(self) -> Sequence[Block]:
        """The plot at the page's width."""
        image = self.image if isinstance(self.image, bytes) else png(self.image)
        return [Figures([Figure(image, self.alt, self.caption)], wide=True)]


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
