"""Who is on the face: a class for each person, with margins or without."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.classification import ClassificationResult, evaluate_classification
from polyface.schema import column_type
from polyface.tasks.base import Task, TaskSpec


class IdentitySpec(TaskSpec):
    """column: a word column. people: the known people in order; empty: all of the stage's training faces of whom there
    are at least `faces`.

    loss: "softmax", the cross-entropy of logits (Ming et al. 2021); "cosface" (Wang et al. 2018) and "arcface" (Deng et
    al. 2019), that of `scale`·cosines, of which the right one is first made smaller by `margin` (CosFace), or its angle
    larger by `margin` radians (ArcFace). relu: of the logits, before the softmax, as the code of Ming et al. has it for
    photos and caricatures.
    """

    kind: Literal["identity"] = "identity"
    column: str = "identity"
    people: list[str] = Field(default_factory=list)
    faces: int = Field(1, ge=1)
    loss: Literal["softmax", "cosface", "arcface"] = "softmax"
    margin: float = Field(0.3, ge=0, le=math.pi / 2)
    scale: float = Field(32.0, gt=0)
    relu: bool = False


class IdentityTask(Task):
    """Output [B, people]: logits, or cosines where the loss has a margin. One loss term."""

    Spec = IdentitySpec
    spec: IdentitySpec

    def __init__(self, name: str, spec: IdentitySpec) -> None:
        super().__init__(name, spec)
        self.column, self.vocabulary, self.terms = spec.column, spec.people, [name]
        column_type(self.column)
        if len(set(spec.people)) < len(spec.people) or len(spec.people) == 1:
            raise PolyfaceError(f"task '{name}': people must name two or more, and nobody twice")

    @property
    def output_dim(self) -> int:  # type: ignore[override]  # not known before the people are
        return len(self.vocabulary)

    @property
    def head(self) -> Literal["linear", "cosine"]:
        return "linear" if self.spec.loss == "softmax" else "cosine"

    @property
    def people(self) -> Sequence[str]:
        return self.vocabulary

    def learn(self, training: FaceTable) -> None:
        """The people of the training faces, by name, where the settings name none."""
        if not self.vocabulary:
            counts = Counter(word for word in training.words(self.column) if word is not None)
            self.vocabulary = sorted(word for word, count in counts.items() if count >= self.spec.faces)
        if len(self.vocabulary) < 2:
            raise PolyfaceError(
                f"task '{self.name}': the training faces show {len(self.vocabulary)} people ({self.column}); "
                "two are needed to tell them apart"
            )

    def targets(self, table: FaceTable) -> Targets:
        classes = torch.from_numpy(table.classes(self.column, self.vocabulary))
        return Targets(classes.clamp(min=0), ((classes >= 0) & self._where(table))[:, None])

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        return values  # a mirrored person is the same person

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        logits = output.float()
        if self.head == "cosine":
            logits = self._with_margin(logits, target)
        elif self.spec.relu:
            logits = logits.relu()
        return F.cross_entropy(logits, target, reduction="none")[:, None]

    def _with_margin(self, cosines: Tensor, target: Tensor) -> Tensor:
        margin, own = self.spec.margin, target[:, None]
        right = cosines.gather(1, own)
        if self.spec.loss == "cosface":
            smaller = right - margin
        else:
            sine = (1 - right.clamp(-1, 1).square()).clamp(min=1e-9).sqrt()
            turned = right * math.cos(margin) - sine * math.sin(margin)
            # beyond π the cosine would rise again: from there on a straight line that goes on where it ends
            smaller = torch.where(right > math.cos(math.pi - margin), turned, right - (1 - math.cos(margin)))
        return self.spec.scale * cosines.scatter(1, own, smaller)

    def right(self, output: Tensor, target: Tensor) -> Tensor:
        return output.argmax(1) == target

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """{"probabilities": float32 [B, people]}."""
        logits = output.float()
        if self.head == "cosine":
            logits = self.spec.scale * logits
        elif self.spec.relu:
            logits = logits.relu()
        return {"probabilities": logits.softmax(-1).cpu().numpy()}

    def conclude(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """Beside these, {"label": list of names}."""
        return {"label": [self.vocabulary[i] for i in numbers["probabilities"].argmax(-1)], **numbers}

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        return list(answer["label"])

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> ClassificationResult:
        targets = self.targets(table)
        truth = np.where(targets.labelled[:, 0].numpy(), targets.values.numpy(), -1)
        return evaluate_classification(answers["probabilities"].argmax(-1), truth, self.vocabulary)

    def config(self) -> dict[str, Any]:
        return super().config() | {"people": self.vocabulary}
