"""Which word of a vocabulary describes the face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from polyface.data.crops import is_mirrored
from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError, check_names, nearest
from polyface.metrics.classification import ClassificationResult, evaluate_classification
from polyface.schema import Column, built_in, is_column, mirror_classes
from polyface.tasks.base import Task, TaskSpec, as_classes, shares_of


class ClassificationSpec(TaskSpec):
    """column: of words, of a distribution over words (soft labels), or of numbers, which `edges` cut into classes.
    vocabulary: the classes in order; by default those that the training table declares, or the schema's.

    edges: n rising numbers make n + 1 classes, named by `vocabulary`; a number that is an edge belongs to the class
    further from 0 ([-12, 12]: left from −12 down, right from 12 up; [30]: 30 is of the second). mirror: the label of a
    mirrored face, as `schema.Column` has it: words that change places ({left: right}), "negate" of a number, "none"; by
    default what the table or the schema declares. weights: of the classes in the loss: {word: weight}, 1 where not
    named, or "balanced": N / (K·n) for a class that n of N training labels name, of K classes, so that every class
    counts as much (soft labels count by their shares). smoothing: ε, the share of each label that is spread over all
    classes (Szegedy et al. 2016). judged_by: the column of words by which answers are judged, where that is not the one
    that is learnt (of soft labels, say, the word of the majority).
    """

    kind: Literal["classification"] = "classification"
    column: str
    vocabulary: list[str] = Field(default_factory=list)
    edges: list[float] = Field(default_factory=list)
    mirror: Literal["negate", "none"] | dict[str, str] | None = None
    weights: Literal["balanced"] | dict[str, float] | None = None
    smoothing: float = Field(0.0, ge=0, lt=1)
    judged_by: str = ""


class ClassificationTask(Task):
    """Softmax cross-entropy over a vocabulary. Output [B, classes]: logits. One loss term.

    Soft labels are learnt by their cross-entropy −Σ q·log p; where a class is asked for, to evaluate answers, it is the
    word of the largest share, and a face on which two words share that is left out; or it is that of `judged_by`.
    """

    Spec = ClassificationSpec
    spec: ClassificationSpec

    def __init__(self, name: str, spec: ClassificationSpec) -> None:
        super().__init__(name, spec)
        self.column, self.terms = spec.column, [name]
        self.weights = dict(spec.weights) if isinstance(spec.weights, dict) else None
        if sorted(set(spec.edges)) != spec.edges:
            raise PolyfaceError(f"tasks.{name}.edges must rise: {spec.edges}")
        self.held = built_in(self.column) if is_column(self.column) else None  # what the column holds, where known
        self.vocabulary = list(spec.vocabulary or (self.held.vocabulary if self.held else ()))
        if self.held:
            self._check_type(self.held)
        if self.held or self.vocabulary:
            self._check_classes()

    @property
    def output_dim(self) -> int:  # type: ignore[override]  # not known before the vocabulary is
        return len(self.vocabulary)

    def learn(self, training: FaceTable) -> None:
        """Take over what the training table declares of the column, and weigh the classes of its faces.

        The prior: the logarithm of every class's share of the labels as the loss sees these, smoothed and weighed.
        """
        if self.column in training.columns or not self.vocabulary:
            self._know(training.declared(self.column))
        if self.spec.judged_by:
            self._check_judge(training.declared(self.spec.judged_by))
        counts = self._counts(training)
        if self.spec.weights == "balanced":
            self.weights = self._balanced(counts)
        if counts.sum() > 0:
            kept, spread = (1 - self.spec.smoothing) * counts, self.spec.smoothing * counts.mean()
            weights = torch.tensor([(self.weights or {}).get(word, 1.0) for word in self.vocabulary])
            self.prior = shares_of(weights * (kept + spread)).log().tolist()

    def _know(self, held: Column) -> None:
        """Take over what a table declares of the column; refuse a vocabulary that does not go with that."""
        self._check_type(held)
        self.held, self.vocabulary = held, list(self.spec.vocabulary or held.vocabulary)
        where = f"tasks.{self.name}.vocabulary: column '{self.column}'"
        lacking = [word for word in self.vocabulary if held.vocabulary and word not in held.vocabulary]
        if lacking:
            raise PolyfaceError(f"{where} has no word '{lacking[0]}'; {nearest(lacking[0], held.vocabulary)}")
        if held.type == "distribution" and len(self.vocabulary) < len(held.vocabulary):
            raise PolyfaceError(f"{where} has shares of {', '.join(held.vocabulary)}; name them all")
        self._check_classes()

    def _check_judge(self, held: Column) -> None:
        if held.type != "words" or not set(self.vocabulary) & set(held.vocabulary):
            words = ", ".join(self.vocabulary)
            raise PolyfaceError(
                f"tasks.{self.name}.judged_by: column '{self.spec.judged_by}' is {held}, not words of {words}"
            )

    def _check_type(self, held: Column) -> None:
        if held.type not in (("number",) if self.spec.edges else ("words", "distribution")):
            hint = "classes come from words, distributions and numbers"
            hint = "leave edges out" if self.spec.edges else "cut it by edges" if held.type == "number" else hint
            raise PolyfaceError(f"task '{self.name}': column '{self.column}' is {held}; {hint}")

    def _check_classes(self) -> None:
        key, count, edges = f"tasks.{self.name}", len(self.vocabulary), len(self.spec.edges)
        if edges and count != edges + 1:
            raise PolyfaceError(f"{key}: {edges} edges make {edges + 1} classes, and vocabulary names {count}")
        if count < 2:
            raise PolyfaceError(
                f"task '{self.name}': column '{self.column}' has no vocabulary of its own: set vocabulary"
            )
        if len(set(self.vocabulary)) < count:
            raise PolyfaceError(f"{key}.vocabulary names a word twice: {', '.join(self.vocabulary)}")
        mirror = self.spec.mirror
        if (mirror == "negate" and not edges) or (isinstance(mirror, dict) and edges):
            raise PolyfaceError(f"{key}.mirror is {mirror}: words change places, and numbers cut by edges are negated")
        for pair in (mirror if isinstance(mirror, dict) else {}).items():
            if not set(pair) & set(self.vocabulary):
                raise PolyfaceError(f"{key}.mirror names '{pair[0]}'; {nearest(pair[0], self.vocabulary)}")
        check_names(self.weights or {}, self.vocabulary, f"{key}.weights")
        for word, weight in (self.weights or {}).items():
            if not 0 <= weight < math.inf:
                raise PolyfaceError(f"{key}.weights.{word} is {weight}; expected 0 or more")

    def _counts(self, training: FaceTable) -> Tensor:
        """How many labels name each class, float64 [classes]; soft labels count by their shares."""
        found = self.targets(training)
        labels = found.values[found.labelled[:, 0]]
        if self.spec.edges:
            labels = self._cut(labels)
        soft = labels.ndim == 2
        return labels.double().sum(0) if soft else torch.bincount(labels, minlength=self.output_dim).double()

    def _balanced(self, counts: Tensor) -> dict[str, float]:
        if absent := [word for word, count in zip(self.vocabulary, counts, strict=True) if not count]:
            raise PolyfaceError(
                f"tasks.{self.name}.weights: no training face is '{absent[0]}', so classes cannot be balanced: leave "
                "the word out of vocabulary, or give weights"
            )
        weights = counts.sum() / (len(counts) * counts)
        return dict(zip(self.vocabulary, weights.tolist(), strict=True))

    def targets(self, table: FaceTable) -> Targets:
        """Values: classes int64 [N]; of a distribution shares float32 [N, classes]; with edges numbers float32 [N].
        What is not labelled is 0. A column of somebody's own that a table lacks is not labelled there."""
        if self.column not in table.columns and not is_column(self.column):
            return Targets(torch.zeros(len(table), dtype=torch.int64), torch.zeros(len(table), 1, dtype=torch.bool))
        held = table.declared(self.column)
        if held.type == "words":
            values = torch.from_numpy(table.classes(self.column, self.vocabulary))
            known, values = values >= 0, values.clamp(min=0)
        else:
            numbers = table.numbers(self.column)
            if held.type == "distribution":
                numbers = numbers[:, [held.vocabulary.index(word) for word in self.vocabulary]]
            known = torch.from_numpy(~np.isnan(numbers if numbers.ndim == 2 else numbers[:, None]).any(axis=1))
            values = torch.from_numpy(np.nan_to_num(numbers))
        return Targets(values, (known & self._where(table))[:, None])

    def classes(self, table: FaceTable) -> np.ndarray:
        """The class of every face, int64 [N]; −1 where it is not labelled, or its label names no one class."""
        if self.spec.judged_by:
            return np.where(self._where(table).numpy(), table.classes(self.spec.judged_by, self.vocabulary), -1)
        found = self.targets(table)
        labelled = found.labelled[:, 0].numpy()
        if found.values.ndim == 2:
            hard = table.classes(self.column, self.vocabulary)
        else:
            hard = (self._cut(found.values) if self.spec.edges else found.values).numpy()
        return np.where(labelled, hard, -1)

    def _cut(self, numbers: Tensor) -> Tensor:
        """Numbers [N] → their classes int64 [N]."""
        edges = torch.tensor(self.spec.edges, dtype=numbers.dtype, device=numbers.device)
        return torch.where(edges < 0, numbers[:, None] > edges, numbers[:, None] >= edges).sum(1)

    def _negated(self) -> bool:
        """Whether a mirror negates the number that is cut."""
        return (self.spec.mirror or (self.held.mirror if self.held else "")) == "negate"

    def _swaps(self) -> dict[str, str] | None:
        """The words that a mirror exchanges, as settings or the table say; None: those that say left and right."""
        given = self.spec.mirror
        if isinstance(given, dict):
            return given | {other: word for word, other in given.items()}
        declared = self.held.mirror if self.held else ""
        if given == "none" or declared == "none":
            return {}
        words = self.held.vocabulary if self.held else ()
        return (
            {word: words[i] for word, i in zip(words, declared, strict=True)} if isinstance(declared, tuple) else None
        )

    def _order(self, device: torch.device) -> Tensor | None:
        """How a mirror renames the classes (class c becomes order[c]); None if it does not."""
        if self.spec.edges:
            if not self._negated():
                return None
            if [-edge for edge in reversed(self.spec.edges)] != self.spec.edges:
                raise PolyfaceError(f"tasks.{self.name}: mirrored answers need edges that are symmetric about 0")
            return torch.arange(self.output_dim - 1, -1, -1, device=device)
        swaps = self._swaps()
        if swaps is None:
            order = mirror_classes(self.vocabulary)
        else:
            words = [swaps.get(word, word) for word in self.vocabulary]
            if lacking := [word for word in words if word not in self.vocabulary]:
                raise PolyfaceError(f"tasks.{self.name}: a mirrored face needs the word '{lacking[0]}' in vocabulary")
            order = np.array([self.vocabulary.index(word) for word in words])
        return None if order is None else torch.as_tensor(order, device=device)

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        """Classes int64 [B], or shares float32 [B, classes]."""
        mirrored = is_mirrored(crops)
        if self.spec.edges:
            return self._cut(torch.where(mirrored & self._negated(), -values, values))
        order = self._order(values.device) if mirrored.any() else None
        if order is None:
            return values
        if values.ndim == 2:
            return torch.where(mirrored[:, None], values[:, order], values)
        return torch.where(mirrored, order[values], values)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        weight = None
        if self.weights:
            weight = torch.tensor([self.weights.get(word, 1.0) for word in self.vocabulary], device=output.device)
        return torch.nn.functional.cross_entropy(
            output.float(), target, weight, reduction="none", label_smoothing=self.spec.smoothing
        )[:, None]

    def right(self, output: Tensor, target: Tensor) -> Tensor:
        """Of soft labels: whether it is the class with the largest share."""
        return output.argmax(1) == as_classes(target)

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """{"probabilities": float32 [B, classes]}."""
        values = output.float().softmax(-1)
        mirrored = is_mirrored(crops)
        order = self._order(values.device) if mirrored.any() else None
        if order is not None:
            values = torch.where(mirrored[:, None], values[:, order], values)
        return {"probabilities": values.cpu().numpy()}

    def conclude(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """Beside these, {"label": list of words}."""
        return {"label": [self.vocabulary[i] for i in numbers["probabilities"].argmax(-1)], **numbers}

    def declares(self) -> Column | None:
        known = built_in(self.column) if is_column(self.column) else None
        if self.spec.edges or (known and set(self.vocabulary) <= set(known.vocabulary)):
            return None
        if self.held and self.held.type == "distribution":
            return self.held
        order = None if self._swaps() is None else self._order(torch.device("cpu"))
        return Column("words", tuple(self.vocabulary), mirror="" if order is None else tuple(order.tolist()))

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        """Words, shares of a distribution, and nothing for a number, of which a class is too little."""
        if self.spec.edges:
            return [None] * len(answer["label"])
        return list(answer["probabilities" if self.held and self.held.type == "distribution" else "label"])

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> ClassificationResult:
        """Where a label is soft or a number, by the class that it names, or by `judged_by`."""
        return evaluate_classification(answers["probabilities"].argmax(-1), self.classes(table), self.vocabulary)

    def config(self) -> dict[str, Any]:
        """With what the training table said, so that a bundle needs none."""
        said: dict[str, Any] = {"vocabulary": self.vocabulary, "weights": self.weights or self.spec.weights}
        if self.held and self.held.mirror and not (is_column(self.column) and self.held == built_in(self.column)):
            said["mirror"] = "negate" if self._negated() else self._swaps() or "none"
        return super().config() | said
