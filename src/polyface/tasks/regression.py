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
from polyface.tasks.base import Task, TaskSpec


class RegressionSpec(TaskSpec):
    """column: of numbers. offset, scale: the network answers (number − offset) / scale, which the loss compares.

    loss: "l2" is ½d², "l1" |d|, "smooth-l1" that of Girshick 2015. circular: the numbers are degrees, 360 being 0: the
    network answers cosine and sine, and there is neither offset nor scale. mirror: the number of a mirrored face,
    "negate" or "none" (the same); by default a yaw is negated. unit: of the number, for tables.
    """

    kind: Literal["regression"] = "regression"
    column: str
    offset: float = 0.0
    scale: float = Field(1.0, gt=0)
    loss: Literal["l2", "l1", "smooth-l1"] = "l2"
    circular: bool = False
    mirror: Literal["negate", "none"] | None = None
    unit: str = ""


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
        self.unit = spec.unit or ("°" if spec.circular else "")
        self.negated = spec.mirror == "negate" or (spec.mirror is None and spec.column == "yaw")

    def targets(self, table: FaceTable) -> Targets:
        """Values float32 [N], 0 where there is none."""
        if self.column not in table.columns:
            return Targets(torch.zeros(len(table)), torch.zeros(len(table), 1, dtype=torch.bool))
        numbers = torch.tensor(table.numbers(self.column))  # a copy: Arrow's may not be written to
        if numbers.ndim != 1:
            raise PolyfaceError(f"task '{self.name}': column '{self.column}' holds no single number a face")
        known = numbers.isfinite() & self._where(table)
        return Targets(numbers.nan_to_num(0.0, 0.0, 0.0), known[:, None])

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

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        return list(np.asarray(answer["value"]).tolist())

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> RegressionResult:
        targets = self.targets(table)
        truth = np.where(targets.labelled[:, 0].numpy(), targets.values.numpy(), np.nan)
        return evaluate_regression(answers["value"], truth, circular=self.spec.circular, unit=self.unit)

    def config(self) -> dict[str, Any]:
        return super().config() | {"mirror": "negate" if self.negated else "none"}
