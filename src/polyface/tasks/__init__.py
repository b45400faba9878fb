"""What can be asked of a face: label ↔ output ↔ loss ↔ answer, one class a kind of question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from polyface.errors import PolyfaceError, nearest
from polyface.registry import Registry, lacks
from polyface.tasks.base import Task, TaskSpec, as_classes, masked_sums, mean_of_terms, term_means, with_thresholds

__all__ = [
    "TASKS",
    "Task",
    "TaskSpec",
    "as_classes",
    "build",
    "masked_sums",
    "mean_of_terms",
    "term_means",
    "with_thresholds",
]

TASKS = Registry(
    "task",
    group="polyface.tasks",
    folder="polyface.tasks",
    without=("base",),
    check=lambda part: lacks(part, "Spec", "targets", "prepare", "loss", "read", "labels", "evaluate"),
)
"""Kinds of task: subclasses of `Task`, called with (name, settings), the settings being of their class `Spec`."""


def build(name: str, config: Mapping[str, Any]) -> Task:
    """A task from its settings; `kind` says which."""
    kind = TASKS.get(str(config.get("kind", "")), f"tasks.{name}.kind")
    spec: type[TaskSpec] = kind.Spec
    try:
        built: Task = kind(name, spec.model_validate(dict(config)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["tasks", name, *map(str, first["loc"])])
        hint = f"; {nearest(str(first['loc'][-1]), spec.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise PolyfaceError(f"{key}: {first['msg'].lower()}{hint}") from error
    return built
