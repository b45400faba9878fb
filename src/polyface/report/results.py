"""Results files: what was measured, by which command, on which commit, machine and data.

A results file `docs/results/<name>.json` is written by the command that measured its rows, never by hand. The tables of
the documents are made from these files (`tools/documents.py` in the repository).
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from polyface.errors import PolyfaceError, nearest
from polyface.files import atomic_path, check_output, first_wrong, lock, rounded
from polyface.metrics.resampling import Summary, summarise
from polyface.metrics.result import EXCLUDES, INCLUDES, Row
from polyface.registry import installed

__all__ = [
    "Results",
    "Row",
    "Run",
    "Summary",
    "check_results",
    "markdown_table",
    "read_results",
    "summarise",
    "write_results",
]

_Kind = TypeVar("_Kind", Row, "Run")
_WAIT = 60.0  # seconds, for others that write into the same file


@dataclass(frozen=True)
class Run:
    """Where rows come from: the command, the code's commit, the machine, the data, and when (UTC)."""

    command: str
    commit: str
    machine: str
    data: str
    date: str


@dataclass(frozen=True)
class Results:
    """A results file: its rows, the run that wrote it last, and earlier runs that some of its rows still stem from."""

    rows: tuple[Row, ...]
    run: Run
    earlier: tuple[tuple[Run, frozenset[tuple[str, str]]], ...] = ()
    name: str = field(default="results", compare=False)  # of the file, for errors

    def get(self, row: str, metric: str) -> Row:
        """The row of this name and metric, or an error that names the nearest."""
        found = {entry.key: entry for entry in self.rows}
        if (row, metric) not in found:
            hint = nearest(f"{row} / {metric}", [" / ".join(key) for key in found])
            raise PolyfaceError(f"{self.name}: no result '{row} / {metric}'; {hint}")
        return found[row, metric]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe_commit(folder: Path | None = None) -> str:
    """The commit of the code that runs, with "+dirty" if code or benchmarks differ from it.

    Documents and results files do not count: writing them changes no figure. Outside a checkout of this project it is
    the installed version; in one without any commit, "uncommitted". A copy without its history, as some machines are
    given one, is told its commit by POLYFACE_COMMIT.
    """
    if given := os.environ.get("POLYFACE_COMMIT"):
        return given
    folder = Path(__file__).resolve().parent if folder is None else folder
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or not (Path(top) / "src" / "polyface").is_dir():
        return f"polyface {installed()}"
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return "uncommitted"
    changed = _git(Path(top), "status", "--porcelain", "--", "src", "benchmarks", "pyproject.toml")
    return f"{commit}+dirty" if changed else commit


