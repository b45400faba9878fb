"""Trials of a search, a line of a log each: a search that is stopped goes on where it was."""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read(log: Path) -> list[dict[str, Any]]:
    """The trials that are finished."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def carried_out(
    log: Path, trials: Iterable[T], is_it: Callable[[dict[str, Any], T], bool], run: Callable[[T], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Run the trials that the log does not hold, also of other processes that write there, and yield each once it is
    written. is_it: whether a line of the log is of a trial."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for trial in trials:
        if any(is_it(line, trial) for line in read(log)):
            continue
        found = run(trial)
        with open(log, "a") as file:
            file.write(json.dumps(found) + "\n")
        yield found


def next_rate(found: Mapping[float, float], first: Sequence[float]) -> float | None:
    """The next learning rate to try: those of `first`, then twice or half of the best until both are worse. found: rate
    → a figure, the higher the better."""
    if left := [rate for rate in first if rate not in found]:
        return left[0]
    best = max(found, key=lambda rate: found[rate])
    around = [] if any(rate > best for rate in found) else [float(f"{best * 2:.3g}")]
    around += [] if any(rate < best for rate in found) else [float(f"{best / 2:.3g}")]
    return around[0] if around else None


def figures_of(
    row: str, lines: Iterable[Mapping[str, Any]], figure: Callable[[Mapping[str, Any]], float]
) -> dict[float, float]:
    """{rate: what a line of the log is judged by}, of one row."""
    return {line["rate"]: figure(line) for line in lines if line["row"] == row}


def search_rates(
    about: str,
    folder: Path,
    rates: Mapping[str, Sequence[float]],
    figure: Callable[[Mapping[str, Any]], float],
    run: Callable[[str, float, Path, Path, Path], dict[str, Any]],
    write: Callable[[list[dict[str, Any]]], None],
) -> None:
    """The command line of a search for the learning rates of rows.

    about: its help. folder: where its log is, if nothing else is said. rates: row → those to try at first. figure:
    what a line of the log is judged by, the higher the better. run: (row, rate, data, folder, runs) → a line of the
    log. write: puts the lines into a results file.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--row", default="*", help="rows of this pattern alone")
    parser.add_argument("--folder", type=Path, default=folder)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where `polyface reproduce` keeps its runs")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    log = given.folder / "trials.jsonl"
    if given.write:
        write(read(log))
        return
    if given.data is None:
        parser.error("trials need --data DIR")
    if not (rows := fnmatch.filter(rates, given.row)):
        parser.error(f"no row is called '{given.row}'; there are {', '.join(rates)}")
    for row in rows:
        while (rate := next_rate(figures_of(row, read(log), figure), rates[row])) is not None:
            found = carried_out(
                log,
                [(row, rate)],
                lambda line, trial: (line["row"], line["rate"]) == trial,
                lambda trial: run(*trial, given.data, given.folder, given.runs),
            )
            for line in found:  # none where another process has just told it
                print(line, flush=True)
