"""How well people are found in a gallery: rank-k accuracy and the CMC curve.

Sources: Huo et al. 2018 (WebCaricature) and Ming, Burie & Luqman 2021, Tables 4 and 5. C2P: caricatures are the probes
and photos the gallery, one a person; P2C: the reverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError
from polyface.metrics.recognition.pairs import FoldFigure
from polyface.metrics.resampling import Bools, Counts, Floats, mean_of_defined, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Curves, Section

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval of `n` probes from `draws` galleries of `gallery` faces (the smallest), in percent. Units are all
    probes.

    `rate` maps k to rank-k: the mean over draws and its spread over draws. `excluded` probes are of people whom no
    gallery holds: they are part of nothing. `places` [draws, probes] is the place of the nearest face of the probe's
    person, from 1; NaN where that gallery holds none. `groups` are kinds of probes [N] by name, each with figures
    of its own ("rank-1 turned"). `prefix` comes before the names of the metrics ("C2P ").
    """

    prefix: str
    gallery: int
    rate: dict[int, FoldFigure]
    key: str
    places: Floats = field(repr=False, compare=False)
    groups: Mapping[str, Bools] = field(default_factory=dict, repr=False, compare=False)

    @property
    def over(self) -> str:
        return "probes"

    @property
    def units(self) -> int:
        return int(self.places.shape[1])

    @property
    def draws(self) -> int:
        return len(self.places)

    @property
    def n(self) -> int:
        return int(np.sum(self.found))

    @property
    def excluded(self) -> int:
        return self.units - self.n

    @property
    def found(self) -> Bools:
        """Which probes [N] are of people whom some gallery holds."""
        return np.asarray(~np.isnan(self.places).all(0))

    @property
    def metrics(self) -> list[Metric]:
        note = f"{self.excluded} probes without their person in the gallery" if self.excluded else ""
        folds = f"{self.draws} draws of the gallery"
        whole = [Metric(f"{self.prefix}rank-{rank}", n=self.n, note=note, folds=folds) for rank in self.rate]
        of_groups = [
            Metric(f"{self.prefix}rank-{min(self.rate)} {name}", n=int((self.found & kind).sum()))
            for name, kind in self.groups.items()
        ]
        return whole + of_groups

    def _asked(self, metric: Metric) -> tuple[int, Bools | None]:
        """The rank of a metric, and the kind of probes that it is of."""
        rank, _, group = metric.name.removeprefix(f"{self.prefix}rank-").partition(" ")
        return int(rank), self.groups[group] if group else None

    def figure(self, metric: Metric) -> float:
        rank, kind = self._asked(metric)
        if kind is None:
            return self.rate[rank].value
        return float(self.at(self.defined(metric)[None].astype(np.int32), [metric])[metric][0])

    def spread(self, metric: Metric) -> float | None:
        rank, kind = self._asked(metric)
        return self.rate[rank].std if kind is None else None

    def defined(self, metric: Metric) -> Bools:
        _, kind = self._asked(metric)
        return self.found if kind is None else self.found & kind

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        """The galleries stay as drawn."""
        scored = counts if judged is None else counts * judged
        known = ~np.isnan(self.places)
        figures = {}
        for metric in wanted:
            rank, kind = self._asked(metric)
            of_kind = known if kind is None else known & kind
            right = of_kind & (self.places <= rank)
            hits, all_of_kind = scored @ right.T.astype(np.float64), scored @ of_kind.T.astype(np.float64)
            figures[metric] = 100 * mean_of_defined(ratio(hits, all_of_kind))
        return figures

    def sections(self) -> list[Section]:
        ranks, rate = cmc(self, 20)
        caption = "One face a person; mean over draws of the gallery."
        legend = f"rank-1 {rate[0]:.1f} %"
        curve = Curves({"": (ranks, rate)}, "rank", "found, %", caption, legend, percent=True)
        return [Section(", ".join(filter(None, ["CMC", self.prefix.strip()])), [curve])]


def draw_gallery(people: ArrayLike, draws: int = 10, seed: int = 0) -> list[Indices]:
    """One face of each person for each draw, at random: rows of `people` [N], who is on each face, by person's name.

    A draw depends on `seed` and its own number alone, not on how many there are.
    """
    names = _people(people, "faces to draw a gallery from")
    galleries = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(names))
        galleries.append(order[np.unique(names[order], return_index=True)[1]])
    return galleries


def _people(people: ArrayLike, what: str) -> NDArray[Any]:
    names = np.asarray(people)
    if names.ndim != 1 or not names.size:
        raise PolyfaceError(f"{what}: expected a person for each of at least one face, found {list(names.shape)}")
    if names.dtype == object:
        nameless = [row for row, name in enumerate(names.tolist()) if name is None]
        if nameless:
            raise PolyfaceError(f"{what}: {len(nameless)} have no person (the first is {nameless[0]}): leave them out")
        names = names.astype(str)
    return names


