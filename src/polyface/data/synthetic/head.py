"""The synthetic head: a 3-D mean face, its deformations, and its silhouette when turned.

Geometry is in half face widths: x right, y down, z towards the viewer, the origin between eyes and nose.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from polyface.schema import mirror_landmarks

Array = npt.NDArray[Any]

CHUNK = 32  # faces are always computed in these groups, so that results cannot depend on how many are asked for
_EXAGGERATION = 2.0  # how far a caricature pushes an identity away from the mean face
# Strength of the expression modes, in the order of _EXPRESSION_MODES.
_EXPRESSION_MODES = ("corner", "open", "widen", "inner_brow", "outer_brow", "lids", "cheeks", "snarl", "frown", "smirk")
MOODS: dict[str, tuple[float, ...]] = {
    "neutral": (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "happiness": (1.0, 0.35, 0.8, 0, 0.1, -0.2, 1, 0, 0, 0),
    "surprise": (0, 1.0, -0.5, 1, 1, 0.9, 0, 0, 0, 0),
    "sadness": (-0.9, 0, -0.1, 1, -0.5, -0.5, 0, 0, 0.3, 0),
    "anger": (-0.4, 0, -0.4, -1, 0.3, 0.2, 0.3, 0, 1, 0),
    "disgust": (-0.5, 0.15, 0, -0.6, -0.3, -0.6, 0.6, 1, 0.5, 0),
    "fear": (-0.4, 0.45, 0.6, 1, 0.4, 0.9, 0, 0, 0.5, 0),
    "contempt": (0, 0, 0, -0.2, 0.1, -0.3, 0, 0, 0, 1),
    # Those of Multi-PIE that have no word above.
    "smile": (1.0, 0.35, 0.8, 0, 0.1, -0.2, 1, 0, 0, 0),
    "squint": (0.1, 0, 0.2, -0.7, -0.2, -0.9, 1.2, 0.4, 0.6, 0),
    "scream": (-0.3, 1.5, -0.2, -0.4, 0.2, -0.5, 0.8, 0.6, 0.5, 0),
}
_TEETH = ("happiness", "disgust", "fear", "smile", "scream")
# The viewer's left half and the midline of the mean face: point → x, y, z. The right half is its mirror image.
_HALF: dict[int, tuple[float, float, float]] = {
    **{0: (-1.00, -0.30, -0.75), 1: (-0.99, -0.02, -0.70), 2: (-0.95, 0.26, -0.62), 3: (-0.87, 0.53, -0.50)},
    **{4: (-0.75, 0.78, -0.32), 5: (-0.58, 0.98, -0.12), 6: (-0.39, 1.13, 0.04), 7: (-0.19, 1.22, 0.15)},
    **{8: (0.00, 1.25, 0.22), 17: (-0.82, -0.55, -0.12), 18: (-0.68, -0.66, 0.06), 19: (-0.52, -0.69, 0.18)},
    **{20: (-0.35, -0.66, 0.26), 21: (-0.19, -0.60, 0.31), 27: (0.00, -0.36, 0.36), 28: (0.00, -0.17, 0.45)},
    **{29: (0.00, 0.02, 0.55), 30: (0.00, 0.20, 0.66), 31: (-0.23, 0.31, 0.38), 32: (-0.12, 0.36, 0.46)},
    **{33: (0.00, 0.39, 0.50), 36: (-0.63, -0.33, 0.04), 37: (-0.51, -0.42, 0.14), 38: (-0.36, -0.42, 0.17)},
    **{39: (-0.24, -0.32, 0.16), 40: (-0.36, -0.26, 0.17), 41: (-0.51, -0.26, 0.14), 48: (-0.37, 0.69, 0.20)},
    **{49: (-0.24, 0.62, 0.34), 50: (-0.09, 0.58, 0.42), 51: (0.00, 0.60, 0.44), 57: (0.00, 0.87, 0.39)},
    **{58: (-0.10, 0.86, 0.38), 59: (-0.24, 0.80, 0.32), 60: (-0.31, 0.69, 0.24), 61: (-0.11, 0.685, 0.39)},
    **{62: (0.00, 0.69, 0.41), 66: (0.00, 0.72, 0.40), 67: (-0.11, 0.715, 0.38)},
}
_MIRROR = mirror_landmarks(68)
_BROWS, _NOSE, EYES, _MOUTH = np.r_[17:27], np.r_[27:36], np.r_[36:48], np.r_[48:68]
# From the midline outwards on the viewer's right: a point that the turned face hides lies on its chain's horizon.
_CHAINS = (
    *((27, 22, 23, 24, 25, 26), (27, 42, 43, 44, 45), (27, 42, 47, 46, 45), (33, 34, 35)),
    *((51, 52, 53, 54), (57, 56, 55, 54), (62, 63, 64), (66, 65, 64)),
)
_IDENTITY_MODES = (
    *("width", "jaw", "chin", "eye_gap", "eye_size", "eye_tilt", "brow_height", "brow_tilt", "nose_length"),
    *("nose_width", "nose_depth", "mouth_width", "lips", "mouth_height"),
)
N = len(_IDENTITY_MODES)


def mean_face() -> npt.NDArray[np.float32]:
    """The 3-D mean face, float32 [68, 3], in half face widths (x right, y down, z towards the viewer)."""
    points = np.zeros((68, 3), np.float32)
    for index, xyz in _HALF.items():
        points[_MIRROR[index]] = (-xyz[0], xyz[1], xyz[2])
        points[index] = xyz
    return points


@lru_cache(1)
def _modes() -> dict[str, Array]:
    """The linear deformations: name → displacement of one unit, float32 [3, 68]."""
    x, y, _ = mean = mean_face().T
    side, out = np.sign(x), np.abs(x)
    modes: dict[str, Array] = {}

    def add(name: str, points: Array, dx: Any = 0.0, dy: Any = 0.0, dz: Any = 0.0) -> None:
        mode = modes.setdefault(name, np.zeros_like(mean))
        for axis, shift in enumerate((dx, dy, dz)):
            mode[axis, points] += np.broadcast_to(shift, mean.shape[1:])[points]

    every, eye_y = np.r_[0:68], np.float32(-0.335)
    eye_x = side * np.float32(0.435)
    upper, lower = np.r_[37, 38, 43, 44], np.r_[40, 41, 46, 47]
    upper_lip, lower_lip = np.r_[49:54, 61:64], np.r_[55:60, 65:68]
    middle = 1 - (out / 0.4) ** 2  # of the mouth: 1 at its centre, about 0 at its corners
    add("width", every, dx=0.06 * x)
    add("jaw", np.r_[2:15], dx=0.14 * x * np.clip((y - 0.1) / 0.7, 0, 1))
    add("chin", np.r_[4:13], dy=0.07 * np.clip((y - 0.7) / 0.5, 0, 1))
    add("eye_gap", np.r_[EYES, _BROWS], dx=0.04 * side)
    add("eye_size", EYES, dx=0.10 * (x - eye_x), dy=0.16 * (y - eye_y))
    add("eye_tilt", EYES, dy=-0.03 * (out - 0.435) / 0.2)
    add("brow_height", _BROWS, dy=-0.04)
    add("brow_tilt", _BROWS, dy=-0.04 * (out - 0.5) / 0.3)
    add("nose_length", np.r_[28:36], dy=0.06 * (y + 0.36) / 0.7)
    add("nose_width", np.r_[31:36], dx=0.17 * x)
    add("nose_depth", np.r_[28:36], dz=0.10 * (y + 0.36) / 0.6)
    add("mouth_width", _MOUTH, dx=0.13 * x)
    add("lips", np.r_[49:54, 55:60], dy=0.20 * (y - 0.70))
    add("mouth_height", _MOUTH, dy=0.04)
    add("child", np.r_[4:13], dy=-0.20 * np.clip((y - 0.5) / 0.7, 0, 1))
    add("child", EYES, dx=0.22 * (x - eye_x), dy=0.35 * (y - eye_y) + 0.06)
    add("child", _MOUTH, dx=-0.15 * x, dy=-0.08)
    add("child", _NOSE, dx=-0.1 * x, dy=-0.10 * (y + 0.36) / 0.7)
    add("male", np.r_[3:14], dx=0.10 * x, dy=0.04 * np.clip(y, 0, 1))
    add("male", _BROWS, dy=0.03)
    add("male", np.r_[28:36], dx=0.10 * x, dy=0.03 * (y + 0.36))
    add("corner", _MOUTH, dy=-0.13 * (out / 0.37) ** 2 + 0.03)
    add("open", lower_lip, dy=0.30 * middle)
    add("open", upper_lip, dy=-0.04 * middle)
    add("open", np.r_[4:13], dy=0.14 * np.clip((y - 0.5) / 0.7, 0, 1))
    add("widen", _MOUTH, dx=0.20 * x)
    add("inner_brow", _BROWS, dy=-0.13 * np.clip((0.82 - out) / 0.6, 0, 1))
    add("outer_brow", _BROWS, dy=-0.10 * np.clip((out - 0.19) / 0.6, 0, 1))
    add("lids", upper, dy=-0.06)
    add("lids", lower, dy=0.02)
    add("cheeks", lower, dy=-0.035)
    add("snarl", upper_lip, dy=-0.08 * middle)
    add("snarl", np.r_[31:36], dx=0.15 * x, dy=-0.04)
    add("frown", _BROWS, dx=-0.06 * side)
    for name, sign in (("smirk_left", -1), ("smirk_right", 1)):
        add(
            name,
            _MOUTH,
            dx=np.where(side == sign, 0.15 * x, 0),
            dy=np.where(side == sign, -0.16 * (out / 0.37) ** 2, 0),
        )
    return modes


def f32(values: Any) -> Array:
    return np.asarray(values, np.float32)


def lerp(at: Array, knots: Array, values: Array) -> Array:
    """Piecewise linear interpolation of each face's own table: [C, L] places, [C, K] ascending knots and values."""
    step = np.maximum(np.diff(knots), 1e-3)
    share = np.clip((at[:, :, None] - knots[:, None, :-1]) / step[:, None], 0, 1)
    result: Array = values[:, :1] + (share * np.diff(values)[:, None]).sum(-1)
    return result


