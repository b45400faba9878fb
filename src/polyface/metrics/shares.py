"""How a whole is shared out over parts, face by face: the mass of a map over the regions of a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.faces import OverFaces
from polyface.metrics.resampling import Bools, Counts, Floats, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Section, Table, cell

AREA = "area"


@dataclass(frozen=True)
class SharesResult(OverFaces):
    """The mean share of each of K parts, in percent, over the faces that have a whole to share out; beside it the mean
    share of the area that each part has, which is what a whole that lies anywhere alike would give.

    what: whose shares. shares, areas: [N, K]; a face's shares are NaN where it has nothing.
    """

    what: str
    parts: Sequence[str]
    key: str
    shares: Floats = field(repr=False, compare=False)
    areas: Floats = field(repr=False, compare=False)

    @property
    def labelled(self) -> Bools:
        return np.asarray(~np.isnan(self.shares).any(1))

    @property
    def metrics(self) -> list[Metric]:
        note = f"{self.unlabelled} faces left out" if self.unlabelled else ""
        of_map = [Metric(self.what, part, n=self.n, note=note) for part in self.parts]
        return of_map + [Metric(AREA, part, n=self.n, trained=False) for part in self.parts]

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        scored = counts * self.labelled if judged is None else counts * (self.labelled & judged)
        total = scored.sum(1)
        known = {AREA: np.nan_to_num(self.areas), self.what: np.nan_to_num(self.shares)}
        return {
            metric: ratio(scored @ known[metric.name][:, self.parts.index(metric.part)], total) for metric in wanted
        }

    def sections(self) -> list[Section]:
        means = [[self.figure(Metric(what, part)) for what in (self.what, AREA)] for part in self.parts]
        body = [[part, cell(own, 1), cell(area, 1)] for part, (own, area) in zip(self.parts, means, strict=True)]
        return [Section(self.what, [Table(["region", f">{self.what}, %", ">area, %"], body)])]


def evaluate_shares(what: str, parts: Sequence[str], mass: ArrayLike, areas: ArrayLike) -> SharesResult:
    """Shares of the mass [N, K] of each face, which is 0 or more, NaN where it is not known; areas [N, K] likewise."""
    held, size = np.asarray(mass, dtype=np.float64), np.asarray(areas, dtype=np.float64)
    if held.ndim != 2 or held.shape != size.shape or held.shape[1] != len(parts):
        raise PolyfaceError(f"mass {list(held.shape)} and areas {list(size.shape)} must both be [faces, {len(parts)}]")
    if (held < 0).any():
        raise PolyfaceError("a mass below 0 cannot be shared out: take the part of a map that is above 0")
    shares, total = 100 * ratio(held, held.sum(1, keepdims=True)), size.sum(1, keepdims=True)
    if np.isnan(shares).any(1).all():
        raise PolyfaceError(f"{what}: no face has any, so there is nothing to share out")
    return SharesResult(what, list(parts), digest(size, list(parts)), shares, 100 * ratio(size, total))
