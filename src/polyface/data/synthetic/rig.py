"""A photographer's rig of synthetic people: several cameras at once, flashes that fire one after the other.

What belongs to the person, to the day, to the recording and to the single picture is drawn separately, so that one
person is the same face in all pictures, wears the same clothes for a day, and holds one expression for a recording.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyface.data.synthetic.head import CHUNK, Array, N
from polyface.data.synthetic.paint import chunk

# Where the flashes stand, from the middle camera: degrees to the viewer's right, degrees up. The first 13 hang beside
# the cameras at the height of the head, 15 degrees apart; five more hang above.
FLASHES: tuple[tuple[float, float], ...] = (
    *((15.0 * (7 - number), 0.0) for number in range(1, 14)),
    *((50.0, 40.0), (28.0, 40.0), (0.0, 40.0), (-28.0, 40.0), (-50.0, 40.0)),
)
# Ambient light and the strength of the directed light: of a flash, and of the room's lamps, which hang above.
_FLASH, _ROOM = (0.30, 0.80), (0.42, 0.36)
_LAMPS = (0.0, 60.0)
_UNSTEADY = 4.0  # degrees that a head may be turned away from where it should be, either way
_TILT = 4.0  # degrees of roll, either way
_KEPT = 8  # chunks of pictures
_RIG = 0x1216  # draws other people than those of `render`


class View(NamedTuple):
    """One picture. day, take, shot: which of the person's days, of the day's recordings and of a camera's pictures of a
    recording it is. camera: any number of its own; yaw: degrees of a head that looks into the middle camera, positive
    where the nose points to the picture's right edge. flash: 1 to 18, or 0 without. expression: a word of `MOODS`."""

    person: int
    day: int
    take: int
    shot: int
    camera: int
    yaw: float
    flash: int
    expression: str


def light(flash: int, yaw: float) -> tuple[float, ...]:
    """Ambient light, the directed light's strength and its direction (x right, y down, z towards the viewer) in the
    picture of a camera that sees the head turned by `yaw`: the lamps stand still, and turn with the head."""
    (ambient, strength), (across, up) = (_FLASH, FLASHES[flash - 1]) if flash else (_ROOM, _LAMPS)
    across, up = np.radians(across + yaw), np.radians(up)
    return ambient, strength, np.sin(across) * np.cos(up), -np.sin(up), np.cos(across) * np.cos(up)


def factors(views: Sequence[View], seed: int) -> dict[str, Any]:
    """What `paint.chunk` needs to know of 32 pictures."""
    u = np.empty((CHUNK, 24), np.float32)
    person = np.empty((CHUNK, 32), np.float32)
    bare, turned = np.empty((2, CHUNK))
    for row, view in enumerate(views):
        # Of the person, the day, the recording and the picture; the same whatever else is drawn with it.
        key = [_RIG, seed, view.person, view.day, view.take, view.shot, view.camera]
        person[row], day, moment, u[row] = (
            np.random.default_rng(key[:known]).random(size, np.float32)
            for known, size in ((3, 32), (4, 4), (5, 4), (7, 24))
        )
        u[row, 8:10] = moment[:2]  # strength and side of the expression
        u[row, 10] = 0.7 + 0.3 * u[row, 10]  # the face fills the picture
        u[row, 11:13] = 0.5 + 0.2 * (u[row, 11:13] - 0.5)
        u[row, 13:16] = day[:3]  # clothes
        u[row, 19] *= 0.4  # grain
        bare[row] = day[3]
        turned[row] = np.clip(view.yaw + _UNSTEADY * (2 * moment[2] - 1), -90, 90)
    return {
        "person": person,
        "male": person[:, N] < 0.7,
        "age": 18 + 45 * person[:, N + 1] ** 2,
        "u": np.minimum(u, 1 - 2.0**-24).astype(np.float32),
        "modality": np.full(CHUNK, "photo"),
        "expression": np.array([view.expression for view in views]),
        "glasses": np.where((person[:, -3] < 0.35) & (bare < 0.85), "yes", "no"),
        "yaw": turned,
        "roll": _TILT * (2 * u[:, 21] - 1),
        "lights": [light(view.flash, angle) for view, angle in zip(views, turned, strict=True)],
    }


def draw(views: Sequence[View], size: int, seed: int = 0) -> Array:
    """Pictures of views, uint8 RGB [N, S, S, 3]: heads that fill the picture, with some clutter behind them."""
    pictures = np.empty((len(views), size, size, 3), np.uint8)
    for start in range(0, len(views), CHUNK):
        some = list(views[start : start + CHUNK])
        drawn = chunk(factors(some + some[:1] * (CHUNK - len(some)), seed), size)[0]
        pictures[start : start + CHUNK] = drawn[: len(some)]
    return pictures


class Album:
    """Pictures of views that are drawn when they are looked at, some at a time, and not kept."""

    def __init__(self, views: Sequence[View], size: int, seed: int = 0) -> None:
        self._views, self._size, self._seed = views, size, seed
        self._drawn: OrderedDict[int, Array] = OrderedDict()
        self._lock = threading.Lock()

    def picture(self, number: int) -> Callable[[], Array]:
        """How picture `number` is looked at: uint8 RGB [S, S, 3]."""

        def look() -> Array:
            page, place = divmod(number, CHUNK)
            with self._lock:
                if page not in self._drawn:
                    self._drawn[page] = draw(self._views[page * CHUNK : (page + 1) * CHUNK], self._size, self._seed)
                    if len(self._drawn) > _KEPT:
                        self._drawn.popitem(last=False)
                picture: Array = self._drawn[page][place]
                return picture

        return look
