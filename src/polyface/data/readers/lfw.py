"""LFW: faces of people in the news, with lists of pairs of them (Huang et al., UMass Amherst TR 07-49, 2007)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from polyface.data.readers.celeba import image_folder
from polyface.data.readers.common import (
    USUAL_NAMES,
    Images,
    Pair,
    check_word,
    counted_rows,
    demand,
    numbered_lines,
    of_part,
    parsed,
    read_text,
    with_val,
)
from polyface.data.writing import Reader, Record, Skipped
from polyface.errors import PolyfaceError

FOLDERS = ("lfw-deepfunneled", "lfw_funneled", "lfw")
_FOLDS = 10
_SPLITS = ("test", "view1", *(str(fold) for fold in range(1, _FOLDS + 1)))
_LISTS = {"pairs": "pairs.txt", "devtrain": "pairsDevTrain.txt", "devtest": "pairsDevTest.txt"}
_PEOPLE = "people.txt"
_VIEW_1 = {"train": "peopleDevTrain.txt", "test": "peopleDevTest.txt"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LFW:
    """Labeled Faces in the Wild.

    Layout: ``<name>/<name>_0001.jpg`` in ``lfw-deepfunneled`` (or, where that is absent, ``lfw_funneled`` or ``lfw``),
    and beside it the lists: ``pairs.txt`` and ``people.txt`` of view 2, ``pairsDevTrain.txt``, ``pairsDevTest.txt``,
    ``peopleDevTrain.txt`` and ``peopleDevTest.txt`` of view 1. Only the lists that are asked for need be there. Listed
    images that are absent are told in a line of the log.

    Labels: ``identity`` (the name of the person's folder), ``modality`` (photo), ``source`` (lfw), ``split``; ``fold``,
    that of the person in view 2, 1 to 10, with ``people.txt``; ``gender`` as :class:`lfwa.LFWA` has it.

    Split, by the option ``split``:

    - ``test``, the default: every face, for a model that was trained elsewhere.
    - ``1`` to ``10``: the people of that fold of view 2 are test, those of the other nine train, of whom val is cut:
      the people whose names have the smallest SHA-1, until a tenth of the faces is reached. This is the unrestricted
      setting, in which any pairs of the nine folds' people may be formed.
    - ``view1``, to choose settings: the 4,038 people of ``peopleDevTrain.txt`` are train, of whom val is cut as above,
      and the 1,711 of ``peopleDevTest.txt`` are test.

    Pairs, by the option ``list`` of the protocol: ``pairs``, the 6,000 of view 2 in ten folds, half of each of one
    person; ``devtrain`` (2,200) and ``devtest`` (1,000) of view 1, without folds.

    Licence: none is stated; for research. Source: http://vis-www.cs.umass.edu/lfw/
    """

    split: int | str = "test"

    name = "lfw"
    verified = True
    protocol: ClassVar[dict[str, Any]] = {
        "name": "listed-pairs",
        "reader": "lfw",
        "lists": {"LFW": "pairs"},
        "names": USUAL_NAMES,
    }
    about = "LFW: 13,233 faces of 5,749 people, with 6,000 pairs in ten folds (Huang et al. 2007)"
    layout = (
        "the folder lfw-deepfunneled (or lfw_funneled, lfw) of images <name>/<name>_0001.jpg, and beside it pairs.txt "
        "and people.txt; obtain them from http://vis-www.cs.umass.edu/lfw/"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by path; `root` is the folder of the lists.

        Raises:
            PolyfaceError: the images or a list that ``split`` needs are missing, a line of it cannot be read, or
                ``split`` is none of its words.
        """
        images = self._images(root)
        if images.deeper:
            _log.warning("%s: left out %d images in folders inside a person's", images.folder, len(images.deeper))
        people, genders = Counter(map(_person, images.paths)), genders_of(Path(root))
        file = Path(root) / _PEOPLE
        folds = _people(file) if file.is_file() else {}
        fewer = [
            f"{file.name}:{one.line}: {name} has {people[name]} of {one.images} images"
            for name, one in folds.items()
            if people[name] < one.images
        ]
        if fewer:
            _log.warning("%s: %d people have fewer images than listed, the first is %s", file, len(fewer), fewer[0])
        parts = self._parts(Path(root), people)
        if lone := len(people.keys() - parts.keys()):
            _log.warning("%s: %d people are in no part of the split '%s'", images.folder, lone, self.split)
        for path in images.paths:
            person, _, image = path.partition("/")
            labels = {
                "source": self.name,
                "modality": "photo",
                "identity": person,
                "split": parts.get(person),
                "fold": folds[person].fold if person in folds else None,
                "gender": genders.get(image),
            }
            yield Record(image=images.folder / path, where=path, path=path, labels=labels)

    def pairs(self, root: Path, part: str, list: str = "pairs") -> list[Pair]:
        """The pairs of a list of which both people are of that part ("all": every pair), in its order.

        Each has its fold, where they are of several. Pairs of which an image is absent are left out, and told in a line
        of the log.

        Raises:
            PolyfaceError: as the reader does, or there is no such list, or no pair of that part.
        """
        check_word(self, "list", list, _LISTS)
        images, file = self._images(root), demand(Path(root) / _LISTS[list], self)
        parts = self._parts(Path(root), Counter(map(_person, images.paths)))
        return of_part(file, images, _pairs(file), part, lambda path: parts.get(_person(path)))

    def _images(self, root: Path) -> Images:
        check_word(self, "split", str(self.split), _SPLITS)
        return images_of(Path(root), self)

    def _parts(self, root: Path, people: Mapping[str, int]) -> dict[str, str]:
        """The part of each of the people, given how many images there are of them."""
        if self.split == "test":
            return dict.fromkeys(people, "test")
        if self.split == "view1":
            parts = {name: part for part, file in _VIEW_1.items() for name in _people(demand(root / file, self))}
        else:
            folds = _people(demand(root / _PEOPLE, self))
            parts = {name: "test" if str(one.fold) == str(self.split) else "train" for name, one in folds.items()}
        return with_val(parts, people)


def image_path(person: str, number: int) -> str:
    """Where a person's image of that number lies in the folder of images."""
    return f"{person}/{person}_{number:04d}.jpg"


def images_of(root: Path, reader: Reader) -> Images:
    """All images of a folder of LFW, for that reader.

    Raises:
        PolyfaceError: they are missing.
    """
    return Images(image_folder(demand(root, reader), FOLDERS, reader), 2, reader)


GENDER_LISTS = {"male": "male_names.txt", "female": "female_names.txt"}


def gender_lists(root: Path) -> dict[str, set[str]]:
    """The images' names that each of the two lists has, by gender; without both lists, nothing."""
    files = {gender: root / name for gender, name in GENDER_LISTS.items()}
    if not all(file.is_file() for file in files.values()):
        return {}
    return {gender: {line.strip() for line in read_text(file).splitlines()} for gender, file in files.items()}


def genders_of(root: Path) -> dict[str, str]:
    """Image name → the one of ``male_names.txt`` and ``female_names.txt`` that it is in; those in both are left out."""
    lists = gender_lists(root)
    named = Counter(name for names in lists.values() for name in names)
    return {name: gender for gender, names in lists.items() for name in names if named[name] == 1}


def _person(path: str) -> str:
    return path.partition("/")[0]


class _Person(NamedTuple):
    """A person of a list: the fold, from 1, the line, and how many images there are."""

    fold: int
    line: int
    images: int


def _people(file: Path) -> dict[str, _Person]:
    """The people of a list by name."""
    folds = counted_rows(file, _listed_person)
    return {name: _Person(fold, line, images) for fold, rows in enumerate(folds, 1) for line, (name, images) in rows}


def _listed_person(line: str) -> tuple[str, int]:
    """Name and number of images of a line; ValueError says what is wrong with it."""
    name, _, images = line.rpartition("\t")
    if not (name and images.isdecimal()):
        raise ValueError(f"'{line}' is not <name> <number of images>")
    return name, int(images)


def _pairs(file: Path) -> list[tuple[str, Pair]]:
    """The pairs of a list by images' names, each with its line.

    The first line says how many pairs of one person there are, after the number of folds where there are several; in
    each fold as many of two people follow them.
    """
    lines = numbered_lines(file)
    number, line = lines[0] if lines else (1, "")
    counts = line.split()
    if not (1 <= len(counts) <= 2 and all(count.isdecimal() and int(count) for count in counts)):
        raise PolyfaceError(f"{file}:{number}: '{line}' is not <folds> <pairs of one person>; obtain the file again")
    each, folds = int(counts[-1]), int(counts[0]) if len(counts) == 2 else 1
    if (listed := len(lines) - 1) != 2 * each * folds:
        what = f"says that {2 * each * folds} pairs follow, but {listed} do"
        raise PolyfaceError(f"{file}:{number}: {what}; obtain the file again")
    found = []
    for place, (number, line) in enumerate(lines[1:]):
        fold, within = divmod(place, 2 * each)
        pair = parsed(file, number, line, lambda text: _pair(text.split()))
        if pair.same != (due := within < each):
            what = f"'{line}', expected a pair of {'one person' if due else 'two people'} here"
            raise PolyfaceError(f"{file}:{number}: {what}; obtain the file again")
        found.append((f"{file.name}:{number}", replace(pair, fold=fold + 1 if folds > 1 else None)))
    return found


def _pair(fields: list[str]) -> Pair:
    """The pair of a line; ValueError says what is wrong with it."""
    if len(fields) not in (3, 4) or not (fields[1].isdecimal() and fields[-1].isdecimal()):
        raise ValueError(f"'{' '.join(fields)}' is not <name> <image> <image>, or <name> <image> <other name> <image>")
    first, second = fields[0], fields[2] if len(fields) == 4 else fields[0]
    return Pair(image_path(first, int(fields[1])), image_path(second, int(fields[-1])), first == second)
