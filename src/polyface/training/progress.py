"""How a run proceeds: its batches of all epochs in a row, and the learning rate along them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polyface.data.loader import FaceLoader, RawBatch
from polyface.training.specs import StageSpec


class AllEpochs:
    """The batches of all epochs one after the other, from batch number `start` on."""

    def __init__(self, loader: FaceLoader, epochs: int, start: int = 0) -> None:
        self.loader, self.epochs, self.start = loader, epochs, start

    def __len__(self) -> int:
        return self.epochs * len(self.loader) - self.start

    def __iter__(self) -> Iterator[RawBatch]:
        first_epoch, first_batch = divmod(self.start, len(self.loader))
        for epoch in range(first_epoch, self.epochs):
            self.loader.epoch, self.loader.first = epoch, first_batch if epoch == first_epoch else 0
            yield from self.loader


def learning_rate(spec: StageSpec, done: float, history: Sequence[Mapping[str, Any]] = ()) -> float:
    """The factor on the learning rate after a fraction `done` of the run; history: the epochs up to now."""
    o = spec.optimisation
    if done < o.warmup:
        return max(done / o.warmup, 1e-3)
    if o.schedule == "cosine":
        along = (done - o.warmup) / max(1e-9, 1 - o.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(along, 1.0)))
    if o.schedule == "steps":
        return o.factor ** sum(done >= milestone for milestone in o.milestones)
    if o.schedule == "plateau":
        main = spec.main
        return o.factor ** plateaus(
            [row["validation"][main] for row in history if main in row.get("validation", {})], o.patience
        )
    return 1.0


def plateaus(losses: Sequence[float], patience: int) -> int:
    """How often a validation loss did not fall below its lowest for `patience` validations in a row."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            count, waited = count + 1, 0
    return count