class Head:
    """One chunk's heads, turned by the yaw: landmarks and contours in half face widths, before roll and scale."""

    def __init__(self, f: dict[str, Any]) -> None:
        self.person, self.age, self.male = f["person"], f["age"].astype(np.float32), f["male"]
        self.old = np.clip((self.age - 35) / 40, 0, 1)
        self.child = np.clip((16 - self.age) / 14, 0, 1)
        self.bearded = self.male & (self.person[:, N + 6] < 0.4) & (self.age > 20)
        self.drawn = f32(f["modality"] == "caricature")  # 1 for a caricature, 0 for a photo
        yaw = np.radians(f["yaw"].astype(np.float32))[:, None]
        self.c, self.s = np.cos(yaw), np.sin(yaw)
        x, self.y, z = self._shape(f)
        self._profile(x, z)
        self.x = self._turn(x, z)

    def _shape(self, f: dict[str, Any]) -> Array:
        """The deformed 3-D landmarks, [3, C, 68]."""
        more = 1 + self.drawn[:, None] * (_EXAGGERATION - 1)
        who = (2 * self.person[:, :N] - 1) * 1.5 * more
        u = f["u"]
        strength = (0.75 + 0.45 * u[:, 8:9]) * (1 + 0.2 * self.drawn[:, None])
        mood = np.array([MOODS[name] for name in f["expression"]], np.float32) * strength
        self.open = mood[:, 1]
        self.teeth = f32(np.isin(f["expression"], _TEETH))
        smirk = mood[:, -1:] * np.stack([u[:, 9] < 0.5, u[:, 9] >= 0.5], 1)
        rest = np.stack([self.child, (self.male - 0.5) * (1 - self.child)], 1)
        weights = np.concatenate([who, mood[:, :-1], smirk, rest], 1).astype(np.float32)
        names = (*_IDENTITY_MODES, *_EXPRESSION_MODES[:-1], "smirk_left", "smirk_right", "child", "male")
        basis = np.stack([_modes()[name] for name in names]).reshape(len(names), -1)
        shape = mean_face().T.reshape(1, -1) + weights @ basis
        shape = np.ascontiguousarray(shape.reshape(-1, 3, 68).transpose(1, 0, 2))
        # Exaggeration may not push the mouth out of the face.
        short = np.maximum(shape[1, :, 57] + 0.2 - shape[1, :, 8], 0)
        shape[1] += short[:, None] * _modes()["chin"][1] / 0.07
        return shape

    def turned(self, x: Any, z: Any) -> Array:
        """Horizontal place of points (x, z) after the yaw; > 0 degrees brings what is in front to the right."""
        return np.asarray(x * self.c + z * self.s, np.float32)

    def _profile(self, x: Array, z: Array) -> None:
        """Tables by height: half width and depth of the rim from ear to ear, and depth of the midline."""
        y = self.y
        self.top = y[:, :1] - 1.0 - 0.16 * (self.person[:, N + 2, None] - 0.5) - 0.12 * self.child[:, None]
        up = np.array((1, 0.985, 0.93, 0.80, 0.60, 0.35), np.float32)
        self.rim_y = np.concatenate([self.top * up + y[:, :1] * (1 - up), y[:, :9]], 1)
        width = np.array((0, 0.24, 0.48, 0.74, 0.90, 0.985), np.float32)
        self.rim_x = np.concatenate([-x[:, :1] * width, -x[:, :9]], 1)
        depth = np.array((0.2, 0.3, 0.42, 0.65, 0.85, 0.97), np.float32)
        self.rim_z = np.concatenate([z[:, :1] * depth, z[:, :9]], 1)
        middle = np.r_[27:31, 33, 51, 57]
        brow, dip = (0.45 * self.top + 0.55 * y[:, 27:28]), 0.6 * y[:, 57:58] + 0.4 * y[:, 8:9]
        self.middle_y = np.concatenate([self.top, brow, y[:, middle], dip, y[:, 8:9]], 1)
        front = np.full_like(brow, 0.33)
        self.middle_z = np.concatenate([self.rim_z[:, :1], front, z[:, middle], 0.9 * front, z[:, 8:9]], 1)

    def edges(self, y: Array) -> tuple[Array, Array]:
        """The silhouette's left and right ends at heights y [C, L].

        A slice of the head is half an ellipse from rim to front, whose turned end is known in closed form; the midline
        (forehead, nose, lips, chin) may stand out beyond it.
        """
        half, rim = lerp(y, self.rim_y, self.rim_x), lerp(y, self.rim_y, self.rim_z)
        middle = lerp(y, self.middle_y, self.middle_z)
        bulge = (np.minimum(middle, 0.33) - rim) * self.s
        wide = (half * self.c) ** 2
        right = rim * self.s + np.sqrt(wide + np.maximum(bulge, 0) ** 2)
        left = rim * self.s - np.sqrt(wide + np.minimum(bulge, 0) ** 2)
        return np.minimum(left, middle * self.s), np.maximum(right, middle * self.s)

    def _turn(self, x: Array, z: Array) -> Array:
        """Turned x of the landmarks, and the outline [2, C, 72].

        Landmarks behind the horizon are put on it, and marked in `hidden` [C, 68].
        """
        true = self.turned(x, z)
        seen = true.copy()
        for chain in _CHAINS:
            seen[:, chain] = np.maximum.accumulate(seen[:, chain], 1)
            left = _MIRROR[list(chain)]
            seen[:, left] = np.minimum.accumulate(seen[:, left], 1)
        # The outline's heights crowd at crown and chin, where it runs level.
        share = ((1 - np.cos(np.linspace(0, np.pi, 36))) / 2).astype(np.float32)
        rows = self.top + (self.y[:, 8:9] - self.top) * share
        lefts, rights = self.edges(np.concatenate([self.y, rows], 1))
        low, high = lefts[:, :68], rights[:, :68]
        around = np.concatenate([rights[:, 68:], lefts[:, :67:-1]], 1)
        self.outline = np.stack([around, np.concatenate([rows, rows[:, ::-1]], 1)])
        seen = np.clip(seen, low + 0.02, np.maximum(high - 0.02, low + 0.02))
        self.hidden = (np.abs(seen - true) > 0.04) & (np.abs(self.s) > 0.2)  # below that, merely squeezed in
        # The jaw is the silhouette itself, as annotators draw it.
        seen[:, :8], seen[:, 8], seen[:, 9:17] = low[:, :8], true[:, 8], high[:, 9:17]
        self.hidden[:, :17] = False
        return seen

    def at(self, *points: int) -> Array:
        """The drawn landmarks of these numbers, [2, C, len(points)]."""
        return np.stack([self.x[:, points], self.y[:, points]])

    def spot(self, x: float, y: Any, z: float) -> Array:
        """A point of the turned head that is no landmark, [2, C, 1]."""
        across = self.turned(np.float32(x), np.float32(z))
        return np.stack([across, np.broadcast_to(np.asarray(y, np.float32), across.shape)])
