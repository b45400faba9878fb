"""Which of many attributes a face has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError, nearest
from polyface.metrics.attributes import AttributesResult, evaluate_attributes
from polyface.schema import ATTRIBUTES
from polyface.tasks.base import TaskSpec, ThresholdTask, shares_of


class AttributesSpec(TaskSpec):
    """attributes: names of those asked for; all 40 by default. loss: "mse" to ±1 (Mao et al. 2020, Eq. 2), or "bce",
    where the outputs are logits. thresholds: τ, one number an attribute in the order given, 0 by default; a face has an
    attribute if its output is above τ (Eq. 5). With "bce" τ is compared with the logit too, so 0 is probability ½."""

    kind: Literal["attributes"] = "attributes"
    attributes: list[str] = Field(default_factory=lambda: list(ATTRIBUTES))
    loss: Literal["mse", "bce"] = "mse"
    thresholds: list[float] = Field(default_factory=list)


class AttributesTask(ThresholdTask):
    """Any of CelebA's 40 attributes, each known or unknown by itself. Output [B, K]: scores or logits.

    One loss term an attribute, named `<task>/<attribute>`; an unknown one is masked. Terms and outputs are in the
    data set's order, however `attributes` lists them, so that a head keeps its meaning from one stage to the next. A
    mirror changes nothing: none of the 40 is about a side.
    """

    Spec = AttributesSpec
    spec: AttributesSpec

    def __init__(self, name: str, spec: AttributesSpec) -> None:
        names = spec.attributes
        if unknown := [one for one in names if one not in ATTRIBUTES]:
            raise PolyfaceError(f"tasks.{name}.attributes: unknown '{unknown[0]}'; {nearest(unknown[0], ATTRIBUTES)}")
        if not names or len(set(names)) < len(names):
            raise PolyfaceError(f"tasks.{name}.attributes must name at least one attribute, and each once: {names}")
        places = sorted(range(len(names)), key=lambda i: ATTRIBUTES.index(names[i]))
        super().__init__(name, spec.model_copy(update={"attributes": [names[i] for i in places]}))
        self.column, self.vocabulary = "attributes", self.spec.attributes
        self.output_dim = len(names)
        self.terms = [f"{name}/{attribute}" for attribute in self.vocabulary]
        given = spec.thresholds or [0.0] * len(names)
        self.thresholds = [given[i] for i in places] if len(given) == len(names) else given

    @property
    def thresholds(self) -> list[float]:
        """τ of every attribute, in their order; part of `config`, so a bundle carries them. Settable: K finite
        numbers."""
        return list(self.spec.thresholds)

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        numbers = [float(value) for value in values]
        if len(numbers) != self.output_dim or not all(map(math.isfinite, numbers)):
            raise PolyfaceError(
                f"tasks.{self.name}.thresholds must be {self.output_dim} finite numbers, one an attribute, "
                f"not {len(numbers)}: {numbers}"
            )
        self.spec.thresholds = numbers

    def learn(self, training: FaceTable) -> None:
        """The prior: log p / (1 − p) of an attribute that a share p of its labelled training faces have, or with "mse"
        their mean label 2p − 1; 0 for one without labels."""
        found = self.targets(training)
        have = (found.labelled & (found.values > 0)).sum(0)
        lack = found.labelled.sum(0) - have
        shares = torch.stack([shares_of(each) for each in torch.stack([have, lack], 1)])
        prior = shares[:, 0] - shares[:, 1] if self.spec.loss == "mse" else (shares[:, 0] / shares[:, 1]).log()
        self.prior = prior.tolist()

    def targets(self, table: FaceTable) -> Targets:
        """Values float32 [N, K]: −1, 1, and NaN where unknown."""
        values = table.numbers(self.column)[:, [ATTRIBUTES.index(one) for one in self.vocabulary]]
        known = ~np.isnan(values)
        rows, places = np.nonzero(known & (np.abs(values) != 1))
        if len(rows):
            row, place = int(rows[0]), int(places[0])
            raise PolyfaceError(
                f"task '{self.name}': row {row} ({table.path(row)}) has {values[row, place]:g} for "
                f"{self.vocabulary[place]}; expected -1, 1 or null: bring the table in with `polyface data import`"
            )
        return Targets(torch.from_numpy(values), torch.from_numpy(known) & self._where(table)[:, None])

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        return values

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        known = ~target.isnan()
        output, target = torch.where(known, output.float(), 0.0), torch.where(known, target, 0.0)
        if self.spec.loss == "mse":
            return (output - target).square()
        return torch.nn.functional.binary_cross_entropy_with_logits(output, (target + 1) / 2, reduction="none")

    def positive(self, output: Tensor) -> Tensor:
        """Bool [B, K]: which attributes the faces have, by output [B, K] > τ (Eq. 5)."""
        return output.float() > torch.tensor(self.thresholds, dtype=torch.float32, device=output.device)

    def mistakes(self, output: Tensor, target: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """(false positives, false negatives), int64 [K] each, over the labelled faces of output, target and mask
        [B, K], at the present thresholds: what moves them (Eq. 6)."""
        positive = self.positive(output)
        wrong = labelled & (positive != (target > 0))
        return (wrong & positive).sum(0), (wrong & ~positive).sum(0)

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """{"scores": float32 [B, K], the outputs}."""
        return {"scores": output.float().cpu().numpy()}

    def conclude(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """Beside these, {"positive": bool [B, K]; "attributes": list of lists of names}."""
        positive = self.positive(torch.from_numpy(numbers["scores"])).numpy()
        words = [[name for name, has in zip(self.vocabulary, face, strict=True) if has] for face in positive]
        return {**numbers, "positive": positive, "attributes": words}

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        places = [ATTRIBUTES.index(name) for name in self.vocabulary]
        values = np.full((len(answer["positive"]), len(ATTRIBUTES)), None, dtype=object)
        values[:, places] = np.where(answer["positive"], 1, -1)
        return list(values.tolist())

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> AttributesResult:
        targets = self.targets(table)
        truth = np.where(targets.labelled.numpy(), targets.values.numpy(), np.nan)
        return evaluate_attributes(answers["scores"], answers["positive"], truth, self.vocabulary)
