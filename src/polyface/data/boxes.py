"""Where each face is: from the table, from landmarks, or, as in the paper, from a face detector."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from polyface.data.detector import Detector, RetinaFace, face_of
from polyface.data.table import FaceTable, Progress
from polyface.errors import PolyfaceError
from polyface.files import atomic_path, cache_folder
from polyface.schema import landmark_count


class BoxSpec(BaseModel):
    """Which boxes to crop by.

    source "detector": the detector's box and never its points; where it finds no face, a centred box of the table's
    median detected size (counted in `Boxes.missed`). "table": the `box` column. "landmarks": the landmarks' bounding
    box (the first landmark column of the table unless `landmarks` names one); augmentation supplies the jitter.
    "image": the whole picture, for data sets whose faces are aligned already.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Literal["detector", "table", "landmarks", "image"] = "detector"
    landmarks: str | None = None


@dataclass(frozen=True)
class Boxes:
    """xyxy float32 [N, 4]; missed: rows [M] that fell back to the image's centre; points: the detector's own five
    points [N, 5, 2] (NaN where missed), kept for comparison and never used to crop."""

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
        _require(~np.isnan(boxes).any(axis=1), "box")
        return Boxes(boxes, nothing)
    if spec.source == "landmarks":
        name = spec.landmarks or next((c for c in table.columns if landmark_count(c)), "landmarks_5")
        points = table.points(name)
        _require((~np.isnan(points[..., 0])).sum(axis=1) >= 2, name)
        boxes = np.concatenate([np.nanmin(points, axis=1), np.nanmax(points, axis=1)], axis=1)
        short = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) * 0.05, 1.0)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + short)  # collinear points still make a box
        return Boxes(boxes, nothing)
    if spec.source == "image":
        sizes = np.array([table.image_size(row) for row in range(len(table))], dtype=np.float32).reshape(-1, 2)
        # pixel centres are at integers, so a picture reaches from -½ to its length less ½
        return Boxes(np.concatenate([np.full_like(sizes, -0.5), sizes - 0.5], axis=1), nothing)
    return _detected(table, detector or RetinaFace(threads=1), progress)


def _require(has: np.ndarray, column: str) -> None:
    if not has.all():
        row = int(np.flatnonzero(~has)[0])
        raise PolyfaceError(
            f"row {row} has no {column} to crop by ({int((~has).sum())} of {len(has)} rows lack it): "
            "set data.boxes.source to detector, or leave these rows out"
        )


def _detected(table: FaceTable, detector: Detector, progress: Progress | None) -> Boxes:
    """Detect in every image once; the result is cached by the table's content and the detector's identity."""
    path = cache_folder("boxes") / f"{table.fingerprint[:20]}-{detector.id}.npy"
    if path.exists():
        found = np.load(path)
        if found.shape == (len(table), 14):
            return _boxes(found[:, :4], found[:, 4:])
    rows = np.full((len(table), 14), np.nan, dtype=np.float32)
    sizes = np.zeros((len(table), 2), dtype=np.float32)

    def detect(row: int) -> None:
        image = table.image(row)
        height, width = image.shape[:2]
        sizes[row] = width, height
        face = face_of(detector(image), width, height)
        if face is not None:
            rows[row, :4], rows[row, 4:] = face.box, face.points.ravel()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(detect, range(len(table))), 1):
            if progress and (done % 64 == 0 or done == len(table)):
                progress(done, len(table), "faces detected")
    missed = np.isnan(rows[:, 0])
    if missed.all():
        raise PolyfaceError(
            f"the detector found no face in any of {len(table)} images: give boxes, or another detector"
        )
    shorter = sizes.min(axis=1)
    sides = (rows[:, 2:4] - rows[:, :2]).max(axis=1)
    half = np.median((sides / shorter)[~missed]) * shorter[missed, None] / 2
    centres = (sizes[missed] - 1) / 2
    rows[missed, :4] = np.concatenate([centres - half, centres + half], axis=1)
    with atomic_path(path) as aside, open(aside, "wb") as file:
        np.save(file, rows)
    return _boxes(rows[:, :4], rows[:, 4:])


def _boxes(xyxy: np.ndarray, points: np.ndarray) -> Boxes:
    return Boxes(xyxy, np.flatnonzero(np.isnan(points[:, 0])), points.reshape(-1, 5, 2))


def key(spec: BaseModel, *parts: str) -> str:
    """A short name for what was made with these settings from these things."""
    return hashlib.sha1(json.dumps([spec.model_dump(), *parts], sort_keys=True).encode()).hexdigest()[:24]
