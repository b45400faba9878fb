"""How well landmarks are placed: normalised errors, failure rate, error distribution, intervals and paired differences.

Every error is in percent of a distance taken from the *true* points (so prediction and truth are not interchangeable).
Sources: Zhang, Luo, Loy & Tang 2014 (TCDCN), section 4: mean error over the inter-ocular distance, failure above 10 %;
the 68-point convention (distance between pupil centres) is the one of the 300-W papers of that time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.errors import PolyfaceError, nearest
from polyface.metrics.resampling import (
    Floats,
    Interval,
    PairedDifference,
    Row,
    difference_of_runs,
    percentile_interval,
    ratio,
    resampled_means,
)
from polyface.metrics.runs import row_of_runs
from polyface.schema import VOCABULARIES, eyes

NORMALISERS = ("eyes", "outer corners", "box")


@dataclass(frozen=True)
class GroupResult:
    """The figures of one group of faces (for example one pose), in percent; intervals as in `LandmarkResult`."""

    n: int
    missed: int
    mean_error: float
    failure_rate: float
    auc: float
    mean_error_interval: Interval | None
    failure_rate_interval: Interval | None


@dataclass(frozen=True)
class LandmarkResult:
    """Landmark accuracy over `n` faces. Errors, rates and AUC in percent.

    `excluded` faces cannot be judged (no visible point, or no usable normalising distance) and are part of nothing;
    `missed` faces have no prediction: they count as failures and for the AUC, but have no error to average.
    `mean_error` is NaN, and its interval None, if every face was missed. `per_point` is NaN for a never visible point.
    `face_errors` is [N] in the order given: NaN for an excluded face, infinite for a missed one.
    """

    n: int
    excluded: int
    missed: int
    mean_error: float
    failure_rate: float
    auc: float
    mean_error_interval: Interval | None
    failure_rate_interval: Interval | None
    per_point: tuple[float, ...]
    per_group: dict[str, dict[str, GroupResult]]
    normaliser: str
    threshold: float
    face_errors: Floats = field(repr=False, compare=False)


def _points(values: ArrayLike, what: str) -> Floats:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 3 or points.shape[-1] != 2:
        raise PolyfaceError(f"{what} must have the shape [faces, points, 2], found {list(points.shape)}")
    return points


def _pair(predicted: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    guess, known = _points(predicted, "predicted landmarks"), _points(truth, "true landmarks")
    if guess.shape != known.shape:
        raise PolyfaceError(f"predicted landmarks {list(guess.shape)} do not match the true ones {list(known.shape)}")
    return guess, known


def normalising_distance(truth: ArrayLike, normaliser: str = "eyes", boxes: ArrayLike | None = None) -> Floats:
    """The distance [N], in pixels, that errors are divided by; NaN where a face gives none (it is then excluded).

    "eyes": between the eye centres (68 points: pupil centres = means of points 36-41 and 42-47; an eye with an
    invisible point has no centre). "outer corners": between points 36 and 45 of 68. "box": geometric mean of the sides
    of `boxes` [N, 4] (xyxy), or of the visible points' bounding box if none are given. A zero distance is unusable.
    """
    points = _points(truth, "true landmarks")
    count = points.shape[1]
    if normaliser == "eyes":
        left, right = eyes(count)
        distance = np.linalg.norm(points[:, left].mean(1) - points[:, right].mean(1), axis=-1)
    elif normaliser == "outer corners":
        if count != 68:
            raise PolyfaceError(f"normaliser 'outer corners' is defined for 68 landmarks, not {count}: use 'eyes'")
        distance = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)
    elif normaliser == "box":
        distance = _box_size(points, boxes)
    else:
        raise PolyfaceError(f"unknown normaliser '{normaliser}': {nearest(normaliser, NORMALISERS)}")
    return np.where(np.isfinite(distance) & (distance > 0), distance, np.nan)


def _box_size(points: Floats, boxes: ArrayLike | None) -> Floats:
    if boxes is not None:
        given = np.asarray(boxes, dtype=np.float64)
        if given.shape != (len(points), 4):
            raise PolyfaceError(f"boxes must have the shape [{len(points)}, 4], found {list(given.shape)}")
        sides = given[:, 2:] - given[:, :2]
    else:
        seen = np.isfinite(points).all(-1, keepdims=True)
        sides = np.where(seen, points, -np.inf).max(1) - np.where(seen, points, np.inf).min(1)
    area = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], np.nan)
    return np.asarray(np.sqrt(area), dtype=np.float64)


def point_errors(
    predicted: ArrayLike, truth: ArrayLike, normaliser: str = "eyes", boxes: ArrayLike | None = None
) -> Floats:
    """Distance of each predicted point to the true one, in percent of the normalising distance: [N, P].

    `predicted` and `truth` are [N, P, 2] in the same pixel frame; NaN in `truth` marks an invisible point. The answer
    is NaN for an invisible point and for every point of an excluded face, and infinite for a missed face: one whose
    predictions are all NaN (nothing was detected). Any other non-finite prediction of a visible point is an error.
    """
    guess, known = _pair(predicted, truth)
    distance = normalising_distance(known, normaliser, boxes)
    visible = np.isfinite(known).all(-1) & np.isfinite(distance)[:, None]
    missed = np.isnan(guess).all((1, 2))
    bad = np.flatnonzero((visible & ~np.isfinite(guess).all(-1)).any(1) & ~missed)
    if bad.size:
        raise PolyfaceError(
            f"{bad.size} faces have non-finite predicted landmarks (the first is face {bad[0]}): "
            "the network diverged, or mark a face without a prediction by NaN in all its points"
        )
    with np.errstate(invalid="ignore"):
        errors = 100 * np.linalg.norm(guess - known, axis=-1) / distance[:, None]
    errors[missed] = np.inf
    return np.asarray(np.where(visible, errors, np.nan), dtype=np.float64)


def face_errors(errors: ArrayLike) -> Floats:
    """A face's error [N]: the mean of its visible points' errors [N, P]; NaN for a face without any."""
    values = np.asarray(errors, dtype=np.float64)
    seen = ~np.isnan(values)
    return ratio(np.where(seen, values, 0).sum(-1), seen.sum(-1))


def _judged(errors: ArrayLike) -> Floats:
    values = np.asarray(errors, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        raise PolyfaceError(
            "no face can be judged: none has a visible landmark and a usable normalising distance "
            "(visible eyes, a box); check the table's rows and the normaliser"
        )
    return values


def mean_error(errors: ArrayLike) -> float:
    """Mean of face errors [N], in percent, over the faces that have a prediction; NaN if none has."""
    values = _judged(errors)
    return float(ratio(values[np.isfinite(values)].sum(), np.isfinite(values).sum()))


def failure_rate(errors: ArrayLike, threshold: float = 10.0) -> float:
    """Percent of the judged faces whose error [N] is above `threshold` percent; a missed face is a failure."""
    return float(100 * (_judged(errors) > threshold).mean())


def ced(errors: ArrayLike, to: float = 10.0, steps: int = 201) -> tuple[Floats, Floats]:
    """The cumulative error distribution: x [steps] from 0 to `to` percent, and the fraction of faces at or below x."""
    values = np.sort(_judged(errors))
    x = np.linspace(0, to, steps)
    return x, np.searchsorted(values, x, side="right") / len(values)


def auc(errors: ArrayLike, to: float = 10.0) -> float:
    """Area under the CED up to `to` percent, as a percentage of a perfect predictor's. Exact: no grid is involved.

    The integral of a step function of faces is a mean over faces: of max(0, 1 - error / to).
    """
    return float(100 * _gain(_judged(errors), to).mean())


def _gain(values: Floats, to: float) -> Floats:
    return np.clip(1 - values / to, 0, 1)


def _group(errors: Floats, threshold: float, resamples: int, seed: int, level: float) -> GroupResult:
    """The figures of judged face errors [N > 0] with their intervals (none if `resamples` is 0)."""
    found = np.isfinite(errors)
    error_interval = failure_interval = None
    if resamples:
        columns = np.stack([np.where(found, errors, 0), found, 100 * (errors > threshold)], axis=1)
        means = resampled_means(columns, resamples, seed)
        failure_interval = percentile_interval(means[:, 2], level)
        if found.any():
            error_interval = percentile_interval(ratio(means[:, 0], means[:, 1]), level)
    return GroupResult(
        n=len(errors),
        missed=int((~found).sum()),
        mean_error=mean_error(errors),
        failure_rate=failure_rate(errors, threshold),
        auc=auc(errors, threshold),
        mean_error_interval=error_interval,
        failure_rate_interval=failure_interval,
    )


def evaluate_landmarks(
    predicted: ArrayLike,
    truth: ArrayLike,
    *,
    normaliser: str = "eyes",
    boxes: ArrayLike | None = None,
    groups: Mapping[str, Sequence[str | None]] | None = None,
    threshold: float = 10.0,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> LandmarkResult:
    """Judge predicted landmarks [N, P, 2] against the true ones (NaN where invisible), both in original pixels.

    `groups` maps the name of a grouping ("pose") to a label per face; a face labelled None is in no group, and groups
    of a schema column come in the order of its vocabulary. `threshold` (percent) bounds the failure rate and the AUC.
    Intervals are percentile bootstraps over faces; `resamples=0` skips them. Faces that cannot be judged are excluded
    and counted; if none is left the error says so.
    """
    per_point = point_errors(predicted, truth, normaliser, boxes)
    errors = face_errors(per_point)
    whole = _group(_judged(errors), threshold, resamples, seed, level)
    per_group: dict[str, dict[str, GroupResult]] = {}
    for name, labels in (groups or {}).items():
        if len(labels) != len(errors):
            raise PolyfaceError(f"grouping '{name}' has {len(labels)} labels for {len(errors)} faces")
        judged = [(label, error) for label, error in zip(labels, errors, strict=True) if not np.isnan(error)]
        present = dict.fromkeys(label for label, _ in judged if label is not None)
        words = VOCABULARIES.get(name, ())
        members = {
            label: np.array([error for other, error in judged if other == label])
            for label in sorted(present, key=lambda label: words.index(label) if label in words else len(words))
        }
        per_group[name] = {
            label: _group(values, threshold, resamples, seed, level) for label, values in members.items()
        }
    found = np.isfinite(per_point)
    return LandmarkResult(
        **vars(whole),
        excluded=int(np.isnan(errors).sum()),
        per_point=tuple(ratio(np.where(found, per_point, 0).sum(0), found.sum(0)).tolist()),
        per_group=per_group,
        normaliser=normaliser,
        threshold=threshold,
        face_errors=errors,
    )


def extremes(errors: ArrayLike, count: int = 6) -> dict[str, list[int]]:
    """Indices of the `count` best, median and worst faces by error [N]; excluded and missed faces are left out.

    Best and median are in ascending order of error, worst in descending order.
    """
    values = np.asarray(errors, dtype=np.float64)
    order = [int(i) for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    middle = max(0, (len(order) - count) // 2)
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}


def _statistic(errors: Floats, statistic: str, threshold: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Of errors [runs, N]: what is averaged over faces [runs, kept], and which faces every run can be judged on [N]."""
    if statistic not in ("mean error", "failure rate"):
        raise PolyfaceError(f"unknown statistic '{statistic}': use 'mean error' or 'failure rate'")
    failures = statistic == "failure rate"
    kept = np.asarray(~(np.isnan(errors) if failures else ~np.isfinite(errors)).any(0))
    if not kept.any():
        raise PolyfaceError("no face is judged in every run: nothing to compare or average")
    values = errors[:, kept]
    return np.asarray(100.0 * (values > threshold) if failures else values, dtype=np.float64), kept


