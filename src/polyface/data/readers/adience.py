"""Adience: photos of phones with age group and gender, in five folds of other people (Eidinger et al., TIFS 2014)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from polyface.data.readers._labelled import Fields, look_up, named_rows
from polyface.data.readers.celeba import image_folder
from polyface.data.readers.common import check_word, cut, demand, lacking, stable_path
from polyface.data.writing import Plan, Record, Skipped
from polyface.schema import Column

GROUPS = {
    "(0, 2)": "0-2",
    "(4, 6)": "4-6",
    "(8, 12)": "8-13",
    "(15, 20)": "15-20",
    "(25, 32)": "25-32",
    "(38, 43)": "38-43",
    "(48, 53)": "48-53",
    "(60, 100)": "60+",
}
"""The age words of the lists that name one of the eight published groups, with the name that these have in the
paper."""
_FOLDS = 5
_SPLITS = (*(str(fold) for fold in range(_FOLDS)), "none")
_FILES = {"aligned": "landmark_aligned_face", "faces": "coarse_tilt_aligned_face"}
_COLUMNS = ("user_id", "original_image", "face_id", "age", "gender")
_GENDERS = {"m": "male", "f": "female", "u": None, "": None}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adience:
    """Adience, with age and gender.

    Layout: ``fold_0_data.txt`` … ``fold_4_data.txt`` (a line that names the columns, then a face a line, separated by
    tabs: ``user_id, original_image, face_id, age, gender, …``) beside
    ``aligned/<user_id>/landmark_aligned_face.<face_id>.<original_image>`` or, where that folder is absent,
    ``faces/<user_id>/coarse_tilt_aligned_face.<face_id>.<original_image>``. Rows without an image are left out, and
    counted in a line of the log.

    Labels: ``age_group``, in the eight words of the paper: 0-2, 4-6, 8-13, 15-20, 25-32, 38-43, 48-53, 60+, with years
    between them that are in no group. The lists write (8, 12) and (60, 100) for two of them. The published protocol
    judges faces of these very words alone (17,424); the other words that the lists hold, such as (25, 23), (38, 42),
    (8, 23) or None, label nothing, and single ages such as 35 are ``age`` in years. A line of the log counts each of
    them. ``gender`` (null for u and where there is none), ``identity`` ("adience-2174", the number of the person),
    ``fold`` (0 to 4), ``source`` (adience), ``modality`` (photo).

    Split, by the option ``split``: the number of the fold that is test, by default 0. The others are trained on, and of
    them a tenth is val, by whole people, those of smallest SHA-1. ``none``: no part. Folds share nobody.

    Licence: for research, on request. Source: https://talhassner.github.io/home/projects/Adience/Adience-data.html
    """

    split: int | str = 0

    name = "adience"
    verified = False
    about = "Adience: 19,487 faces of 2,284 people with age group and gender, in five folds (Eidinger et al. 2014)"
    layout = (
        "fold_0_data.txt to fold_4_data.txt beside the folder aligned (or faces) of images "
        "<user_id>/landmark_aligned_face.<face_id>.<original_image>; obtain them from "
        "https://talhassner.github.io/home/projects/Adience/Adience-data.html"
    )

    def plan(self, root: Path) -> Plan:
        """The age groups, which are not the schema's."""
        return Plan({"age_group": Column("words", tuple(GROUPS.values()))})

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of the five lists, in their order; `root` is their folder.

        Raises:
            PolyfaceError: a list or the images are missing, a list lacks a column, or ``split`` is none of its words.
        """
        check_word(self, "split", str(self.split), _SPLITS)
        root = demand(Path(root), self)
        lists = [demand(root / f"fold_{fold}_data.txt", self) for fold in range(_FOLDS)]
        folder = image_folder(root, list(_FILES), self)
        found: list[Record | Skipped] = []
        absent, others = [], Counter[str]()
        for fold, file in enumerate(lists):
            for row in named_rows(file, _COLUMNS, partial(_face, _FILES[folder.name]), separator="\t"):
                if isinstance(row, Skipped):
                    found.append(row)
                    continue
                where, (path, age, labels) = row
                if not (folder / path).is_file():
                    absent.append(where)
                    continue
                others.update([] if labels["age_group"] else [age or "nothing"])
                part = None if self.split == "none" else "test" if str(fold) == str(self.split) else "train"
                labels |= {"source": self.name, "modality": "photo", "fold": fold, "split": part}
                found.append(Record(folder / path, where, path, labels))
        faces = [face for face in found if isinstance(face, Record)]
        if not faces:
            raise lacking(folder, "no image that the lists name", self)
        if absent:
            what = "%s: left out %d rows, which have no image in %s; the first is %s"
            _log.warning(what, root, len(absent), folder, absent[0])
        if others:
            told = ", ".join(f"{word} {count}" for word, count in others.most_common())
            _log.warning("%s: %d faces have an age that names no group: %s", root, others.total(), told)
        cut(faces, "val", lambda face: str(face.labels["identity"]))
        yield from found


def _face(kind: str, fields: Fields) -> tuple[str, str, dict[str, Any]]:
    """Path, age as it is written, and labels of a row; ValueError says what is wrong with it."""
    who, age = fields["face_id"], fields["age"]
    if not who.isdecimal():
        raise ValueError(f"face_id is '{who}', expected a number")
    path = stable_path(f"{fields['user_id']}/{kind}.{who}.{fields['original_image']}")
    return (
        path,
        age,
        {
            "identity": f"adience-{who}",
            "gender": look_up(fields, "gender", _GENDERS),
            "age_group": GROUPS.get(age),
            "age": int(age) if age.isdecimal() else None,
        },
    )
