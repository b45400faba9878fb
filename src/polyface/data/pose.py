"""How a head is turned, from its 68 points: a 3-D mean face is fitted to them by scaled orthography.

The mean face is the rigid, symmetric shape that, turned, scaled and lengthened face by face, explains best (least
squares, robust) the points of 2,012 training photos of 300-W (Helen, AFW and LFPW) and their mirror images, found by
fitting it to all faces and moving its points to where they explain best what was marked, in turns. How the width of a
turned head shrinks tells its depth, so that this rests on heads that are turned by up to about 45 degrees. Where a jaw
is hidden, its points were left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from polyface.errors import PolyfaceError
from polyface.schema import POSE_FROM, POSES, mirror_landmarks

Floats = npt.NDArray[np.float64]

# The viewer's left half and the midline: point → x (right), y (down), z (towards the viewer), in half face widths. It
# looks as high as people do on average who sit for a frontal portrait (102 of the Face Research Lab London Set).
_HALF: dict[int, tuple[float, float, float]] = {
    **{0: (-0.96, -0.30, -1.05), 1: (-0.95, -0.03, -1.03), 2: (-0.92, 0.24, -1.00), 3: (-0.87, 0.50, -0.93)},
    **{4: (-0.78, 0.74, -0.76), 5: (-0.63, 0.92, -0.56), 6: (-0.44, 1.06, -0.35), 7: (-0.23, 1.17, -0.16)},
    **{8: (0.00, 1.18, -0.05), 17: (-0.80, -0.56, -0.32), 18: (-0.68, -0.67, -0.20), 19: (-0.51, -0.71, -0.10)},
    **{20: (-0.33, -0.69, -0.01), 21: (-0.16, -0.64, 0.06), 27: (0.00, -0.43, 0.08), 28: (0.00, -0.27, 0.17)},
    **{29: (0.00, -0.12, 0.28), 30: (0.00, 0.04, 0.39), 31: (-0.20, 0.18, 0.15), 32: (-0.10, 0.21, 0.19)},
    **{33: (0.00, 0.24, 0.21), 36: (-0.60, -0.38, -0.22), 37: (-0.50, -0.45, -0.17), 38: (-0.37, -0.45, -0.15)},
    **{39: (-0.26, -0.37, -0.14), 40: (-0.38, -0.34, -0.14), 41: (-0.51, -0.34, -0.17), 48: (-0.38, 0.54, -0.11)},
    **{49: (-0.24, 0.45, 0.05), 50: (-0.10, 0.41, 0.15), 51: (0.00, 0.43, 0.16), 57: (0.00, 0.71, 0.13)},
    **{58: (-0.11, 0.71, 0.11), 59: (-0.24, 0.66, 0.03), 60: (-0.32, 0.54, -0.08), 61: (-0.10, 0.50, 0.13)},
    **{62: (0.00, 0.50, 0.14), 66: (0.00, 0.59, 0.13), 67: (-0.10, 0.58, 0.12)},
}
_JAW_WEIGHT = 0.3  # of a point of the jaw, which is marked less surely, against 1 of any other
_FAR_JAW = 20.0  # degrees of yaw at which the hidden half of the jaw no longer counts: what is marked is the contour
_LENGTHS = 0.07  # by which share faces are longer or shorter than the mean face (standard deviation)
_NOISE = 0.05  # how far a point lies from where the fitted face has it (standard deviation), in half face widths
_ROBUST = 0.1  # distance at which a point counts half, in half face widths
_STEPS = 15
_BATCH = 256
# What can be measured:
_FEWEST = 10  # finite points
_FLATTEST = 0.05  # spread of the points across their longest direction, in parts of that along it
_SHALLOWEST = 0.001  # variance of the mean face's points in their flattest direction, in squared half face widths
_WORST = 0.2  # root mean square distance of points and fitted face, in half face widths


def mean_face() -> Floats:
    """The mean face [68, 3] in half face widths: x right, y down, z towards the viewer."""
    face, mirror = np.zeros((68, 3)), mirror_landmarks(68)
    for point, place in _HALF.items():
        face[mirror[point]] = place * np.array([-1, 1, 1])
        face[point] = place
    return face


@dataclass(frozen=True)
class HeadPose:
    """Angles in degrees [N], NaN where a face cannot be measured. yaw (−90 … 90): the nose towards the picture's right
    edge; pitch: up; roll: clockwise as seen. In this order the head is turned about its own vertical axis, nods and
    leans; seen from a head at rest, yaw and pitch are where the camera stands. residual: root mean square distance of
    points and fitted face, in half face widths."""

    yaw: Floats
    pitch: Floats
    roll: Floats
    residual: Floats


def head_pose(points: npt.ArrayLike) -> HeadPose:
    """How heads are turned, by 68 points each [N, 68, 2] in pixels (iBUG order; NaN: not known).

    Rotation, scale and place of the mean face, and how long it is, are those of least squares with robust (Cauchy)
    weights, by Gauss–Newton from the best affine map; without its length, a narrow face would pass for a turned one.

    A face is not measured where fewer than 10 points are finite, where they lie on a line or those known are flat on
    the mean face, where they fit it badly, and where it would look away (a yaw beyond ±90), as points do that are
    mirrored and not renamed.

    Raises:
        PolyfaceError: points of another shape.
    """
    found = np.asarray(points, dtype=np.float64)
    if found.ndim != 3 or found.shape[1:] != (68, 2):
        raise PolyfaceError(f"points are {list(found.shape)}; expected [N, 68, 2] to measure how heads are turned")
    parts = [_measured(found[start : start + _BATCH]) for start in range(0, len(found), _BATCH)]
    return HeadPose(*np.concatenate([np.zeros((4, 0)), *parts], axis=1))


def pose_words(yaw: npt.ArrayLike) -> list[str | None]:
    """The word of `polyface.schema.POSES` for each yaw [N] in degrees, None for NaN."""
    degrees = np.asarray(yaw, dtype=np.float64)
    places = np.searchsorted(POSE_FROM, degrees, side="right")
    return [None if np.isnan(one) else POSES[place] for one, place in zip(degrees, places, strict=True)]


_FACE = mean_face()
_JAW = np.arange(68) < 17
WEIGHTS: Floats = np.where(_JAW, _JAW_WEIGHT, 1.0)
"""How much each of the 68 points counts in the fit."""


def _measured(points: Floats) -> Floats:
    """Yaw, pitch, roll and residual [4, N] of points [N, 68, 2]; NaN where they cannot be measured."""
    measured = np.full((4, len(points)), np.nan)
    seen = np.isfinite(points[:, :, 0]) & np.isfinite(points[:, :, 1])
    rows = np.flatnonzero(seen.sum(axis=1) >= _FEWEST)
    seen, points = seen[rows], points[rows]
    weights: Floats = np.where(seen, WEIGHTS, 0.0)
    points = _centred(np.where(seen[:, :, None], points, 0.0), weights)
    largest = np.abs(np.where(seen[:, :, None], points, 0.0)).max(axis=(1, 2), initial=0)
    points /= np.where(largest > 0, largest, 1.0)[:, None, None]
    along, across = np.linalg.svd(points * np.sqrt(weights)[:, :, None], compute_uv=False).T
    face = _centred(np.broadcast_to(_FACE, (len(points), 68, 3)), weights)
    depth = np.linalg.eigvalsh(_product(face, face, weights))[:, 0]
    solid = (across > _FLATTEST * along) & (depth > _SHALLOWEST)
    found = fit(points[solid], weights[solid], _FACE)
    rotation = found.rotation
    yaw, pitch = _yaw(rotation), np.degrees(np.arcsin(np.clip(rotation[:, 2, 1], -1, 1)))
    roll = np.degrees(np.arctan2(-rotation[:, 0, 1], rotation[:, 1, 1]))
    known = (found.residual <= _WORST) & (np.abs(yaw) <= 90)
    measured[:, rows[solid]] = np.where(known, [yaw, pitch, roll, found.residual], np.nan)
    return measured


@dataclass(frozen=True)
class Fit:
    """How a face [68, 3] lies in a picture: a point p of it at scale · (rotation · (p, but 1 + length times as far
    down)) + a shift, without the depth. rotation [N, 3, 3]; scale in pixels, length [N]; weights [N, 68]: how much each
    point counted in the end; residual [N] as in `HeadPose`."""

    rotation: Floats
    scale: Floats
    length: Floats
    weights: Floats
    residual: Floats


def fit(points: Floats, weights: Floats, face: Floats) -> Fit:
    """Fit a face [68, 3] to finite points [N, 68, 2] of weights [N, 68] (see `head_pose`)."""
    shape = _centred(np.broadcast_to(face, (len(points), 68, 3)), weights)
    affine = _product(_centred(points, weights), shape, weights) @ np.linalg.inv(_product(shape, shape, weights))
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    two = left @ right  # the first two rows of the nearest rotation
    rotation = np.concatenate([two, np.cross(two[:, 0], two[:, 1])[:, None]], axis=1)
    side, height = np.sign(face[:, 0]) * _JAW, face * [0, 1, 0]
    prior = (_NOISE / _LENGTHS) ** 2
    length, robust = np.zeros(len(points)), np.ones_like(weights)
    for _ in range(_STEPS):
        counted = weights * np.clip(1 - side * _yaw(rotation)[:, None] / _FAR_JAW, 0, 1)
        used = counted * robust
        turned = _centred((face + length[:, None, None] * height) @ rotation.transpose(0, 2, 1), used)
        longer = _centred(height @ rotation.transpose(0, 2, 1), used)
        flat, wanted = turned[:, :, :2], _centred(points, used)
        scale = np.einsum("np,npi,npi->n", used, flat, wanted) / np.einsum("np,npi,npi->n", used, flat, flat)
        rest = wanted / scale[:, None, None] - flat
        # What moves the points: small turns about x, y and z, the scale, and the face's length.
        x, y, z = np.moveaxis(turned, 2, 0)
        none = np.zeros_like(x)
        across, down = [none, z, -y, x, longer[:, :, 0]], [-z, none, x, y, longer[:, :, 1]]
        moves = np.stack([np.stack(across, -1), np.stack(down, -1)], axis=2).reshape(len(x), 136, 5)
        weighted = moves * np.repeat(used, 2, axis=1)[:, :, None]
        wish = (weighted * rest.reshape(len(x), 136, 1)).sum(axis=1)
        wish[:, 4] -= prior * length
        step = np.linalg.solve(weighted.transpose(0, 2, 1) @ moves + np.diag([1e-9] * 4 + [prior]), wish[:, :, None])
        turn, length = step[:, :3, 0], length + step[:, 4, 0]
        turn *= np.minimum(1, 0.5 / np.maximum(np.linalg.norm(turn, axis=1, keepdims=True), 1e-9))
        rotation = Rotation.from_rotvec(turn).as_matrix() @ rotation
        squares = (rest**2).sum(axis=2)
        robust = 1 / (1 + squares / _ROBUST**2)
    return Fit(rotation, scale, length, used, np.sqrt((counted * squares).sum(axis=1) / counted.sum(axis=1)))


def _yaw(rotation: Floats) -> Floats:
    """In degrees, −180 … 180."""
    return np.asarray(np.degrees(np.arctan2(-rotation[:, 2, 0], rotation[:, 2, 2])))


def _centred(values: Floats, weights: Floats) -> Floats:
    """Values [N, P, k] less their weighted mean."""
    mean: Floats = (weights[:, None] @ values) / weights.sum(axis=1)[:, None, None]
    return values - mean


def _product(left: Floats, right: Floats, weights: Floats) -> Floats:
    """The weighted mean of the outer products of [N, P, a] and [N, P, b]: [N, a, b]."""
    product: Floats = (left * (weights / weights.sum(axis=1, keepdims=True))[:, :, None]).transpose(0, 2, 1) @ right
    return product
