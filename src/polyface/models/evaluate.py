"""How a trained model does on labelled faces, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from polyface.data.boxes import boxes_of
from polyface.data.loader import FacePool
from polyface.data.store import open_source
from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.metrics.attributes import AttributesResult, evaluate_attributes
from polyface.metrics.classification import ClassificationResult, evaluate_classification
from polyface.metrics.landmarks import LandmarkResult, evaluate_landmarks
from polyface.models.bundle import Bundle
from polyface.models.predict import PLAIN, Views, predict
from polyface.tasks import Task
from polyface.tasks.attributes import AttributesTask
from polyface.tasks.classification import ClassificationTask
from polyface.tasks.identity import IdentityTask
from polyface.tasks.landmarks import LandmarksTask

Result = LandmarkResult | ClassificationResult | AttributesResult
"""How a task did, by its kind."""


@dataclass
class Measured:
    """A network's results on one pool: per task, with the predictions themselves and faces without a detected box."""

    pool: FacePool
    results: dict[str, Result]
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def landmarks(self, task: str) -> LandmarkResult:
        found = self.results.get(task)
        if not isinstance(found, LandmarkResult):
            raise PolyfaceError(f"'{task}' is not a landmark task of this network")
        return found


def measure_tables(
    bundle: Bundle,
    names: Sequence[str],
    data: Path | None,
    part: str = "test",
    *,
    views: Views = PLAIN,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Measured:
    """A bundle on named tables, cropped as the bundle says; tasks that no face is labelled for are left out."""
    if not bundle.tasks:
        raise PolyfaceError(
            f"{bundle.about.get('name') or 'the model'}: it answers no task, it embeds: ask for a protocol of "
            "recognition with --protocol"
        )
    tables = [(name, open_source(name, data, progress=progress)) for name in names]
    found = [(table.where(split=part), name) for name, table in tables]
    labelled = {
        name: task
        for name, task in bundle.tasks.items()
        if any(task.targets(t).labelled.any() for t, _ in found if len(t))
    }
    if not labelled:
        raise PolyfaceError(
            f"{', '.join(names)}: no face with split '{part}' is labelled for {', '.join(bundle.tasks)}"
        )
    parts = [(table, boxes_of(table, bundle.boxes, progress=progress), 1.0) for table, _ in found if len(table)]
    pool = FacePool(parts, bundle.crop, labelled, progress)
    return measure(replace(bundle, tasks=labelled), pool, views=views, device=device, progress=progress)


def measure(
    bundle: Bundle,
    pool: FacePool,
    *,
    views: Views = PLAIN,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Measured:
    """Every task of a bundle on every labelled face of a pool."""
    predictions = predict(bundle.network, bundle.tasks, pool, views=views, device=device, progress=progress)
    results = {name: judge(task, predictions[name], pool) for name, task in bundle.tasks.items()}
    return Measured(pool, results, predictions)


def judge(task: Task, predicted: Mapping[str, Any], pool: FacePool) -> Result:
    """One task's decoded answers against the pool's table."""
    targets = task.targets(pool.table)
    if isinstance(task, LandmarksTask):
        truth = np.where(targets.labelled.numpy()[..., None], targets.values.numpy(), np.nan)
        groups = {"pose": list(pool.table.words("pose"))} if "pose" in pool.table.columns else None
        return evaluate_landmarks(predicted["points"], truth, groups=groups)
    if isinstance(task, ClassificationTask):
        return evaluate_classification(predicted["probabilities"].argmax(-1), task.classes(pool.table), task.vocabulary)
    if isinstance(task, IdentityTask):
        truth = np.where(targets.labelled[:, 0].numpy(), targets.values.numpy(), -1)
        return evaluate_classification(predicted["probabilities"].argmax(-1), truth, task.vocabulary)
    if isinstance(task, AttributesTask):
        truth = np.where(targets.labelled.numpy(), targets.values.numpy(), np.nan)
        return evaluate_attributes(predicted["scores"], predicted["positive"], truth, task.vocabulary)
    raise PolyfaceError(f"task '{task.name}' ({task.spec.kind}) has no metric yet")
