"""LFWA: Kumar et al.'s attribute scores of the Labeled Faces in the Wild, as CelebA's 40 attributes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers.celeba import Listed, image_folder, part_of
from polyface.data.readers.common import check_word, cut, demand, lacking, numbered_lines, stable_path
from polyface.data.readers.lfw import FOLDERS, genders_of, image_path
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError, nearest
from polyface.schema import ATTRIBUTES

_SPLITS = ("people", "kumar", "liu")
_LIU_LIST = "lfwa_partition.txt"
_OTHER_NAMES = {"Attractive": ("Attractive Man", "Attractive Woman"), "Young": ("Youth",)}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LFWA:
    """Labeled Faces in the Wild with the attributes of Kumar et al. (ICCV 2009, TPAMI 2011).

    Layout: ``lfw_attributes.txt`` beside the images, ``<name>/<name>_0001.jpg`` in ``lfw-deepfunneled`` (or, where that
    is absent, ``lfw_funneled`` or ``lfw``); if present, ``male_names.txt`` and ``female_names.txt`` with an image a
    line. The score file has a title line, a header line that begins with ``#``, and a line a face: person, image number
    and 73 scores, separated by tabs. Columns are known by their names. A part of the score file, or of the images, is
    read as it is: images without a row are left out, and so are rows without an image, which a line of the log counts.

    Labels: ``attributes``, the 40 of CelebA, 1 where the score of the attribute of that name is 0 or more, else −1;
    Young is Kumar's Youth, Attractive his Attractive Man or Attractive Woman. The scores are those of classifiers, not
    people's judgement. ``identity`` (the person's folder), ``split``, ``source`` (lfwa), ``modality`` (photo), and
    ``gender`` where one of the two lists of names, and not both, has the image: of LFW's 13,233 images 5 are in both
    and 4 in neither.

    Split, by the option ``split``:

    - ``people``, the default: no person is in two parts. Test is the people whose names have the smallest SHA-1, until
      three tenths of the faces are reached; val, those that come next, until it has a tenth.
    - ``kumar``: the odd rows of the score file, counted from 1, are for training and the even ones are test (6,572 and
      6,571 of the whole file), as for Mao et al. (2020). The rows of a person follow each other, so whoever has two is
      in both. No validation part is named: it is the tenth of the training faces whose paths have the smallest SHA-1,
      so train and val together are the published training part.
    - ``liu``: Liu et al.'s (2015) 6,263 faces for training and 6,880 for test, by a list ``lfwa_partition.txt`` beside
      the score file, in the form of CelebA's: ``<name>/<name>_0001.jpg 0`` for training, 1 for val, 2 for test. It has
      to be written from what they publish: ``indices_img_train`` and ``indices_img_test`` of ``indices_train_test.mat``
      count from 1 in ``name`` of ``lfw_att_40.mat``. If it has no val, that is cut from training, by whole people, as
      ``people`` does it.

    Licence: none is stated; for research. Source: http://vis-www.cs.umass.edu/lfw/ (images, names) and
    https://www.cs.columbia.edu/CAVE/databases/pubfig/download/lfw_attributes.txt
    """

    split: str = "people"

    name = "lfwa"
    folder = "lfw"
    verified = True  # 2,999 rows of the score file; not the split of Liu et al.
    about = "LFWA: 13,143 faces of LFW with 40 attributes by Kumar et al.'s scores, and identity"
    layout = (
        "lfw_attributes.txt beside the folder lfw-deepfunneled (or lfw) of images <name>/<name>_0001.jpg; obtain them "
        "from https://www.cs.columbia.edu/CAVE/databases/pubfig/ and http://vis-www.cs.umass.edu/lfw/"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row of the score file that has an image, in its order; `root` is the folder of the score file.

        Raises:
            PolyfaceError: the score file, the image folder or the list that ``split`` needs is missing, the score file
                lacks a column, no row has an image, or ``split`` is none of its words.
        """
        check_word(self, "split", self.split, _SPLITS)
        root = demand(Path(root), self)
        scores = demand(root / "lfw_attributes.txt", self)
        folder = image_folder(root, FOLDERS, self)
        listed = _liu_list(root) if self.split == "liu" else None
        rows = list(_rows(scores, folder, genders_of(root)))
        found = [row for row in rows if isinstance(row, Skipped) or (folder / row.path).is_file()]
        if not found:
            raise lacking(folder, f"no image that {scores} names", self)
        if len(found) < len(rows):
            absent = len(rows) - len(found)
            _log.warning("%s: left out %d of %d rows, which have no image in %s", scores, absent, len(rows), folder)
        yield from self._parted(found, listed)

    def _parted(self, rows: list[Record | Skipped], listed: Listed | None) -> list[Record | Skipped]:
        """The rows with their `split`, which for faces comes in as ``kumar`` has it, without a validation part."""
        if listed is not None:
            rows = [row if isinstance(row, Skipped) else _listed(row, listed) for row in rows]
        faces = [row for row in rows if isinstance(row, Record)]
        if self.split == "people":
            for face in faces:
                face.labels["split"] = "train"
            cut(faces, "test", _person, 0.3)
            cut(faces, "val", _person, 1 / 7)  # of the seven tenths that are left
        elif self.split == "kumar":
            cut(faces, "val", lambda face: face.path)
        elif not any(face.labels["split"] == "val" for face in faces):
            cut(faces, "val", _person)
        return rows


