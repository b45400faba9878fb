"""CMU PIE: pose, illumination and expression of 68 people, in small grey crops (Sim, Baker & Bsat, TPAMI 2003)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers._labelled import (
    EXPRESSION,
    LIGHT_FROM,
    LIGHT_SIDE,
    Fields,
    labelled_faces,
    light_from,
    look_up,
    number,
    person,
    yaw,
)
from polyface.data.readers.common import check_draw, check_word, hash_order
from polyface.data.writing import Plan, Record, Skipped
from polyface.errors import short
from polyface.schema import Column

CAMERAS = {"c05": 22.5, "c07": 0.0, "c09": 0.0, "c27": 0.0, "c29": -22.5}
"""The cameras, with the yaw of a face that they see, as the schema counts it."""
FLASHES = (*(f"f{flash:02d}" for flash in range(2, 23)), "none")
"""The words of `illumination`, in the order of the classes."""
_PEOPLE, _VALIDATED = 68, 6
_SPLITS = ("halves", "none")
_COLUMNS = ("person", "camera", "yaw", "flash", "light_side", "room_light", "expression", "note")
_UPRIGHT = {"": True, "upside down": False}
_NAME = re.compile(r"(\d\d)/(c\d\d)_\d{3}\.\w+")


@dataclass(frozen=True)
class PIE:
    """CMU Pose, Illumination and Expression: the five cameras near the front.

    Layout: ``labels.csv`` beside a folder a person, ``01`` … ``68``, of images ``cCC_III.jpg`` (camera, place in the
    person's series): the public crops of 32×32 grey pixels. A row an image: ``file, person, camera, yaw, flash,
    light_side, room_light, expression, note``. The crops came without labels; those of the file were worked out from
    the order of the images, which is the same for everyone.

    Labels: ``identity`` ("pie-01"); ``yaw``, by the rig's plan and not measured: 22.5 degrees by c05, −22.5 by c29,
    else 0 (c07 looks from below, c09 from above), with the sign opposite to the file's, as everywhere here positive
    where the nose points to the picture's right edge; ``illumination`` (f02 … f22, the one flash that fired, or none)
    and ``expression`` (neutral, blink, smile, talk). Columns of its own: ``camera``, of which a mirror swaps c05 and
    c29; ``room_light`` (no, yes); ``light_side``, null without a flash: ln of the brightness of the right half over
    that of the left one under this flash, seen by c27 without room light, mean of all people; ``light_from`` (left,
    front, right): the same in words, front also where the room alone gives light; ``instant``. Also ``source`` (pie)
    and ``modality`` (photo).

    ``instant`` names the moment: pictures that have it in common show one person at one time by several cameras (same
    flash, room light and expression, and of several such pictures by each camera the same place in the order of the
    files). So the two neutral series under room light alone are two instants: where one camera took both, the pictures
    differ. The six of somebody who talks are all one, since which of them belong together is not known. Flashes of a
    series fired within a second; they are instants of their own.

    The rig is symmetric: mirrored, a face under f02, f03, f04, f05, f06, f07, f10, f18, f19 is like one under f17, f16,
    f15, f14, f12, f09, f13, f22, f21 and the reverse, and f08, f11, f20 stay. A task on ``illumination`` that mirrors
    faces says so (``mirror: {f02: f17, …}``): the column itself takes the words of any set, and declares nothing.

    Twenty-one crops of person 62 by c29 are upside down and, turned upright, end above the mouth (``note``). They are
    left as they are, in no part.

    Split, by the option ``split``. ``halves``, the default: the 68 people in two halves by the SHA-1 of ``identity``;
    with an even ``draw`` the first is trained on and the second is test, with an odd one the reverse. The 6 people of
    smallest SHA-1 in the half that is trained on are val, its other 28 train. ``none``: no part.

    Licence: for research. Source: http://www.cad.zju.edu.cn/home/dengcai/Data/FaceData.html (crops) and
    https://www.ri.cmu.edu/project/pie-database/ (the data set).
    """

    split: str = "halves"
    draw: int | str = 0

    name = "pie"
    verified = True
    about = "CMU PIE: 11,554 crops of 68 people by 5 cameras under 21 flashes, with expressions (Sim et al. 2003)"
    layout = (
        "labels.csv (file, person, camera, yaw, flash, light_side, room_light, expression, note) beside the folders "
        "01 to 68 of images cCC_III.jpg; obtain the crops from http://www.cad.zju.edu.cn/home/dengcai/Data/FaceData.html"
    )

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        return Plan(
            {
                "camera": Column("words", tuple(CAMERAS), mirror=(4, 1, 2, 3, 0)),
                "room_light": Column("words", ("no", "yes")),
                "light_side": LIGHT_SIDE,
                "light_from": LIGHT_FROM,
                "expression": EXPRESSION,
                "instant": Column("words"),
            }
        )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of ``labels.csv``, in its order; `root` is its folder.

        Raises:
            PolyfaceError: the file is missing or lacks a column, or ``split`` or ``draw`` is none that is known.
        """
        check_word(self, "split", self.split, _SPLITS)
        draw = check_draw(self, self.draw)
        parts = _halves(draw) if self.split == "halves" else {}
        shots: Counter[tuple[str, ...]] = Counter()  # of each camera, so far

        def parse(fields: Fields) -> dict[str, Any]:
            labels, upright = _labels(fields), look_up(fields, "note", _UPRIGHT)
            who, camera, flash, room, face = (
                labels[key] for key in ("identity", "camera", "illumination", "room_light", "expression")
            )
            shots[who, camera, flash, room, face] += 1
            shot = 0 if face == "talk" else shots[who, camera, flash, room, face]
            part = parts.get(who) if upright else None
            return labels | {"instant": f"{who} {flash} {room} {face} {shot}", "split": part}

        yield from labelled_faces(root, self, _COLUMNS, parse)


def _halves(draw: int) -> dict[str, str]:
    """The part of each person."""
    people = sorted((f"pie-{place:02d}" for place in range(1, _PEOPLE + 1)), key=hash_order)
    first, second = people[: _PEOPLE // 2], people[_PEOPLE // 2 :]
    trained, tested = (second, first) if draw % 2 else (first, second)
    return dict.fromkeys(tested, "test") | dict.fromkeys(trained, "train") | dict.fromkeys(trained[:_VALIDATED], "val")


def _labels(fields: Fields) -> dict[str, Any]:
    """The labels of a row; ValueError says what is wrong with it, or which of them contradict each other."""
    who, seen = person(fields, "pie", _PEOPLE), yaw(fields)
    camera = look_up(fields, "camera", {name: name for name in CAMERAS})
    flash = look_up(fields, "flash", {"": "none"} | {name: name for name in FLASHES[:-1]})
    room = look_up(fields, "room_light", {"0": "no", "1": "yes"})
    named = _NAME.fullmatch(fields["file"])
    if not named or (f"pie-{named[1]}", named[2]) != (who, camera):
        raise ValueError(f"file is '{short(fields['file'])}', expected {who[4:]}/{camera}_ and three digits")
    if seen != CAMERAS[camera]:
        raise ValueError(f"yaw is {fields['yaw']}, but camera {camera} sees {0 - CAMERAS[camera]:g}")
    if (flash, room) == ("none", "no"):
        raise ValueError("no flash and room_light 0: there is no light to see by")
    if flash == "none" and fields["light_side"]:
        raise ValueError(f"light_side is {short(fields['light_side'])}, but no flash fired")
    side = None if flash == "none" else number(fields, "light_side", 10)
    return {
        "identity": who,
        "camera": camera,
        "yaw": seen,
        "illumination": flash,
        "room_light": room,
        "light_side": side,
        "light_from": None if side is None else light_from(side),
        "expression": look_up(fields, "expression", {word: word for word in ("neutral", "blink", "smile", "talk")}),
    }
