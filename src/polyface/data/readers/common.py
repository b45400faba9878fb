"""What the readers share: file lists, safe paths, people's names, and the fixed cut of a validation part."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from polyface.data.folders import look
from polyface.data.images import suffixes
from polyface.data.writing import Reader, Record
from polyface.errors import PolyfaceError, nearest
from polyface.files import read_bytes

# How the data sets here spell people whom another of them, or Labeled Faces in the Wild, spells as on the right.
_SPELLINGS = {
    "ann_hathaway": "anne_hathaway",
    "anne_hathway": "anne_hathaway",
    "aravind_kejriwal": "arvind_kejriwal",
    "beckham": "david_beckham",
    "beyonce": "beyonce_knowles",
    "brazilian_ronaldo": "ronaldo_luis_nazario_de_lima",
    "conan_o_brien": "conan_obrien",
    "dwayne_wade": "dwyane_wade",
    "elvis": "elvis_presley",
    "gaddafi": "muammar_gaddafi",
    "george_bush": "george_w_bush",
    "hiliary_clinton": "hillary_clinton",
    "johny_depp": "johnny_depp",
    "keanu_reaves": "keanu_reeves",
    "lady_diana": "princess_diana",
    "ming_yao": "yao_ming",
    "narender_modi": "narendra_modi",
    "phillip_seymor_hoffmann": "philip_seymour_hoffman",
    "robert_downey_jr": "robert_downey_junior",
    "robin_wright_penn": "robin_wright",
    "saurav_ganguly": "sourav_ganguly",
    "shakira_isabel_mebarak": "shakira",
    "slyvester_stallone": "sylvester_stallone",
    "steven_speilberg": "steven_spielberg",
    "totti": "francesco_totti",
}
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def demand(path: Path, reader: Reader) -> Path:
    """`path`, or an error that says what was expected there and where the data set is obtained."""
    if not path.exists():
        raise lacking(path, "not found", reader)
    return path


def lacking(where: Path, what: str, reader: Reader) -> PolyfaceError:
    """The error that says what a reader expected instead of `what` is there."""
    return PolyfaceError(f"{where}: {what}; reader '{reader.name}' expects {reader.layout}")


def check_word(reader: Reader, option: str, value: str, known: Iterable[str]) -> None:
    """Refuse a reader's option that is none of its words."""
    if value not in known:
        raise PolyfaceError(f"reader '{reader.name}': {option} is '{value}'; {nearest(value, known)}")


def check_draw(reader: Reader, draw: int | str, draws: int | None = None) -> int:
    """A reader's option `draw`, which is a number from 0 on, below `draws` where there are so many.

    Raises:
        PolyfaceError: it is none (a recipe's `draw: seed` that no seed has replaced, say).
    """
    if isinstance(draw, str) or draw < 0 or (draws is not None and draw >= draws):
        known = "from 0 on" if draws is None else f"from 0 to {draws - 1}"
        raise PolyfaceError(f"reader '{reader.name}': draw is '{draw}'; expected a number {known}")
    return draw


def read_text(path: Path) -> str:
    """A label file's text: UTF-8, with or without a byte-order mark, or else Latin-1, which holds any byte."""
    if not path.is_file():  # a pipe would be read for ever
        raise PolyfaceError(f"{path}: not a regular file; check the path")
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a label file that are not blank, each with its number from 1."""
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")  # splitlines splits at more
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def parsed(file: Path, number: int, line: str, parse: Callable[[str], _T]) -> _T:
    """What a line of a list says; an error names the place if `parse` raises a ValueError."""
    try:
        return parse(line)
    except ValueError as error:
        raise PolyfaceError(f"{file}:{number}: {error}; obtain the file again") from None


def counted_rows(file: Path, parse: Callable[[str], _T], rows: int = 1) -> list[list[tuple[int, _T]]]:
    """The folds of a list, each begun by a line that counts it; one of all the rows if it begins without.

    Each row is the number of its line and what `parse` makes of it, which says by a ValueError what is wrong. rows: how
    many there are for each that is counted. A list may begin with a line that counts the folds.

    Raises:
        PolyfaceError: a row that cannot be read, a count that is wrong, or a list without any row.
    """
    lines = [(number, line.strip()) for number, line in numbered_lines(file)]
    folds = None
    if len(lines) > 1 and lines[0][1].isdecimal() and lines[1][1].isdecimal():
        folds = int(lines.pop(0)[1])
    counts: list[tuple[int, int]] = []  # line and number of rows to follow
    found: list[list[tuple[int, _T]]] = []
    if lines and not lines[0][1].isdecimal():
        found.append([])
    for number, line in lines:
        if line.isdecimal() and len(counts) == len(found):
            counts.append((number, int(line) * rows))
            found.append([])
        else:
            found[-1].append((number, parsed(file, number, line, parse)))
    for (number, count), fold in zip(counts, found, strict=False):
        if count != len(fold):
            what = f"says that {count} rows follow, but {len(fold)} do"
            raise PolyfaceError(f"{file}:{number}: {what}; obtain the file again")
    if folds not in (None, len(found)):
        raise PolyfaceError(f"{file}:1: says that {folds} folds follow, but {len(found)} do; obtain the file again")
    if not any(found):
        raise PolyfaceError(f"{file}: names nobody; obtain the file again")
    return found


@lru_cache(maxsize=65536)
def stable_path(name: str) -> str:
    """A path as a list writes it, with '/' separators.

    Raises:
        ValueError: it is absolute or climbs out of the data set's folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or not path.parts:
        raise ValueError(f"path '{name}' is not one inside the data set's folder")
    return str(path)


