"""AR: 99 people in two sessions, with expressions and lights, in small grey crops (Martínez & Benavente 1998)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers._labelled import (
    EXPRESSION,
    LIGHT_FROM,
    SESSION,
    Fields,
    agree,
    labelled_faces,
    look_up,
    person,
    trained_on,
    yaw,
)
from polyface.data.writing import Plan, Record, Skipped

_COLUMNS = ("person", "session", "code", "yaw", "light", "expression")
_SERIES = (  # light and expression of the pictures of a session, in their order
    ("usual", "neutral"),
    ("usual", "smile"),
    ("usual", "anger"),
    ("usual", "scream"),
    ("picture right", "neutral"),
    ("picture left", "neutral"),
    ("both sides", "neutral"),
)
_CODES = {
    str(7 * (session - 1) + place): {"session": str(session), "yaw": "0", "light": light, "expression": expression}
    for session in (1, 2)
    for place, (light, expression) in enumerate(_SERIES, 1)
}
_LIGHTS = {  # illumination, and the side that is the brighter one
    "usual": ("none", "front"),
    "picture left": ("left", "left"),
    "picture right": ("right", "right"),
    "both sides": ("both", "front"),
}


@dataclass(frozen=True)
class AR:
    """The AR face data set without sunglasses and scarves.

    Layout: ``labels.csv`` beside the images ``001_01.jpg`` … ``099_14.jpg``, 43×60 grey pixels. A row an image:
    ``file, person, session, code, yaw, light, expression``; codes 1 to 7 are of the first session, 8 to 14 of the
    second, two weeks later.

    Labels: ``identity`` ("ar-001"); ``yaw`` (0); ``expression`` (neutral, smile, anger, scream); ``illumination``: the
    lights at the sides that are on (none, left, right, both), where left is the viewer's, as the pictures show it;
    ``source`` (ar), ``modality`` (photo). Columns of its own: ``session`` (1, 2) and ``light_from`` (left, front,
    right), front with none and with both.

    Split: a tenth of the faces, by whole people, is val and the rest train.

    Licence: for research, not to be redistributed. Source: https://www2.ece.ohio-state.edu/~aleix/ARdatabase.html
    """

    name = "ar"
    folder = "controlled/ar"
    verified = True
    about = "AR: 1,386 crops of 99 people with expressions and lights, in two sessions (Martínez & Benavente 1998)"
    layout = (
        "labels.csv (file, person, session, code, yaw, light, expression) beside the images 001_01.jpg to 099_14.jpg; "
        "obtain them from https://www2.ece.ohio-state.edu/~aleix/ARdatabase.html"
    )

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        return Plan({"expression": EXPRESSION, "session": SESSION, "light_from": LIGHT_FROM})

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of ``labels.csv``, in its order; `root` is its folder.

        Raises:
            PolyfaceError: the file is missing or lacks a column.
        """
        yield from trained_on(labelled_faces(root, self, _COLUMNS, _labels))


def _labels(fields: Fields) -> dict[str, Any]:
    """The labels of a row; ValueError says what is wrong with it, or which of them contradict each other."""
    who, seen = person(fields, "ar", 99, digits=3), yaw(fields)
    code = look_up(fields, "code", _CODES)
    agree(fields, "code", code | {"file": f"{who[3:]}_{fields['code']:0>2}.jpg"})
    illumination, side = _LIGHTS[code["light"]]
    return {
        "identity": who,
        "yaw": seen,
        "illumination": illumination,
        "light_from": side,
        "expression": code["expression"],
        "session": code["session"],
    }
