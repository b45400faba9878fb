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
    person_name,
    points_of,
    warn_of_one_modality,
    without_ending,
)
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError, nearest

_MODALITIES = {"C": "caricature", "P": "photo"}
_SPLITS = ("none", "test", "half")
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
    Images without the points are read as they are, and so is a part of the people.

    Labels: ``identity`` (the person's name in small letters: see :func:`polyface.data.readers.common.person_name`),
    ``modality`` (caricature, photo), ``source`` (webcaricature); ``landmarks_17`` where there is a file of them: top of
    the hairline, left ear, chin, right ear, left and right end of the left and of the right eyebrow, left and right
    corner of the left and of the right eye, nose tip, middle of the upper lip, left mouth corner, middle of the lower
    lip, right mouth corner, where left is the viewer's.

    Coordinates are taken as they are: there were no points to measure whether they count pixels from 0 or 1. They are
    those of the images as published; to aligned copies they do not belong.

    Split, by the option ``split``: none by default; the protocols divide people and pairs in several ways, of which
    none is the table's. ``test``: all faces are test faces, for a model trained elsewhere. ``half``: the people in two
    halves drawn by the option ``draw``, one of them test; of the other's images the tenth whose paths have the smallest
    SHA-1 is val and the rest train. So parts share no image, and test shares no person with them.

    Protocol: caricatures are searched among photos (C2P) and photos among caricatures (P2C), in drawn galleries of one
    face a person, and every caricature is verified against every photo. The authors' own lists are taken by the options
    ``reader: webcaricature`` and ``list``: a fold from "1" to "10" or "dev" of ``gallery-probe``, a view of
    ``listed-pairs``.

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
        draw = check_draw(self, self.draw)
        images = _images(Path(root), self)
        points, parts = Path(root) / "FacialPoints", _parts(images.paths, self.split, draw)
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

    def pairs(self, root: Path, part: str, list: str = "2") -> list[Pair]:
        """The restricted verification pairs of a view, "1" or "2", each with its fold; the same for every part."""
        folds = restricted_pairs(root, int(list) if list.isdecimal() else 0)
        return [replace(pair, fold=number) for number, pairs in enumerate(folds, 1) for pair in pairs]

    def searches(self, root: Path, part: str, list: str = "dev") -> dict[str, Identification]:
        """The identification lists C2P and P2C of a fold, "1" to "10" of view 2, or of view 1 ("dev"); the same for
        every part."""
        fold = None if list == "dev" else int(list) if list.isdecimal() else 0
        return {way: identification(root, way, fold) for way in ("C2P", "P2C")}


@dataclass(frozen=True)
class Subject:
    """A person of a protocol: `identity` as the table has it, and the paths of the images that are here."""

    identity: str
    caricatures: list[str]
    photos: list[str]


def restricted_pairs(root: Path, view: int = 2) -> list[list[Pair]]:
    """Verification of given pairs: of view 2 the ten folds, of view 1 the pairs for development, training and test.

    With restricted verification nothing but nine folds' pairs is trained on to test the tenth. Settings are chosen on
    view 1 alone. Pairs without their images are left out, and counted in a line of the log.

    Raises:
        PolyfaceError: images or a list are missing, a list says of itself what it is not, or `view` is not 1 or 2.
    """
    images = _images(Path(root), WebCaricature())
    folds = []
    for file in _views(Path(root), "Restricted/Restricted", view):
        listed = _blocks(file, _pair, rows=2)
        for number, fold in enumerate(listed, 1):
            if 2 * (same := sum(pair.same for pair in fold)) != len(fold):
                what = f"{same} of the {len(fold)} pairs of fold {number} match, expected half"
                raise PolyfaceError(f"{file}: {what}; obtain the file again")
        found = [[pair for pair in map(images.find_pair, fold) if pair] for fold in listed]
        _tell(file, images, sum(map(len, found)), sum(map(len, listed)), "pairs")
        folds += found
    return folds


def unrestricted_people(root: Path, view: int = 2) -> list[list[Subject]]:
    """Verification of any pairs: of view 2 the people of the ten folds, of view 1 those for training and for test.

    Any pairs of nine folds' people may be trained on; the tenth is tested on every caricature with every photo of its
    people. People and images that are absent are left out, and counted in a line of the log.

    Raises:
        PolyfaceError: as `restricted_pairs`.
    """
    images = _images(Path(root), WebCaricature())
    files = _views(Path(root), "UnRestricted/UnRestricted", view)
    return [_present_people(file, images, people) for file in files for people in _blocks(file, _person)]


def training_people(root: Path, fold: int | None = None) -> list[Subject]:
    """The people to train on for identification: of view 2's `fold` 1 to 10, or, with None, of view 1 (development).

    People and images that are absent are left out, and counted in a line of the log.

    Raises:
        PolyfaceError: as `restricted_pairs`, or `fold` is not one of them.
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
        fold: 1 to 10 of view 2, or None for view 1 (development).

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


def _parts(paths: Sequence[str], split: str, draw: int) -> dict[str, str]:
    """The part of each image, where there are parts."""
    if split == "none":
        return {}
    people = sorted({path.split("/")[0] for path in paths})
    chosen = set(people)
    if split == "half":
        chosen = set(np.random.default_rng(draw).permutation(people)[(len(people) + 1) // 2 :].tolist())
    rest = [path for path in paths if path.split("/")[0] not in chosen]
    parts = {path: "test" for path in paths} | dict.fromkeys(rest, "train")
    return parts | dict.fromkeys(held_out(rest), "val")


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
    found = [one for one in people if _count(one)]
    _tell(file, images, len(found), len(listed), "people")
    _tell(file, images, sum(map(_count, found)), sum(map(_count, listed)), "images")
    return found


def _count(one: Subject) -> int:
    return len(one.caricatures) + len(one.photos)


def _tell(file: Path, images: Images, found: int, listed: int, what: str) -> None:
    if found < listed:
        _log.warning("%s: left out %d of %d %s, absent from %s", file, listed - found, listed, what, images.folder)
