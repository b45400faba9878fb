"""IMM: six pictures each of 40 people (Nordstrøm, Larsen, Sierakowski & Stegmann 2004)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers._labelled import (
    EXPRESSION,
    LIGHT_FROM,
    Fields,
    agree,
    labelled_faces,
    look_up,
    person,
    trained_on,
    yaw,
)
from polyface.data.writing import Plan, Record, Skipped

_COLUMNS = ("person", "code", "yaw", "light", "expression")
_CODES = {
    code: dict(zip(("yaw", "light", "expression"), row, strict=True))
    for code, row in {
        "1": ("0", "diffuse", "neutral"),
        "2": ("0", "diffuse", "happy"),
        "3": ("30", "diffuse", "neutral"),
        "4": ("-30", "diffuse", "neutral"),
        "5": ("0", "spot picture right", "neutral"),
        "6": ("", "", "any"),
    }.items()
}
_LIGHTS = {  # illumination, and the side that is the brighter one
    "diffuse": ("diffuse", "front"),
    "spot picture right": ("spot", "right"),
    "": (None, None),
}


@dataclass(frozen=True)
class IMM:
    """The IMM Face Database, its images without the points.

    Layout: ``labels.csv`` beside the images ``01_1.jpg`` … ``40_6.jpg``, 64×48 pixels, of which the head takes the
    middle third. A row an image: ``file, person, code, yaw, light, expression``.

    Labels: ``identity`` ("imm-01"); ``yaw`` in degrees, about: −30 (code 3), 30 (code 4), else 0, with the sign
    opposite to the file's: positive where the nose points to the picture's right edge; ``illumination`` (diffuse; spot
    of code 5); ``expression`` (neutral; smile of code 2, happy in the file); ``source`` (imm), ``modality`` (photo).
    Code 6 is whatever the person liked: neither yaw, light nor expression is labelled. A column of its own:
    ``light_from`` (left, front, right): the spot is at the viewer's right, the diffuse light at neither side.

    Split: a tenth of the faces, by whole people, is val and the rest train.

    Licence: for research. Source: http://www2.imm.dtu.dk/~aam/datasets/datasets.html
    """

    name = "imm"
    folder = "controlled/imm"
    verified = True
    about = "IMM: 240 pictures of 40 people, at −30, 0 and 30 degrees (Nordstrøm et al. 2004)"
    layout = (
        "labels.csv (file, person, code, yaw, light, expression) beside the images 01_1.jpg to 40_6.jpg; obtain them "
        "from http://www2.imm.dtu.dk/~aam/datasets/datasets.html"
    )

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        return Plan({"expression": EXPRESSION, "light_from": LIGHT_FROM})

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of ``labels.csv``, in its order; `root` is its folder.

        Raises:
            PolyfaceError: the file is missing or lacks a column.
        """
        yield from trained_on(labelled_faces(root, self, _COLUMNS, _labels))


def _labels(fields: Fields) -> dict[str, Any]:
    """The labels of a row; ValueError says what is wrong with it, or which of them contradict each other."""
    who, seen = person(fields, "imm", 40), yaw(fields) if fields["yaw"] else None
    code = look_up(fields, "code", _CODES)
    agree(fields, "code", code | {"file": f"{who[4:]}_{fields['code']}.jpg"})
    illumination, side = _LIGHTS[code["light"]]
    return {
        "identity": who,
        "yaw": seen,
        "illumination": illumination,
        "light_from": side,
        "expression": look_up(fields, "expression", {"neutral": "neutral", "happy": "smile", "any": None}),
    }