def describe_machine() -> str:
    """Processor, cores and versions that a figure may depend on; no host name, no path.

    An accelerator is named if PyTorch is already imported and sees one.
    """
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        model = named.group(1).strip() if named else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch_version = importlib.metadata.version("torch")
    parts = [model, f"{cores} cores", f"Python {platform.python_version()}", f"torch {torch_version}"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def write_results(
    path: Path | str,
    rows: Iterable[Row],
    *,
    command: str,
    data: str,
    commit: str | None = None,
    machine: str | None = None,
    merge: bool = True,
) -> Results:
    """Write rows into a results file, whole or not at all, and return what it now holds.

    Several processes may write into one file: none loses another's rows. With `merge`, rows of the same (row, metric)
    are replaced in place and all others kept; the runs that kept rows stem from are listed under "earlier", so that
    none is credited to a command that did not measure it.
    """
    path = Path(path)
    new = {row.key: row for row in rows}
    run = Run(command, commit or describe_commit(), machine or describe_machine(), data, _now())
    with lock(path, wait=_WAIT):
        results = _merged(path, new, run) if merge and path.exists() else Results(tuple(new.values()), run)
        content: dict[str, Any] = asdict(run)
        if results.earlier:
            content["earlier"] = [
                asdict(source) | {"rows": sorted(map(list, keys))} for source, keys in results.earlier
            ]
        content["rows"] = [_entry(row) for row in results.rows]
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        with atomic_path(path) as aside:
            aside.write_text(text + "\n", encoding="utf-8")
        return read_results(path)


def check_results(path: Path | str) -> None:
    """Raise unless `write_results` may write there: nothing is there, or a results file. Call it before any work."""
    check_output(path, overwrite=True)
    if Path(path).exists():
        read_results(path)


def _merged(path: Path, new: dict[tuple[str, str], Row], run: Run) -> Results:
    """What the file holds, with new rows of a run."""
    old = read_results(path)
    kept = {row.key: row for row in old.rows}
    listed = frozenset().union(*(keys for _, keys in old.earlier))
    sources = [*old.earlier, (old.run, frozenset(kept) - listed)]
    remaining = [(source, keys - new.keys()) for source, keys in sources]
    earlier = [(source, keys) for source, keys in remaining if keys and replace(source, date=run.date) != run]
    return Results(tuple((kept | new).values()), run, tuple(earlier))


def _entry(row: Row) -> dict[str, Any]:
    """A row as the file holds it: without what is not known of it, as in rows from before."""
    late = ("over", "precision")
    return {key: rounded(value) for key, value in asdict(row).items() if value or key not in late}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def read_results(path: Path | str) -> Results:
    """Read a results file; anything missing, unknown or malformed is an error that names the file and the key."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolyfaceError(f"{path}: no such results file; run the command that measures it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PolyfaceError(f"{path}: not a readable results file ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise PolyfaceError(f"{path}: a results file is an object with a list 'rows'")
    rows = tuple(_read(Row, entry, f"{path}: row {i}") for i, entry in enumerate(content["rows"]))
    run = {key: value for key, value in content.items() if key not in ("rows", "earlier")}
    earlier = []
    listed = _typed(list[dict[str, Any]], content.get("earlier", []), f"{path}: earlier")
    for i, entry in enumerate(listed):
        keys = frozenset(_typed(list[tuple[str, str]], entry.pop("rows", []), f"{path}: earlier {i}: rows"))
        earlier.append((_read(Run, entry, f"{path}: earlier {i}"), keys))
    return Results(rows, _read(Run, run, str(path)), tuple(earlier), path.name)


def _read(kind: type[_Kind], entry: Any, where: str) -> _Kind:
    known = [item.name for item in fields(kind)]
    if not isinstance(entry, dict):
        raise PolyfaceError(f"{where}: expected an object with {', '.join(known)}")
    for key in entry:
        if key not in known:
            raise PolyfaceError(f"{where}: unknown key '{key}': {nearest(key, known)}")
    try:
        _typed(kind, entry, where)
        return kind(**entry)  # its numbers as they are written
    except PolyfaceError as error:  # of the row itself
        raise PolyfaceError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None


def _typed(kind: Any, given: Any, where: str) -> Any:
    """A value of the file as a type has it."""
    try:
        return _adapter(kind).validate_python(given)
    except ValidationError as error:
        raise PolyfaceError(f"{where}: {first_wrong(error)}") from None


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def format_number(value: float, unit: str) -> str:
    """A figure as text: two decimals for rates, three significant digits (or whole thousands) for other units."""
    if unit == "%":
        return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_row(row: Row) -> str:
    """A figure as text: mean ± std (low–high), or (low to high) where a minus sign would stand beside the dash."""
    text = format_number(row.mean, row.unit)
    if row.std is not None:
        text += f" ± {format_number(row.std, row.unit)}"
    return text + format_interval(row)


def format_interval(row: Row) -> str:
    """The interval of a figure, to be put behind it, or nothing where it has none."""
    if row.interval is None:
        return ""
    low, high = (format_number(end, row.unit) for end in row.interval)
    return f" ({low} to {high})" if "-" in low + high else f" ({low}–{high})"


def _chosen(wanted: Sequence[str] | None, known: Sequence[str], what: str, name: str) -> list[str]:
    if wanted is None:
        return list(known)
    chosen: dict[str, None] = {}
    for asked in wanted:
        pattern = asked.removesuffix("?")
        found = [entry for entry in known if entry == pattern] or fnmatch.filter(known, pattern)
        if not found and pattern == asked:
            raise PolyfaceError(f"{name}: no {what} '{pattern}': {nearest(pattern, known)}")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def chosen_rows(
    results: Results, rows: Sequence[str] | None = None, metrics: Sequence[str] | None = None
) -> tuple[list[str], list[list[Row | None]]]:
    """The metrics and, a line for each row that has any of them, its figures.

    `rows` and `metrics` choose and order (patterns with `*` allowed); a name that the file does not hold is an error,
    but for one that ends with `?`: that is shown once it is measured.
    """
    found = {row.key: row for row in results.rows}
    names = _chosen(rows, list(dict.fromkeys(row.row for row in results.rows)), "row", results.name)
    columns = _chosen(metrics, list(dict.fromkeys(row.metric for row in results.rows)), "metric", results.name)
    if metrics is None:
        columns = [metric for metric in columns if any((name, metric) in found for name in names)]
    lines = [[found.get((name, metric)) for metric in columns] for name in names]
    return columns, [line for line in lines if any(line)]


def markdown_table(
    results: Results, rows: Sequence[str] | None = None, metrics: Sequence[str] | None = None, published: bool = True
) -> str:
    """A Markdown table: one line per row, one column per metric, the published figure beside it where there is one.
    What is shown: see `chosen_rows`. What is noted of all rows is said once, below; a difference whose interval
    excludes 0 is bold."""
    columns, lines = chosen_rows(results, rows, metrics)
    header, body = [""], [[row.row for row in line if row][:1] for line in lines]
    for i, metric in enumerate(columns):
        cells = [line[i] for line in lines]
        units = {row.unit for row in cells if row}
        header.append(f"{metric} ({units.pop()})" if len(units) == 1 and units != {""} else metric)
        for text, cell in zip(body, cells, strict=True):
            text.append("" if cell is None else _figure(cell, with_unit=len(units) > 1))
        if published and any(cell and cell.published is not None for cell in cells):
            header.append("published")
            for text, cell in zip(body, cells, strict=True):
                text.append("" if cell is None or cell.published is None else format_number(cell.published, cell.unit))
    notes = [_of_line(line, _notes) for line in lines]
    common = [note for note in notes[0] if all(note in each for each in notes)] if len(lines) > 1 else []
    for title, told in (
        ("seeds", [_of_line(line, lambda row: [str(len(row.seeds) or "")]) for line in lines]),
        ("n", [_of_line(line, _n) for line in lines]),
        ("note", [[note for note in each if note not in common] for each in notes]),
    ):
        texts = ["; ".join(each) for each in told]
        if any(texts):
            header.append(title)
            for text, extra in zip(body, texts, strict=True):
                text.append(extra)
    ruler = ["---" if name in ("", "note") else "--:" for name in header]
    table = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in [header, ruler, *body])
    below = [f"All rows: {'; '.join(map(_cell, common))}."] if common else []
    if any(row and row.differs for line in lines for row in line):
        below.append("Bold: the interval excludes 0.")
    return "\n\n".join([table, " ".join(below)] if below else [table])


def _figure(row: Row, with_unit: bool) -> str:
    text = format_row(row) + (f" {row.unit}" if with_unit else "")
    return f"**{text}**" if row.differs else text


def _of_line(line: Sequence[Row | None], told: Callable[[Row], Sequence[str]]) -> list[str]:
    """What is told of the figures of a line, each text once."""
    return list(dict.fromkeys(text for row in line if row for text in told(row) if text))


def _n(row: Row) -> list[str]:
    return [] if row.n is None else [f"{row.n:,}"]


def _notes(row: Row) -> list[str]:
    return [note for note in row.notes if note not in (INCLUDES, EXCLUDES)]  # bold says it


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
