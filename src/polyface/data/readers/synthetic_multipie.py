"""A synthetic Multi-PIE: its names, sessions, cameras, lights and expressions, with drawn people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from polyface.data.readers.common import hash_order
from polyface.data.readers.multipie import CAMERAS, MultiPIE, Setting, Shot
from polyface.data.synthetic.rig import Album, View
from polyface.data.writing import Picture, Skipped
from polyface.errors import PolyfaceError

PEOPLE = 337
ATTENDANCE = {1: range(1, 250), 2: range(21, 224), 3: range(108, 338), 4: range(53, 292)}
"""Session → who came. The numbers of people are the published 249, 203, 230 and 239; who they are is not published, but
of the first 200 and of the other 137 as many come as all published counts of pictures ask for."""
_CAMERA = {camera: number for number, camera in enumerate(CAMERAS, 1)}


@dataclass(frozen=True)
class SyntheticMultiPIE(MultiPIE):
    """Multi-PIE with drawn people: 754,200 pictures that nobody has to obtain.

    Layout: none; the pictures are drawn when they are read, and nothing lies on the disk but the table made of them.
    Names, sessions, cameras, lights, expressions, labels, settings, counts and protocol are those of `multipie`, with
    ``source`` synthetic and paths below ``synthetic/``; who comes to which session is made up so that every published
    count of every setting holds. Of one person everything stays but the glasses; of one session the clothes; of one
    recording the expression's strength, and by how much (4 degrees at most) the head is turned away from ``yaw``. The
    flashes stand still in the room while the camera moves; the two cameras for surveillance see what those below them
    see. Faces fill the picture: take the whole picture as the box.

    Options beside those of `multipie`: ``people``, spread evenly over the 337 so that about three of five are trained
    on; ``share`` of their pictures, chosen by the SHA-1 of the name, with all that may be of a gallery; ``size`` of the
    square pictures in pixels; ``seed``, another of which draws other people.

    Labels: those of `multipie`. Licence: that of Polyface. Source: `polyface.data.synthetic`.
    """

    people: int = PEOPLE
    share: float = 1.0
    size: int = 64
    seed: int = 0

    name = "synthetic-multipie"
    source: ClassVar[str] = "synthetic"
    drawn: ClassVar[bool] = True
    verified = True
    about = "synthetic Multi-PIE: the names, settings and counts of multipie with drawn people"
    layout = "nothing: its pictures are drawn"
    protocol: ClassVar[dict[str, Any]] = {"name": "gallery-probe", "reader": "synthetic-multipie"}

    def _found(self, root: Path, setting: Setting) -> Iterator[tuple[str, Shot | Skipped]]:
        """The shots of the setting, of the people and the share of them that are chosen, by path."""
        ranges = {"people": (1, PEOPLE), "share": (0, 1), "size": (16, 1024), "seed": (0, 2**32)}
        for option, (low, high) in ranges.items():
            if not low <= (value := getattr(self, option)) <= high:
                raise PolyfaceError(f"reader '{self.name}': {option} is {value}; expected {low} to {high}")
        chosen = {1 + number * PEOPLE // self.people for number in range(self.people)}
        below = round(self.share * 2**32)
        for session, people in ATTENDANCE.items():
            for shot in chain.from_iterable(setting.shots(subject, session) for subject in people if subject in chosen):
                if self.share == 1 or shot.plain or int(hash_order(shot.name)[:8], 16) < below:
                    yield f"synthetic/{shot.folder}/{shot.name}.png", shot

    def _images(self, root: Path, shots: dict[str, Shot]) -> Iterable[Picture]:
        views = [
            View(s.subject, s.session, s.recording, s.light, _CAMERA[s.camera], s.yaw, s.flash, s.expression)
            for s in shots.values()
        ]
        album = Album(views, self.size, self.seed)
        return map(album.picture, range(len(views)))
