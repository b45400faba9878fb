"""How synthetic faces are painted: contours of a head, their exact coverage, colours, light and grain."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from polyface.data.synthetic.head import CHUNK, EYES, Array, Head, N, f32, lerp
from polyface.schema import ATTRIBUTES, five_of_68

HAIR = np.array([(32, 28, 28), (88, 58, 38), (58, 40, 30), (208, 172, 108), (150, 74, 38)], np.float32)


def _stroke(line: Array, half: Any, axis: int = 1) -> Array:
    """The contour of a line [2, C, K] widened by `half` either way, along y or (axis 0) x."""
    shift = np.zeros_like(line)
    shift[axis] = half
    return np.concatenate([line - shift, (line + shift)[:, :, ::-1]], 2)


def _ellipse(x: Any, y: Any, a: Any, b: Any, start: float = 0, end: float = 360, points: int = 24) -> Array:
    """An ellipse or an arc of it, [2, C, points]; all arguments [C, 1]; degrees clockwise from the right."""
    angle = np.radians(np.linspace(start, end, points, endpoint=end - start < 360, dtype=np.float32))
    return np.stack(np.broadcast_arrays(x + a * np.cos(angle), y + b * np.sin(angle))).astype(np.float32)


def _hair(head: Head) -> tuple[Array, Array, Array]:
    """Contours of the skull's hair behind the face, of long hair, and of the cap in front of the forehead."""
    p, c, s = head.person[:, :, None], head.c, head.s
    x, a = -0.55 * s, np.sqrt((1.08 * c) ** 2 + (0.92 * s) ** 2)
    long = np.where(head.male[:, None], p[:, N + 3] < 0.1, p[:, N + 3] < 0.8)
    bottom = np.where(long, 0.5 + 1.1 * p[:, N + 4], -0.3)
    locks = np.stack([np.concatenate([x - a, x + a * 0.9, x + a * 0.85, x - a], 1), np.repeat(bottom, 4, 1)])
    locks[1, :, :2] = -0.45
    # The hairline climbs with age on men; a fringe hangs low on some.
    line = -0.98 + 0.32 * p[:, N + 5] * (1 - 0.7 * head.male[:, None]) - 0.28 * (head.old * head.male)[:, None]
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


def _glasses(head: Head) -> list[tuple[Array, int]]:
    """Contours of rims, bridge and arms with their signs."""
    y = head.y[:, EYES].mean(1, keepdims=True)
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


def _features(head: Head, f: dict[str, Any], skin: Array, hair: Array, light: Array) -> list[tuple[Array, Array]]:
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

    thick = 0.035 + 0.03 * p[:, N + 7] + 0.025 * male
    taper = np.array([0.5, 0.9, 1, 1, 0.9], np.float32)
    for brow, shade in ((at(*range(17, 22)), taper), (at(*range(22, 27)), taper[::-1])):
        shapes.append((_stroke(brow, thick * shade), hair * 0.8 - skin))
    white, iris_dark = np.float32(235.0) - skin, f32([(70, 45, 30), (95, 130, 160), (85, 110, 70)])
    iris = iris_dark[(p[:, N + 8, 0] * 3).astype(int)]
    for first in (36, 42):
        upper, lower = at(*range(first, first + 4)), at(first, first + 5, first + 4, first + 3)
        x = at(*range(first, first + 6)).mean(2)[0][:, None]
        y = at(*range(first, first + 6)).mean(2)[1][:, None]
        shapes.append((at(*range(first, first + 6)), white))
        discs = [_ellipse(x, y, r * (0.35 + 0.65 * head.c), r, points=10) for r in (0.085, 0.048)]
        disc = np.concatenate(discs, 2)
        disc[0] = np.clip(disc[0], upper[0, :, :1], upper[0, :, 3:])
        lids = [lerp(disc[0], lid[0], lid[1]) for lid in (upper, lower)]
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
        line = np.stack([np.concatenate(ends, 1), np.repeat(y, 2, 1)])
        shapes.append((_stroke(line, 0.018 * one), skin * -0.3 * old))
    frame = (f32([(45, 38, 36)]) - skin) * f32(f["glasses"] == "yes")[:, None]
    return shapes + [(contour, sign * frame) for contour, sign in _glasses(head)]


