"""What results over labelled faces have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from polyface.metrics.resampling import Bools, Counts, Floats
from polyface.metrics.result import Metric
from polyface.metrics.sections import Section


class OverFaces(ABC):
    """A `Result` whose units are all the faces given, of which those that are `labelled` are evaluated."""

    over = "faces"

    @property
    @abstractmethod
    def labelled(self) -> Bools:
        """Which faces [N] are evaluated; the others are part of nothing."""

    @abstractmethod
    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        """See `Result`."""

    @property
    def units(self) -> int:
        return len(self.labelled)

    @property
    def n(self) -> int:
        return int(self.labelled.sum())

    @property
    def unlabelled(self) -> int:
        return self.units - self.n

    def figure(self, metric: Metric) -> float:
        return float(self.at(self.labelled[None].astype(np.int32), [metric])[metric][0])

    def spread(self, metric: Metric) -> float | None:
        return None

    def defined(self, metric: Metric) -> Bools:
        return self.labelled

    def sections(self) -> list[Section]:
        return []
