"""How a trained model does on labelled faces, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from polyface.data.boxes import boxes_of
from polyface.data.loader import FacePool
from polyface.data.store import open_source
from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.metrics.result import Result
from polyface.models.bundle import Bundle
from polyface.models.predict import PLAIN, Views, predict


@dataclass
class Evaluation:
    """A network's results on one pool of faces, by task, with its decoded answers."""

    pool: FacePool
    results: dict[str, Result]
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)


def evaluate_tables(
    bundle: Bundle,
    names: Sequence[str],
    data: Path | None,
    part: str = "test",
    *,
    views: Views = PLAIN,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """A bundle on named tables, cropped as the bundle says; tasks that no face is labelled for are left out."""
    opened = [open_source(name, data, progress=progress).where(split=part) for name in names]
    tables = [table for table in opened if len(table)]
    labelled = {
        name: task for name, task in bundle.tasks.items() if any(task.targets(table).labelled.any() for table in tables)
    }
    if not labelled:
        raise PolyfaceError(
            f"{', '.join(names)}: no face with split '{part}' is labelled for {', '.join(bundle.tasks)}"
        )
    parts = [(table, boxes_of(table, bundle.boxes, progress=progress), 1.0) for table in tables]
    pool = FacePool(parts, bundle.crop, labelled, progress)
    return evaluate(replace(bundle, tasks=labelled), pool, views=views, device=device, progress=progress)


def evaluate(
    bundle: Bundle,
    pool: FacePool,
    *,
    views: Views = PLAIN,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Every task of a bundle on every labelled face of a pool."""
    answers = predict(bundle.network, bundle.tasks, pool, views=views, device=device, progress=progress)
    results = {name: task.evaluate(answers[name], pool.table) for name, task in bundle.tasks.items()}
    return Evaluation(pool, results, answers)
