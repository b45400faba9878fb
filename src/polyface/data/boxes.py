"""Where each face is: from the table, from landmarks, or, as in the paper, from a face detector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from polyface.data.detector import Detection, Detector, RetinaFace, face_of
from polyface.data.table import FaceTable, Progress, each_row
from polyface.errors import PolyfaceError
from polyface.files import atomic_path, cache_folder
from polyface.schema import landmark_count


class BoxSpec(BaseModel):
    """Which boxes to crop by.

    source "detector": the detector's box and never its points; where it finds no face, a centred box of the table's
    median detected size (counted in `Boxes.missed`). "points": the upright square that the detector's five points lie
    in (`upright`), which turns the face level; a missed face is treated likewise. "table": the `box` column.
    "landmarks": the landmarks' bounding box (the first landmark column of the table unless `landmarks` names one);
    augmentation supplies the jitter. "image": the whole picture, for data sets whose faces are aligned already.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Literal["detector", "points", "table", "landmarks", "image"] = "detector"
    landmarks: str | None = None


@dataclass(frozen=True)
class Boxes:
    """xyxy float32 [N, 4], or [N, 5] for source "points": the fifth number is the angle in degrees by which a square is
    turned about its centre, clockwise as seen. missed: rows [M] that fell back to the image's centre. points: the
    detector's own five points [N, 5, 2] (NaN where it found no face)."""

    xyxy: np.ndarray
    missed: np.ndarray
    points: np.ndarray | None = None


def boxes_of(
    table: FaceTable, spec: BoxSpec, detector: Detector | None = None, progress: Progress | None = None
) -> Boxes:
    """The box of every row. Raises where the table holds no box or landmarks to take it from."""
    nothing = np.zeros(0, dtype=np.int64)
    if spec.source == "table":
        boxes = table.numbers("box")
        _require(table, ~np.isnan(boxes).any(axis=1), "box")
        return Boxes(boxes, nothing)
    if spec.source == "landmarks":
        name = spec.landmarks or next((c for c in table.columns if landmark_count(c)), "landmarks_5")
        points = table.points(name)
        _require(table, (~np.isnan(points[..., 0])).sum(axis=1) >= 2, name)
        boxes = np.concatenate([np.nanmin(points, axis=1), np.nanmax(points, axis=1)], axis=1)
        short = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) * 0.05, 1.0)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + short)  # collinear points still make a box
        return Boxes(boxes, nothing)
    if spec.source == "image":
        sizes = _sizes(table)
        # pixel centres are at integers, so a picture reaches from -½ to its length less ½
        return Boxes(np.concatenate([np.full_like(sizes, -0.5), sizes - 0.5], axis=1), nothing)
    found = _detected(table, detector or _detector(), progress)
    boxes, points = found[:, :4], found[:, 4:].reshape(-1, 5, 2)
    missed = np.isnan(found[:, 4])
    if spec.source == "points":
        boxes = upright(points)
        missed = np.isnan(boxes[:, 0])
        if missed.any():
            _centre(boxes, missed, _sizes(table))
    return Boxes(boxes, np.flatnonzero(missed), points)


def _detector() -> Detector:
    """A row is about one face, large in its picture: looking for the smallest ones would take many times as long."""
    return RetinaFace(max_side=640, threads=1)


_PLACES = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
_PLACES /= 112
"""Eyes, nose and corners of the mouth in an upright square of side 1 (ArcFace, Deng et al., CVPR 2019)."""


def upright(points: np.ndarray) -> np.ndarray:
    """A detector's five points [N, 5, 2] → the squares in which they lie as ArcFace's do in theirs, turned as they are:
    float32 [N, 5], x0, y0, x1, y1 and the angle in degrees (−180 … 180, clockwise as seen; 0: an upright face).

    The similarity from those places to these points is that of least squares (Umeyama 1991, without reflection). NaN
    where points are NaN or so close together that the square would be smaller than a pixel.
    """
    # As complex numbers a similarity is z → turn·z + shift, and fitting it a linear regression.
    places, found = _PLACES @ [1, 1j], np.asarray(points, dtype=np.float64).reshape(-1, 5, 2) @ [1, 1j]
    around = places - places.mean()
    turn = found @ around.conj() / (abs(around) ** 2).sum()
    centre, half = found.mean(axis=1) + turn * (0.5 + 0.5j - places.mean()), abs(turn) / 2
    x, y = centre.real, centre.imag
    squares = np.stack([x - half, y - half, x + half, y + half, np.degrees(np.angle(turn))], axis=1)
    squares[~(half >= 0.5)] = np.nan
    return squares.astype(np.float32)


