"""Rows of a results file, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polyface.metrics.result import Row
from polyface.report.results import write_results

FLD = Row("FLD (shared)", "mean error", 8.25, 0.5, 2995, (0, 1, 2), (8.0, 8.5), 9.0, note="boxes differ")
FAILURES = Row("FLD (shared)", "failure rate", 20.0, 1.0, 2995, (0, 1, 2))
ALL = Row("FLD+all (shared)", "mean error", 8.0, n=2995, seeds=(0,))
SPEED = Row("TCDCN", "time", 1.23456, unit="ms")


def write(path: Path, *rows: Row, command: str = "polyface reproduce tcdcn", **options: Any) -> Any:
    options = {"data": "MTFL 1.0", "commit": "abc", "machine": "2 cores"} | options
    return write_results(path, rows, command=command, **options)