def numbers(words: Sequence[str]) -> NDArray[np.float64]:
    """The numbers that words of a label file are; ValueError names them if one is none."""
    try:
        return np.array(words, dtype=np.float64)
    except ValueError:
        raise ValueError(f"'{' '.join(words)}' are not {len(words)} numbers") from None


def points_of(file: Path, count: int, separator: str | None = None) -> NDArray[np.float64]:
    """The points of a file that has one a line, [count, 2]. separator: of x and y, by default blanks.

    Raises:
        ValueError: there are not so many, or one is no point.
    """
    lines = [line.split(separator) for _, line in numbered_lines(file)]
    if len(lines) != count or any(len(line) != 2 for line in lines):
        raise ValueError(f"{len(lines)} lines, expected {count} of an x and a y")
    try:
        return np.array(lines, dtype=np.float64)
    except ValueError:
        raise ValueError("a coordinate is not a number") from None


def hash_order(name: str) -> str:
    """The key that fixed random cuts sort by: hexadecimal SHA-1 of the name's bytes, UTF-8 where it is text."""
    return hashlib.sha1(name.encode("utf-8", "surrogateescape")).hexdigest()


def held_out(sizes: Mapping[str, int] | Iterable[str], share: float = 0.1) -> set[str]:
    """The names that make up the validation part: those of smallest SHA-1, until `share` of all faces is reached.

    A pure function of the names, so that everyone who has the data set cuts the same part, in any order and on any
    machine.

    Args:
        sizes: names, or names with the number of faces that each stands for (faces of one photo stay together).
        share: of the faces, rounded to a whole face.
    """
    faces = dict(sizes) if isinstance(sizes, Mapping) else dict.fromkeys(sizes, 1)
    wanted = round(share * sum(faces.values()))
    chosen: set[str] = set()
    for name in sorted(faces, key=hash_order):
        if wanted <= 0:
            break
        chosen.add(name)
        wanted -= faces[name]
    return chosen


def cut(faces: Iterable[Record], part: str, group: Callable[[Record], str], share: float = 0.1) -> None:
    """Give `share` of the training faces to `part`: whole groups, by the fixed order of their names (`held_out`)."""
    training = [face for face in faces if face.labels["split"] == "train"]
    chosen = held_out(Counter(map(group, training)), share)
    for face in training:
        if group(face) in chosen:
            face.labels["split"] = part


def without_ending(name: str) -> str:
    """An image's name, with '/' separators, without the ending that says it is one."""
    stem, _, ending = name.replace("\\", "/").rpartition(".")
    return stem if f".{ending.lower()}" in suffixes() else name.replace("\\", "/")


@dataclass(frozen=True)
class Pair:
    """Two faces, by the paths that a table has of them, whether they show the same person, and the fold that the pair
    is in, where its list has folds. Of a caricature and a photo, the caricature is the first."""

    first: str
    second: str
    same: bool
    fold: int | None = None


USUAL_NAMES = {"verification": "accuracy", "VAL@0.1%": "TAR@FAR 0.1%", "VAL@1%": "TAR@FAR 1%"}
"""What most papers call the figures of listed pairs."""


@dataclass(frozen=True)
class Template:
    """Faces of one person that are compared as one: of each medium, a picture or a video, the paths that a table has of
    its faces. Each has the same say, however many frames it has."""

    person: str
    media: Sequence[Sequence[str]]


@dataclass(frozen=True)
class TemplateSplit:
    """What a data set compares of templates, by their names: pairs (1:1), and probes with a gallery (1:N)."""

    templates: Mapping[str, Template]
    pairs: Sequence[tuple[str, str]]
    probes: Sequence[str]
    gallery: Sequence[str]


@dataclass(frozen=True)
class Identification:
    """Faces of a gallery, and the probes that are sought in it, by the paths that a table has of them. Every person of
    the probes has a face in the gallery."""

    gallery: list[str]
    probes: list[str]