def landmark_rows(
    name: str,
    results: Mapping[int, LandmarkResult],
    *,
    published: Mapping[str, float] | None = None,
    note: str = "",
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """The results rows "mean error" and "failure rate" of one method, from its results by training seed.

    Mean and std are over seeds. The interval is a bootstrap over faces and, for several seeds, over seeds as well (see
    `paired_difference`). All results must be of the same faces in the same order. `published` maps a metric to the
    paper's figure. Faces that were excluded or missed are counted in the note.
    """
    if len({len(result.face_errors) for result in results.values()}) != 1:
        raise PolyfaceError(f"{name}: give one result per seed, all over the same faces")
    first = next(iter(results.values()))
    counts = {"excluded": first.excluded, "missed": max(result.missed for result in results.values())}
    notes = [note, *(f"{count} faces {what}" for what, count in counts.items() if count)]
    rows = []
    for metric, attribute in (("mean error", "mean_error"), ("failure rate", "failure_rate")):
        values, _ = _statistic(np.stack([r.face_errors for r in results.values()]), metric, first.threshold)
        rows.append(
            row_of_runs(
                name,
                metric,
                [getattr(result, attribute) for result in results.values()],
                resampled_means(values.T, resamples),
                n=first.n,
                runs=results,
                published=(published or {}).get(metric),
                notes=notes,
                level=level,
            )
        )
    return rows


def paired_difference(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    *,
    statistic: str = "mean error",
    threshold: float = 10.0,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Bootstrap the difference of two predictors' face errors, [N] or [seeds, N], over the same faces (negative: a is
    better).

    Faces are resampled jointly, with several seeds the seeds as well: see `difference_of_runs`. `statistic` is "mean
    error" or "failure rate". Faces excluded from any run are left out of all; for the mean error, so are faces that any
    run missed.
    """
    a: Floats = np.atleast_2d(np.asarray(errors_a, dtype=np.float64))
    b: Floats = np.atleast_2d(np.asarray(errors_b, dtype=np.float64))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise PolyfaceError(f"paired errors must be [N] or [seeds, N] over the same faces: {a.shape} and {b.shape}")
    values, kept = _statistic(np.concatenate([a, b]), statistic, threshold)
    # Faces first, seeds second: one resample's faces are the same for every run of both predictors.
    means = resampled_means(values.T, resamples, seed)
    difference = float(values[: len(a)].mean() - values[len(a) :].mean())
    return difference_of_runs(
        means[:, : len(a)],
        means[:, len(a) :],
        difference,
        n=int(kept.sum()),
        excluded=int((~kept).sum()),
        seed=seed,
        level=level,
    )