def boxes_for(found: Sequence[Detection], spec: BoxSpec) -> np.ndarray:
    """What a model whose boxes are `spec` crops detected faces by: their boxes, float32 [n, 4], or for source "points"
    their upright squares [n, 5] (the box itself, not turned, where points make no square)."""
    boxes = np.array([face.box for face in found], dtype=np.float32).reshape(-1, 4)
    if spec.source != "points":
        return boxes
    squares = upright(np.array([face.points for face in found], dtype=np.float32))
    return np.where(np.isnan(squares), np.pad(boxes, ((0, 0), (0, 1))), squares)


def doubts(table: FaceTable, detector: Detector | None = None, most: int = 24) -> str | None:
    """Why the `box` column may hold no corners in pixels: what a detector finds in some of its pictures lies elsewhere.
    None where it agrees, and where it finds no face."""
    labelled = np.flatnonzero(table.column("box").is_valid().to_numpy(zero_copy_only=False))
    rows = labelled[np.linspace(0, len(labelled) - 1, min(most, len(labelled))).astype(int)]
    boxes, detect = table.numbers("box"), detector or _detector()
    overlaps = []
    for row in rows:
        sized = boxes[row] + [0, 0, *boxes[row, :2]]  # if it were x, y, width, height
        found = [face.box for face in detect(table.image(int(row)))]
        if found:
            overlaps.append([max(_overlap(box, one) for one in found) for box in (boxes[row], sized)])
    if not overlaps:
        return None
    as_corners, as_sizes = np.median(overlaps, axis=0)
    if as_corners >= 0.2:
        return None
    hint = "read as x, y, width, height they would (--option box=xywh)" if as_sizes >= 0.4 else "look at them"
    return f"boxes do not lie on the faces that the detector finds (median overlap {as_corners:.2f}): {hint}"


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


def check_boxes(boxes: np.ndarray, where: str = "") -> None:
    """Refuse boxes [N, 4 or more] of which one is not finite or has no inside. where: what they are of."""
    bad = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:4] > boxes[:, :2]).all(axis=1))
    if bad.any():
        row = int(bad.argmax())
        raise PolyfaceError(f"{where}box {row} is {boxes[row].tolist()}; expected finite x0 < x1 and y0 < y1")


def _sizes(table: FaceTable) -> np.ndarray:
    """Width and height of every picture, float32 [N, 2]."""
    return np.array([table.image_size(row) for row in range(len(table))], dtype=np.float32).reshape(-1, 2)


def _require(table: FaceTable, has: np.ndarray, column: str) -> None:
    if not has.all():
        row = int(np.flatnonzero(~has)[0])
        raise PolyfaceError(
            f"{table.told(row)} has no {column} to crop by ({int((~has).sum())} of {len(has)} rows lack it): "
            "set data.boxes.source to detector, or leave these rows out"
        )


def _detected(table: FaceTable, detector: Detector, progress: Progress | None) -> np.ndarray:
    """Every row's box (centred where no face is found) and points (NaN there), float32 [N, 14].

    Detected in every image once; the result is cached by the table's content and the detector's identity.
    """
    path = cache_folder("boxes") / f"{table.fingerprint[:20]}-{detector.id}.npy"
    if path.exists():
        found: np.ndarray = np.load(path)
        if found.shape == (len(table), 14):
            return found
    rows = np.full((len(table), 14), np.nan, dtype=np.float32)
    sizes = np.zeros((len(table), 2), dtype=np.float32)

    def detect(row: int) -> None:
        image = table.image(row)
        height, width = image.shape[:2]
        sizes[row] = width, height
        face = face_of(detector(image), width, height)
        if face is not None:
            rows[row, :4], rows[row, 4:] = face.box, face.points.ravel()

    for _ in each_row(detect, len(table), progress, "faces detected"):
        pass
    _centre(rows[:, :4], np.isnan(rows[:, 0]), sizes)
    with atomic_path(path) as aside, open(aside, "wb") as file:
        np.save(file, rows)
    return rows


def _centre(boxes: np.ndarray, missed: np.ndarray, sizes: np.ndarray) -> None:
    """Give missed faces the square of the median size (in shorter sides of the picture) in the middle, not turned."""
    if missed.all():
        raise PolyfaceError(
            f"the detector found no face in any of {len(boxes)} images: give boxes, or another detector"
        )
    shorter = sizes.min(axis=1)
    sides = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1)
    half = np.median((sides / shorter)[~missed]) * shorter[missed, None] / 2
    centres = (sizes[missed] - 1) / 2
    boxes[missed, :4] = np.concatenate([centres - half, centres + half], axis=1)
    boxes[missed, 4:] = 0


def key(spec: BaseModel, *parts: str) -> str:
    """A short name for what was made with these settings from these things."""
    return hashlib.sha1(json.dumps([spec.model_dump(), *parts], sort_keys=True).encode()).hexdigest()[:24]
