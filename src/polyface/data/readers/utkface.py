"""UTKFace: faces of 0 to 116 years, whose file names say age, gender and race (Zhang, Song & Qi, CVPR 2017)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyface.data.readers.common import Images, cut, demand
from polyface.data.writing import Plan, Record
from polyface.schema import VOCABULARIES, Column, age_classes

RACES = ("white", "black", "asian", "indian", "other")
"""The words of the numbers 0 to 4."""
_FOLDER = "UTKFace"
_NAME = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_(?P<date>\d{14,17}) ?\.?")
_OLDEST = 120
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UTKFace:
    """UTKFace.

    Layout: the folder ``UTKFace`` of images ``<age>_<gender>_<race>_<date>.jpg.chip.jpg`` (aligned and cropped), or of
    ``<age>_<gender>_<race>_<date>.jpg`` (in the wild): years from 0 to 116, 0 male or 1 female, 0 white, 1 black,
    2 Asian, 3 Indian or 4 other, and when the picture was collected, to the millisecond. A part of them is read as it
    is. An image of another name, as a few published ones have that lack a number, is a face without these labels, and
    a line of the log tells how many there are.

    Labels: ``age``, ``gender``, ``age_group`` (of the schema's eight, by the age), its own ``race``, in the words of
    the authors' table. They were told by an algorithm (DEX) and corrected by people, so an age is what a face looks
    like. ``source`` (utkface), ``modality`` (photo).

    Split: none is published. Test is the fifth of the images whose names have the smallest SHA-1, val the tenth of the
    rest that come next; a name counts up to its first point, so that an image is in one part whether it is cropped or
    not. Whether two images show one person is not known.

    Licence: for non-commercial research. Source: https://susanqq.github.io/UTKFace/
    """

    name = "utkface"
    verified = True
    about = "UTKFace: 23,708 faces of 0 to 116 years with age, gender and race (Zhang et al. 2017)"
    layout = (
        "the folder UTKFace of images <age>_<gender>_<race>_<date>.jpg.chip.jpg; obtain it from "
        "https://susanqq.github.io/UTKFace/"
    )

    def plan(self, root: Path) -> Plan:
        """The column of its own."""
        return Plan({"race": Column("words", RACES)})

    def records(self, root: Path) -> Iterator[Record]:
        """One face an image, by name; `root` is the folder of ``UTKFace``, or is it.

        Raises:
            PolyfaceError: the folder is missing, or holds no image.
        """
        root = demand(Path(root), self)
        images = Images(root / _FOLDER if (root / _FOLDER).is_dir() else root, 1, self)
        told = {path: _labels(path) for path in images.paths}
        if unknown := [path for path, labels in told.items() if not labels]:
            what = "%s: %d of %d images are not called <age>_<gender>_<race>_<date> and have no label; the first is %s"
            _log.warning(what, images.folder, len(unknown), len(told), unknown[0])
        common = {"source": self.name, "modality": "photo", "split": "train"}
        faces = [Record(images.folder / path, path, path, common | labels) for path, labels in told.items()]
        cut(faces, "test", _key, 0.2)
        cut(faces, "val", _key)
        yield from faces


def _key(face: Record) -> str:
    """The name that a face is known by, whatever its picture's form."""
    return face.path.partition(".")[0]


def _labels(path: str) -> dict[str, Any]:
    """What a file's name says; nothing where it has another form."""
    found = _NAME.match(path)
    if not found or (age := int(found["age"])) > _OLDEST:
        return {}
    words = VOCABULARIES["age_group"]
    return {
        "age": age,
        "age_group": words[int(age_classes(np.array([age]), words)[0])],
        "gender": VOCABULARIES["gender"][int(found["gender"])],
        "race": RACES[int(found["race"])],
    }
