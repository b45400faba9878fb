"""What can be asked of a face: label ↔ output ↔ loss ↔ answer, one class a kind of question."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from polyface.errors import PolyfaceError, nearest
from polyface.tasks.attributes import AttributesSpec, AttributesTask
from polyface.tasks.base import Task, TaskSpec, masked_sums, mean_of_terms, term_means
from polyface.tasks.classification import ClassificationSpec, ClassificationTask
from polyface.tasks.identity import IdentitySpec, IdentityTask
from polyface.tasks.landmarks import LandmarksSpec, LandmarksTask

__all__ = ["Task", "TaskSpec", "build", "masked_sums", "mean_of_terms", "term_means"]

_KINDS: dict[str, tuple[type[TaskSpec], Any]] = {
    "landmarks": (LandmarksSpec, LandmarksTask),
    "classification": (ClassificationSpec, ClassificationTask),
    "attributes": (AttributesSpec, AttributesTask),
    "identity": (IdentitySpec, IdentityTask),
}


def build(name: str, config: Mapping[str, Any]) -> Task:
    """A task from its settings; `kind` says which. More kinds come from entry points in `polyface.tasks`."""
    kinds = _KINDS | {p.name: p.load() for p in entry_points(group="polyface.tasks")}
    kind = config.get("kind", "")
    if kind not in kinds:
        raise PolyfaceError(f"tasks.{name}.kind is '{kind}'; {nearest(str(kind), kinds)}")
    spec, task = kinds[kind]
    try:
        built: Task = task(name, spec.model_validate(dict(config)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["tasks", name, *map(str, first["loc"])])
        hint = f"; {nearest(str(first['loc'][-1]), spec.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise PolyfaceError(f"{key}: {first['msg'].lower()}{hint}") from error
    return built
