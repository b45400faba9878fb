"""A task ties a label column to an output, a loss and a decoded answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError, nearest
from polyface.metrics.result import Result
from polyface.schema import Column


class TaskSpec(BaseModel):
    """What every task's settings have: `where` keeps only rows whose columns hold one of the given words."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: str
    where: dict[str, str | list[str]] = {}


class Task(ABC):
    """One question asked of a face.

    name: also the head's. column: the label column. terms: names of the K loss terms. output_dim: length of the head's
    output. Spec: the class of its settings. head: the layer that its outputs want, "cosine" for cosines between an
    embedding and a direction for each output. prior: the output that is best for a face of which nothing is known, once
    training faces were seen: where a new head's biases start; None: at random.
    """

    Spec: ClassVar[type[TaskSpec]] = TaskSpec
    name: str
    column: str
    output_dim: int
    terms: list[str]
    spec: TaskSpec
    prior: list[float] | None = None

    def __init__(self, name: str, spec: TaskSpec) -> None:
        self.name, self.spec = name, spec

    @property
    def head(self) -> Literal["linear", "cosine"]:
        return "linear"

    @property
    def people(self) -> Sequence[str] | None:
        """The people that it tells apart, in the order of its outputs; None for a task that is about no person."""
        return None

    def learn(self, training: FaceTable) -> None:  # noqa: B027  most tasks have nothing to learn
        """Take from the training faces what the settings leave open before anything is built: people, classes, and the
        `prior`."""

    def declares(self) -> Column | None:
        """What its label column holds; None where the schema says that."""
        return None

    @abstractmethod
    def targets(self, table: FaceTable) -> Targets:
        """Values and mask of every row; `where` is already in the mask."""

    @abstractmethod
    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        """Values [B, …] as the loss compares them, given the crops [B, 2, 3] that were taken (mirrored ones too)."""

    def visible(self, labelled: Tensor, crops: Tensor) -> Tensor:
        """The mask [B, K] of prepared targets: a task whose terms change places in a mirror moves their masks along."""
        return labelled

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Output [B, output_dim] and prepared target → losses [B, K], without reduction and without a mask.

        Where there is no label the target is whatever `prepare` made of it, NaN perhaps; the loss must be constant
        there and finite, since 0 × NaN would be the gradient otherwise.
        """

    @abstractmethod
    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """Output [B, output_dim] → what can be averaged over several crops of a face, in original pixels: [B, …]."""

    def conclude(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """Those numbers with the words that follow from them, arrays and lists of length B."""
        return dict(numbers)

    def decode(self, output: Tensor, crops: Tensor, size: int) -> dict[str, Any]:
        """Output [B, output_dim] → the answer."""
        return self.conclude(self.read(output, crops, size))

    @property
    def score_names(self) -> list[str]:
        """What each of `scores` is of: by default the words of its vocabulary, or its outputs by number."""
        words = list(getattr(self, "vocabulary", ()))
        return words if len(words) == self.output_dim else [str(place) for place in range(self.output_dim)]

    def scores(self, output: Tensor) -> Tensor:
        """Output [B, output_dim] → the numbers [B, len(score_names)] whose reasons can be asked for, differentiable and
        before any softmax. Where none is named, the largest is meant: what is answered."""
        return output.float()

    @abstractmethod
    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        """A decoded answer as values of the label column, one a face: what a face table would say."""

    @abstractmethod
    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> Result:
        """How well the decoded answers [N, …] on the faces of a table agree with its labels."""

    @property
    def judges(self) -> bool:
        """Whether its answers are right or wrong (`right`)."""
        return type(self).right is not Task.right

    def right(self, output: Tensor, target: Tensor) -> Tensor:
        """Output [B, output_dim] and prepared target → whether each answer is right, bool [B]; for tasks of classes."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """What rebuilds the task: `polyface.tasks.build(name, config)`."""
        return self.spec.model_dump()

    def _where(self, table: FaceTable) -> Tensor:
        """Bool [N]: rows that satisfy `where`."""
        keep = np.ones(len(table), dtype=bool)
        for column, words in self.spec.where.items():
            keep &= table.holding(column, words)
        return torch.from_numpy(keep)


class ThresholdTask(Task):
    """A task whose answers follow from scores by thresholds, one a term, which validation faces may move."""

    @property
    @abstractmethod
    def thresholds(self) -> list[float]:
        """One a term; part of `config`, so that a bundle carries them."""

    @thresholds.setter
    @abstractmethod
    def thresholds(self, values: Sequence[float]) -> None: ...

    @abstractmethod
    def mistakes(self, output: Tensor, target: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """(false positives, false negatives), int64 [K] each, over the labelled faces of output, target and mask
        [B, K], at the present thresholds."""


def with_thresholds(tasks: Mapping[str, Task], name: str) -> ThresholdTask:
    """The task of that name, if it has thresholds."""
    task = tasks.get(name)
    if not isinstance(task, ThresholdTask):
        known = [name for name, task in tasks.items() if isinstance(task, ThresholdTask)]
        raise PolyfaceError(
            f"thresholds.tasks names '{name}', which is no task with thresholds; {nearest(name, known)}"
        )
    return task


def shares_of(counts: Tensor) -> Tensor:
    """How often each of K things was seen, [K], as shares in float64; one that never was counts as half a time, so that
    its logarithm is finite."""
    counts = counts.double()
    return counts.clamp(min=0.5) / counts.sum().clamp(min=1)


def as_classes(prepared: Tensor) -> Tensor:
    """Prepared targets of a task of classes as int64 [B]: of shares [B, classes] the class with the largest."""
    return prepared.argmax(1) if prepared.ndim == 2 else prepared


def masked_sums(losses: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and mask [B, K] → (sums [K], counts [K]) over labelled faces; an unlabelled loss may be anything."""
    return torch.where(labelled, losses, 0.0).sum(0), labelled.sum(0)


def term_means(sums: Tensor, counts: Tensor) -> Tensor:
    """The mean over each term's labelled faces [K]; an absent term is 0."""
    return torch.where(counts > 0, sums / counts.clamp(min=1), 0.0)


def mean_of_terms(sums: Tensor, counts: Tensor) -> Tensor:
    """The task's loss: Σ over terms of the mean over that term's labelled faces; an absent term adds 0."""
    return term_means(sums, counts).sum()