def evaluate_retrieval(
    distances: ArrayLike,
    probe_people: ArrayLike,
    gallery_people: ArrayLike,
    *,
    galleries: Sequence[ArrayLike] | None = None,
    never: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | None = None,
    ranks: Sequence[int] = (1, 10),
    prefix: str = "",
) -> RetrievalResult:
    """Evaluate distances [P, G] of probes to faces of a gallery (`squared_distances`), given who is on each [P], [G].

    galleries: rows of the G faces that form each gallery to be searched (`draw_gallery`), one or several faces a
    person; None: all of them at once. never: bool [P, G], the faces that a probe is never found as, such as its own
    picture. groups: kinds of probes, bool [P] each, that have figures of their own at the smallest rank.
    prefix: of the metrics' names.

    A probe is found at rank k if a face of its person is among the k nearest. A face of another person that is exactly
    as near counts as nearer, so that ties lose. Intervals take probes as independent, though a person's are not (see
    `clusters.clustered`).
    """
    values = np.asarray(distances, dtype=np.float64)
    probes, faces = _people(probe_people, "probes"), _people(gallery_people, "gallery")
    if values.shape != (len(probes), len(faces)):
        raise PolyfaceError(f"distances must be [{len(probes)} probes, {len(faces)} faces], found {list(values.shape)}")
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if bad.size:
        raise PolyfaceError(
            f"{bad.size} probes have distances that are not finite (the first is probe {bad[0]}): the network diverged"
        )
    if not ranks or min(ranks) < 1:
        raise PolyfaceError(f"ranks count from 1, found {list(ranks)}")
    codes = np.unique(np.concatenate([probes, faces]), return_inverse=True)[1]
    probe_codes, face_codes = codes[: len(probes)], codes[len(probes) :]
    if never is not None:
        values = np.where(_mask(never, values.shape, "never"), np.inf, values)
    kinds = {name: _mask(kind, probes.shape, f"group {name}") for name, kind in (groups or {}).items()}
    drawn = [np.arange(len(faces))] if galleries is None else [_rows(rows, len(faces)) for rows in galleries]
    if not drawn:
        raise PolyfaceError("no gallery to search: give the rows of at least one")
    places = np.stack([_places(values[:, rows], probe_codes[:, None] == face_codes[rows]) for rows in drawn])
    judged = ~np.isnan(places)
    if not judged.any(1).all():
        raise PolyfaceError("a gallery holds nobody that a probe shows: nothing to find")
    rate = {rank: FoldFigure.of((100 * ((places <= rank).sum(1) / judged.sum(1))).tolist()) for rank in ranks}
    key = digest(probes.astype(str), *drawn, list(ranks), prefix, *kinds, *kinds.values())
    return RetrievalResult(prefix, min(map(len, drawn)), rate, key, places, kinds)


def _mask(given: ArrayLike, shape: tuple[int, ...], what: str) -> Bools:
    mask = np.asarray(given)
    if mask.shape != shape or mask.dtype != bool:
        raise PolyfaceError(f"{what} must be bool {list(shape)}, found {mask.dtype} {list(mask.shape)}")
    return mask


def _rows(rows: ArrayLike, faces: int) -> Indices:
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or not chosen.size or not np.issubdtype(chosen.dtype, np.integer):
        raise PolyfaceError(f"a gallery is a list of rows, found {chosen.dtype} {list(chosen.shape)}")
    if chosen.min() < 0 or chosen.max() >= faces or len(np.unique(chosen)) < len(chosen):
        raise PolyfaceError(f"a gallery's rows must be different ones from 0 to {faces - 1}")
    return chosen.astype(np.intp)


def _places(distances: Floats, same: NDArray[np.bool_]) -> Floats:
    """The place [P] of the nearest face of the probe's own person; NaN if there is none. Both are [P, G]."""
    own = np.where(same, distances, np.inf).min(1)
    ahead = ((distances <= own[:, None]) & ~same).sum(1)
    return np.where(np.isfinite(own), 1.0 + ahead, np.nan)


def cmc(result: RetrievalResult, to: int | None = None) -> tuple[NDArray[np.int64], Floats]:
    """The cumulative match characteristic: ranks 1 … `to` (default: the size of the gallery) and the rate at each, in
    percent, as a mean over draws."""
    ranks = np.arange(1, (to or result.gallery) + 1)
    judged = (~np.isnan(result.places)).sum(1)
    found = np.stack([np.searchsorted(np.sort(places), ranks, side="right") for places in result.places])
    return ranks, np.asarray(100 * (found / judged[:, None]).mean(0))
