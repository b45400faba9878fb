"""Results over units that belong together: drawn together, and told together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Bools, Counts, Floats
from polyface.metrics.result import Metric, Result, digest
from polyface.metrics.sections import Section


def clustered(result: Result, cluster: ArrayLike, over: str) -> Result:
    """The same figures over clusters of units, such as all faces of a person, which are not independent: intervals draw
    whole clusters. cluster: what each unit [units] belongs to, a number or a word. over: what a cluster is ("people").
    """
    _, codes = np.unique(np.asarray(cluster), return_inverse=True)
    if codes.shape != (result.units,):
        raise PolyfaceError(f"clusters of {list(codes.shape)} {result.over} for a result over {result.units}")
    return _Clustered(result, codes, over)


@dataclass(frozen=True)
class _Clustered:
    whole: Result
    codes: NDArray[np.intp]
    over: str

    @property
    def units(self) -> int:
        return int(self.codes.max()) + 1

    @property
    def key(self) -> str:
        return digest(self.whole.key, self.codes)

    @property
    def metrics(self) -> Sequence[Metric]:
        return self.whole.metrics

    def figure(self, metric: Metric) -> float:
        return self.whole.figure(metric)

    def spread(self, metric: Metric) -> float | None:
        return self.whole.spread(metric)

    def defined(self, metric: Metric) -> Bools:
        return np.bincount(self.codes, self.whole.defined(metric), self.units) > 0

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        of_each = counts[:, self.codes]
        scored = None if judged is None else judged[self.codes]
        return {
            metric: self.whole.at(of_each * self.whole.defined(metric), [metric], scored)[metric] for metric in wanted
        }

    def sections(self) -> list[Section]:
        return self.whole.sections()


def together(results: Mapping[str, Result]) -> Result:
    """Results over the same units as one with all their figures. Those of a result without a name ("") keep theirs; of
    another, the first is called as the result is, and the names of the rest begin with that.

    Raises:
        PolyfaceError: other units, or a name that is taken.
    """
    first, named = next(iter(results.values())), dict[Metric, tuple[Result, Metric]]()
    for name, one in results.items():
        if (one.units, one.over) != (first.units, first.over):
            raise PolyfaceError(f"{name or 'a result'} is not over the same {first.over} as what it is told with")
        for place, metric in enumerate(one.metrics):
            told = replace(metric, name=f"{name} {metric.name}".strip() if place or not name else name)
            if told in named:
                raise PolyfaceError(f"two figures would be called {told.name}")
            named[told] = one, metric
    return _Together(tuple(results.values()), named)


@dataclass(frozen=True)
class _Together:
    results: tuple[Result, ...]
    named: Mapping[Metric, tuple[Result, Metric]]

    @property
    def units(self) -> int:
        return self.results[0].units

    @property
    def over(self) -> str:
        return self.results[0].over

    @property
    def key(self) -> str:
        """That of the first, which is what systems with and without the others are compared by."""
        return self.results[0].key

    @property
    def metrics(self) -> Sequence[Metric]:
        return list(self.named)

    def figure(self, metric: Metric) -> float:
        one, own = self.named[metric]
        return one.figure(own)

    def spread(self, metric: Metric) -> float | None:
        one, own = self.named[metric]
        return one.spread(own)

    def defined(self, metric: Metric) -> Bools:
        one, own = self.named[metric]
        return one.defined(own)

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        found = {}
        for metric in wanted:
            one, own = self.named[metric]
            found[metric] = one.at(counts, [own], judged)[own]
        return found

    def sections(self) -> list[Section]:
        return [section for one in self.results for section in one.sections()]
