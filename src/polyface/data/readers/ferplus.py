"""FER+: FER2013's faces with the votes of ten people on each one's emotion (Barsoum et al., ICMI 2016)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers._labelled import Fields, look_up, named_rows
from polyface.data.readers.common import Images, check_word, demand
from polyface.data.writing import Plan, Record, Skipped
from polyface.errors import short
from polyface.files import read_bytes
from polyface.schema import VOCABULARIES, Column

EMOTIONS = VOCABULARIES["expression"]
"""The eight words, in the order of the votes' columns."""
_NONE = ("unknown", "NF")  # what else is voted for; NF: not a face
_CONTEMPT = EMOTIONS.index("contempt")
_MODES = ("majority", "probability", "cross-entropy", "multi-target")
_COPIES = {"keep": (), "drop-earlier": ("train", "val", "test"), "drop-later": ("test", "val", "train")}
_PARTS = {
    "Training": ("train", "FER2013Train"),
    "PublicTest": ("val", "FER2013Valid"),
    "PrivateTest": ("test", "FER2013Test"),
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FERPlus:
    """FER+.

    Layout: ``fer2013new.csv`` (``Usage, Image name``, votes for the eight emotions, unknown and NF) beside ``data``
    with the folders ``FER2013Train``, ``FER2013Valid`` and ``FER2013Test`` of ``fer0000000.png``, 48×48, or beside
    these folders. Rows of images that are voted not to be a face name none: they, and rows whose image is absent, are
    left out, and a line of the log counts them. Four images are named by two rows each: both are faces, as they are in
    published counts. The votes of ``label.csv`` in each folder are not read: they are of another round, and differ from
    the list's in 1,602 rows, all but one of them of pictures that FER2013 holds more than once.

    Labels: ``emotion``, the word that more than half of the votes are for, by which networks of all modes are judged,
    and ``emotion_shares``, soft labels to learn from; ``source`` (ferplus), ``modality`` (photo). Both follow the
    authors' code; votes that nobody shares do not count. The option ``mode`` is about the shares:

    - ``probability``, the default, and ``cross-entropy``: the words with the most votes, until they hold three quarters
      of all votes, or are three; a face is left unlabelled where they hold half or less, are more than three, or where
      unknown or NF has the most. (The authors' mode "probability" draws one word anew from these shares each time.)
    - ``multi-target``: equal shares of the words with at least 30 % of the votes, if these hold more than half.
    - ``majority``: all of it for the word of ``emotion``.

    Seven words, as for Barros et al. (2019): a face whose first word is contempt is not labelled, and elsewhere its
    share is given to the others in proportion. With the option ``contempt`` there are eight.

    Split: the published usage; PublicTest is val, as in the authors' code. FER2013 holds many pictures more than once:
    288 test faces have an exact copy in train, 44 one in val, and 279 val faces one in train. ``copies: drop-earlier``
    takes train and val faces out of their part (they are in none) of which val or test has a copy, ``drop-later`` the
    val and test faces of which train or val has one; ``keep``, the default, leaves the parts as published.

    Licence: MIT for the labels; FER2013's pictures are for research. Source: https://github.com/microsoft/FERPlus
    """

    mode: str = "probability"
    contempt: bool = False
    copies: str = "keep"

    name = "ferplus"
    verified = True
    about = "FER+: 35,714 faces in the wild with ten votes each on eight emotions (Barsoum et al. 2016)"
    layout = (
        "fer2013new.csv beside the folder data of FER2013Train, FER2013Valid and FER2013Test with fer0000000.png, …; "
        "obtain it from https://github.com/microsoft/FERPlus"
    )

    def plan(self, root: Path) -> Plan:
        """The columns of its own."""
        words = EMOTIONS if self.contempt else EMOTIONS[:_CONTEMPT]
        return Plan({"emotion": Column("words", words), "emotion_shares": Column("distribution", words)})

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of ``fer2013new.csv`` that names an image, in its order; `root` is its folder.

        Raises:
            PolyfaceError: the list or the images are missing, the list lacks a column, or ``mode`` or ``copies`` is
            none of its words.
        """
        check_word(self, "mode", self.mode, _MODES)
        check_word(self, "copies", self.copies, _COPIES)
        root = demand(Path(root), self)
        file = demand(root / "fer2013new.csv", self)
        images = Images(
            root / "data" if (root / "data").is_dir() else root, 2, self, [part[1] for part in _PARTS.values()]
        )
        found = list(self._faces(file, images))
        if order := _COPIES[self.copies]:
            _part_copies([face for face in found if isinstance(face, Record)], order)
        yield from found

    def _faces(self, file: Path, images: Images) -> Iterator[Record | Skipped]:
        """Those of the list, with the published parts."""
        unnamed, absent = 0, []
        for row in named_rows(file, ("Usage", "Image name", *EMOTIONS, *_NONE), _face):
            if isinstance(row, Skipped):
                yield row
                continue
            where, (part, folder, name, votes) = row
            path = images.find(f"{folder}/{name}") if name else None
            if path is None:
                unnamed += not name
                absent += [where] if name else []
                continue
            major, shares = (shares_of(votes, mode, self.contempt) for mode in ("majority", self.mode))
            labels = {"source": self.name, "modality": "photo", "split": part, "emotion_shares": shares}
            labels["emotion"] = EMOTIONS[major.index(1)] if major else None
            yield Record(image=images.folder / path, where=where, path=path, labels=labels)
        if unnamed:
            _log.warning("%s: left out %d rows that name no image: voted not to be a face", file, unnamed)
        if absent:
            _log.warning("%s: left out %d rows whose image is absent, the first is %s", file, len(absent), absent[0])


def shares_of(votes: Sequence[int], mode: str, contempt: bool) -> list[float] | None:
    """What a network learns of a face in that mode: a share for each emotion, seven or (`contempt`) eight, together 1;
    None where the votes name none. votes: for the eight emotions, unknown and NF, as counted."""
    counted = [vote if vote > 1 else 0 for vote in votes]
    taken = _taken(counted, mode)
    words = len(EMOTIONS) if contempt else _CONTEMPT
    first = max(range(len(taken)), key=taken.__getitem__)  # the first of those with most
    if not taken[first] or first >= words:
        return None
    kept = [float(vote > 0) if mode == "multi-target" else vote for vote in taken[:words]]
    return [share / sum(kept) for share in kept]


def _taken(counted: Sequence[int], mode: str) -> list[int]:
    """Of the votes those that count in that mode, 0 elsewhere; all 0 where they do not agree."""
    total = sum(counted)
    if mode == "majority":
        taken = [vote if vote > total / 2 else 0 for vote in counted]
    elif mode == "multi-target":
        taken = [vote if vote >= 0.3 * total else 0 for vote in counted]
    else:
        taken = _most(counted)
    agreed = sum(taken) > total / 2 and sum(vote > 0 for vote in taken) <= 3
    return taken if agreed else [0] * len(taken)


def _most(counted: Sequence[int]) -> list[int]:
    """The largest votes, equal ones together, until they hold three quarters, are three, or come to unknown or NF."""
    taken = [0] * len(counted)
    for most in sorted(set(counted) - {0}, reverse=True):
        if sum(taken) >= 0.75 * sum(counted) or sum(vote > 0 for vote in taken) >= 3:
            break
        for place in (place for place, vote in enumerate(counted) if vote == most):
            if place >= len(EMOTIONS):
                return taken
            taken[place] = most
    return taken


def _part_copies(faces: Sequence[Record], order: Sequence[str]) -> None:
    """Keep pictures that are the same to the byte in one part only, the last of `order` that has one of them."""
    kept: dict[bytes, str] = {}
    pictures = [hashlib.sha1(read_bytes(Path(str(face.image)))).digest() for face in faces]
    for picture, face in zip(pictures, faces, strict=True):
        part = face.labels["split"]
        kept[picture] = max(kept.get(picture, part), part, key=order.index)
    for picture, face in zip(pictures, faces, strict=True):
        if face.labels["split"] != kept[picture]:
            face.labels["split"] = None


def _face(fields: Fields) -> tuple[str, str, str, list[int]]:
    """Part, folder, image and votes of a row; ValueError says what is wrong with it."""
    part, folder = look_up(fields, "Usage", _PARTS)
    return part, folder, fields["Image name"], _votes(fields)


def _votes(fields: Fields) -> list[int]:
    """The ten votes of a row; ValueError says which is none."""
    for word in (*EMOTIONS, *_NONE):
        if not fields[word].isdecimal():
            raise ValueError(f"{word} is '{short(fields[word])}', expected a number of votes")
    return [int(fields[word]) for word in (*EMOTIONS, *_NONE)]
