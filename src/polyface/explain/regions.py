"""On which part of the face a map lies: regions from 68 points, shares of mass by region, and the pointing game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from polyface.data.crops import sample, transform
from polyface.data.loader import FacePool
from polyface.data.table import FaceTable, Progress
from polyface.errors import PolyfaceError
from polyface.explain.maps import METHODS, TITLES
from polyface.explain.questions import Question
from polyface.metrics.resampling import Bools, Floats
from polyface.metrics.shares import SharesResult, evaluate_shares
from polyface.models.bundle import Bundle
from polyface.models.labels import labelled
from polyface.schema import eyes, mirror_landmarks

REGIONS = ("eyes", "nose", "mouth", "cheeks", "rest")
"""With the eyes go the brows and what is between them. The rest is forehead, chin, hair and what is behind the face."""
POINTS, POINTS_BY = "landmarks_68", "face68"

_LEFT_CHEEK = [*range(1, 6), 48, 31, 27, 39, 40, 41, 36]
_MIRROR = mirror_landmarks(68)
_OUTLINES: Mapping[str, Sequence[Sequence[int]]] = {
    "cheeks": [_LEFT_CHEEK, _MIRROR[_LEFT_CHEEK].tolist()],
    "nose": [[27, *range(31, 36)]],
    "eyes": [[*range(17, 27), 45, 46, 47, 42, 39, 40, 41, 36]],
    "mouth": [[*range(48, 60)]],
}
"""Polygons of points; where two overlap, the later region has the place."""
_RIM, _BELOW = 0.1, 0.2
"""In distances between the eyes: by how much eyes, nose and mouth reach beyond their points, and how much lower than
the lower lids the eyes' region ends, which is as far as glasses go."""
_LIDS = [36, 39, 40, 41, 42, 45, 46, 47]


def region_masks(points: ArrayLike, side: int) -> Bools:
    """The regions of a picture of side × side pixels by a face's 68 points [68, 2] in it: bool [regions, side, side],
    of which each pixel is in exactly one. Points that are not known (NaN) are left out."""
    placed = np.array(points, dtype=np.float64)
    if placed.shape != (68, 2):
        raise PolyfaceError(f"regions are told by 68 points [68, 2], found {list(placed.shape)}")
    hidden = np.isnan(placed).any(1)
    left, right = (placed[each].mean(0) for each in eyes(68))
    across = right - left
    if np.isnan(across).any():  # an eye is turned away
        across = np.array([0.4 * np.ptp(placed[~hidden], axis=0)[1], 0])
    placed[_LIDS] += _BELOW * across @ [[0, 1], [-1, 0]]  # down the face
    rim = 2 * _RIM * float(np.hypot(*across))
    image = Image.new("L", (side, side), REGIONS.index("rest"))
    pen = ImageDraw.Draw(image)
    for region, outlines in _OUTLINES.items():
        for outline in outlines:
            corners = [(float(x), float(y)) for x, y in placed[outline] if np.isfinite(x + y)]
            if len(corners) > 2:
                pen.polygon(corners, fill=REGIONS.index(region))
                if region != "cheeks":
                    width = max(1, round(rim))
                    pen.line([*corners, corners[0]], fill=REGIONS.index(region), width=width, joint="curve")
    return np.asarray(np.asarray(image)[None] == np.arange(len(REGIONS))[:, None, None])


def pointed(heat: ArrayLike, region: ArrayLike) -> Floats:
    """The pointing game (Zhang et al. 2016): whether the largest value of a map lies in a region, [B] for maps and
    bool masks [B, S, S]; of several equal ones the share that does. By chance: the region's share of the area."""
    maps, masks = np.asarray(heat, dtype=np.float64), np.asarray(region, dtype=bool)
    largest = maps == maps.max((1, 2), keepdims=True)
    return np.asarray((largest & masks).sum((1, 2)) / largest.sum((1, 2)))


def mass_by_region(heat: ArrayLike, masks: ArrayLike) -> Floats:
    """The mass of a map [S, S] in each of the masks [regions, S, S]: [regions]."""
    return np.asarray(np.einsum("kij,ij->k", np.asarray(masks, dtype=np.float64), np.asarray(heat, dtype=np.float64)))


def points_of(table: FaceTable, progress: Progress | None = None) -> NDArray[np.float32]:
    """The 68 points of a table's faces, [N, 68, 2]: its own where it has any, or else those that the shipped model
    finds; NaN where there are none."""
    own = POINTS in table.columns and table.column(POINTS).null_count < len(table)
    return (table if own else labelled(table, POINTS_BY, progress)).points(POINTS)


def shares_by_region(
    bundle: Bundle,
    pool: FacePool,
    question: Question,
    *,
    method: str = "cam",
    layer: str = "",
    points: NDArray[np.float32] | None = None,
    batch: int = 32,
    device: str = "cpu",
    progress: Progress | None = None,
) -> SharesResult:
    """Which share of a map's mass lies on which region, of the faces of a pool; a face without points or with an empty
    map is left out. points: of the faces, [N, 68, 2]; by default `points_of` the pool's table."""
    known = points_of(pool.table, progress) if points is None else points
    known = transform(pool.crops, torch.from_numpy(known)).numpy()
    network, side = bundle.network.to(device), bundle.crop.size
    mass, areas = np.full((2, len(pool), len(REGIONS)), np.nan)
    for start in range(0, len(pool), batch):
        rows = np.arange(start, min(start + batch, len(pool)))
        heat = METHODS[method](network, pictures(bundle, pool, rows).to(device), question, layer).cpu().numpy()
        for row, one in zip(rows, heat, strict=True):
            if not np.isnan(known[row]).all():
                masks = region_masks(known[row], side)
                mass[row], areas[row] = mass_by_region(one, masks), masks.sum((1, 2))
        if progress:
            progress(int(rows[-1]) + 1, len(pool), f"faces explained: {question.task}")
    return evaluate_shares(f"share of {TITLES[method]} mass", REGIONS, mass, areas)


def pictures(bundle: Bundle, pool: FacePool, rows: NDArray[np.int64]) -> Tensor:
    """What a network sees of some faces of a pool, [B, C, S, S] in 0…255."""
    to_input = torch.from_numpy(bundle.crop.cut_to_input()).repeat(len(rows), 1, 1)
    return sample(pool.cuts_of(rows), to_input, bundle.crop.size)
