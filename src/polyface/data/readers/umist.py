"""UMIST: twenty people who turn from profile to the front (Graham & Allinson 1998)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers._labelled import Fields, agree, labelled_faces, person, trained_on
from polyface.data.writing import Plan, Record, Skipped
from polyface.errors import short
from polyface.schema import Column

_FRAMES = 19


@dataclass(frozen=True)
class UMIST:
    """The UMIST (now Sheffield) face data set, nineteen frames a person.

    Layout: ``labels.csv`` beside the images ``01_01.jpg`` … ``20_19.jpg``, 74×90 grey pixels. A row an image: ``file,
    person, frame``.

    Labels: ``identity`` ("umist-01"), ``source`` (umist), ``modality`` (photo), and a column of its own: ``frame``, 1
    to 19 in the order of the turn. Everyone looks to the picture's right edge or to the front. No angles are published,
    and 6, 18 and 20 turn back again, so that the frame gives none either: ``yaw`` and ``pose`` are null.

    Split: a tenth of the faces, by whole people, is val and the rest train.

    Licence: for research. Source: https://www.visioneng.org.uk/datasets/
    """

    name = "umist"
    folder = "controlled/umist"
    verified = True
    about = "UMIST: 380 frames of 20 people who turn from profile to the front, without angles (Graham & Allinson 1998)"
    layout = (
        "labels.csv (file, person, frame) beside the images 01_01.jpg to 20_19.jpg; obtain them from "
        "https://www.visioneng.org.uk/datasets/"
    )

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        return Plan({"frame": Column("number", mirror="none")})

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of ``labels.csv``, in its order; `root` is its folder.

        Raises:
            PolyfaceError: the file is missing or lacks a column.
        """
        yield from trained_on(labelled_faces(root, self, ("person", "frame"), _labels))


def _labels(fields: Fields) -> dict[str, Any]:
    """The labels of a row; ValueError says what is wrong with it."""
    who, frame = person(fields, "umist", 20), fields["frame"]
    if not (frame.isdecimal() and 1 <= int(frame) <= _FRAMES):
        raise ValueError(f"frame is '{short(frame)}', expected a number from 1 to {_FRAMES}")
    agree(fields, "frame", {"file": f"{who[6:]}_{int(frame):02d}.jpg"})
    return {"identity": who, "frame": int(frame)}