class Raster:
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
        # A pixel's square begins half a pixel before its centre.
        begin = start[:, cut] + step * place.astype(np.float32) + np.float32(0.5)
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
        return f32(self._rolled(points) * self.unit[:, None] + self.shift[..., None])


def _layers(head: Head) -> list[list[Array]]:
    """Contours from back to front: hair behind, neck, clothes, face with ears, hair before the forehead."""
    back, locks, cap = _hair(head)
    neck = np.zeros((2, CHUNK, 4), np.float32)
    neck[0] = f32([-1, 1, 1, -1]) * (0.5 + 0.1 * head.male[:, None]) - 0.45 * head.s
    neck[1] = f32([0.5, 0.5, 1.8, 1.8])
    clothes = np.zeros((2, CHUNK, 6), np.float32)
    clothes[0] = f32([-0.6, 0.6, 1.9, 2.4, -2.4, -1.9]) - 0.4 * head.s
    clothes[1] = f32([1.55, 1.55, 1.95, 4, 4, 1.95])
    ear_a, ear_b = 0.12 * head.c + 0.2 * np.abs(head.s), 0.22 + 0.08 * head.person[:, N + 13, None]
    ear_x = [side * (head.rim_x[:, 6:7] + 0.05) * head.c - 0.82 * head.s for side in (-1, 1)]
    ears = [_ellipse(x, -0.08, ear_a, ear_b, points=16) for x in ear_x]
    return [[back, locks], [neck], [clothes], [head.outline, *ears], [cap]]


def _shade(head: Head, lights: Array, place: _Placement, anyone: Array) -> Array:
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


_HAIR_ATTRIBUTE = ("Black_Hair", "Brown_Hair", "Brown_Hair", "Blond_Hair", "")


def _attributes(head: Head, f: dict[str, Any], grey: Array, style: Array) -> Array:
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
    table = np.zeros((CHUNK, len(ATTRIBUTES)), np.int8)
    for name, holds in known.items():
        table[:, ATTRIBUTES.index(name)] = np.where(holds, 1, -1)
    return table


def chunk(f: dict[str, Any], size: int) -> tuple[Array, dict[str, Array]]:
    """Paint one chunk: uint8 [C, S, S, 3], and its points, boxes and attributes."""
    head, u = Head(f), f["u"]
    place = _Placement(head.outline, f, size)
    p, drawn = head.person, head.drawn[:, None]
    tone = p[:, N + 9, None]
    skin = (f32((244, 208, 180)) * (1 - tone) + f32((104, 66, 46)) * tone) * (
        1 + f32((0.03, -0.01, -0.04)) * (2 * p[:, N + 10, None] - 1)
    )
    style = np.where(tone[:, 0] > 0.6, 0, p[:, N + 11] * len(HAIR)).astype(int)
    grey = np.clip((head.age - 42) / 25 + 0.6 * (p[:, N + 12] - 0.5), 0, 1)[:, None]
    hair = HAIR[style] * (1 - grey) + f32((196, 196, 200)) * grey
    lights = f32(f["lights"])

    layers, one = _layers(head), np.ones((CHUNK, 1), np.float32)
    centre = head.outline.mean(2, keepdims=True)
    ink = -0.8 * skin * drawn
    details = [(head.outline, ink), (centre + (head.outline - centre) * 0.95, -ink)]
    details += _features(head, f, skin, hair, lights[:, 2:])
    raster = Raster([(contour, one) for layer in layers for contour in layer] + details, place, size)
    ends = np.cumsum([len(layer) for layer in layers])

    scenes, noise = _scenery(size)
    picture = np.empty((3, size, CHUNK, size), np.float32)
    for k in range(CHUNK):
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
    for k in range(CHUNK):
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
