"""Which word of a vocabulary describes the face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from polyface.data.crops import is_mirrored
from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.classification import ClassificationResult, evaluate_classification
from polyface.schema import VOCABULARIES, column_type, mirror_classes
from polyface.tasks.base import Task, TaskSpec


class ClassificationSpec(TaskSpec):
    """column: a word column. vocabulary: its classes in order; the schema's own where it has one."""

    kind: Literal["classification"] = "classification"
    column: str
    vocabulary: list[str] = Field(default_factory=list)


class ClassificationTask(Task):
    """Softmax cross-entropy over a vocabulary. Output [B, classes]: logits. One loss term."""

    Spec = ClassificationSpec
    spec: ClassificationSpec

    def __init__(self, name: str, spec: ClassificationSpec) -> None:
        super().__init__(name, spec)
        self.column = spec.column
        column_type(self.column)
        self.vocabulary = spec.vocabulary or list(VOCABULARIES.get(spec.column, ()))
        if len(self.vocabulary) < 2:
            raise PolyfaceError(f"task '{name}': column '{spec.column}' has no vocabulary of its own: set vocabulary")
        self.output_dim, self.terms = len(self.vocabulary), [name]

    def targets(self, table: FaceTable) -> Targets:
        classes = torch.from_numpy(table.classes(self.spec.column, self.vocabulary))
        return Targets(classes.clamp(min=0), ((classes >= 0) & self._where(table))[:, None])

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        mirrored = is_mirrored(crops)
        order = mirror_classes(self.vocabulary) if mirrored.any() else None
        if order is None:
            return values
        return torch.where(mirrored, torch.as_tensor(order, device=values.device)[values], values)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(output.float(), target, reduction="none")[:, None]

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """{"probabilities": float32 [B, classes]}."""
        values = output.float().softmax(-1)
        mirrored = is_mirrored(crops)
        order = mirror_classes(self.vocabulary) if mirrored.any() else None
        if order is not None:
            values = torch.where(mirrored[:, None], values[:, torch.as_tensor(order, device=values.device)], values)
        return {"probabilities": values.cpu().numpy()}

    def conclude(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """Beside these, {"label": list of words}."""
        return {"label": [self.vocabulary[i] for i in numbers["probabilities"].argmax(-1)], **numbers}

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        return list(answer["label"])

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> ClassificationResult:
        targets = self.targets(table)
        truth = np.where(targets.labelled[:, 0].numpy(), targets.values.numpy(), -1)
        return evaluate_classification(answers["probabilities"].argmax(-1), truth, self.vocabulary)

    def config(self) -> dict[str, Any]:
        return super().config() | {"vocabulary": self.vocabulary}
