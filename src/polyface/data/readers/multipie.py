"""CMU Multi-PIE: pose, illumination and expression of 337 people (Gross, Matthews, Cohn, Kanade & Baker 2010)."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product, starmap
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from polyface.data.folders import look
from polyface.data.readers._labelled import EXPRESSION, LIGHT_FROM, LIGHT_SIDE, SESSION, light_from
from polyface.data.readers.common import Identification, check_word, demand, held_out, lacking, without_ending
from polyface.data.writing import Picture, Plan, Record, Skipped
from polyface.errors import PolyfaceError, nearest, short
from polyface.schema import Column

CAMERAS = {
    **{"11_0": -90.0, "12_0": -75.0, "09_0": -60.0, "08_0": -45.0, "13_0": -30.0, "14_0": -15.0, "05_1": 0.0},
    **{"05_0": 15.0, "04_1": 30.0, "19_0": 45.0, "20_0": 60.0, "01_0": 75.0, "24_0": 90.0},
    **{"08_1": -45.0, "19_1": 45.0},
}
"""The cameras with the yaw of a face that they see: 13 at the height of the head, and two for surveillance."""
SURVEILLANCE = ("08_1", "19_1")
RECORDINGS = {
    1: ("neutral", "smile"),
    2: ("neutral", "surprise", "squint"),
    3: ("neutral", "smile", "disgust"),
    4: ("neutral", "neutral", "scream"),
}
"""Session → the expressions of its recordings 01, 02, …"""
LIGHTS = range(20)
UNLIT = (0, 19)
"""The first and the last picture of a recording are taken without a flash."""
SIDES = (
    *(0.66, 0.74, 0.70, 0.56, 0.39, 0.21, 0.01, -0.17, -0.33, -0.49, -0.64, -0.68, -0.67),
    *(0.43, 0.35, 0.04, -0.32, -0.43),
)
"""Of flashes 01 to 18 ln of the right half's brightness over the left one's: the mean of 20 people by camera 05_1."""
_VIEWPOINTS = tuple(f"{yaw:g}" for yaw in sorted({*CAMERAS.values()}))
_LISTS = ("all", "other instants")
_NAME = re.compile(r"(\d{3})_(\d\d)_(\d\d)_(\d\d)(\d)_(\d\d)")
_TREE = re.compile(r"session\d+/multiview/[^/]+/[^/]+/[^/]+$")
_log = logging.getLogger(__name__)


class Shot(NamedTuple):
    """What the name of a picture says."""

    subject: int
    session: int
    recording: int
    camera: str
    light: int

    @classmethod
    def read(cls, name: str) -> Shot:
        """The shot of a name without its ending, 001_01_01_051_00; ValueError says what is wrong with it."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError("its name is not subject_session_recording_camera_light, such as 001_01_01_051_00")
        subject, session, recording, rail, place, light = found.groups()
        camera, takes = f"{rail}_{place}", RECORDINGS.get(int(session))
        if int(subject) == 0:
            raise ValueError("subject is 000, expected a number from 001")
        if takes is None:
            raise ValueError(f"session is {session}, expected 01 to 04")
        if not 1 <= int(recording) <= len(takes):
            raise ValueError(f"recording is {recording}, expected 01 to {len(takes):02d} of session {session}")
        if camera not in CAMERAS:
            raise ValueError(f"camera is '{camera}'; {nearest(camera, CAMERAS)}")
        if int(light) not in LIGHTS:
            raise ValueError(f"light is {light}, expected 00 to 19")
        return cls(int(subject), int(session), int(recording), camera, int(light))

    @property
    def name(self) -> str:
        camera = self.camera.replace("_", "")
        return f"{self.subject:03d}_{self.session:02d}_{self.recording:02d}_{camera}_{self.light:02d}"

    @property
    def folder(self) -> str:
        """Where it lies in the official tree."""
        return f"session{self.session:02d}/multiview/{self.subject:03d}/{self.recording:02d}/{self.camera}"

    @property
    def instant(self) -> str:
        """All cameras took their pictures of it at once."""
        return f"{self.subject:03d} {self.session:02d} {self.recording:02d} {self.light:02d}"

    @property
    def yaw(self) -> float:
        return CAMERAS[self.camera]

    @property
    def flash(self) -> int:
        """The number of the flash, 0 without one."""
        return 0 if self.light in UNLIT else self.light

    @property
    def expression(self) -> str:
        return RECORDINGS[self.session][self.recording - 1]

    @property
    def plain(self) -> bool:
        """Whether it is frontal and neutral, without flash: one for a gallery."""
        return self.camera == "05_1" and not self.flash and self.expression == "neutral"


