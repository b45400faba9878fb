"""FERET: seven pictures each of 200 people in small grey crops (Phillips et al., TPAMI 2000)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers._labelled import (
    EXPRESSION,
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
    code: dict(zip(("yaw", "light", "expression"), row.split(), strict=True))
    for code, row in {
        "ba": "0 usual neutral",
        "bd": "-25 usual neutral",
        "be": "-15 usual neutral",
        "bf": "15 usual neutral",
        "bg": "25 usual neutral",
        "bj": "0 usual other",
        "bk": "0 other neutral",
    }.items()
}


@dataclass(frozen=True)
class FERET:
    """The subset ba, bd, be, bf, bg, bj, bk of the Facial Recognition Technology data set.

    Layout: ``labels.csv`` beside the images ``001_ba.jpg`` … ``200_bk.jpg``, 40×40 grey pixels. A row an image:
    ``file, person, code, yaw, light, expression``.

    Labels: ``identity`` ("feret-001"); ``yaw`` in degrees, as the protocol names it: 25 (bd), 15 (be), −15 (bf), −25
    (bg), else 0, with the sign opposite to the file's: positive where the nose points to the picture's right edge;
    ``illumination`` (usual; other of bk); ``expression``: neutral, and null of bj, of which nothing is published but
    that it is another one; ``source`` (feret), ``modality`` (photo).

    Split: a tenth of the faces, by whole people, is val and the rest train.

    Licence: for research, by agreement. Source: https://www.nist.gov/itl/products-and-services/color-feret-database
    """

    name = "feret"
    folder = "controlled/feret"
    verified = True
    about = "FERET: 1,400 crops of 200 people at five angles to 25 degrees (Phillips et al. 2000)"
    layout = (
        "labels.csv (file, person, code, yaw, light, expression) beside the images 001_ba.jpg to 200_bk.jpg; obtain "
        "them from https://www.nist.gov/itl/products-and-services/color-feret-database"
    )

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        return Plan({"expression": EXPRESSION})

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of ``labels.csv``, in its order; `root` is its folder.

        Raises:
            PolyfaceError: the file is missing or lacks a column.
        """
        yield from trained_on(labelled_faces(root, self, _COLUMNS, _labels))


def _labels(fields: Fields) -> dict[str, Any]:
    """The labels of a row; ValueError says what is wrong with it, or which of them contradict each other."""
    who, seen = person(fields, "feret", 200, digits=3), yaw(fields)
    code = look_up(fields, "code", _CODES)
    agree(fields, "code", code | {"file": f"{who[6:]}_{fields['code']}.jpg"})
    return {
        "identity": who,
        "yaw": seen,
        "illumination": code["light"],
        "expression": look_up(fields, "expression", {"neutral": "neutral", "other": None}),
    }
