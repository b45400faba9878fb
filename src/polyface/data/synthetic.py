"""Synthetic faces: a small parametric renderer whose every factor is known exactly.

A 3-D mean face of 68 points (iBUG order) is deformed linearly by identity, age, gender and expression, turned by the
yaw, and drawn as filled contours whose vertices *are* the landmarks. Coverage is exact-area: Green's theorem over short
edges, then one running sum down the columns, so a face costs its outlines' length and not its area times its parts.

Nothing is read from disk. Face i of a seed is a pure function of (seed, i, size, options), whatever the number asked
for; identity k is the same person under every seed. For tests, examples and demonstrations: figures come from real
faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from polyface.errors import PolyfaceError, nearest
from polyface.schema import ATTRIBUTES, VOCABULARIES, five_of_68, mirror_landmarks

if TYPE_CHECKING:
    from polyface.data.table import Record

Array = npt.NDArray[Any]

ILLUMINATIONS: tuple[str, ...] = ("front", "left", "right", "top", "bottom", "dim")
"""Where the light stands, as the viewer sees it; `dim` is weak light from the front."""

MODALITIES = ("photo", "caricature")
_CHUNK = 32  # faces are always computed in these groups, so that results cannot depend on how many are asked for
_EXAGGERATION = 2.0  # how far a caricature pushes an identity away from the mean face

# Ambient light, then the diffuse light's strength and direction (x, y, z).
_LIGHTS: dict[str, tuple[float, ...]] = {
    "front": (0.42, 0.62, 0.0, 0.0, 1.0),
    "left": (0.30, 0.85, -0.90, -0.10, 0.42),
    "right": (0.30, 0.85, 0.90, -0.10, 0.42),
    "top": (0.30, 0.85, 0.0, -0.90, 0.42),
    "bottom": (0.30, 0.85, 0.0, 0.90, 0.42),
    "dim": (0.22, 0.16, 0.0, 0.0, 1.0),
}

# Strength of the expression modes, in the order of _EXPRESSION_MODES.
_EXPRESSION_MODES = ("corner", "open", "widen", "inner_brow", "outer_brow", "lids", "cheeks", "snarl", "frown", "smirk")
_EXPRESSIONS: dict[str, tuple[float, ...]] = {
    "neutral": (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "happiness": (1.0, 0.35, 0.8, 0, 0.1, -0.2, 1, 0, 0, 0),
    "surprise": (0, 1.0, -0.5, 1, 1, 0.9, 0, 0, 0, 0),
    "sadness": (-0.9, 0, -0.1, 1, -0.5, -0.5, 0, 0, 0.3, 0),
    "anger": (-0.4, 0, -0.4, -1, 0.3, 0.2, 0.3, 0, 1, 0),
    "disgust": (-0.5, 0.15, 0, -0.6, -0.3, -0.6, 0.6, 1, 0.5, 0),
    "fear": (-0.4, 0.45, 0.6, 1, 0.4, 0.9, 0, 0, 0.5, 0),
    "contempt": (0, 0, 0, -0.2, 0.1, -0.3, 0, 0, 0, 1),
}
# Happiness is drawn more often than the others, so that smiles are not rare.
_EXPRESSION_DECK = tuple(_EXPRESSIONS) + ("neutral", "happiness", "happiness")

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
_BROWS, _NOSE, _EYES, _MOUTH = np.r_[17:27], np.r_[27:36], np.r_[36:48], np.r_[48:68]
# From the midline outwards on the viewer's right: a point that the turned face hides lies on its chain's horizon.
_CHAINS = (
    *((27, 22, 23, 24, 25, 26), (27, 42, 43, 44, 45), (27, 42, 47, 46, 45), (33, 34, 35)),
    *((51, 52, 53, 54), (57, 56, 55, 54), (62, 63, 64), (66, 65, 64)),
)
_IDENTITY_MODES = (
    *("width", "jaw", "chin", "eye_gap", "eye_size", "eye_tilt", "brow_height", "brow_tilt", "nose_length"),
    *("nose_width", "nose_depth", "mouth_width", "lips", "mouth_height"),
)
_N = len(_IDENTITY_MODES)
_HAIR = np.array([(32, 28, 28), (88, 58, 38), (58, 40, 30), (208, 172, 108), (150, 74, 38)], np.float32)
_HAIR_ATTRIBUTE = ("Black_Hair", "Brown_Hair", "Brown_Hair", "Blond_Hair", "")
_POSE_FROM = (-45, -15, 15, 45)  # degrees of yaw at which the second to fifth pose begins
_AGE_FROM = [int(group.split("-")[0].rstrip("+")) for group in VOCABULARIES["age_group"]]


@dataclass(frozen=True)
class SyntheticFaces:
    """Faces and everything that is known of them.

    images: uint8 RGB [N, H, W, 3]. labels: columns as in `polyface.schema`, N entries each; points are (x, y) pixels
    with pixel centres at integers, NaN where the turned head hides a point of the 68 (the five are always given: a
    hidden one lies where the head's horizon hides it). roll: [N] degrees in the image plane, > 0 is clockwise.
    """

    images: npt.NDArray[np.uint8]
    labels: dict[str, Any]
    roll: npt.NDArray[np.float32]


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
    add("eye_gap", np.r_[_EYES, _BROWS], dx=0.04 * side)
    add("eye_size", _EYES, dx=0.10 * (x - eye_x), dy=0.16 * (y - eye_y))
    add("eye_tilt", _EYES, dy=-0.03 * (out - 0.435) / 0.2)
    add("brow_height", _BROWS, dy=-0.04)
    add("brow_tilt", _BROWS, dy=-0.04 * (out - 0.5) / 0.3)
    add("nose_length", np.r_[28:36], dy=0.06 * (y + 0.36) / 0.7)
    add("nose_width", np.r_[31:36], dx=0.17 * x)
    add("nose_depth", np.r_[28:36], dz=0.10 * (y + 0.36) / 0.6)
    add("mouth_width", _MOUTH, dx=0.13 * x)
    add("lips", np.r_[49:54, 55:60], dy=0.20 * (y - 0.70))
    add("mouth_height", _MOUTH, dy=0.04)
    add("child", np.r_[4:13], dy=-0.20 * np.clip((y - 0.5) / 0.7, 0, 1))
    add("child", _EYES, dx=0.22 * (x - eye_x), dy=0.35 * (y - eye_y) + 0.06)
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


@lru_cache(4096)
def _identity(number: int) -> Array:
    """What makes person `number`: 32 uniform numbers in [0, 1), the same under every seed."""
    return np.random.default_rng([0xFACE, number]).random(32, np.float32)


def _factors(seed: int, chunk: int, pool: Sequence[int], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Draw one chunk's factors. Everything is drawn before `fixed` overrides, so that it changes nothing else."""
    u = np.random.default_rng([seed, chunk]).random((_CHUNK, 24))

    def pick(column: int, words: Sequence[Any]) -> Array:
        return np.asarray(np.array(words)[(u[:, column] * len(words)).astype(int)])

    f: dict[str, Any] = {
        "identity": pick(0, pool),
        "modality": pick(1, MODALITIES),
        "yaw": 150 * u[:, 2] - 75,
        "roll": 40 * u[:, 3] - 20,
        "illumination": pick(4, ILLUMINATIONS),
        "expression": pick(5, _EXPRESSION_DECK),
        "glasses": np.where(u[:, 6] < 0.35, "yes", "no"),
    }
    f |= {name: np.full(_CHUNK, value) for name, value in fixed.items() if name != "age"}
    person = np.stack([_identity(int(k)) for k in f["identity"]])
    # A person is photographed within a few years.
    age = np.maximum(2 + 76 * person[:, _N + 1] + 6 * u[:, 7] - 3, 1)
    f["age"] = np.full(_CHUNK, fixed["age"], np.float64) if "age" in fixed else age
    f |= {"person": person, "male": person[:, _N] < 0.5, "u": u.astype(np.float32)}
    return f


def _f32(values: Any) -> Array:
    return np.asarray(values, np.float32)


def _lerp(at: Array, knots: Array, values: Array) -> Array:
    """Piecewise linear interpolation of each face's own table: [C, L] places, [C, K] ascending knots and values."""
    step = np.maximum(np.diff(knots), 1e-3)
    share = np.clip((at[:, :, None] - knots[:, None, :-1]) / step[:, None], 0, 1)
    result: Array = values[:, :1] + (share * np.diff(values)[:, None]).sum(-1)
    return result


class _Head:
    """One chunk's heads, turned by the yaw: landmarks and contours in half face widths, before roll and scale."""

    def __init__(self, f: dict[str, Any]) -> None:
        self.person, self.age, self.male = f["person"], f["age"].astype(np.float32), f["male"]
        self.old = np.clip((self.age - 35) / 40, 0, 1)
        self.child = np.clip((16 - self.age) / 14, 0, 1)
        self.bearded = self.male & (self.person[:, _N + 6] < 0.4) & (self.age > 20)
        self.drawn = _f32(f["modality"] == "caricature")  # 1 for a caricature, 0 for a photo
        yaw = np.radians(f["yaw"].astype(np.float32))[:, None]
        self.c, self.s = np.cos(yaw), np.sin(yaw)
        x, self.y, z = self._shape(f)
        self._profile(x, z)
        self.x = self._turn(x, z)

    def _shape(self, f: dict[str, Any]) -> Array:
        """The deformed 3-D landmarks, [3, C, 68]."""
        more = 1 + self.drawn[:, None] * (_EXAGGERATION - 1)
        who = (2 * self.person[:, :_N] - 1) * 1.5 * more
        u = f["u"]
        strength = (0.75 + 0.45 * u[:, 8:9]) * (1 + 0.2 * self.drawn[:, None])
        mood = np.array([_EXPRESSIONS[name] for name in f["expression"]], np.float32) * strength
        self.open = mood[:, 1]
        self.teeth = _f32(np.isin(f["expression"], ("happiness", "disgust", "fear")))
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
        self.top = y[:, :1] - 1.0 - 0.16 * (self.person[:, _N + 2, None] - 0.5) - 0.12 * self.child[:, None]
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
        half, rim = _lerp(y, self.rim_y, self.rim_x), _lerp(y, self.rim_y, self.rim_z)
        middle = _lerp(y, self.middle_y, self.middle_z)
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


def _stroke(line: Array, half: Any, axis: int = 1) -> Array:
    """The contour of a line [2, C, K] widened by `half` either way, along y or (axis 0) x."""
    shift = np.zeros_like(line)
    shift[axis] = half
    return np.concatenate([line - shift, (line + shift)[:, :, ::-1]], 2)


def _ellipse(x: Any, y: Any, a: Any, b: Any, start: float = 0, end: float = 360, points: int = 24) -> Array:
    """An ellipse or an arc of it, [2, C, points]; all arguments [C, 1]; degrees clockwise from the right."""
    angle = np.radians(np.linspace(start, end, points, endpoint=end - start < 360, dtype=np.float32))
    return np.stack(np.broadcast_arrays(x + a * np.cos(angle), y + b * np.sin(angle))).astype(np.float32)


def _hair(head: _Head) -> tuple[Array, Array, Array]:
    """Contours of the skull's hair behind the face, of long hair, and of the cap in front of the forehead."""
    p, c, s = head.person[:, :, None], head.c, head.s
    x, a = -0.55 * s, np.sqrt((1.08 * c) ** 2 + (0.92 * s) ** 2)
    long = np.where(head.male[:, None], p[:, _N + 3] < 0.1, p[:, _N + 3] < 0.8)
    bottom = np.where(long, 0.5 + 1.1 * p[:, _N + 4], -0.3)
    locks = np.stack([np.concatenate([x - a, x + a * 0.9, x + a * 0.85, x - a], 1), np.repeat(bottom, 4, 1)])
    locks[1, :, :2] = -0.45
    # The hairline climbs with age on men; a fringe hangs low on some.
    line = -0.98 + 0.32 * p[:, _N + 5] * (1 - 0.7 * head.male[:, None]) - 0.28 * (head.old * head.male)[:, None]
    line = np.maximum(line, head.top + 0.12)
    half = [
        (0.0, line, 0.27),
        (0.45, line, 0.14),
        (0.82, 0.25 * line - 0.55, -0.22),
        (0.98, -0.5, -0.62),
        (1.02, -0.15, -0.78),
    ]
    sides = []
    for sign in (1, -1):
        chain = np.concatenate([head.spot(sign * px, py, pz) for px, py, pz in half], 2)
        for k in range(1, 5):  # behind the horizon the hairline ends
            past = sign * (chain[0, :, k] - chain[0, :, k - 1]) < 0
            chain[:, :, k] = np.where(past, chain[:, :, k - 1], chain[:, :, k])
        sides.append(chain)
    right, left = sides
    arc = _ellipse(x, -0.45, a, -0.33 - head.top, 15, -195, 32)
    arc[1, :, :16] = np.minimum(arc[1, :, :16], right[1, :, 4:])
    arc[1, :, 16:] = np.minimum(arc[1, :, 16:], left[1, :, 4:])
    back = _ellipse(x, -0.45, a * 1.01, -0.32 - head.top)
    return back, locks, np.concatenate([left[:, :, ::-1], right[:, :, 1:], arc], 2)


def _glasses(head: _Head) -> list[tuple[Array, int]]:
    """Contours of rims, bridge and arms with their signs."""
    y = head.y[:, _EYES].mean(1, keepdims=True)
    a, b = 0.30 + 0.05 * head.person[:, -1:], 0.20 + 0.08 * head.person[:, -2:-1]
    shapes = [(_stroke(np.concatenate([head.spot(-0.13, y, 0.4), head.spot(0.13, y, 0.4)], 2), 0.03), 1)]
    for side in (-1, 1):
        near, far = head.spot(side * 0.78, y, 0.12), head.spot(side * 1.01, y, -0.75)
        far[0] = side * np.maximum(side * far[0], side * near[0])  # an arm behind the face is not seen
        shapes.append((_stroke(np.concatenate([near, far], 2), 0.025), 1))
        for sign in (1, -1):
            rim = _ellipse(side * 0.44, y, a + 0.035 * sign, b + 0.035 * sign, points=20)
            rim[0] = head.turned(rim[0], 0.38 - 0.36 * rim[0] ** 2)
            shapes.append((rim, sign))
    return shapes


def _features(head: _Head, f: dict[str, Any], skin: Array, hair: Array, light: Array) -> list[tuple[Array, Array]]:
    """Contours inside the face with the colour [C, 3] that each adds to what lies under it."""
    p, at, drawn, old = head.person[:, :, None], head.at, head.drawn[:, None], head.old[:, None]
    one = np.ones((len(p), 1), np.float32)
    dark, male = skin * 0.45 * (1 - 0.7 * drawn), head.male[:, None].astype(np.float32)
    shapes: list[tuple[Array, Array]] = []

    beard = np.concatenate([at(*range(2, 15)), at(54, 33, 48)], 2)
    shapes.append((beard, (hair - skin) * 0.45 * head.bearded[:, None]))
    # The side of the nose away from the light is dark; drawings have a line instead.
    for sign, side in ((-1, at(27, 28, 29, 30, 33, 32, 31)), (1, at(27, 28, 29, 30, 33, 34, 35))):
        shapes.append((side, skin * (0.12 * sign * light[:, :1] - 0.05) * (1 - drawn)))
    shapes.append((_stroke(at(27, 28, 29, 30), 0.015 * one, 0), (dark - skin) * drawn))
    shapes.append((_stroke(at(31, 32, 33, 34, 35), 0.03 * one), (dark - skin) * (0.5 + 0.5 * drawn)))

    thick = 0.035 + 0.03 * p[:, _N + 7] + 0.025 * male
    taper = np.array([0.5, 0.9, 1, 1, 0.9], np.float32)
    for brow, shade in ((at(*range(17, 22)), taper), (at(*range(22, 27)), taper[::-1])):
        shapes.append((_stroke(brow, thick * shade), hair * 0.8 - skin))
    white, iris_dark = np.float32(235.0) - skin, _f32([(70, 45, 30), (95, 130, 160), (85, 110, 70)])
    iris = iris_dark[(p[:, _N + 8, 0] * 3).astype(int)]
    for first in (36, 42):
        upper, lower = at(*range(first, first + 4)), at(first, first + 5, first + 4, first + 3)
        x = at(*range(first, first + 6)).mean(2)[0][:, None]
        y = at(*range(first, first + 6)).mean(2)[1][:, None]
        shapes.append((at(*range(first, first + 6)), white))
        discs = [_ellipse(x, y, r * (0.35 + 0.65 * head.c), r, points=10) for r in (0.085, 0.048)]
        disc = np.concatenate(discs, 2)
        disc[0] = np.clip(disc[0], upper[0, :, :1], upper[0, :, 3:])
        lids = [_lerp(disc[0], lid[0], lid[1]) for lid in (upper, lower)]
        disc[1] = np.clip(disc[1], lids[0], np.maximum(lids[0], lids[1]))
        shapes += [(disc[:, :, :10], iris - 235), (disc[:, :, 10:], 18 - iris)]
        shapes.append((_stroke(upper, 0.022 + 0.018 * (1 - male) + 0.01 * drawn), (dark * 0.5 - skin) * 0.9))
        bag = np.stack([lower[0], lower[1] + 0.07])
        shapes.append((_stroke(bag, 0.02 * one), skin * -0.45 * old))

    red = np.array([(178, 78, 80)], np.float32)
    lips = skin * (0.45 + 0.25 * male) + red * (0.55 - 0.25 * male)
    inside = np.array([70, 24, 28], np.float32) * (1 - head.teeth[:, None]) + 232 * head.teeth[:, None]
    closed = np.clip(1 - head.open[:, None] * 8, 0, 1)
    shapes.append((at(*range(48, 60)), lips - skin))
    shapes.append((at(*range(60, 68)), inside * (1 - closed) + dark * closed * 0.8 - lips))
    # Age: folds from nose to mouth, lines on the forehead.
    for nose, corner in ((31, 48), (35, 54)):
        fold = at(nose, corner)
        shapes.append((_stroke(fold + np.array([[[0, 0]], [[0, 0.05]]], np.float32), 0.03 * one, 0), skin * -0.3 * old))
    for share in (0.35, 0.55):
        ends = [head.x[:, k, None] * (1 - share * 0.3) for k in (18, 25)]
        y = head.y[:, 19:20] * (1 - share * 0.5) + head.top * share * 0.5
        shapes.append(
            (_stroke(np.stack([np.concatenate(ends, 1), np.repeat(y, 2, 1)]), 0.018 * one), skin * -0.3 * old)
        )
    frame = (_f32([(45, 38, 36)]) - skin) * _f32(f["glasses"] == "yes")[:, None]
    return shapes + [(contour, sign * frame) for contour, sign in _glasses(head)]


class _Raster:
    """The areas that contours cover, for contours [2, C, K] with weights [C, 1] or colours [C, 3].

    By Green's theorem a short edge going right covers all that lies below it and one going left uncovers it: each edge
    leaves its width in the one or two columns that it crosses, and a running sum down the columns gives the areas.
    """

    def __init__(self, shapes: list[tuple[Array, Array]], pixels: Callable[[Array], Array], size: int) -> None:
        self.size, self.count = size, shapes[0][0].shape[1]
        lengths = [contour.shape[2] for contour, _ in shapes]
        start = pixels(np.concatenate([contour for contour, _ in shapes], 2))
        following = np.arange(1, start.shape[2] + 1)
        following[np.cumsum(lengths) - 1] -= lengths
        after = start[:, :, following]
        turn = np.add.reduceat(start[0] * after[1] - start[1] * after[0], np.cumsum([0, *lengths[:-1]]), 1)
        turn = np.sign(turn)[:, :, None]
        self.weights = [np.asarray(turn[:, k] * weight, np.float32) for k, (_, weight) in enumerate(shapes)]
        # Edges that weigh nothing or lie outside need no work.
        kept = np.stack([weight.any(1) for weight in self.weights]).repeat(lengths, 0)
        low, high = np.minimum(start, after), np.maximum(start, after)
        kept &= ((low < size - 0.5).all(0) & (high[0] > -0.5)).T
        edge, face = np.nonzero(kept)
        start = start[:, face, edge]
        step = after[:, face, edge] - start
        # Cut edges so that none is wider than a column, or so tall that its slope would show as a step.
        parts = np.maximum(np.ceil(np.maximum(np.abs(step[0]), np.abs(step[1]) / 3)), 1).astype(np.intp)
        cut = np.repeat(np.arange(len(parts)), parts)
        place = np.arange(len(cut)) - (np.cumsum(parts) - parts)[cut]
        step = (step / parts.astype(np.float32))[:, cut]
        begin = (
            start[:, cut] + step * place.astype(np.float32) + np.float32(0.5)
        )  # a pixel begins half before its centre
        (x0, y0), (x1, y1) = np.clip(begin, 0, size), np.clip(begin + step, 0, size)
        self.shape, self.face = np.repeat(np.arange(len(shapes)), lengths)[edge][cut], face[cut]
        own, other = (np.minimum(np.floor(x), np.float32(size - 1)) for x in (x0, x1))
        middle = (y0 + y1) * np.float32(0.5)
        row = np.floor(middle)
        below = middle - row
        line = row.astype(np.intp) * (self.count * size) + self.face * size
        first = np.clip(x1, own, own + 1) - x0
        self.crossing = np.flatnonzero(own != other)
        rest, under = (x1 - x0 - first)[self.crossing], below[self.crossing]
        self.cell = [line + own.astype(np.intp), line[self.crossing] + other[self.crossing].astype(np.intp)]
        self.area = [np.stack([first - first * below, first * below]), np.stack([rest - rest * under, rest * under])]

    def plane(self, out: Array, first: int, last: int, channel: int = 0) -> Array:
        """The sum of shapes first … last-1, each times its weight, in `out`: float32 [S, C, S] (row, face, column)."""
        a, b = np.searchsorted(self.shape, (first, last))
        weights = np.stack([weight[:, channel] for weight in self.weights[first:last]])
        weight = weights[self.shape[a:b] - first, self.face[a:b]]
        c, d = np.searchsorted(self.crossing, (a, b))
        line = self.count * self.size
        near, far = self.cell[0][a:b], self.cell[1][c:d]
        place = np.concatenate([near, near + line, far, far + line])
        areas = [
            (self.area[0][:, a:b] * weight).ravel(),
            (self.area[1][:, c:d] * weight[self.crossing[c:d] - a]).ravel(),
        ]
        bins = np.bincount(place, np.concatenate(areas), (self.size + 2) * line)[: self.size * line]
        out.reshape(-1)[:] = bins
        for row in range(1, self.size):  # ten times as fast as cumsum along this axis
            out[row] += out[row - 1]
        return out


@lru_cache(4)
def _scenery(size: int) -> tuple[Array, Array]:
    """Cluttered backgrounds [16, 3, 3S/2, 3S/2] and a strip of unit noise, the same always."""
    rng = np.random.default_rng(0xBACC)
    wide, grids = size * 3 // 2, []
    for cells in (3, 7, 20):
        place = np.linspace(0, cells, wide, endpoint=False, dtype=np.float32)[:, None]
        hat = np.maximum(0, 1 - np.abs(place - np.arange(cells + 1, dtype=np.float32)))
        grids.append(hat @ rng.standard_normal((16, 3, cells + 1, cells + 1), np.float32) @ hat.T)
    pictures = 128 + 38 * grids[0] + 22 * grids[1] + 10 * grids[2]
    at = np.arange(wide, dtype=np.float32) / np.float32(wide)
    for picture in pictures:
        for x, y, w, h in rng.random((7, 4), np.float32):
            block = np.abs(at[:, None] - y) < 0.02 + 0.15 * h, np.abs(at - x) < 0.02 + 0.15 * w
            picture[:, block[0] & block[1]] = rng.uniform(20, 235, (3, 1))
    return np.clip(pictures, 0, 255).astype(np.uint8), rng.standard_normal(3 * size * size + 65536, np.float32)


class _Placement:
    """Roll, scale and shift of one chunk: half face widths → pixels. low, high: corners of the tight boxes, [2, C]."""

    def __init__(self, outline: Array, f: dict[str, Any], size: int) -> None:
        roll, u = np.radians(f["roll"].astype(np.float32))[:, None], f["u"]
        self.c, self.s = np.cos(roll), np.sin(roll)
        rolled = self._rolled(outline)
        low, high = rolled.min(2), rolled.max(2)
        self.unit = np.minimum(size * (0.24 + 0.09 * u[:, 10]), (size - 4) / (high - low).max(0))
        # Anywhere in the picture, but whole.
        spare = size - 3 - self.unit * (high - low)
        self.shift = 1 - self.unit * low + spare * (0.1 + 0.8 * u[:, 11:13].T)
        self.low, self.high = (self.unit * corner + self.shift for corner in (low, high))

    def _rolled(self, points: Array) -> Array:
        return np.stack([points[0] * self.c - points[1] * self.s, points[0] * self.s + points[1] * self.c])

    def __call__(self, points: Array) -> Array:
        """Pixels of points [2, C, K]."""
        return _f32(self._rolled(points) * self.unit[:, None] + self.shift[..., None])


def _layers(head: _Head) -> list[list[Array]]:
    """Contours from back to front: hair behind, neck, clothes, face with ears, hair before the forehead."""
    back, locks, cap = _hair(head)
    neck = np.zeros((2, _CHUNK, 4), np.float32)
    neck[0] = _f32([-1, 1, 1, -1]) * (0.5 + 0.1 * head.male[:, None]) - 0.45 * head.s
    neck[1] = _f32([0.5, 0.5, 1.8, 1.8])
    clothes = np.zeros((2, _CHUNK, 6), np.float32)
    clothes[0] = _f32([-0.6, 0.6, 1.9, 2.4, -2.4, -1.9]) - 0.4 * head.s
    clothes[1] = _f32([1.55, 1.55, 1.95, 4, 4, 1.95])
    ear_a, ear_b = 0.12 * head.c + 0.2 * np.abs(head.s), 0.22 + 0.08 * head.person[:, _N + 13, None]
    ear_x = [side * (head.rim_x[:, 6:7] + 0.05) * head.c - 0.82 * head.s for side in (-1, 1)]
    ears = [_ellipse(x, -0.08, ear_a, ear_b, points=16) for x in ear_x]
    return [[back, locks], [neck], [clothes], [head.outline, *ears], [cap]]


def _shade(head: _Head, lights: Array, place: _Placement, anyone: Array) -> Array:
    """Brightness [S, C, S]: light falls on an ellipsoid as large as the head; the background has its strength only."""
    grid, middle, drawn = np.arange(len(anyone), dtype=np.float32), (place.low + place.high) / 2, head.drawn[:, None]
    nx, ny = (
        np.clip((grid - middle[k][:, None]) / (place.unit[:, None] * radius), -1, 1)
        for k, radius in ((0, 1.15), (1, 1.45))
    )
    ambient, diffuse, lx, ly, lz = (lights[:, k, None] for k in range(5))
    shade: Array = (1 - ny * ny).T[..., None] - nx * nx
    np.sqrt(np.maximum(shade, 0, out=shade), out=shade)
    shade *= lz
    shade += nx * lx
    shade += (ny * ly).T[..., None]
    # A drawing knows light and shadow only, and its shadows are not deep.
    shade *= 1 + 7 * drawn
    shade -= 2.4 * drawn
    np.clip(shade, 0.45 * drawn, 1 - 0.1 * drawn, out=shade)
    shade -= 0.5
    shade *= anyone
    shade += 0.5
    shade *= diffuse
    shade += ambient
    return shade


def _chunk(f: dict[str, Any], size: int) -> tuple[Array, dict[str, Array]]:
    """Paint one chunk: uint8 [C, S, S, 3], and its points, boxes and attributes."""
    head, u = _Head(f), f["u"]
    place = _Placement(head.outline, f, size)
    p, drawn = head.person, head.drawn[:, None]
    tone = p[:, _N + 9, None]
    skin = (_f32((244, 208, 180)) * (1 - tone) + _f32((104, 66, 46)) * tone) * (
        1 + _f32((0.03, -0.01, -0.04)) * (2 * p[:, _N + 10, None] - 1)
    )
    style = np.where(tone[:, 0] > 0.6, 0, p[:, _N + 11] * len(_HAIR)).astype(int)
    grey = np.clip((head.age - 42) / 25 + 0.6 * (p[:, _N + 12] - 0.5), 0, 1)[:, None]
    hair = _HAIR[style] * (1 - grey) + _f32((196, 196, 200)) * grey
    lights = _f32([_LIGHTS[name] for name in f["illumination"]])

    layers, one = _layers(head), np.ones((_CHUNK, 1), np.float32)
    centre = head.outline.mean(2, keepdims=True)
    ink = -0.8 * skin * drawn
    details = [(head.outline, ink), (centre + (head.outline - centre) * 0.95, -ink)]
    details += _features(head, f, skin, hair, lights[:, 2:])
    raster = _Raster([(contour, one) for layer in layers for contour in layer] + details, place, size)
    ends = np.cumsum([len(layer) for layer in layers])

    scenes, noise = _scenery(size)
    picture = np.empty((3, size, _CHUNK, size), np.float32)
    for k in range(_CHUNK):
        right, down = (u[k, 16:18] * (size // 2)).astype(int)
        picture[:, :, k] = scenes[int(u[k, 18] * len(scenes)), :, down : down + size, right : right + size]
    anyone, cover, change, detail = np.zeros((4, *picture.shape[1:]), np.float32)
    for k, colour in enumerate((hair * 0.85, skin * 0.72, 40 + 190 * u[:, 13:16], skin, hair)):
        np.clip(raster.plane(cover, ends[k] - len(layers[k]), ends[k]), 0, 1, out=cover)
        np.maximum(anyone, cover, out=anyone)
        for channel in range(3):
            np.subtract(colour[:, channel, None], picture[channel], out=change)
            if k == 3:  # eyes, mouth and the like are differences from the skin
                change += raster.plane(detail, ends[-1], ends[-1] + len(details), channel)
            change *= cover
            picture[channel] += change
    picture *= _shade(head, lights, place, anyone)
    grain = (1.5 + 7 * u[:, 19]) * (1 - 0.8 * head.drawn)
    for k in range(_CHUNK):
        start = int(u[k, 20] * 65536)
        picture[:, :, k] += grain[k] * noise[start : start + 3 * size * size].reshape(3, size, size)
    np.clip(picture, 0, 255, out=picture)
    points = place(np.stack([head.x, head.y])).transpose(1, 2, 0)
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(2, 1, 3, 0)), {
        "box": np.concatenate([place.low, place.high]).T.astype(np.float32),
        "landmarks_5": five_of_68(points),
        "landmarks_68": np.where(head.hidden[..., None], np.float32(np.nan), points),
        "attributes": _attributes(head, f, grey[:, 0], style),
    }


def _attributes(head: _Head, f: dict[str, Any], grey: Array, style: Array) -> Array:
    """The CelebA attributes that a drawing settles, −1 or 1; 0 where it does not. Int [C, 40]."""
    known = {
        "Male": head.male,
        "Eyeglasses": f["glasses"] == "yes",
        "Smiling": f["expression"] == "happiness",
        "Mouth_Slightly_Open": head.open > 0.2,
        "No_Beard": ~head.bearded,
        "Young": head.age < 40,
        "Gray_Hair": grey > 0.6,
    }
    for name in ("Black_Hair", "Brown_Hair", "Blond_Hair"):
        known[name] = (np.array(_HAIR_ATTRIBUTE)[style] == name) & (grey < 0.4)
    table = np.zeros((_CHUNK, len(ATTRIBUTES)), np.int8)
    for name, holds in known.items():
        table[:, ATTRIBUTES.index(name)] = np.where(holds, 1, -1)
    return table


def _labels(f: dict[str, Any], truth: dict[str, Array], first: int) -> dict[str, Array]:
    """The schema's columns of one chunk whose first face has number `first`."""
    words = {name: np.array(VOCABULARIES[name]) for name in ("pose", "age_group", "split")}
    tenth = np.arange(first, first + _CHUNK) % 10
    return {
        "identity": np.array([f"synthetic-{k}" for k in f["identity"]]),
        **{name: f[name] for name in ("modality", "illumination", "expression", "glasses")},
        "yaw": f["yaw"].astype(np.float32),
        "pose": words["pose"][np.searchsorted(_POSE_FROM, f["yaw"], side="right")],
        "smile": np.where(f["expression"] == "happiness", "yes", "no"),
        "age": f["age"].astype(np.float32),
        "age_group": words["age_group"][np.searchsorted(_AGE_FROM, np.floor(f["age"]), side="right") - 1],
        "gender": np.where(f["male"], "male", "female"),
        **truth,
        "split": words["split"][np.maximum(tenth - 7, 0)],
        "source": np.full(_CHUNK, "synthetic"),
    }


def _check(n: int, size: int, seed: int, first: int, pool: Sequence[int], fixed: Mapping[str, Any]) -> None:
    for name, value, least in (("n", n, 0), ("size", size, 16), ("seed", seed, 0), ("first", first, 0)):
        if value < least:
            raise PolyfaceError(f"synthetic faces: {name} is {value}, expected at least {least}")
    if not len(pool) or min(pool) < 0:
        raise PolyfaceError("synthetic faces: identities must be a positive number or a list of numbers from 0 up")
    words = {name: VOCABULARIES[name] for name in ("expression", "glasses")}
    words |= {"modality": MODALITIES, "illumination": ILLUMINATIONS}
    ranges = {"yaw": (-75, 75), "roll": (-180, 180), "age": (0, 120), "identity": (0, 2**63 - 1)}
    for name, value in fixed.items():
        if name not in words and name not in ranges:
            raise PolyfaceError(f"synthetic faces: unknown factor '{name}': {nearest(name, [*words, *ranges])}")
        if name in words and value not in words[name]:
            raise PolyfaceError(f"synthetic faces: {name} '{value}': {nearest(str(value), words[name])}")
        if name in ranges and not ranges[name][0] <= value <= ranges[name][1]:
            low, high = ranges[name]
            raise PolyfaceError(f"synthetic faces: {name} is {value}, expected {low} to {high}")


def render(
    n: int,
    size: int = 64,
    seed: int = 0,
    identities: int | Sequence[int] = 100,
    modality: str | None = None,
    *,
    first: int = 0,
    fixed: Mapping[str, Any] | None = None,
) -> SyntheticFaces:
    """Draw faces first … first + n - 1 of a seed as S × S pictures.

    `identities` is how many people there are, or their numbers; `modality` is photo, caricature or None for both.
    `fixed` holds factors at one value (yaw and roll in degrees, illumination, expression, glasses, age in years,
    identity) and leaves all others, down to the grain, as they would have been. Raises PolyfaceError for values out of
    range. In `labels`, `attributes` is int8 [N, 40] with 0 for not labelled, and `split` is train for numbers ending in
    0-7, val for 8, test for 9.
    """
    pool = range(identities) if isinstance(identities, int | np.integer) else identities
    fixed = dict(fixed or {}) | ({"modality": modality} if modality else {})
    _check(n, size, seed, first, pool, fixed)
    start = first - first % _CHUNK
    images, rolls, labels = [], [], []
    for number in range(start, max(first + n, start + 1), _CHUNK):
        f = _factors(seed, number // _CHUNK, pool, fixed)
        pictures, truth = _chunk(f, size)
        images.append(pictures)
        rolls.append(f["roll"].astype(np.float32))
        labels.append(_labels(f, truth, number))
    wanted = slice(first - start, first - start + n)
    columns = {name: np.concatenate([part[name] for part in labels])[wanted] for name in labels[0]}
    return SyntheticFaces(np.concatenate(images)[wanted], columns, np.concatenate(rolls)[wanted])


def records(n: int, size: int = 64, seed: int = 0, **options: Any) -> Iterator[Record]:
    """The faces of `render` one by one, as records for `polyface.data.table.write_table`; options are `render`'s."""
    from polyface.data.table import Record

    first = options.pop("first", 0)
    for number in range(first, first + n, 8 * _CHUNK):
        faces = render(min(8 * _CHUNK, first + n - number), size, seed, first=number, **options)
        for k, image in enumerate(faces.images):
            labels = {name: value[k] if value.ndim > 1 else value[k].item() for name, value in faces.labels.items()}
            labels["attributes"] = [int(value) or None for value in labels["attributes"]]
            path = f"synthetic/{seed}/{number + k}.png"
            yield Record(image=image, where=path, labels=labels, path=path)