@dataclass(frozen=True)
class Setting:
    """The pictures that a published evaluation takes, and how many of the people, by number, are trained on."""

    training: int
    cameras: Sequence[str]
    sessions: Collection[int] = (1, 2, 3, 4)
    lights: Sequence[int] = LIGHTS
    expressions: Collection[str] = ("neutral",)

    def recordings(self, session: int) -> list[int]:
        """Which of a session's recordings."""
        takes = RECORDINGS[session] if session in self.sessions else ()
        return [number for number, expression in enumerate(takes, 1) if expression in self.expressions]

    def shots(self, subject: int, session: int) -> Iterator[Shot]:
        """All of somebody who came to a session."""
        return starmap(Shot, product([subject], [session], self.recordings(session), self.cameras, self.lights))

    def holds(self, shot: Shot) -> bool:
        """Whether a picture is one of them."""
        return (
            shot.recording in self.recordings(shot.session)
            and shot.camera in self.cameras
            and shot.light in self.lights
        )


def _within(degrees: float) -> list[str]:
    """The cameras at the height of the head that see a face turned by no more than that."""
    return [camera for camera, yaw in CAMERAS.items() if abs(yaw) <= degrees and camera not in SURVEILLANCE]


SETTINGS = {
    "I": Setting(200, _within(45), lights=(0,)),
    "II": Setting(100, _within(45), sessions=(1,)),
    "III": Setting(150, [*CAMERAS], sessions=(1,)),
    "IV": Setting(200, _within(60)),
    "V": Setting(200, _within(90)),
    "entire": Setting(200, [*CAMERAS], expressions=EXPRESSION.vocabulary),
}


