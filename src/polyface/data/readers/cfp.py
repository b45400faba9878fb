"""CFP: celebrities from the front and in profile, with pairs in ten folds (Sengupta et al., WACV 2016)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from polyface.data.readers.common import (
    USUAL_NAMES,
    Images,
    Pair,
    check_word,
    demand,
    numbered_lines,
    of_part,
    parsed,
    person_name,
    points_of,
    with_val,
    without_ending,
)
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError

_FOLDS = 10
_SPLITS = ("test", *(str(fold) for fold in range(1, _FOLDS + 1)))
_LISTS = ("FF", "FP")  # the second letter says what the second face of a pair is
_VIEWS = {"F": "frontal", "P": "profile"}
_POINTS = 30
_JAW, _EYE, _NOSE = 0, slice(12, 18), 21  # of the 30 points: where the jaw begins, the eye's outline, the nose's tip


@dataclass(frozen=True)
class CFP:
    """Celebrities in Frontal-Profile.

    Layout: ``Data/Images/001/frontal/01.jpg`` (10 a person) and ``Data/Images/001/profile/01.jpg`` (4 a person), with
    30 points in ``Data/Fiducials/001/frontal/01.txt``; ``Data/list_name.txt``, a name a line in the order of the
    folders; and ``Protocol`` with ``Pair_list_F.txt`` and ``Pair_list_P.txt``, which number the images of either view,
    and ``Split/FF/01/same.txt``, ``diff.txt``, …, pairs of such numbers. A part of the images is read as it is.

    Labels: ``identity`` (the person's name in small letters: see :func:`common.person_name`), ``modality`` (photo),
    ``source`` (cfp), ``split``; ``fold``, that of the person, 1 to 10; ``pose``; ``landmarks_30`` where there is a file
    of them.

    Points and pose: the 30 points are those of one half of the face, in a frontal picture the viewer's left one, in
    profile the one that is seen (jaw from the ear to the chin 0-8, brow 9-11, eye 12-17, nose 18-24, mouth 25-29). A
    mirror would need those of the other half, so they cannot be mirrored. Frontal pictures are "frontal". A profile is
    a right one where the tip of its nose lies right of its eye and of where its jaw begins, a left one where it lies
    left of both; else (4 of 2,000) the side is not labelled. Coordinates are taken as they are: there were no images to
    measure whether they count from 0 or 1.

    Split, by the option ``split``: ``test``, the default, every face; ``1`` to ``10``: the people of that fold are
    test, those of the other nine train, of whom val is cut: the people whose names have the smallest SHA-1, until a
    tenth of the faces is reached.

    Pairs, by the option ``list`` of the protocol: ``FF`` (frontal with frontal) and ``FP`` (frontal with profile), each
    350 pairs of one person and 350 of two in each of ten folds. Accuracy, AUC and EER are means over them.

    Licence: none is stated; for research. Source: http://www.cfpw.io/
    """

    split: int | str = "test"

    name = "cfp"
    verified = True  # the protocol, the names and the points; not the images
    protocol: ClassVar[dict[str, Any]] = {
        "name": "listed-pairs",
        "reader": "cfp",
        "lists": {name: name for name in _LISTS},
        "each_fold": True,
        "names": USUAL_NAMES,
    }
    about = "CFP: 5,000 frontal and 2,000 profile faces of 500 people, with 14,000 pairs (Sengupta et al. 2016)"
    layout = (
        "the folders Data (with Images, Fiducials and list_name.txt) and Protocol of cfp-dataset; obtain it from "
        "http://www.cfpw.io/"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by path; `root` is the folder of ``Data``, or holds it as ``cfp-dataset``.

        Raises:
            PolyfaceError: the images or a list are missing, a line of a list cannot be read, or ``split`` is none of
                its words.
        """
        root, images = self._images(root)
        names = [person_name(line.strip()) for _, line in numbered_lines(demand(root / "Data" / "list_name.txt", self))]
        folds = self._folds(root)
        parts = self._parts(images, folds)
        for path in images.paths:
            folder, view, _ = path.split("/")
            if not (folder.isdecimal() and 1 <= int(folder) <= len(names)) or view not in _VIEWS.values():
                yield Skipped(path, f"expected 001/frontal/01.jpg, of a person from 1 to {len(names)}")
                continue
            labels: dict[str, Any] = {
                "source": self.name,
                "modality": "photo",
                "identity": names[int(folder) - 1],
                "split": parts.get(folder),
                "fold": folds.get(folder),
                "pose": view if view == "frontal" else None,
            }
            file = root / "Data" / "Fiducials" / f"{without_ending(path)}.txt"
            if file.is_file():
                try:
                    labels["landmarks_30"] = points = points_of(file, _POINTS, ",")
                except ValueError as error:
                    yield Skipped(file.relative_to(root).as_posix(), str(error))
                    continue
                labels["pose"] = labels["pose"] or _side(points)
            yield Record(image=images.folder / path, where=path, path=path, labels=labels)

    def pairs(self, root: Path, part: str, list: str = "FP") -> list[Pair]:
        """The pairs of a list of which both people are of that part ("all": every pair), fold by fold, those of one
        person first.

        Each has its fold, where they are of several. Pairs of which an image is absent are left out, and told in a line
        of the log.

        Raises:
            PolyfaceError: as the reader does, or there is no such list, or no pair of that part.
        """
        check_word(self, "list", list, _LISTS)
        root, images = self._images(root)
        listed = [*self._pairs(root, list)]
        parts = self._parts(images, self._folds(root))
        where = root / "Protocol" / "Split" / list
        return of_part(where, images, listed, part, lambda path: parts.get(_person(path)))

    def _images(self, root: Path) -> tuple[Path, Images]:
        """The folder of ``Data``, and the images there."""
        check_word(self, "split", str(self.split), _SPLITS)
        root = demand(Path(root), self)
        if not (root / "Data").exists() and (root / "cfp-dataset").is_dir():
            root = root / "cfp-dataset"
        return root, Images(demand(root / "Data" / "Images", self), 3, self)

    def _parts(self, images: Images, folds: Mapping[str, int]) -> dict[str, str]:
        """The part of each person, by folder."""
        people = Counter(map(_person, images.paths))
        if self.split == "test":
            return dict.fromkeys(people, "test")
        return with_val({one: "test" if str(f) == str(self.split) else "train" for one, f in folds.items()}, people)

    def _folds(self, root: Path) -> dict[str, int]:
        """The fold of each person, by folder, from the pairs of both lists."""
        found: dict[str, int] = {}
        for where, pair in (one for name in _LISTS for one in self._pairs(root, name)):
            for person in (_person(pair.first), _person(pair.second)):
                if pair.fold is not None and found.setdefault(person, pair.fold) != pair.fold:
                    what = f"person {person} is in fold {found[person]} and in this one"
                    raise PolyfaceError(f"{root}/Protocol/Split/{where}: {what}; obtain the file again")
        return found

    def _pairs(self, root: Path, name: str) -> Iterator[tuple[str, Pair]]:
        """The pairs of a list by images' paths, each with its file and line."""
        first, second = (self._numbered(root / "Protocol" / f"Pair_list_{view}.txt", view) for view in name)
        for fold in range(1, _FOLDS + 1):
            for kind in ("same", "diff"):
                file = demand(root / "Protocol" / "Split" / name / f"{fold:02d}" / f"{kind}.txt", self)
                read = partial(_pair, first=first, second=second, same=kind == "same", fold=fold)
                for number, line in numbered_lines(file):
                    yield f"{name}/{fold:02d}/{kind}.txt:{number}", parsed(file, number, line, read)

    def _numbered(self, file: Path, view: str) -> dict[int, str]:
        """The paths of the images of a view, by their numbers."""
        lines = numbered_lines(demand(file, self))
        return dict(parsed(file, number, line, partial(_image, view=_VIEWS[view])) for number, line in lines)


def _person(path: str) -> str:
    return path.partition("/")[0]


def _image(line: str, view: str) -> tuple[int, str]:
    """Number and path of a line; ValueError says what is wrong with it."""
    found = re.fullmatch(rf"(\d+)\s+(?:\S*/)?Images/(\d+/{view}/\S+)", line.strip())
    if found is None:
        raise ValueError(f"'{line}' is not <number> ../Data/Images/001/{view}/01.jpg")
    return int(found[1]), found[2]


def _pair(line: str, first: Mapping[int, str], second: Mapping[int, str], same: bool, fold: int) -> Pair:
    """The pair of a line; ValueError says what is wrong with it."""
    found = re.fullmatch(r"(\d+)\s*,\s*(\d+)", line.strip())
    if found is None:
        raise ValueError(f"'{line}' is not two numbers of images")
    paths = []
    for number, known in zip(map(int, found.groups()), (first, second), strict=True):
        if number not in known:
            raise ValueError(f"there is no image {number} among {len(known)}")
        paths.append(known[number])
    if (_person(paths[0]) == _person(paths[1])) != same:
        raise ValueError(f"{paths[0]} and {paths[1]}, expected {'one person' if same else 'two people'}")
    return Pair(paths[0], paths[1], same, fold)


def _side(points: NDArray[np.float64]) -> str | None:
    """Which profile points show; None where they do not tell."""
    nose, eye, jaw = points[_NOSE, 0], points[_EYE, 0].mean(), points[_JAW, 0]
    return "right profile" if nose > max(eye, jaw) else "left profile" if nose < min(eye, jaw) else None