def score_columns(names: Sequence[str], where: str) -> list[list[int]]:
    """For each attribute of CelebA, in its order, where in `names` the scores stand that it is read from.

    Names are compared by their letters and digits alone, as "5 o' Clock Shadow" and 5_o_Clock_Shadow are the same.

    Raises:
        PolyfaceError: one is missing.
    """
    known = {_letters(name): index for index, name in enumerate(names)}
    columns = []
    for attribute in ATTRIBUTES:
        wanted = _OTHER_NAMES.get(attribute, (attribute.replace("_", " "),))
        if missing := [name for name in wanted if _letters(name) not in known]:
            hint = nearest(missing[0], names)
            raise PolyfaceError(f"{where}: lacks the column '{missing[0]}', which {attribute} is read from; {hint}")
        columns.append([known[_letters(name)] for name in wanted])
    return columns


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _rows(file: Path, folder: Path, genders: dict[str, str]) -> Iterator[Record | Skipped]:
    lines = numbered_lines(file)
    header = next((i for i, (_, line) in enumerate(lines) if _is_header(line)), None)
    if header is None:
        raise PolyfaceError(f"{file}: has no header line '# person imagenum …', separated by tabs; obtain it again")
    names = _header(lines[header][1])[2:]
    columns = score_columns(names, f"{file}:{lines[header][0]}")
    seen: dict[str, int] = {}
    for index, (number, line) in enumerate(lines[header + 1 :]):
        where = f"{file.name}:{number}"
        try:
            path, labels = _parse(line, len(names), columns)
            if path in seen:
                raise ValueError(f"a second row of {path}, after that of line {seen[path]}")
        except ValueError as error:
            yield Skipped(where, str(error))
            continue
        seen[path] = number
        labels["gender"] = genders.get(path.rpartition("/")[2])
        labels["split"] = "test" if index % 2 else "train"
        yield Record(image=folder / path, where=where, path=path, labels=labels)


def _header(line: str) -> list[str]:
    return [field.strip() for field in line.lstrip("#").strip().split("\t")]


def _is_header(line: str) -> bool:
    return line.startswith("#") and _header(line)[:2] == ["person", "imagenum"]


def _parse(line: str, count: int, columns: list[list[int]]) -> tuple[str, dict[str, Any]]:
    """Path and labels of one row; ValueError says what is wrong with it."""
    person, *fields = (field.strip() for field in line.split("\t"))
    if len(fields) != 1 + count:
        raise ValueError(f"{1 + len(fields)} fields, expected {2 + count}: person, imagenum and {count} scores")
    number, *scores = fields
    if not number.isdecimal() or int(number) == 0:
        raise ValueError(f"imagenum is '{number}', expected a number from 1")
    identity = person.replace(" ", "_")
    path = stable_path(image_path(identity, int(number)))
    values = [max(_score(scores[index]) for index in indices) for indices in columns]
    attributes = [1 if value >= 0 else -1 for value in values]
    return path, {"source": "lfwa", "modality": "photo", "identity": identity, "attributes": attributes}


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"score '{text}' is not a number")
    return score


def _liu_list(root: Path) -> Listed:
    file = root / _LIU_LIST
    if not file.is_file():
        raise PolyfaceError(
            f"{file}: not found; split 'liu' needs it: a line '<name>/<name>_0001.jpg 0' (0 train, 1 val, 2 test) for "
            "each face, made from Liu et al.'s indices_train_test.mat; make it, or take split 'people' or 'kumar'"
        )
    return Listed.read(file, part_of)


def _listed(face: Record, listed: Listed) -> Record | Skipped:
    """The face with the part that the list gives it."""
    found = listed.labels(face.path.removesuffix(".jpg"))
    if found is None:
        return Skipped(face.where, f"{face.path} has no row in {listed.file.name}")
    if isinstance(found, Skipped):
        return found
    face.labels.update(found)
    return face


def _person(face: Record) -> str:
    return str(face.labels["identity"])
