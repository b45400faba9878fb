"""IJB-A: templates of faces from pictures and videos, verified and searched in ten splits (Klare et al., CVPR 2015)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from polyface.data.readers.common import (
    Images,
    Template,
    TemplateSplit,
    check_word,
    demand,
    lacking,
    numbered_lines,
    numbers,
    parsed,
    stable_path,
    with_val,
)
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError, nearest

_METADATA, _COMPARISONS, _GALLERY, _PROBES = "verify_metadata", "verify_comparisons", "search_gallery", "search_probe"
_SETS = {"IJB-A_11_sets": (_METADATA, _COMPARISONS), "IJB-A_1N_sets": (_GALLERY, _PROBES)}
_TRAIN = "train"
_SPLITS = tuple(str(split) for split in range(1, 11))
_COLUMNS = ("TEMPLATE_ID", "SUBJECT_ID", "FILE", "MEDIA_ID", "SIGHTING_ID")
_BOX = ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT")
_NOBODY = "0"  # the subject of rows that do not tell it
_log = logging.getLogger(__name__)


class _Row(NamedTuple):
    """A face of a template, as a line of a list has it. box: x0, y0, x1, y1, or None."""

    template: str
    subject: str
    image: str
    medium: str
    sighting: str
    box: tuple[float, ...] | None


@dataclass(frozen=True)
class IJBA:
    """IARPA Janus Benchmark A.

    Layout: ``IJB-A_11_sets/split1/train_1.csv``, ``verify_metadata_1.csv`` and ``verify_comparisons_1.csv``, …, and
    ``IJB-A_1N_sets/split1/train_1.csv``, ``search_gallery_1.csv`` and ``search_probe_1.csv``, …, beside the folder
    ``images``, or the folders in it, of the pictures that the column ``FILE`` names (``img/1.jpg``, ``frame/2_3.jpg``).
    One of the two sets of lists is enough, and so is a part of the splits. Columns are known by their names; listed
    images that are absent are told in a line of the log.

    A row of the table is a face, the ``SIGHTING_ID`` of a picture: its path is ``img/1.jpg#12``. A template is the rows
    of one ``TEMPLATE_ID`` of a list, and those of one ``MEDIA_ID`` in it are one medium: a picture, or frames of a
    video.

    Labels: ``identity`` (ijba- and the number of the subject), ``box``, ``modality`` (photo), ``source`` (ijba),
    ``split``. What else the lists say (yaw, gender, age, …) is in codes that could not be checked against their files,
    and is not read; nor are the three points.

    Split, by the option ``split``: ``test``, the default, all faces of the lists to verify and search; ``1`` to ``10``:
    the faces of that split alone, those of its ``train_1.csv`` train, of which val is cut by whole people, and the rest
    test.

    Licence: for research, by agreement with NIST. Source: https://www.nist.gov/programs-projects/face-challenges
    """

    split: int | str = "test"

    name = "ijba"
    verified = False
    protocol: ClassVar[dict[str, Any]] = {"name": "templates", "reader": "ijba"}
    about = "IJB-A: 5,712 pictures and 2,085 videos of 500 people, compared as templates (Klare et al. 2015)"
    layout = (
        "the folders IJB-A_11_sets and IJB-A_1N_sets of split1, … with the .csv lists, and the folder images beside "
        "them; obtain them from NIST, https://www.nist.gov/programs-projects/face-challenges"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a sighting, in the order of the lists; `root` is the folder of the sets of lists.

        Raises:
            PolyfaceError: the images or the lists are missing, a line of a list cannot be read, lists contradict each
                other, or ``split`` is none of its words.
        """
        lists, images = self._lists(root), self._images(root)
        faces: dict[str, tuple[str, str, _Row]] = {}  # path → part, line, and what that says
        absent: dict[str, str] = {}
        for kind, file in ((kind, file) for files in lists.values() for kind, file in files.items()):
            part = "train" if kind == _TRAIN else "test"
            for where, row in _rows(file) if kind != _COMPARISONS else ():
                path = _face(images, row)
                if path is None:
                    absent.setdefault(f"{row.image}#{row.sighting}", where)
                    continue
                known = faces.setdefault(path, (part, where, row))
                if known[0] != part or known[2].subject != row.subject:
                    what = f"{path} is {part} and of subject {row.subject}, but {known[0]} and of {known[2].subject}"
                    raise PolyfaceError(f"{file.parent}: {where}: {what} by {known[1]}; obtain the lists again")
        if absent:
            what = "left out %d of %d faces, whose images are not in %s; the first is %s: %s"
            face, where = next(iter(absent.items()))
            _log.warning(f"%s: {what}", root, len(absent), len(absent) + len(faces), images.folder, where, face)
        sizes = Counter(row.subject for part, _, row in faces.values() if part == "train" and row.subject != _NOBODY)
        parts = with_val(dict.fromkeys(sizes, "train"), sizes)
        for path, (part, where, row) in faces.items():
            labels = {
                "source": self.name,
                "modality": "photo",
                "identity": None if row.subject == _NOBODY else _person(row),
                "box": row.box,
                "split": parts.get(row.subject, part) if part == "train" else part,
            }
            yield Record(image=images.folder / path.rpartition("#")[0], where=where, path=path, labels=labels)

    def templates(self, root: Path, part: str, list: str = "") -> dict[str, TemplateSplit]:
        """The templates of a split, or of each that is read, and what is compared of them; the same for every part.

        Templates of which no image is here are left out, with what compares them, and told in a line of the log.

        Raises:
            PolyfaceError: as the reader does, or there is no such split.
        """
        lists, images = self._lists(root), self._images(root)
        check_word(self, "list", list, ("", *lists))
        return {split: _compared(images, files) for split, files in lists.items() if list in ("", split)}

    def _images(self, root: Path) -> Images:
        folder = Path(root) / "images"
        return Images(folder if folder.is_dir() else Path(root), 2, self)

    def _lists(self, root: Path) -> dict[str, dict[str, Path]]:
        """The lists of each split that is read, by what they are."""
        check_word(self, "split", str(self.split), ("test", *_SPLITS))
        root, whole = demand(Path(root), self), self.split == "test"
        found: dict[str, dict[str, Path]] = {}
        for split in _SPLITS if whole else [str(self.split)]:
            for folder, kinds in ((root / name / f"split{split}", kinds) for name, kinds in _SETS.items()):
                if folder.is_dir():
                    files = {kind: demand(folder / f"{kind}_{split}.csv", self) for kind in kinds}
                    train = {} if whole else {_TRAIN: demand(folder / f"{_TRAIN}_{split}.csv", self)}
                    found[split] = found.get(split, {}) | files | train
        if not found:
            raise lacking(root, f"no lists of split {'1 to 10' if whole else self.split}", self)
        return found


