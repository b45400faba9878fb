"""How well landmarks are placed: normalised errors, failure rate, error distribution, intervals and paired differences.

Every error is in percent of a distance taken from the *true* points (so prediction and truth are not interchangeable).
Sources: Zhang, Luo, Loy & Tang 2014 (TCDCN), section 4: mean error over the inter-ocular distance, failure above 10 %;
the 68-point convention (distance between pupil centres) is the one of the 300-W papers of that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError, nearest
from polyface.metrics.faces import OverFaces
from polyface.metrics.resampling import Bools, Counts, Floats, ratio
from polyface.metrics.result import Metric, digest
from polyface.metrics.sections import Curves, Face, Faces, Section, Table, Text, cell

NORMALISERS = ("eyes", "outer corners", "box")

Eyes = tuple[Sequence[int], Sequence[int]]
"""The points whose means are the centres of both eyes."""


@dataclass(frozen=True)
class LandmarkResult(OverFaces):
    """Landmark accuracy over `n` faces. Errors, rates and AUC in percent; units are all faces.

    `excluded` faces cannot be evaluated (no visible point, or no usable normalising distance) and are part of nothing;
    `missed` faces have no prediction: they count as failures and for the AUC, but have no error to average.
    `mean_error` is NaN if every face was missed. Points that have `names` have figures of their own. `points` and
    `truth` are [N, P, 2] as given, `point_errors` [N, P] and `face_errors` [N] see `point_errors` and `face_errors`.
    """

    threshold: float
    names: tuple[str, ...]
    key: str
    points: Floats = field(repr=False, compare=False)
    truth: Floats = field(repr=False, compare=False)
    point_errors: Floats = field(repr=False, compare=False)
    face_errors: Floats = field(repr=False, compare=False)

    @property
    def labelled(self) -> Bools:
        return np.asarray(~np.isnan(self.face_errors))

    @property
    def excluded(self) -> int:
        return self.unlabelled

    @property
    def missed(self) -> int:
        return int(np.isinf(self.face_errors).sum())

    @property
    def mean_error(self) -> float:
        return mean_error(self.face_errors)

    @property
    def failure_rate(self) -> float:
        return failure_rate(self.face_errors, self.threshold)

    @property
    def auc(self) -> float:
        return auc(self.face_errors, self.threshold)

    @property
    def per_point(self) -> tuple[float, ...]:
        """Mean error of each point over the faces that have a prediction; NaN for one that is never visible."""
        found = np.isfinite(self.point_errors)
        return tuple(ratio(np.where(found, self.point_errors, 0).sum(0), found.sum(0)).tolist())

    @property
    def metrics(self) -> list[Metric]:
        counts = {"excluded": self.excluded, "missed": self.missed}
        note = "; ".join(f"{count} faces {what}" for what, count in counts.items() if count)
        return [
            Metric("mean error", higher_is_better=False, n=self.n, note=note),
            Metric("failure rate", higher_is_better=False, n=self.n, note=note, relative=True),
            *(
                Metric(name, higher_is_better=False, n=int(count), grouped=False)
                for name, count in zip(self.names, np.isfinite(self.point_errors).sum(0), strict=False)
            ),
        ]

    def _errors(self, metric: Metric) -> Floats:
        """What a figure is the mean of: [N], not finite where a face has none. A missed face is a failure, but has no
        error."""
        if metric.name == "failure rate":
            return np.where(self.labelled, 100.0 * (self.face_errors > self.threshold), np.nan)
        return self.face_errors if metric.name == "mean error" else self.point_errors[:, self.names.index(metric.name)]

    def defined(self, metric: Metric) -> Bools:
        return np.isfinite(self._errors(metric))

    def at(self, counts: Counts, wanted: Sequence[Metric], judged: Bools | None = None) -> dict[Metric, Floats]:
        scored = counts if judged is None else counts * judged
        found = {}
        for metric in wanted:
            errors = self._errors(metric)
            kept = np.isfinite(errors)
            found[metric] = ratio(scored[:, kept] @ errors[kept], scored[:, kept].sum(1))
        return found

    def sections(self) -> list[Section]:
        x, fraction = ced(self.face_errors, self.threshold)
        curve = Curves(
            {"": (x, 100 * fraction)}, "error, % of the normalising distance", "faces, %",
            legend=f"AUC {self.auc:.1f} %", percent=True,
        )  # fmt: skip
        figures = Table(
            ["", ">mean error, %", f">failures (above {self.threshold:g} %), %", ">AUC, %"],
            [["all faces", cell(self.mean_error), cell(self.failure_rate), cell(self.auc)]],
        )
        shown = [Section("error curve", [curve, figures])]
        if self.names:
            each = [[name, cell(error)] for name, error in zip(self.names, self.per_point, strict=True)]
            shown.append(
                Section("by landmark", [Table(["landmark", ">mean error, %"], [*each, ["all", cell(self.mean_error)]])])
            )
        text = "Blue: predicted; orange: labelled. Below each face, its error in percent of the normalising distance."
        rows = [
            Faces([self._face(row) for row in chosen], name.capitalize())
            for name, chosen in extremes(self.face_errors).items()
        ]
        return [*shown, Section("faces", [Text(text), *rows])]

    def _face(self, row: int) -> Face:
        return Face(row, f"{self.face_errors[row]:.1f} %", self.points[row], self.truth[row])


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


def normalising_distance(
    truth: ArrayLike, normaliser: str = "eyes", boxes: ArrayLike | None = None, eyes: Eyes | None = None
) -> Floats:
    """The distance [N], in pixels, that errors are divided by; NaN where a face gives none (it is then excluded).

    "eyes": between the eye centres, the means of the points of each in `eyes` (`schema.eyes`: 36-41 and 42-47 of 68; an
    eye with an invisible point has no centre). "outer corners": between points 36 and 45 of 68. "box": geometric mean
    of the sides of `boxes` [N, 4] (xyxy), or of the visible points' bounding box if none are given. A zero distance is
    unusable.
    """
    points = _points(truth, "true landmarks")
    count = points.shape[1]
    if normaliser == "eyes":
        if eyes is None:
            raise PolyfaceError("normaliser 'eyes' needs the points of both eyes: give eyes, or use 'box'")
        left, right = map(list, eyes)
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
    predicted: ArrayLike,
    truth: ArrayLike,
    normaliser: str = "eyes",
    boxes: ArrayLike | None = None,
    eyes: Eyes | None = None,
) -> Floats:
    """Distance of each predicted point to the true one, in percent of the normalising distance: [N, P].

    `predicted` and `truth` are [N, P, 2] in the same pixel frame; NaN in `truth` marks an invisible point. The answer
    is NaN for an invisible point and for every point of an excluded face, and infinite for a missed face: one whose
    predictions are all NaN (nothing was detected). Any other non-finite prediction of a visible point is an error.
    """
    guess, known = _pair(predicted, truth)
    distance = normalising_distance(known, normaliser, boxes, eyes)
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


def _evaluated(errors: ArrayLike) -> Floats:
    values = np.asarray(errors, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        raise PolyfaceError(
            "no face can be evaluated: none has a visible landmark and a usable normalising distance "
            "(visible eyes, a box); check the table's rows and the normaliser"
        )
    return values


def mean_error(errors: ArrayLike) -> float:
    """Mean of face errors [N], in percent, over the faces that have a prediction; NaN if none has."""
    values = _evaluated(errors)
    return float(ratio(values[np.isfinite(values)].sum(), np.isfinite(values).sum()))


def failure_rate(errors: ArrayLike, threshold: float = 10.0) -> float:
    """Percent of the evaluated faces whose error [N] is above `threshold` percent; a missed face is a failure."""
    return float(100 * (_evaluated(errors) > threshold).mean())


def ced(errors: ArrayLike, to: float = 10.0, steps: int = 201) -> tuple[Floats, Floats]:
    """The cumulative error distribution: x [steps] from 0 to `to` percent, and the fraction of faces at or below x."""
    values = np.sort(_evaluated(errors))
    x = np.linspace(0, to, steps)
    return x, np.searchsorted(values, x, side="right") / len(values)


def auc(errors: ArrayLike, to: float = 10.0) -> float:
    """Area under the CED up to `to` percent, as a percentage of a perfect predictor's. Exact: no grid is involved.

    The integral of a step function of faces is a mean over faces: of max(0, 1 - error / to).
    """
    return float(100 * _gain(_evaluated(errors), to).mean())


def _gain(values: Floats, to: float) -> Floats:
    return np.clip(1 - values / to, 0, 1)


def evaluate_landmarks(
    predicted: ArrayLike,
    truth: ArrayLike,
    *,
    normaliser: str = "eyes",
    eyes: Eyes | None = None,
    boxes: ArrayLike | None = None,
    threshold: float = 10.0,
    names: Sequence[str] = (),
) -> LandmarkResult:
    """Evaluate predicted landmarks [N, P, 2] against the true ones (NaN where invisible), both in original pixels.

    normaliser, eyes, boxes: see `normalising_distance`. `threshold` (percent) bounds the failure rate and the AUC.
    names: of the points, whose errors are then figures as well. Faces that cannot be evaluated are excluded and
    counted; if none is left the error says so.
    """
    per_point = point_errors(predicted, truth, normaliser, boxes, eyes)
    errors = face_errors(per_point)
    _evaluated(errors)
    guess, known = _pair(predicted, truth)
    if names and len(names) != known.shape[1]:
        raise PolyfaceError(f"{len(names)} names for {known.shape[1]} landmarks")
    key = digest(known, normaliser, threshold)
    return LandmarkResult(threshold, tuple(names), key, guess, known, per_point, errors)


def extremes(errors: ArrayLike, count: int = 6) -> dict[str, list[int]]:
    """Indices of the `count` best, median and worst faces by error [N]; excluded and missed faces are left out.

    Best and median are in ascending order of error, worst in descending order.
    """
    values = np.asarray(errors, dtype=np.float64)
    order = [int(i) for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    middle = max(0, (len(order) - count) // 2)
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}
