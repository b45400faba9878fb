"""A number: an age, a yaw, whatever a table has a column of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from polyface.data.crops import is_mirrored
from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.regression import RegressionResult, evaluate_regression
from polyface.schema import Column, built_in, is_column
from polyface.tasks.base import Task, TaskSpec


class RegressionSpec(TaskSpec):
    """column: of numbers. offset, scale: the network answers (number − offset) / scale, which the loss compares.

    loss: "l2" is ½d², "l1" |d|, "smooth-l1" that of Girshick 2015. circular: the numbers are degrees, 360 being 0: the
    network answers cosine and sine, and there is neither offset nor scale. mirror: the number of a mirrored face,
    "negate" or "none" (the same). unit: of the number, for tables. Both are by default what the training table declares
    of the column, or the schema.
    """

    kind: Literal["regression"] = "regression"
    column: str
    offset: float = 0.0
    scale: float = Field(1.0, gt=0)
    loss: Literal["l2", "l1", "smooth-l1"] = "l2"
    circular: bool = False
    mirror: Literal["negate", "none"] | None = None
    unit: str | None = None


class RegressionTask(Task):
    """Output [B, 1], or [B, 2] of degrees (cosine and sine, of any length). One loss term."""

    Spec = RegressionSpec
    spec: RegressionSpec

    def __init__(self, name: str, spec: RegressionSpec) -> None:
        super().__init__(name, spec)
        if spec.circular and (spec.offset, spec.scale) != (0, 1):
            raise PolyfaceError(f"tasks.{name}: offset and scale are for numbers that are not circular")
        self.column, self.terms = spec.column, [name]
        self.output_dim = 2 if spec.circular else 1
        self._know(built_in(self.column) if is_column(self.column) else Column("number"))

    def learn(self, training: FaceTable) -> None:
        """Take over what the training table declares of the column."""
        self._know(training.declared(self.column))

    def _know(self, held: Column) -> None:
        if held.type != "number":
            raise PolyfaceError(f"task '{self.name}': column '{self.column}' is {held}; a number is needed")
        self.negated = (self.spec.mirror or held.mirror) == "negate"
        self.unit = held.unit if self.spec.unit is None else self.spec.unit

    def targets(self, table: FaceTable) -> Targets:
        """Values float32 [N], 0 where there is none. A column of somebody's own that a table lacks has none there."""
        lacks = self.column not in table.columns and not is_column(self.column)
        numbers = np.full(len(table), np.nan, np.float32) if lacks else table.numbers(self.column)
        known = torch.from_numpy(np.isfinite(numbers)) & self._where(table)
        return Targets(torch.from_numpy(np.nan_to_num(numbers, posinf=0, neginf=0)), known[:, None])

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        """[B, 1], or cosine and sine [B, 2]."""
        values = self._mirrored(values, crops)
        if self.spec.circular:
            return torch.stack([values.deg2rad().cos(), values.deg2rad().sin()], dim=-1)
        return ((values - self.spec.offset) / self.spec.scale)[:, None]

    def _mirrored(self, values: Tensor, crops: Tensor) -> Tensor:
        return torch.where(is_mirrored(crops), -values, values) if self.negated else values

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        output = output.float()
        if self.spec.loss == "l2":
            each = (output - target).square() / 2
        elif self.spec.loss == "l1":
            each = (output - target).abs()
        else:
            each = F.smooth_l1_loss(output, target, reduction="none")
        return each.sum(-1, keepdim=True)

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """{"value": float32 [B]}, or of degrees {"direction": cosine and sine [B, 2]}, whose mean is that of angles."""
        output = output.float()
        if self.spec.circular:
            direction = F.normalize(output, dim=-1)
            sine = self._mirrored(direction[:, 1], crops)
            return {"direction": torch.stack([direction[:, 0], sine], dim=-1).cpu().numpy()}
        value = self.spec.offset + self.spec.scale * output[:, 0]
        return {"value": self._mirrored(value, crops).cpu().numpy()}

    def conclude(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """{"value": float32 [B]}; degrees are above −180 and at most 180."""
        if not self.spec.circular:
            return dict(numbers)
        cosine, sine = numbers["direction"].T
        return {"value": np.rad2deg(np.arctan2(sine, cosine)).astype(np.float32)}

    @property
    def score_names(self) -> list[str]:
        return [self.unit or "value"]

    def scores(self, output: Tensor) -> Tensor:
        """[B, 1]: the number in units of `scale`, or the angle of cosine and sine in radians."""
        output = output.float()
        return torch.atan2(output[:, 1:], output[:, :1]) if self.spec.circular else output

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        return list(np.asarray(answer["value"]).tolist())

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> RegressionResult:
        targets = self.targets(table)
        truth = np.where(targets.labelled[:, 0].numpy(), targets.values.numpy(), np.nan)
        return evaluate_regression(answers["value"], truth, circular=self.spec.circular, unit=self.unit)

    def config(self) -> dict[str, Any]:
        """With what the training table said, so that a bundle needs none."""
        return super().config() | {"mirror": "negate" if self.negated else "none", "unit": self.unit}

    def declares(self) -> Column | None:
        own = Column("number", mirror="negate" if self.negated else "", unit=self.unit)
        return None if is_column(self.column) else own