def _person(row: _Row) -> str:
    return f"ijba-{row.subject}"


def _face(images: Images, row: _Row) -> str | None:
    """The path that a table has of a face; None without its image."""
    found = images.find(row.image)
    return None if found is None else f"{found}#{row.sighting}"


def _rows(file: Path) -> Iterator[tuple[str, _Row]]:
    """The faces of a list, each with its file and line."""
    lines = numbered_lines(file)
    names = [name.strip() for name in lines[0][1].split(",")] if lines else []
    if missing := [name for name in (*_COLUMNS, *_BOX) if name not in names]:
        raise PolyfaceError(f"{file}:1: lacks the column {missing[0]}; {nearest(missing[0], names)}")
    places = [names.index(name) for name in (*_COLUMNS, *_BOX)]
    for number, line in lines[1:]:
        yield f"{file.name}:{number}", parsed(file, number, line, partial(_row, places=places))


def _row(line: str, places: Sequence[int]) -> _Row:
    """What a line says; ValueError says what is wrong with it. Facial hair, the last column, may hold commas."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) <= max(places):
        raise ValueError(f"{len(fields)} fields, expected {max(places) + 1} and more")
    values = [fields[place] for place in places]
    if empty := [name for name, value in zip(_COLUMNS, values, strict=False) if not value]:
        raise ValueError(f"{empty[0]} is empty")
    template, subject, image, medium, sighting, *box = values
    if not any(box):
        return _Row(template, subject, stable_path(image), medium, sighting, None)
    x, y, width, height = numbers(box).tolist()
    if not (width > 0 and height > 0):
        raise ValueError(f"a box of {width:g} × {height:g} pixels")
    return _Row(template, subject, stable_path(image), medium, sighting, (x, y, x + width, y + height))


def _templates(images: Images, file: Path) -> dict[str, Template]:
    """The templates of a list by their numbers, also those of which no image is here."""
    people: dict[str, str] = {}
    media: dict[str, dict[str, list[str]]] = {}
    for where, row in _rows(file):
        if people.setdefault(row.template, _person(row)) != _person(row):
            what = f"template {row.template} is of {_person(row)} here, and of {people[row.template]} before"
            raise PolyfaceError(f"{file.parent}: {where}: {what}; obtain the lists again")
        here, path = media.setdefault(row.template, {}), _face(images, row)
        if path is not None:
            here.setdefault(row.medium, []).append(path)
    return {number: Template(people[number], [*here.values()]) for number, here in media.items()}


def _compared(images: Images, files: Mapping[str, Path]) -> TemplateSplit:
    """What a split compares of the templates of which an image is here."""
    listed = {kind: _templates(images, files[kind]) for kind in (_METADATA, _GALLERY, _PROBES) if kind in files}
    templates = {f"{kind} {number}": one for kind, named in listed.items() for number, one in named.items()}
    pairs: list[tuple[str, str]] = []
    if file := files.get(_COMPARISONS):
        read = partial(_comparison, known=listed[_METADATA])
        pairs = [parsed(file, number, line, read) for number, line in numbered_lines(file)]
    here = {name: one for name, one in templates.items() if one.media}
    kept = [pair for pair in pairs if pair[0] in here and pair[1] in here]
    if len(here) < len(templates):
        lost = next(name for name in templates if name not in here)
        what = "left out %d of %d templates, of which no image is in %s, such as %s, and %d of %d comparisons with them"
        counts = len(templates) - len(here), len(templates), images.folder, lost, len(pairs) - len(kept), len(pairs)
        _log.warning(f"%s: {what}", next(iter(files.values())).parent, *counts)
    probes, gallery = ([name for name in here if name.startswith(kind)] for kind in (_PROBES, _GALLERY))
    return TemplateSplit(here, kept, probes, gallery)


def _comparison(line: str, known: Mapping[str, Template]) -> tuple[str, str]:
    """The two templates of a line, by their names; ValueError says what is wrong with it."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 2:
        raise ValueError(f"'{line}' is not the numbers of two templates")
    for number in fields:
        if number not in known:
            raise ValueError(f"there is no template {number} in {_METADATA}")
    return f"{_METADATA} {fields[0]}", f"{_METADATA} {fields[1]}"
