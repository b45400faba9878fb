"""Tables and figures of the documents, made from the results files: `python tools/documents.py docs README.md`.

Documents hold tables between two markers, each on a line of its own:

    <!-- results: tcdcn rows="FLD (shared); FLD+all (shared)" metrics="mean error; failure rate" -->
    <!-- /results -->

`rows` and `metrics` are optional, separated by semicolons, and may hold `*`; one that ends with `?` is shown once it is
measured. `published="no"` drops the published column. Above a table of intervals that were made another way than now
it is said how. A single figure in a line stands between
`<!-- figure: tcdcn row="FLD (shared)" metric="mean error" -->` and `<!-- /figure -->`; `published="yes"` is the
paper's, and with `interval="yes"` its interval follows it. `--check` only compares.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from polyface.errors import PolyfaceError, nearest
from polyface.files import atomic_path
from polyface.metrics.result import Row
from polyface.report.results import chosen_rows, format_interval, format_number, markdown_table, read_results

RESULTS_DIR = Path("docs/results")
_NOT_YET = "*Not measured yet.*"
_BEFORE = (
    "*The intervals of this table draw seeds at random, those of the two sides of a difference apart, and make no\n"
    "allowance for few of them: of 2, 3 or 5 seeds such an interval holds the figure in 82, 89 or 92 % of cases where\n"
    "the spread of the seeds prevails. They are made anew when the rows are measured again.*"
)
_OPEN = re.compile(r"<!--\s*results:\s*(\S+)\s*(.*?)\s*-->")
_CLOSE = re.compile(r"<!--\s*/results\s*-->")


_FIGURE = re.compile(r"(<!--\s*figure:\s*(\S+)\s*(.*?)\s*-->).*?(<!--\s*/figure\s*-->)")


def _options(text: str, known: Sequence[str], where: str) -> dict[str, str]:
    """The key="value" words of a marker."""
    try:
        options = dict(part.split("=", 1) for part in shlex.split(text))
    except ValueError:
        raise PolyfaceError(f'{where}: the marker\'s options must read {known[0]}="…" {known[1]}="…"') from None
    for key in options:
        if key not in known:
            raise PolyfaceError(f"{where}: unknown option '{key}': {nearest(key, known)}")
    return options


def _figured(results_dir: Path | str, where: str, marker: re.Match[str]) -> str:
    """One figure in a sentence or a table's cell: what was measured, or with published="yes" what the paper prints."""
    options = _options(marker.group(3), ("row", "metric", "published", "interval"), where)
    row = read_results(Path(results_dir) / f"{marker.group(2)}.json").get(
        options.get("row", ""), options.get("metric", "")
    )
    published, with_interval = (options.get(key) == "yes" for key in ("published", "interval"))
    value = row.published if published else row.mean
    if value is None:
        raise PolyfaceError(f"{where}: no figure was published for {row.row} / {row.metric}")
    if published and with_interval:
        raise PolyfaceError(f"{where}: a published figure has no interval")
    text = f"{format_number(value, row.unit)} {row.unit}".rstrip()
    interval = format_interval(row) if with_interval else ""
    return f"{marker.group(1)}{text}{interval}{marker.group(4)}"


def _generated(marker: re.Match[str], results_dir: Path, where: str) -> str:
    options = _options(marker.group(2), ("rows", "metrics", "published"), where)
    listed: Mapping[str, list[str]] = {
        key: [name.strip() for name in value.split(";") if name.strip()] for key, value in options.items()
    }
    results = read_results(results_dir / f"{marker.group(1)}.json")
    chosen = listed.get("rows"), listed.get("metrics")
    try:
        shown = [row for line in chosen_rows(results, *chosen)[1] for row in line if row]
        table = markdown_table(results, *chosen, published=options.get("published", "yes") != "no")
    except PolyfaceError as error:
        raise PolyfaceError(f"{where}: {error}") from None
    if not shown:
        return _NOT_YET
    return f"{_BEFORE}\n\n{table}" if any(map(_of_before, shown)) else table


def _of_before(row: Row) -> bool:
    """Whether its interval was made before equal seeds were paired and few of them allowed for."""
    return row.interval is not None and len(row.seeds) > 1 and not row.over


def render_document(text: str, results_dir: Path | str = RESULTS_DIR, where: str = "document") -> str:
    """The document's text with every table and figure between markers regenerated. Markers inside fenced code are left
    alone."""
    lines: list[str] = []
    opened: str | None = None
    fenced = False
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{where}:{number}"
        if opened is None and line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        start = None if fenced else _OPEN.fullmatch(line.strip())
        end = None if fenced else _CLOSE.fullmatch(line.strip())
        if start:
            if opened:
                raise PolyfaceError(
                    f"{place}: the table opened at {opened} is not closed: add <!-- /results --> before"
                )
            opened = place
            lines += [line, "", _generated(start, Path(results_dir), place), ""]
        elif end and opened is None:
            raise PolyfaceError(f"{place}: <!-- /results --> without a <!-- results: NAME --> before it")
        elif end or opened is None:
            opened = None
            lines.append(line if fenced else _FIGURE.sub(partial(_figured, results_dir, place), line))
    if opened:
        raise PolyfaceError(f"{opened}: this table is not closed: add a line <!-- /results -->")
    return "\n".join(lines)


def update_document(path: Path | str, results_dir: Path | str = RESULTS_DIR) -> bool:
    """Regenerate a document's tables in place (whole or not at all); whether anything changed."""
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    current = render_document(text, results_dir, str(path))
    if current == text:
        return False
    with atomic_path(path) as aside:
        aside.write_text(current, encoding="utf-8")
    return True


def _documents(paths: Iterable[Path | str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise PolyfaceError(f"{path}: no such document or folder")
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path]
    return found


def documents_are_current(paths: Iterable[Path | str], results_dir: Path | str = RESULTS_DIR) -> list[Path]:
    """The documents (folders are searched for *.md) whose tables do not match the results files: empty if all do."""
    texts = ((path, path.read_text(encoding="utf-8")) for path in _documents(paths))
    return [path for path, text in texts if render_document(text, results_dir, str(path)) != text]


def main(arguments: Sequence[str] | None = None) -> int:
    """Regenerate (or `--check`) the tables of documents; returns the exit status."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("documents", nargs="+", help="Markdown files, or folders of them")
    parser.add_argument("--results", default=RESULTS_DIR, type=Path, help="folder of results files (%(default)s)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            changed = documents_are_current(options.documents, options.results)
        else:
            changed = [path for path in _documents(options.documents) if update_document(path, options.results)]
    except PolyfaceError as error:
        print(error, file=sys.stderr)
        return 2
    for path in changed:
        print(f"{path}: {'out of date' if options.check else 'updated'}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
