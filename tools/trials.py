"""Trials of a search, a line of a log each: a search that is stopped goes on where it was."""

from __future__ import annotations

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
    around = [] if any(rate > best for rate in found) else [round(best * 2, 6)]
    around += [] if any(rate < best for rate in found) else [round(best / 2, 6)]
    return around[0] if around else None
