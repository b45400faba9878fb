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
from polyface.metrics.resampling import Floats, PairedDifference, Row, ratio, resampled_means
from polyface.metrics.runs import (
    FoldFigure,
    compared,
    difference,
    fold_figure,
    fold_row,
    mean_of_defined,
    results_of,
)

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval of `n` probes from `draws` galleries of `gallery` faces (the smallest), in percent.

    `rate` maps k to rank-k: the mean over draws, its spread over draws, its interval over probes. `excluded` probes are
    of people whom no gallery holds: they are part of nothing. `places` [draws, probes] is the place of the nearest face
    of the probe's person, from 1; NaN where the gallery holds none. `people` are the probes' names, `galleries` the
    rows of each draw.
    """

    n: int
    excluded: int
    draws: int
    gallery: int
    rate: dict[int, FoldFigure]
    places: Floats = field(repr=False, compare=False)
    people: NDArray[Any] = field(repr=False, compare=False)
    galleries: tuple[Indices, ...] = field(repr=False, compare=False)


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
    itself: ArrayLike | None = None,
    ranks: Sequence[int] = (1, 10),
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> RetrievalResult:
    """Judge distances [P, G] of probes to faces of a gallery (`squared_distances`), given who is on each [P], [G].

    galleries: rows of the G faces that form each gallery to be searched (`draw_gallery`), one or several faces a
    person; None: all of them at once. itself: the row [P] among the G faces that is the probe's own picture, or −1: it
    is never found.

    A probe is found at rank k if a face of its person is among the k nearest. A face of another person that is exactly
    as near counts as nearer, so that ties lose. Intervals are percentile bootstraps over probes with the galleries as
    drawn (`resamples=0`: none); they take probes as independent, though a person's are not.
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
    if itself is not None:
        values = _without_itself(values, np.asarray(itself))
    drawn = [np.arange(len(faces))] if galleries is None else [_rows(rows, len(faces)) for rows in galleries]
    if not drawn:
        raise PolyfaceError("no gallery to search: give the rows of at least one")
    places = np.stack([_places(values[:, rows], probe_codes[:, None] == face_codes[rows]) for rows in drawn])
    judged = ~np.isnan(places)
    if not judged.any(1).all():
        raise PolyfaceError("a gallery holds nobody that a probe shows: nothing to find")
    resampled = _resampled(places[None], ranks, resamples, seed) if resamples else {}
    rate = {}
    for rank in ranks:
        each = 100 * ((places <= rank).sum(1) / judged.sum(1))
        rate[rank] = fold_figure(each.tolist(), resampled[rank][:, 0] if resampled else None, level)
    return RetrievalResult(
        n=int(judged.any(0).sum()),
        excluded=int((~judged.any(0)).sum()),
        draws=len(drawn),
        gallery=min(map(len, drawn)),
        rate=rate,
        places=places,
        people=probes,
        galleries=tuple(drawn),
    )


def _without_itself(distances: Floats, itself: NDArray[Any]) -> Floats:
    probes, faces = distances.shape
    whole = itself.shape == (probes,) and np.issubdtype(itself.dtype, np.integer)
    if not whole or itself.min() < -1 or itself.max() >= faces:
        raise PolyfaceError(f"itself must be a row from 0 to {faces - 1}, or -1, for each of the {probes} probes")
    answer, rows = distances.copy(), np.flatnonzero(itself >= 0)
    answer[rows, itself[rows]] = np.inf
    return answer


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


def _resampled(places: Floats, ranks: Sequence[int], resamples: int, seed: int) -> dict[int, Floats]:
    """Rates [R, runs] by rank, of places [runs, draws, P] of probes drawn with replacement."""
    judged = ~np.isnan(places)
    kept = judged.any((0, 1))
    columns = np.stack([judged, *(places <= rank for rank in ranks)])[..., kept].astype(np.float64)
    means = resampled_means(columns.reshape(-1, kept.sum()).T, resamples, seed).reshape(-1, *columns.shape[:3])
    rates = 100 * mean_of_defined(ratio(means[:, 1:], means[:, :1]))
    return {rank: rates[:, place] for place, rank in enumerate(ranks)}


def _of_runs(
    runs: Sequence[RetrievalResult], ranks: Sequence[int], resamples: int, seed: int, splits: bool
) -> dict[int, Floats]:
    """Resampled rates [R, runs] by rank: over the same probes for all runs, or of each split by itself."""
    if not splits:
        return _resampled(np.stack([run.places for run in runs]), ranks, resamples, seed)
    each = [_resampled(run.places[None], ranks, resamples, seed + place) for place, run in enumerate(runs)]
    return {rank: np.hstack([one[rank] for one in each]) for rank in ranks}


def _over_the_same_probes(results: Sequence[RetrievalResult]) -> None:
    first, *others = results
    for other in others:
        same = np.array_equal(other.people, first.people) and other.draws == first.draws
        if not same or not all(map(np.array_equal, other.galleries, first.galleries)):
            raise PolyfaceError("results to be averaged or compared must be of the same probes and the same galleries")
        if list(other.rate) != list(first.rate):
            raise PolyfaceError("results to be averaged or compared must be of the same ranks")


def retrieval_rows(
    name: str,
    results: Mapping[int, RetrievalResult],
    *,
    prefix: str = "",
    splits: bool = False,
    published: Mapping[str, float] | None = None,
    note: str = "",
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """The results rows "rank-1", "rank-10", … of one method, after a `prefix` such as "across C2P ", from its results
    by training seed over the same probes and galleries.

    Mean and std are over seeds. Intervals are bootstraps over probes and, for several seeds, over seeds as well (see
    `difference_of_runs`); none if `resamples` is 0. With `splits`, results are of several splits (or folds) of the
    people, each with probes of its own. `published` maps a metric, with its prefix, to the paper's figure. The spread
    over draws of the gallery, and probes that were excluded, are in the notes.
    """
    found = results_of(name, results)
    if not splits:
        _over_the_same_probes(found)
    ranks = list(found[0].rate)
    drawn = _of_runs(found, ranks, resamples, 0, splits) if resamples else {}
    absent = max(one.excluded for one in found)
    return [
        fold_row(
            name,
            f"{prefix}rank-{rank}",
            [one.rate[rank] for one in found],
            drawn.get(rank),
            over=f"{found[0].draws} draws of the gallery",
            n=found[0].n,
            runs=results,
            published=published,
            note=note,
            notes=[f"{absent} probes without their person in the gallery"] if absent else (),
            level=level,
        )
        for rank in ranks
    ]


def paired_difference(
    a: Sequence[RetrievalResult],
    b: Sequence[RetrievalResult],
    *,
    rank: int = 1,
    splits: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Bootstrap the difference a − b in rank-k of two systems' results, one a training seed, over the same probes and
    galleries (positive: a is better).

    Probes are resampled jointly, with several seeds the seeds as well: see `difference_of_runs`. With `splits`, a[i]
    and b[i] are over the probes of split i, and splits are resampled in place of seeds.
    """
    groups = compared(a, b, splits)
    for group in groups:
        _over_the_same_probes(group)
    if rank not in a[0].rate:
        raise PolyfaceError(f"rank-{rank} was not measured: known: {', '.join(map(str, a[0].rate))}")
    return difference(
        a,
        b,
        lambda side: _of_runs(side, [rank], resamples, seed, splits)[rank],
        lambda one: one.rate[rank].value,
        lambda one: (one.n, one.excluded),
        splits=splits,
        seed=seed,
        level=level,
    )