@dataclass(frozen=True)
class MultiPIE:
    """CMU Multi-PIE.

    Layout: pictures ``session01/multiview/001/01/05_1/001_01_01_051_00.png``: session, subject, recording and camera of
    the folders, and subject, session, recording, camera and light of the name; or pictures of such names in any
    folders. Where there is a folder ``multiview``, all others (``highres``, ``movie``) are passed over. A part of the
    pictures is read as it is. A picture whose name is no such name, or contradicts the official folder that it lies in,
    or is that of another picture too, is skipped.

    Labels: all come from the name. ``identity`` ("multipie-001"); ``yaw``, by the plan of the rig: -90 to 90 degrees in
    steps of 15, positive where the nose points to the picture's right edge, so 90 by camera 24_0 and -90 by 11_0;
    ``illumination``: the number of the flash, 01 to 18, or none (lights 00 and 19), so 19 words; ``expression``:
    neutral, smile, surprise, squint, disgust, scream. Columns of its own: ``viewpoint``, the yaw as a word: 15 cameras
    have 13, since the two for surveillance, 08_1 and 19_1, count as -45 and 45; ``pose_group``: left (-90 to -45),
    frontal (-30 to 30), right (45 to 90), five cameras each; ``light_side`` and ``light_from``, as `pie` has them, of
    camera 05_1 alone; ``session`` (1 to 4); ``instant``, which the pictures of one moment have in common (subject,
    session, recording, light). Also ``source`` and ``modality`` (photo). A mirror swaps flashes 01 and 13, …, 06 and
    08, 14 and 18, 15 and 17: a task on ``illumination`` that mirrors faces says so by its ``mirror``.

    Only pictures of camera 05_1 were there to be looked at. They show that flash 01 lights the right half of the
    picture; that it hangs beside camera 11_0, which therefore sees the left cheek, is what others tell of the rig.

    Split: by the option ``setting``, which also says what pictures are read. The first people, by number, are trained
    on and the others are test; of those trained on, the share ``validation`` (20 of 200) of smallest SHA-1 is val.

    ======== ======== ======= ====== =========== ============================= ================= =======
    setting  sessions cameras lights expressions trained on: people, pictures  gallery, probes   in all
    ======== ======== ======= ====== =========== ============================= ================= =======
    I        4        7       1      1           200, 5,383                    137, 2,600         8,120
    II       1        7       20     1           100, 14,000                   149, 20,711       34,860
    III      1        15      20     1           150, 45,000                   99, 29,601        74,700
    IV       4        9       20     1           200, 138,420                  137, 70,243      208,800
    V        4        13      20     1           200, 199,940                  137, 101,523     301,600
    entire   4        15      20     6           200, 498,900                  137, 255,163     754,200
    ======== ======== ======= ====== =========== ============================= ================= =======

    The cameras of I and II see faces turned by 45 degrees at most, those of IV by 60, those of V by 90; surveillance is
    in III and entire alone. The light of I is 00. Entire is that of Yin & Liu (2018), the others are of earlier papers.

    Protocol: a gallery of one picture a person, the first one that is frontal and neutral without flash, in which all
    other pictures are sought; with ``list: other instants`` all but those that other cameras took in the same moment.

    Licence: by agreement with Carnegie Mellon University, for research.
    Source: http://www.cs.cmu.edu/afs/cs/project/PIE/MultiPie/Multi-Pie/Home.html
    """

    setting: str = "entire"
    validation: float = 0.1

    name = "multipie"
    folder: ClassVar[str] = "controlled/multipie"  # or multipie
    source: ClassVar[str] = "multipie"
    verified = True  # 396 frontal neutral pictures of 20 people; not other cameras, sessions and expressions
    about = "Multi-PIE: 754,200 pictures of 337 people by 15 cameras under 19 lights (Gross et al. 2010)"
    layout = (
        "pictures such as session01/multiview/001/01/05_1/001_01_01_051_00.png, or of such names in any folder; obtain "
        "them from http://www.cs.cmu.edu/afs/cs/project/PIE/MultiPie/Multi-Pie/Home.html"
    )
    protocol: ClassVar[dict[str, Any]] = {"name": "gallery-probe", "reader": "multipie"}

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        return Plan(
            {
                "viewpoint": Column("words", _VIEWPOINTS, mirror=tuple(reversed(range(len(_VIEWPOINTS))))),
                "pose_group": Column("words", ("left", "frontal", "right")),
                "light_side": LIGHT_SIDE,
                "light_from": LIGHT_FROM,
                "expression": EXPRESSION,
                "session": SESSION,
                "instant": Column("words"),
            }
        )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a picture of the setting, by path.

        Raises:
            PolyfaceError: there is no picture of the setting, or an option is none that is known.
        """
        rows = self._chosen(root)
        shots = {path: shot for path, shot in rows if isinstance(shot, Shot)}
        parts, images = self._parts(shots.values()), iter(self._images(root, shots))
        for path, shot in rows:
            if isinstance(shot, Skipped):
                yield shot
            else:
                yield Record(next(images), path, path, self._labels(shot) | {"split": parts[shot.subject]})

    def searches(self, root: Path, part: str, list: str = "all") -> dict[str, Identification]:
        """Gallery and probes of the people of a part, by the paths that a table has.

        People without a picture for the gallery are left out, and counted in a line of the log.

        Raises:
            PolyfaceError: as `records`; nobody of the part has a picture for the gallery; an unknown `list`.
        """
        check_word(self, "list", list, _LISTS)
        shots = {path: shot for path, shot in self._chosen(root) if isinstance(shot, Shot)}
        parts = self._parts(shots.values())
        mine = sorted((shot, path) for path, shot in shots.items() if parts[shot.subject] == part)
        gallery: dict[int, tuple[Shot, str]] = {}
        for shot, path in mine:
            if shot.plain:
                gallery.setdefault(shot.subject, (shot, path))
        wanted = "frontal neutral picture without flash for a gallery"
        if not gallery:
            raise PolyfaceError(f"{root}: nobody of {part} has a {wanted}; add pictures of camera 05_1")
        if absent := sorted({shot.subject for shot, _ in mine} - gallery.keys()):
            told = f"{len(absent)} people of {part}, such as {absent[0]:03d}"
            _log.warning("%s: left %s, out of the search: they have no %s", root, told, wanted)
        probes = [
            path
            for shot, path in mine
            if shot.subject in gallery
            and gallery[shot.subject][1] != path
            and (list == "all" or gallery[shot.subject][0].instant != shot.instant)
        ]
        return {"": Identification([path for _, path in gallery.values()], probes)}

    def _found(self, root: Path, setting: Setting) -> Iterator[tuple[str, Shot | Skipped]]:
        """The pictures of a setting by their paths, with what their names say, and those to be skipped."""
        files = look(demand(Path(root), self)).whole().files
        seen: dict[Shot, str] = {}
        for file in [file for file in files if "multiview" in file.parts] or files:
            path = file.as_posix()
            try:
                shot = Shot.read(without_ending(file.name))
                place = _TREE.search(file.parent.as_posix())
                if place and place[0] != shot.folder:
                    raise ValueError(f"it lies in {short(place[0])}, but its name belongs into {shot.folder}")
                if shot in seen:
                    raise ValueError(f"a second picture of that name, after {seen[shot]}")
            except ValueError as error:
                yield path, Skipped(path, str(error))
            else:
                seen[shot] = path
                if setting.holds(shot):
                    yield path, shot

    def _images(self, root: Path, shots: dict[str, Shot]) -> Iterable[Picture]:
        """The picture of each of the shots by path, in their order."""
        return (Path(root) / path for path in shots)

    def _chosen(self, root: Path) -> list[tuple[str, Shot | Skipped]]:
        """What `_found` gives for the reader's setting; a line of the log for sessions that are missing."""
        check_word(self, "setting", self.setting, SETTINGS)
        setting = SETTINGS[self.setting]
        rows = list(self._found(root, setting))
        sessions = {shot.session for _, shot in rows if isinstance(shot, Shot)}
        if not rows:
            raise lacking(Path(root), f"no picture of setting {self.setting}", self)
        if absent := sorted({*setting.sessions} - sessions):
            told = ", ".join(map(str, absent))
            _log.warning("%s: without a picture of session %s, which setting %s has", root, told, self.setting)
        return rows

    def _parts(self, shots: Iterable[Shot]) -> dict[int, str]:
        """Who is in which part."""
        people = sorted({shot.subject for shot in shots})
        training = [number for number in people if number <= SETTINGS[self.setting].training]
        if not 0 <= self.validation < 1:
            raise PolyfaceError(f"reader '{self.name}': validation is {self.validation}; expected 0 to below 1")
        chosen = held_out([self._identity(number) for number in training], self.validation)
        parts = dict.fromkeys(people, "test") | dict.fromkeys(training, "train")
        return parts | {number: "val" for number in training if self._identity(number) in chosen}

    def _identity(self, subject: int) -> str:
        return f"{self.name}-{subject:03d}"

    def _labels(self, shot: Shot) -> dict[str, Any]:
        side = SIDES[shot.flash - 1] if shot.flash and shot.camera == "05_1" else None
        return {
            "source": self.source,
            "modality": "photo",
            "identity": self._identity(shot.subject),
            "yaw": shot.yaw,
            "pose_group": "left" if shot.yaw <= -45 else "right" if shot.yaw >= 45 else "frontal",
            "illumination": f"{shot.flash:02d}" if shot.flash else "none",
            "expression": shot.expression,
            "viewpoint": f"{shot.yaw:g}",
            "light_side": side,
            "light_from": light_from(side or 0.0) if shot.camera == "05_1" else None,
            "session": str(shot.session),
            "instant": f"{self.name}-{shot.instant}",
        }
