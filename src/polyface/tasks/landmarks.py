"""Where the points of a face are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from polyface.data.crops import invert, is_mirrored, transform
from polyface.data.loader import Targets
from polyface.data.table import FaceTable
from polyface.errors import PolyfaceError
from polyface.metrics.landmarks import LandmarkResult, evaluate_landmarks
from polyface.schema import EYES, Column, built_in, five_of_68, is_column, landmark_groups, mirror_landmarks
from polyface.tasks.base import Task, TaskSpec

FIVE, SIXTY_EIGHT = "landmarks_5", "landmarks_68"


class LandmarksSpec(TaskSpec):
    """points: how many. column: by default `landmarks_<points>`. mirror: which point becomes point i of a mirrored
    face, for each i; by default as the table declares or the schema knows. eyes: the points whose means are the two
    eye centres, whose distance errors are told in; where neither this nor the schema says them, the size of the box
    around the points.

    loss: "l2" is the paper's ½‖p − q‖² (Eq. 3), "l1" the sum of |Δx| + |Δy|, "wing" that of Feng et al. 2018 with
    w = 0.1, ε = 0.02 in crop sides. A `scale` multiplies it."""

    kind: Literal["landmarks"] = "landmarks"
    points: int = Field(5, ge=1, le=10_000)
    column: str = ""
    mirror: list[int] = Field(default_factory=list)
    eyes: list[list[int]] = Field(default_factory=list)
    loss: Literal["l2", "l1", "wing"] = "l2"
    scale: float = Field(1.0, gt=0)


class LandmarksTask(Task):
    """Any number of points, in units of the crop: 0 is its left or top edge, 1 its right or bottom one.

    Five points of a face that is labelled with 68 alone are those of them (`polyface.schema.five_of_68`). One loss term
    a point; an invisible point is masked. Output [B, 2·points], x and y interleaved.
    """

    Spec = LandmarksSpec
    spec: LandmarksSpec

    def __init__(self, name: str, spec: LandmarksSpec) -> None:
        super().__init__(name, spec)
        self.points = spec.points
        self.column = spec.column or f"landmarks_{spec.points}"
        self.mirror = list(spec.mirror)
        if is_column(self.column):
            self._know(built_in(self.column))
        if self.mirror and sorted(self.mirror) != list(range(spec.points)):
            raise PolyfaceError(f"tasks.{name}.mirror must name each of 0 … {spec.points - 1} once: {self.mirror}")
        if spec.eyes and (
            len(spec.eyes) != 2 or not all(eye and 0 <= min(eye) <= max(eye) < spec.points for eye in spec.eyes)
        ):
            raise PolyfaceError(f"tasks.{name}.eyes must be two lists of points of {spec.points}: {spec.eyes}")
        self.output_dim = 2 * spec.points
        self.terms = [f"{name}/{i}" for i in range(spec.points)]

    def _know(self, held: Column) -> None:
        """Let the column hold what is declared of it."""
        if (held.type, held.points) != ("points", self.points):
            raise PolyfaceError(f"task '{self.name}': column '{self.column}' is {held}, not {self.points} points")
        if isinstance(held.mirror, tuple) and not self.spec.mirror:
            self.mirror = list(held.mirror)

    def learn(self, training: FaceTable) -> None:
        if self.column in training.columns:
            self._know(training.declared(self.column))

    def declares(self) -> Column | None:
        own = Column("points", points=self.points, mirror=tuple(self.mirror) or "")
        return None if is_column(self.column) and own == built_in(self.column) else own

    def _order(self, device: torch.device) -> Tensor:
        """Which point becomes point i of a mirrored face: [points]."""
        return torch.as_tensor(self.mirror or mirror_landmarks(self.points), device=device)

    def _known(self, table: FaceTable) -> np.ndarray:
        """The points that a table says, [N, points, 2]. Five of a face follow from 68, where it has these alone."""
        points = table.points(self.column)
        if self.column == FIVE and SIXTY_EIGHT in table.columns:
            others = np.isnan(points).all((1, 2), keepdims=True)
            points = np.where(others, five_of_68(table.points(SIXTY_EIGHT)), points)
        return points

    def targets(self, table: FaceTable) -> Targets:
        if self.column not in table.columns and not is_column(self.column):
            nothing = torch.zeros(len(table), self.points)
            return Targets(torch.full((*nothing.shape, 2), torch.nan), nothing.bool())
        points = torch.from_numpy(self._known(table))
        return Targets(points, ~points.isnan().any(-1) & self._where(table)[:, None])

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        moved = (transform(crops, values) + 0.5) / size
        mirrored = is_mirrored(crops)
        if mirrored.any():
            order = self._order(values.device)
            moved = torch.where(mirrored[:, None, None], moved[:, order], moved)
        return moved

    def visible(self, labelled: Tensor, crops: Tensor) -> Tensor:
        mirrored = is_mirrored(crops)
        if not mirrored.any():
            return labelled
        order = self._order(labelled.device)
        return torch.where(mirrored[:, None], labelled[:, order], labelled)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        delta = output.float().view(-1, self.points, 2) - target
        delta = torch.where(target.isnan(), 0.0, delta)  # an unlabelled point: no NaN may reach the gradient
        if self.spec.loss == "l2":
            each = delta.square() / 2
        elif self.spec.loss == "l1":
            each = delta.abs()
        else:
            width, epsilon = 0.1, 0.02
            offset = width - width * math.log(1 + width / epsilon)
            size = delta.abs()
            each = torch.where(size < width, width * torch.log1p(size / epsilon), size - offset)
        return self.spec.scale * each.sum(-1)

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        """{"points": float32 [B, points, 2] in original pixels}."""
        points = output.float().view(-1, self.points, 2) * size - 0.5
        mirrored = is_mirrored(crops)
        if mirrored.any():
            order = self._order(points.device)
            points = torch.where(mirrored[:, None, None], points[:, order], points)
        return {"points": transform(invert(crops), points).cpu().numpy()}

    @property
    def score_names(self) -> list[str]:
        """The coordinates: 0.x, 0.y, 1.x …"""
        return [f"{point}.{axis}" for point in range(self.points) for axis in "xy"]

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        return list(answer["points"])

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> LandmarkResult:
        targets = self.targets(table)
        truth = np.where(targets.labelled.numpy()[..., None], targets.values.numpy(), np.nan)
        names = list(landmark_groups(5)) if self.points == 5 else []
        left_right = tuple(self.spec.eyes) or EYES.get(self.points)
        if left_right is None:
            return evaluate_landmarks(answers["points"], truth, normaliser="box", names=names)
        return evaluate_landmarks(answers["points"], truth, eyes=(left_right[0], left_right[1]), names=names)

    def config(self) -> dict[str, Any]:
        return super().config() | {"mirror": self.mirror}
