"""How a trained model does on labelled faces, by a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.boxes import boxes_of
from polyface.data.loader import FacePool
from polyface.data.store import open_source
from polyface.data.table import Progress
from polyface.errors import PolyfaceError, nearest
from polyface.metrics.groups import within
from polyface.metrics.result import Result, Row, rows
from polyface.models.bundle import Bundle
from polyface.models.predict import NO_TTA, TTA, predict
from polyface.protocols import DEFAULT, PROTOCOLS, build
from polyface.protocols.base import Answers, EvaluationSet

EVERY = "all"
"""In place of a split: all faces."""


@dataclass(frozen=True)
class Evaluation:
    """A model's results on the faces of a pool, by the prefix of their metrics, with its answers and what the protocol
    compared of them (`Cases`, or whatever a protocol of somebody's own makes)."""

    pool: FacePool
    answers: Answers
    cases: Any
    results: Mapping[str, Result]

    def rows(self, name: str) -> list[Row]:
        """All figures with their intervals, as rows called `name`."""
        return [row for prefix, one in self.results.items() for row in rows(name, {0: one}, prefix=prefix)]

    def by(self, column: str, name: str) -> list[Row]:
        """All figures for each word of a column, as rows "<name>: <column> <word>"; thresholds stay those of everybody.

        Raises:
            PolyfaceError: the faces have no such column.
        """
        columns = self.pool.table.columns
        if column not in columns:
            raise PolyfaceError(
                f"the faces have no column '{column}' to tell them apart by; {nearest(column, columns)}"
            )
        return [
            row
            for prefix, one in self.results.items()
            for word, units in self.cases.groups(prefix, column).items()
            for row in rows(f"{name}: {column} {word}", {0: within(one, units)}, prefix=prefix)
        ]


def evaluate(
    bundle: Bundle,
    pool: FacePool,
    protocol: Mapping[str, Any] | None = None,
    *,
    part: str = "test",
    data: Path | None = None,
    sources: Sequence[str] = (),
    tta: TTA = NO_TTA,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """A bundle on the faces of a pool; by default every task of it that a face is labelled for.

    protocol: its name and options. part, data, sources: which split of which data sets the faces are, for a protocol
    that takes lists of a data set from its reader.
    """
    chosen = build(_protocol(bundle, protocol))
    cases = chosen.cases(EvaluationSet(pool.table, part, data, {name: {} for name in sources}, bundle.tasks))
    answers = predict(bundle.network, bundle.tasks, pool, tta=tta, device=device, progress=progress)
    return Evaluation(pool, answers, cases, chosen.evaluate(answers, cases))


def evaluate_tables(
    bundle: Bundle,
    names: Sequence[str],
    data: Path | None,
    part: str = "test",
    protocol: Mapping[str, Any] | None = None,
    *,
    tta: TTA = NO_TTA,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """A bundle on the faces of named tables that are of a part (a split, or "all"), cropped as the bundle says."""
    protocol = _protocol(bundle, protocol)  # before any picture is decoded
    pool = pool_of_tables(bundle, names, data, part, progress)
    return evaluate(
        bundle, pool, protocol, part=part, data=data, sources=names, tta=tta, device=device, progress=progress
    )


def pool_of_tables(
    bundle: Bundle, names: Sequence[str], data: Path | None, part: str = "test", progress: Progress | None = None
) -> FacePool:
    """The faces of named tables that are of a part (a split, or "all"), cropped as a bundle says.

    Raises:
        PolyfaceError: no face is of that part; those that there are are told.
    """
    tables = [open_source(name, data, progress=progress) for name in names]
    chosen = [table if part == EVERY else table.where(split=part) for table in tables]
    if not any(map(len, chosen)):
        known = {word for table in tables for word in table.words("split") if word is not None}
        raise PolyfaceError(
            f"{', '.join(names)}: no face has split '{part}'; splits: {', '.join(sorted(known)) or 'none'}, or {EVERY}"
        )
    parts = [(table, boxes_of(table, bundle.boxes, progress=progress), 1.0) for table in chosen if len(table)]
    return FacePool(parts, bundle.crop, {}, progress)


def _protocol(bundle: Bundle, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The protocol that is asked for, or the one of tasks."""
    if not bundle.tasks and given is None:
        others = ", ".join(name for name in PROTOCOLS.names() if name != DEFAULT)
        raise PolyfaceError(f"the model has an embedding and no task: name a protocol that compares faces ({others})")
    return given or {"name": DEFAULT}