class Images:
    """The images `depth` names below a folder, found by what a list writes of them.

    paths: of the images, from `folder`, with '/' separators, sorted. deeper: those of images further down.
    """

    def __init__(self, folder: Path, depth: int, reader: Reader, within: Iterable[str] = ("",)) -> None:
        """Look in the folders `within` that folder, by default in all of it.

        Raises:
            PolyfaceError: one of them is missing, or there is no image.
        """
        names = [
            inner / name for inner in map(Path, within) for name in look(demand(folder / inner, reader)).whole().files
        ]
        self.folder = folder
        self.paths = sorted(name.as_posix() for name in names if len(name.parts) == depth)
        self.deeper = sorted(name.as_posix() for name in names if len(name.parts) > depth)
        if not self.paths:
            raise lacking(folder, "no image", reader)
        self._exact = set(self.paths)
        self._loose = {without_ending(path).lower(): path for path in reversed(self.paths)}

    def find(self, name: str) -> str | None:
        """The path of the image of that name, None without one.

        Lists made where a file opens by its name in any case, or that leave the ending out, find their images too; one
        of the very name goes first.
        """
        name = name.replace("\\", "/")
        return name if name in self._exact else self._loose.get(without_ending(name).lower())

    def those(self, names: Iterable[str]) -> list[str]:
        """The paths of those of the named images that are there."""
        return [path for path in map(self.find, names) if path is not None]

    def find_pair(self, named: Pair) -> Pair | None:
        """The pair with its images' paths, None without both."""
        first, second = self.find(named.first), self.find(named.second)
        return None if first is None or second is None else Pair(first, second, named.same, named.fold)


def with_val(parts: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, str]:
    """The part of each listed person who is here, of whom there are so many faces (`sizes`): of those to train on, val
    is cut by whole people (`held_out`)."""
    here = {name: part for name, part in parts.items() if name in sizes}
    return here | dict.fromkeys(held_out({name: sizes[name] for name in here if here[name] == "train"}), "val")


def of_part(
    where: Path,
    images: Images,
    listed: Sequence[tuple[str, Pair]],
    part: str,
    part_of: Callable[[str], str | None],
) -> list[Pair]:
    """Of listed pairs those whose images are there and of one part ("all": any), with their folds where these are
    several: a threshold is picked on other folds.

    listed: each pair with its file and line. part_of: the part of an image, by path. A line of the log tells how many
    images are absent.

    Raises:
        PolyfaceError: there is none.
    """
    found, absent = [], []
    for line, named in listed:
        pair = images.find_pair(named)
        if pair is None:
            absent.append(f"{line}: {named.first if images.find(named.first) is None else named.second}")
        elif part == "all" or part_of(pair.first) == part_of(pair.second) == part:
            found.append(pair)
    if absent:
        what = "left out %d of %d pairs, of which an image is not in %s; the first is %s"
        _log.warning(f"%s: {what}", where, len(absent), len(listed), images.folder, absent[0])
    if not found:
        what = f"none of {len(listed)} pairs is of two images of the part '{part}' in {images.folder}"
        raise PolyfaceError(f"{where}: {what}")
    return [replace(pair, fold=None) for pair in found] if len({pair.fold for pair in found}) == 1 else found


@lru_cache(maxsize=65536)
def person_name(name: str) -> str:
    """One spelling for a person: small letters, and _ for whatever is neither letter nor digit.

    "George W. Bush", "George_W_Bush" and "George_Bush" are all george_w_bush, so that people in two data sets are those
    whose names here are the same: known misspellings of CaVI, WebCaricature, Pins and Labeled Faces in the Wild are
    mended.
    """
    plain = "_".join(re.findall(r"[^\W_]+", name.casefold())) or name
    return _SPELLINGS.get(plain, plain)


def shared_people(ours: Iterable[str | None], theirs: Iterable[str | None]) -> list[str]:
    """The people of one data set who are in another one as well, by `person_name`, as the first spells them, sorted:
    those that a training source has to be `without` (`{identity: [...]}`) where the other one is tested on."""
    known = {person_name(name) for name in theirs if name is not None}
    return sorted({name for name in ours if name is not None and person_name(name) in known})


def warn_of_one_modality(where: Path, faces: Sequence[Record]) -> None:
    """A line of the log for people of whom there are caricatures and no photo, or the reverse."""
    people = {
        modality: {f.labels["identity"] for f in faces if f.labels["modality"] == modality}
        for modality in ("caricature", "photo")
    }
    for modality, named in people.items():
        if lacking := sorted(set().union(*people.values()) - named):
            _log.warning("%s: %d people have no %s: %s", where, len(lacking), modality, ", ".join(lacking))
