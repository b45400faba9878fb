"""How old somebody looks: in years, and in which group of ages."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.age import AgeResult, evaluate_ages
from polyface.schema import Column, age_classes, built_in, is_column, years_of
from polyface.tasks.base import Task, TaskSpec

Numbers = NDArray[np.float32]
_NOBODY = 0.5  # of a face, of any age: so that no year is impossible in the prior


class AgeSpec(TaskSpec):
    """column: of ages in years. groups: the column of words such as 8-14 or 57+, which say the years of a face whose
    age itself is not known. vocabulary: the groups that answers are told in, in order; by default those that the
    training table declares of that column, or the schema's. Years between two groups are in none.

    oldest: years that the network tells apart, from 0; older people are learnt as of that age. spread: σ, in years, of
    the distribution that stands for an age. weight: λ, of the error in years.
    """

    kind: Literal["age"] = "age"
    column: str = "age"
    groups: str = "age_group"
    vocabulary: list[str] = Field(default_factory=list)
    oldest: int = Field(100, ge=1, le=1000)
    spread: float = Field(2.0, gt=0)
    weight: float = Field(1.0, ge=0)


class AgeTask(Task):
    """Years and groups of ages, both from one distribution over years. Output [B, oldest + 1]: logits. One loss term.

    The softmax p over the years 0 … `oldest` is learnt as in DLDL-v2 (Gao, Zhou, Wu & Geng, IJCAI 2018), for a face of
    age y by

        KL(q ‖ p) + λ·|m − y|,    q_k ∝ exp(−(k − y)² / 2σ²),    m = Σ k·p_k.

    A face of which only the group is known, years a to b, is learnt by the likelihood of that interval (of grouped
    data: Heitjan, Statistical Science 1989) and by how far the mean lies outside it, so that faces with years and faces
    with groups train one output:

        −log Σ_{a ≤ k ≤ b} p_k + λ·max(a − m, m − b, 0).

    Answers: the mean m, in years, and the group with the largest share of p. A mirror changes nothing.
    """

    Spec = AgeSpec
    spec: AgeSpec

    def __init__(self, name: str, spec: AgeSpec) -> None:
        super().__init__(name, spec)
        self.column, self.terms, self.output_dim = spec.column, [name], spec.oldest + 1
        self.vocabulary = list(spec.vocabulary)
        for column, kind in self._columns.items():
            if is_column(column):
                self._know(column, built_in(column), kind)

    @property
    def _columns(self) -> dict[str, str]:
        """The columns that say an age, each with the type that it must have."""
        return {self.column: "number", self.spec.groups: "words"}

    def learn(self, training: FaceTable) -> None:
        """Take over the groups that the training table declares.

        The prior: the logarithm of each year's share of the training faces, a group's spread evenly over its years.
        """
        for column, kind in self._columns.items():
            if column in training.columns:
                self._know(column, training.declared(column), kind)
        if not self.vocabulary:
            raise PolyfaceError(f"tasks.{self.name}: column '{self.spec.groups}' names no groups: set vocabulary")
        found = self.targets(training)
        known = found.values[found.labelled[:, 0]].numpy()
        if len(known):
            ages, counts = map(torch.from_numpy, np.unique(known, axis=0, return_counts=True))
            first, last = self._ends(ages)
            even = self._within(first, last).double()
            shares = torch.where(first == last, self._around(first).double().exp(), even / even.sum(1, keepdim=True))
            faces = counts.double() @ shares + _NOBODY / self.output_dim
            self.prior = (faces / faces.sum()).log().tolist()

    def _know(self, column: str, held: Column, kind: str) -> None:
        """Refuse a column of another type than is needed; of the groups, take over their words."""
        if held.type != kind:
            needed = "a number of years is" if kind == "number" else "words such as 8-14 are"
            raise PolyfaceError(f"task '{self.name}': column '{column}' is {held}; {needed} needed")
        if kind == "words":
            self.vocabulary = list(self.spec.vocabulary or held.vocabulary)
            self._check_groups()

    def _check_groups(self) -> None:
        """Refuse groups that do not follow each other, or that no answer could name."""
        words, spans = self.vocabulary, [self._span(word) for word in self.vocabulary]
        if len(words) == 1 or any(end >= start for (_, end), (start, _) in pairwise(spans)):
            told = ", ".join(words)
            raise PolyfaceError(
                f"tasks.{self.name}.vocabulary needs two groups or more, each older than the last: {told}"
            )
        if spans and spans[-1][0] > self.spec.oldest:
            what = f"is {self.spec.oldest}, and group {words[-1]} begins later"
            raise PolyfaceError(f"tasks.{self.name}.oldest {what}")

    def _span(self, word: str) -> tuple[int, float]:
        try:
            return years_of(word)
        except PolyfaceError as error:
            raise PolyfaceError(f"task '{self.name}': {error}") from error

    # ------------------------------------------------------------------------------------------------------- labels

    def years(self, table: FaceTable) -> Numbers:
        """The age of every face in years, float32 [N]; NaN where it is not known.

        Raises:
            PolyfaceError: an age below 0.
        """
        if self.column not in table.columns and not is_column(self.column):
            return np.full(len(table), np.nan, np.float32)
        ages = table.numbers(self.column)
        if (ages < 0).any():
            row = int((ages < 0).argmax())
            what = f"{self.column} is {ages[row]:g}, and an age is 0 or more: leave it empty where it is not known"
            raise PolyfaceError(f"task '{self.name}': {table.path(row)}: {what}")
        return ages

    def spans(self, table: FaceTable) -> Numbers:
        """The first and the last year that every face may be of, float32 [N, 2]: twice its age, or the years of its
        group; NaN where neither is known."""
        ages, column = self.years(table), self.spec.groups
        lacks = column not in table.columns and not is_column(column)
        words = [None] * len(table) if lacks else table.words(column)
        of = {word: self._span(word) for word in set(words) if word is not None}
        groups = np.array([of.get(word, (np.nan, np.nan)) for word in words], np.float32).reshape(-1, 2)
        return np.where(np.isnan(ages)[:, None], groups, ages[:, None])

    def targets(self, table: FaceTable) -> Targets:
        """Values: the spans of years, float32 [N, 2], 0 where nothing is known; of a group without end the last year is
        that of the oldest person whom the network tells apart."""
        spans = torch.from_numpy(self.spans(table))
        known = ~spans.isnan().any(1) & self._where(table)
        return Targets(spans.nan_to_num(0.0).clamp(max=self.spec.oldest), known[:, None])

    def classes(self, table: FaceTable) -> NDArray[np.int64]:
        """The place of every face's group in the vocabulary, int64 [N]; −1 where it is not known, or its years are in
        none or in several."""
        first, last = (age_classes(ends, self.vocabulary) for ends in self.spans(table).T)
        return np.where((first == last) & self._where(table).numpy(), first, -1)

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        return values

    # --------------------------------------------------------------------------------------------- loss and answers

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        log_p, (first, last) = F.log_softmax(output.float(), 1), self._ends(target)
        log_q = self._around(first)
        of_age = (log_q.exp() * (log_q - log_p)).sum(1, keepdim=True)
        of_group = -log_p.masked_fill(~self._within(first, last), -torch.inf).logsumexp(1, keepdim=True)
        mean = (log_p.exp() * self._bins(output.device)).sum(1, keepdim=True)
        away = F.relu(first - mean) + F.relu(mean - last)
        return torch.where(first == last, of_age, of_group) + self.spec.weight * away

    def _bins(self, device: torch.device) -> Tensor:
        """The years of the outputs [oldest + 1]."""
        return torch.arange(self.output_dim, device=device)

    def _ends(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """First and last year [B, 1] each."""
        return target[:, :1], target[:, 1:]

    def _around(self, ages: Tensor) -> Tensor:
        """log q of ages [B, 1]: [B, oldest + 1]."""
        return F.log_softmax(-((self._bins(ages.device) - ages) ** 2) / (2 * self.spec.spread**2), 1)

    def _within(self, first: Tensor, last: Tensor) -> Tensor:
        """Bool [B, oldest + 1]: the years from the first to the last, [B, 1] each."""
        bins = self._bins(first.device)
        return (bins >= first.floor()) & (bins <= last)

    def right(self, output: Tensor, target: Tensor) -> Tensor:
        """Whether it is the group; of a face whose years are in no one group it is not."""
        told = self.conclude({"distribution": output.float().softmax(1).cpu().numpy()})["probabilities"].argmax(1)
        first, last = (age_classes(ends.cpu().numpy(), self.vocabulary) for ends in target.T)
        return torch.from_numpy((told == first) & (first == last)).to(output.device)

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """{"distribution": p, float32 [B, oldest + 1]}."""
        return {"distribution": output.float().softmax(1).cpu().numpy()}

    def conclude(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """{"label": the group, "probabilities": float32 [B, groups], "years": float32 [B]}. The probabilities are of
        the groups alone, together 1, whatever share of p lies between two groups."""
        given = dict(numbers)
        p, bins = given.pop("distribution"), np.arange(self.output_dim, dtype=np.float32)
        of_group = age_classes(bins, self.vocabulary)[:, None] == np.arange(len(self.vocabulary))
        shares = p @ of_group.astype(np.float32)
        shares /= np.maximum(shares.sum(1, keepdims=True), np.finfo(np.float32).tiny)
        label = [self.vocabulary[place] for place in shares.argmax(1)]
        return {"label": label, "probabilities": shares, "years": p @ bins, **given}

    @property
    def score_names(self) -> list[str]:
        return ["years"]

    def scores(self, output: Tensor) -> Tensor:
        """[B, 1]: the mean m, in years."""
        return (output.float().softmax(1) @ self._bins(output.device).float())[:, None]

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        return list(np.asarray(answer["years"]).tolist())

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> AgeResult:
        years = np.where(self._where(table).numpy(), self.years(table), np.nan)
        predicted = answers["probabilities"].argmax(1)
        return evaluate_ages(predicted, self.classes(table), self.vocabulary, answers["years"], years)

    def declares(self) -> Column | None:
        return None if is_column(self.column) else Column("number", unit="years")

    def config(self) -> dict[str, Any]:
        """With the groups that the training table declared, so that a bundle needs none."""
        return super().config() | {"vocabulary": self.vocabulary}
