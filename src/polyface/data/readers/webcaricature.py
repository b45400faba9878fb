"""WebCaricature: caricatures and photos of 252 people, and its evaluation protocols (Huo et al., BMVC 2018)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from polyface.data.readers.common import (
    Identification,
    Images,
    Pair,
    check_draw,
    check_word,
    counted_rows,
    demand,
    held_out,
    of_part,
    person_name,
    points_of,
    warn_of_one_modality,
    without_ending,
)
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError, nearest

_MODALITIES = {"C": "caricature", "P": "photo"}
_SPLITS = ("none", "test", "half", "verification", "identification")
_DEVELOPMENT, _FOLDS = "dev", 10
_POINTS = 17
_VERIFICATION = "EvaluationProtocols/FaceVerification"
_IDENTIFICATION = "EvaluationProtocols/FaceIdentification"
_PAIR = re.compile(r"(.+?)\s+(C\d+)\s+(?:(.+?)\s+)?(P\d+)")
_PERSON = re.compile(r"(.+?)\s+(\d+)\s+(\d+)")
_IMAGE = re.compile(r"(.+?)\s+([CP]\d+)(?:\.\w+)?")
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class WebCaricature:
    """WebCaricature.

    Layout: ``OriginalImages/<name>/C00001.jpg`` (caricatures) and ``P00001.jpg`` (photos), with 17 points in
    ``FacialPoints/<name>/C00001.txt`` and the lists of the protocols, which :func:`restricted_pairs`,
    :func:`unrestricted_people`, :func:`training_people` and :func:`identification` read, in ``EvaluationProtocols``.
    Images without the points are read as they are, and so is a part of the people. What a list names and is absent is
    counted in a line of the log.

    Labels: ``identity`` (the person's name in small letters: see :func:`polyface.data.readers.common.person_name`),
    ``modality`` (caricature, photo), ``source`` (webcaricature); ``landmarks_17`` where there is a file of them: top of
    the hairline, left ear, chin, right ear, left and right end of the left and of the right eyebrow, left and right
    corner of the left and of the right eye, nose tip, middle of the upper lip, left mouth corner, middle of the lower
    lip, right mouth corner, where left is the viewer's.

    Coordinates are taken as they are: there were no points to measure whether they count pixels from 0 or 1. They are
    those of the images as published; to aligned copies they do not belong.

    Split, by the option ``split``: none by default; the protocols divide people and pairs in several ways.

    - ``test``: all faces are test faces, for a model trained elsewhere.
    - ``half``: the people in two halves drawn by the option ``draw``, one of them test.
    - ``verification``: the people of View 2's ten folds (``UnRestrictedView2.txt``); those of one are test, those of
      the others to train on. ``draw`` 0 to 9 says which: fold ``draw`` + 1; ``dev``: the people of View 1.
    - ``identification``: the people of ``FR_TrainX.txt`` to train on, and as test the faces of X's galleries and
      probes. ``draw`` 0 to 9 says which: X is ``draw`` + 1; ``dev``: those for development.

    Of the images to train on the tenth whose paths have the smallest SHA-1 is val. So parts share no image, and test
    shares no person with them. Whom no list names is in no part.

    Protocol: caricatures are searched among photos (C2P) and photos among caricatures (P2C), in drawn galleries of one
    face a person, and every caricature is verified against every photo, as the unrestricted protocol has it. The
    authors' own lists are those of ``{name: gallery-probe, reader: webcaricature}`` and of ``{name: listed-pairs,
    reader: webcaricature}``, the restricted pairs: those of the fold that is tested, or by the option ``list`` of
    another: a fold from "1" to "10" or "dev", a view "1" or "2".

    Licence: for academic purposes only, not to be redistributed. Source: https://cs.nju.edu.cn/rl/WebCaricature.htm
    """

    split: str = "none"
    draw: int | str = 0

    name = "webcaricature"
    verified = True  # aligned images of 123 people and FR_Train_dev.txt; not the points and the other protocol files
    about = "WebCaricature: 6,042 caricatures and 5,974 photos of 252 people, with protocols (Huo et al. 2018)"
    protocol: ClassVar[dict[str, Any]] = {
        "name": "gallery-probe",
        "searches": {
            "C2P": {"probes": {"modality": "caricature"}, "gallery": {"modality": "photo"}},
            "P2C": {"probes": {"modality": "photo"}, "gallery": {"modality": "caricature"}},
        },
        "verify": "C2P",
        "embedding": "verification",
    }
    layout = (
        "the folder OriginalImages of folders <name> with C00001.jpg, …, P00001.jpg, … and beside it FacialPoints and "
        "EvaluationProtocols; obtain them from https://cs.nju.edu.cn/rl/WebCaricature.htm"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by path; `root` is the folder of ``OriginalImages``.

        Raises:
            PolyfaceError: the images are missing, or ``split`` is none of its words.
        """
        check_word(self, "split", self.split, _SPLITS)
        images = _images(Path(root), self)
        points, parts = Path(root) / "FacialPoints", self._parts(Path(root), images.paths)
        faces = []
        for path in images.paths:
            face = _face(images.folder, path, points)
            if isinstance(face, Record):
                face.labels.update({"split": parts[path]} if path in parts else {})
                faces.append(face)
            yield face
        if points.is_dir() and (without := sum("landmarks_17" not in face.labels for face in faces)):
            _log.warning("%s: %d of %d images have no points there", points, without, len(faces))
        warn_of_one_modality(images.folder, faces)

    def pairs(self, root: Path, part: str, list: str = "") -> list[Pair]:
        """The restricted verification pairs of a view, "1" or "2", of which both images are of that part ("all", or a
        reader without parts: every pair), each with its fold where they are of several.

        Raises:
            PolyfaceError: as the reader does, or there is no such list, or no pair of that part.
        """
        images = _images(root := Path(root), self)
        listed = restricted_pairs(root, int(list) if list.isdecimal() else 0 if list else self._view)
        parts = self._parts(root, images.paths)
        return of_part(root / _VERIFICATION, images, listed, part if parts else "all", parts.get)

    def searches(self, root: Path, part: str, list: str = "") -> dict[str, Identification]:
        """The identification lists C2P and P2C of a fold, "1" to "10" of View 2, or of View 1 ("dev"); the same for
        every part. By default they are those of the split, without one those of View 1."""
        chosen = list or str(self._fold or _DEVELOPMENT)
        fold = None if chosen == _DEVELOPMENT else int(chosen) if chosen.isdecimal() else 0
        return {way: identification(root, way, fold) for way in ("C2P", "P2C")}

    @property
    def _fold(self) -> int | None:
        """The fold of View 2 that the split tests, from 1; None where it tests none."""
        if self.split not in ("verification", "identification") or self.draw == _DEVELOPMENT:
            return None
        return check_draw(self, self.draw, _FOLDS) + 1

    @property
    def _view(self) -> int:
        return 1 if self.split == "verification" and self._fold is None else 2

    def _parts(self, root: Path, paths: Sequence[str]) -> dict[str, str]:
        """The part of each image, where there are parts."""
        if self.split == "none":
            return {}
        train, test = self._divided(root, paths)
        return dict.fromkeys(train, "train") | dict.fromkeys(held_out(train), "val") | dict.fromkeys(test, "test")

    def _divided(self, root: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
        """The images to train on, and those to be tested on."""
        fold = self._fold
        if self.split == "identification":
            searches = self.searches(root, "test").values()
            train = [path for one in training_people(root, fold) for path in one.paths]
            return train, [path for one in searches for path in (*one.gallery, *one.probes)]
        if self.split == "verification":
            folds = [[path for one in people for path in one.paths] for people in unrestricted_people(root, self._view)]
            if (fold or 1) > len(folds):
                raise PolyfaceError(
                    f"reader '{self.name}': draw is {self.draw}, and View 2 has {len(folds)} folds here"
                )
            test = folds.pop(fold - 1 if fold else -1)
            return [path for one in folds for path in one], test
        people = sorted({path.split("/")[0] for path in paths})
        if self.split == "half":
            drawn = np.random.default_rng(check_draw(self, self.draw)).permutation(people)
            people = drawn[(len(people) + 1) // 2 :].tolist()
        tested = {path for path in paths if path.split("/")[0] in set(people)}
        return [path for path in paths if path not in tested], sorted(tested)


@dataclass(frozen=True)
class Subject:
    """A person of a protocol: `identity` as the table has it, and the paths of the images that are here."""

    identity: str
    caricatures: list[str]
    photos: list[str]

    @property
    def paths(self) -> list[str]:
        return [*self.caricatures, *self.photos]


def restricted_pairs(root: Path, view: int = 2) -> list[tuple[str, Pair]]:
    """Verification of given pairs, each with the place where it is listed, by images' names: of View 2 those of ten
    folds, of View 1 those for development, training (fold 1) and test (fold 2).

    With restricted verification nothing but nine folds' pairs is trained on to test the tenth. Settings are chosen on
    View 1 alone.

    Raises:
        PolyfaceError: a list is missing, or says of itself what it is not, or `view` is not 1 or 2.
    """
    found: list[tuple[str, Pair]] = []
    folds = 0
    for file in _views(Path(root), "Restricted/Restricted", view):
        for number, fold in enumerate(counted_rows(file, _pair, rows=2), 1):
            if 2 * (same := sum(pair.same for _, pair in fold)) != len(fold):
                what = f"{same} of the {len(fold)} pairs of fold {number} match, expected half"
                raise PolyfaceError(f"{file}: {what}; obtain the file again")
            folds += 1
            found += [(f"{file.name}:{line}", replace(pair, fold=folds)) for line, pair in fold]
    return found


def unrestricted_people(root: Path, view: int = 2) -> list[list[Subject]]:
    """Verification of any pairs: of View 2 the people of the ten folds, of View 1 those for training and for test.

    Any pairs of nine folds' people may be trained on; the tenth is tested on every caricature with every photo of its
    people. People and images that are absent are left out, and counted in a line of the log.

    Raises:
        PolyfaceError: as `restricted_pairs`, or images are missing.
    """
    images = _images(Path(root), WebCaricature())
    files = _views(Path(root), "UnRestricted/UnRestricted", view)
    return [_present_people(file, images, people) for file in files for people in _blocks(file, _person)]


def training_people(root: Path, fold: int | None = None) -> list[Subject]:
    """The people to train on for identification: of View 2's `fold` 1 to 10, or, with None, of View 1 (development).

    People and images that are absent are left out, and counted in a line of the log.

    Raises:
        PolyfaceError: as `unrestricted_people`, or `fold` is not one of them.
    """
    reader = WebCaricature()
    images = _images(Path(root), reader)
    file = demand(Path(root) / _IDENTIFICATION / f"FR_Train{_number(fold)}.txt", reader)
    return _present_people(file, images, [person for block in _blocks(file, _person) for person in block])


def identification(root: Path, direction: str, fold: int | None = None) -> Identification:
    """Gallery and probes of a fold, of people whom `training_people` does not name, and of one modality each.

    Images that are absent are left out, and so are probes of whose person no image is in the gallery; lines of the log
    count them.

    Args:
        root: the folder that the reader reads.
        direction: C2P (caricatures as probes, one photo a person as gallery) or P2C (the reverse).
        fold: 1 to 10 of View 2, or None for View 1 (development).

    Raises:
        PolyfaceError: as `training_people`, `direction` is neither, or a list holds images of the other modality.
    """
    if direction not in ("C2P", "P2C"):
        raise PolyfaceError(f"direction is '{direction}'; {nearest(direction, ('C2P', 'P2C'))}")
    root, reader = Path(root), WebCaricature()
    images = _images(root, reader)
    folder, ending = root / _IDENTIFICATION / direction, f"{direction}{_number(fold)}.txt"
    gallery = _present_images(demand(folder / f"FR_Gallery_{ending}", reader), images, direction[2])
    file = demand(folder / f"FR_Probe_{ending}", reader)
    probes = _present_images(file, images, direction[0])
    people = {path.split("/")[0] for path in gallery}
    answerable = [path for path in probes if path.split("/")[0] in people]
    if len(answerable) < len(probes):
        _log.warning("%s: left out %d probes of people without a gallery image", file, len(probes) - len(answerable))
    return Identification(gallery, answerable)


# ------------------------------------------------------------------------------------------- images and points


def _images(root: Path, reader: WebCaricature) -> Images:
    return Images(demand(demand(root, reader) / "OriginalImages", reader), 2, reader)


def _face(folder: Path, path: str, points: Path) -> Record | Skipped:
    person, image = path.split("/")
    if image[0] not in _MODALITIES:
        return Skipped(path, "expected C… (a caricature) or P… (a photo) as its name")
    labels: dict[str, Any] = {
        "source": "webcaricature",
        "modality": _MODALITIES[image[0]],
        "identity": person_name(person),
    }
    file = points / f"{without_ending(path)}.txt"
    if file.is_file():
        try:
            labels["landmarks_17"] = points_of(file, _POINTS)
        except ValueError as error:
            return Skipped(f"FacialPoints/{without_ending(path)}.txt", str(error))
    return Record(image=folder / path, where=path, path=path, labels=labels)


# ------------------------------------------------------------------------------------------- lists


def _views(root: Path, kind: str, view: int) -> list[Path]:
    if view not in (1, 2):
        raise PolyfaceError(f"view is {view}, expected 1 (development) or 2 (evaluation)")
    endings = ["View1_DevTrain", "View1_DevTest"] if view == 1 else ["View2"]
    return [demand(root / _VERIFICATION / f"{kind}{ending}.txt", WebCaricature()) for ending in endings]


def _number(fold: int | None) -> str:
    if fold is not None and fold not in range(1, 11):
        raise PolyfaceError(f"fold is {fold}, expected 1 to 10, or None for development")
    return "_dev" if fold is None else str(fold)


def _blocks(file: Path, parse: Callable[[str], _T], rows: int = 1) -> list[list[_T]]:
    """What the rows of a list say, by fold."""
    return [[value for _, value in fold] for fold in counted_rows(file, parse, rows)]


def _pair(line: str) -> Pair:
    """The pair of a line, by images' names; ValueError says what is wrong with it."""
    match = _PAIR.fullmatch(line)
    if match is None:
        raise ValueError(f"'{line}' is not <name> <caricature> <photo>, or <name> <caricature> <other name> <photo>")
    person, caricature, other, photo = match.groups()
    return Pair(f"{person}/{caricature}", f"{other or person}/{photo}", other is None)


def _person(line: str) -> Subject:
    """The person of a line, with images' names; ValueError says what is wrong with it."""
    match = _PERSON.fullmatch(line)
    if match is None:
        raise ValueError(f"'{line}' is not <name> <number of caricatures> <number of photos>")
    person, caricatures, photos = match[1], int(match[2]), int(match[3])
    return Subject(
        person_name(person),
        [f"{person}/C{number:05d}" for number in range(1, caricatures + 1)],
        [f"{person}/P{number:05d}" for number in range(1, photos + 1)],
    )


def _image(line: str) -> str:
    """The image's name of a line; ValueError says what is wrong with it."""
    match = _IMAGE.fullmatch(line)
    if match is None:
        raise ValueError(f"'{line}' is not <name> <image>")
    return "/".join(match.groups())


def _present_images(file: Path, images: Images, letter: str) -> list[str]:
    """The paths of the images of a list that are there, all of the modality that the letter says."""
    listed = [name for block in _blocks(file, _image) for name in block]
    for name in listed:
        if not name.rpartition("/")[2].startswith(letter):
            raise PolyfaceError(f"{file}: '{name}' is no {_MODALITIES[letter]}; obtain the file again")
    found = images.those(listed)
    _tell(file, images, len(found), len(listed), "images")
    return found


def _present_people(file: Path, images: Images, listed: Sequence[Subject]) -> list[Subject]:
    """The people of whom there are images."""
    people = [Subject(one.identity, images.those(one.caricatures), images.those(one.photos)) for one in listed]
    found = [one for one in people if one.paths]
    _tell(file, images, len(found), len(listed), "people")
    _tell(file, images, sum(len(one.paths) for one in found), sum(len(one.paths) for one in listed), "images")
    return found


def _tell(file: Path, images: Images, found: int, listed: int, what: str) -> None:
    if found < listed:
        _log.warning("%s: left out %d of %d %s, absent from %s", file, listed - found, listed, what, images.folder)
