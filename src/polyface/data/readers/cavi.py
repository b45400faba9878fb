"""CaVI: caricatures and photos of the same people, and pairs of them (Garg et al., ACM MM 2018)."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from polyface.data.readers.common import (
    Images,
    Pair,
    check_word,
    demand,
    held_out,
    numbered_lines,
    parsed,
    person_name,
    stable_path,
    warn_of_one_modality,
)
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError, nearest
from polyface.files import read_bytes

_MODALITIES = {"Caricature": "caricature", "Real": "photo"}
_PARTS = ("train", "val", "test")  # of an image that lists of two parts name, the later one has it
_LISTS: dict[str, dict[str, list[str]]] = {
    "clean": {"val": ["train-test-files/validation.txt"], "test": ["train-test-files/testing_1.txt"]},
    "authors": {"test": ["train-test-files/testing_1.txt"]},
    "instances": {
        "train": ["data_instances/training_11.txt", "data_instances/training_12.txt"],
        "val": ["data_instances/validation.txt"],
        "test": ["data_instances/testing_1.txt"],
    },
    "everybody": {},
    "people": {},
}
_EVERY = 20  # of the test pairs, Ming et al.'s code takes the first, the 21st, …
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaVI:
    """CaVI (Caricatures and Visual images).

    Layout: ``CaVI_Dataset/Caricature/<person>/<image>`` and ``CaVI_Dataset/Real/<person>/<image>``, where a person's
    two folders may differ in case; beside it the pair lists, a line
    ``<person> Caricature/<person>\\<image> <person> Real/<person>\\<image> <1 same, 0 different>`` a pair:
    ``testing_1.txt`` and ``validation.txt`` in ``train-test-files``, and for the split ``instances`` those and
    ``training_11.txt``, ``training_12.txt`` in ``data_instances``. Only the lists of the split need be there.

    A listed image is found whatever the case of its name: the lists were made where that does not matter, and write
    33 of 2,207 test images and 65 of 3,023 validation images otherwise than the public copy (taken letter by letter,
    2,174 and 2,958 are there). Listed images that are absent are counted in a line of the log. Folders inside a
    person's folder are left out: in the public copy ``Real/Vladimir_Putin`` holds 47 people's, whose 980 photos are
    all in their own folders too.

    Labels: ``identity`` (the person's name in small letters, misspellings mended: see
    :func:`polyface.data.readers.common.person_name`), ``modality`` (caricature, photo), ``split``, ``source`` (cavi).

    Split, by the option ``split``:

    - ``clean``, the default: the 195 names of ``train-test-files``, which are 194 people's: arvind_kejriwal and
      aravind_kejriwal are one man. Test is the images of the test pairs, val those of the validation pairs, train
      every other image of these people. Of images that are the same file one is kept, in test before val before train,
      and none where they lie under two people's names: nobody knows whose face it is. So the parts share no image, by
      path or content. In the public copy: 2,207 test, 3,017 val and 5,470 train images; 30 copies and 4 images under
      two names are left out.
    - ``authors``: what the code of Ming et al. (2021) does, to reproduce it. Test is the images of every 20th test
      pair, train and val together every other image of these people (its choice of people from those pairs alone would
      give fewer). It names no validation part: that is the tenth of its training images whose paths have the
      smallest SHA-1. Not clean: images of the pairs that are passed over are trained on, and copies of test images.
    - ``instances``: the lists of ``data_instances``, of 142 people, with training pairs. Of
      an image that two of them name, and of copies, the same holds as in ``clean``; 281 images of the validation list
      and 3 of the test list are in the training lists too.

    - ``everybody``: to train on, and test elsewhere. All people and images, without copies and images under two names
      as in ``clean``; val is the tenth whose paths have the smallest SHA-1, train the rest. It needs no list.
    - ``people``: the same, but test is all images of some people, who have a fifth of them all, and train the rest: to
      choose settings that are to serve for strangers.

    Protocol: verification of the test pairs, and identification of photos by a task called ``visual`` and of
    caricatures by one called ``caricature`` (and the reverse), as Ming, Burie & Luqman 2021, Table 2.

    Licence: for research only, and not for any profit or commercial purpose. Source:
    https://github.com/lsaiml/CaVINet
    """

    split: str = "clean"

    name = "cavi"
    verified = True
    protocol: ClassVar[dict[str, Any]] = {
        "name": "listed-pairs",
        "reader": "cavi",
        "embedding": "verification",
        "identification": {
            "visual id": {"task": "visual", "faces": {"modality": "photo"}},
            "caricature id": {"task": "caricature", "faces": {"modality": "caricature"}},
            "visual model on caricatures": {"task": "visual", "faces": {"modality": "caricature"}},
            "caricature model on visual images": {"task": "caricature", "faces": {"modality": "photo"}},
        },
    }
    about = "CaVI: 4,816 caricatures and 6,583 photos of 206 people, with pair lists (Garg et al. 2018)"
    layout = (
        "CaVI_Dataset with the folders Caricature and Real, and train-test-files and data_instances with the pair "
        "lists beside it; obtain them from https://github.com/lsaiml/CaVINet"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by path; `root` is the folder of ``CaVI_Dataset``.

        Raises:
            PolyfaceError: the images or a list that ``split`` needs are missing, a line of it cannot be read, or
                ``split`` is none of its words.
        """
        protocol = _Protocol.read(Path(root), self)
        for what in protocol.left_out:
            _log.warning("%s: left out %s", protocol.images.folder, what)
        faces = []
        for path in sorted(protocol.parts):
            modality, identity = _shown(path)
            labels = {"source": self.name, "modality": modality, "identity": identity, "split": protocol.parts[path]}
            faces.append(Record(image=protocol.images.folder / path, where=path, path=path, labels=labels))
        warn_of_one_modality(protocol.images.folder, faces)
        yield from faces

    def pairs(self, root: Path, part: str, list: str = "") -> list[Pair]:
        """The verification pairs of a part, in the order of its lists, of images that the reader puts there.

        ``clean`` and ``authors`` have pairs of some parts only. Pairs of which an image is absent, left out or in
        another part are left out, and counted in a line of the log.

        Args:
            root: the folder that the reader reads.
            part: train, val or test.
            list: the split whose pairs are taken, by default the reader's own.

        Raises:
            PolyfaceError: as the reader does, or the split has no pairs of that part.
        """
        split = list or self.split
        protocol = _Protocol.read(Path(root), CaVI(split))
        if part not in protocol.pairs:
            hint = nearest(part, protocol.pairs)
            raise PolyfaceError(f"reader 'cavi': split '{split}' has no pairs of '{part}'; {hint}")
        listed, parts = protocol.pairs[part], protocol.parts
        found = [
            pair
            for pair in map(protocol.images.find_pair, listed)
            if pair and parts.get(pair.first) == parts.get(pair.second) == part
        ]
        if left_out := len(listed) - len(found):
            what = f"{left_out} of {len(listed)} pairs of '{part}', of which an image is not in that part"
            _log.warning("%s: left out %s", root, what)
        return found


@dataclass(frozen=True)
class _Protocol:
    """What a split puts where.

    pairs: part → its pairs, as the lists write them. parts: the path of an image → its part. left_out: what is in
    none, in words.
    """

    images: Images
    pairs: dict[str, list[Pair]]
    parts: dict[str, str]
    left_out: list[str]

    @classmethod
    def read(cls, root: Path, reader: CaVI) -> _Protocol:
        split = reader.split
        check_word(reader, "split", split, _LISTS)
        images = Images(demand(demand(root, reader) / "CaVI_Dataset", reader), 3, reader, within=_MODALITIES)
        left_out = [f"{len(images.deeper)} images in folders inside a person's folder"] if images.deeper else []
        pairs: dict[str, list[Pair]] = {}
        for part, names in _LISTS[split].items():
            lists = {file: _listed(file) for file in (demand(root / name, reader) for name in names)}
            pairs[part] = [pair for rows in lists.values() for pair in rows]
            left_out += _absent(images, lists)
        people = {_shown(name)[1] for rows in pairs.values() for name in _names(rows)}
        if split == "authors":
            pairs["test"] = pairs["test"][::_EVERY]
        parts = _placed(images, pairs, left_out)
        if split != "instances":
            of_them = [path for path in images.paths if not people or _shown(path)[1] in people]
            parts = dict.fromkeys(of_them, "train") | parts
        if split in ("authors", "everybody"):
            parts |= dict.fromkeys(held_out(path for path, part in parts.items() if part == "train"), "val")
        if split == "people":
            strangers = held_out(Counter(_shown(path)[1] for path in parts), 0.2)
            parts |= {path: "test" for path in parts if _shown(path)[1] in strangers}
        if len(parts) < len(images.paths):
            left_out.append(f"{len(images.paths) - len(parts)} images that are in no part of the split '{split}'")
        if split != "authors":
            parts = _distinct(images, parts, left_out)
        return cls(images, pairs, parts, left_out)


def _shown(path: str) -> tuple[str, str]:
    """The modality and the person that an image shows, by the folders that it lies in."""
    modality, person, _ = path.split("/")
    return _MODALITIES[modality], person_name(person)


def _listed(file: Path) -> list[Pair]:
    """The pairs of a list, as it writes their images' paths but for the separators."""
    found = [parsed(file, number, line, lambda text: _pair(text.split())) for number, line in numbered_lines(file)]
    if not found:
        raise PolyfaceError(f"{file}: names nobody; obtain the file again")
    return found


def _pair(fields: list[str]) -> Pair:
    """The pair of a line; ValueError says what is wrong with it."""
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} fields, expected 5: person and image of a caricature and of a photo, 1 or 0")
    people, label = fields[0:4:2], fields[4]
    caricature, photo = paths = [stable_path(name) for name in fields[1:4:2]]
    for person, path, folder in zip(people, paths, _MODALITIES, strict=True):
        parts = path.split("/")
        if len(parts) != 3 or parts[0] != folder or person_name(parts[1]) != person_name(person):
            raise ValueError(f"path '{path}' is not {folder}/{person}/<image>")
    same = person_name(people[0]) == person_name(people[1])
    if label != str(int(same)):
        raise ValueError(f"'{label}' for {people[0]} and {people[1]}, expected 1 for the same person and else 0")
    return Pair(caricature, photo, same)


def _absent(images: Images, lists: Mapping[Path, list[Pair]]) -> Iterator[str]:
    for file, rows in lists.items():
        named = set(_names(rows))
        if absent := sorted(name for name in named if images.find(name) is None):
            yield f"{len(absent)} of {len(named)} images of {file.name}, which are absent, such as {absent[0]}"


def _placed(images: Images, pairs: Mapping[str, list[Pair]], left_out: list[str]) -> dict[str, str]:
    """The listed images' parts."""
    parts: dict[str, str] = {}
    taken = set()
    for part in _PARTS:
        for path in images.those(_names(pairs.get(part, []))):
            if parts.get(path, part) != part:
                taken.add(path)
            parts[path] = part
    if taken:
        left_out.append(f"{len(taken)} images of a part's lists from that part: those of a later one name them too")
    return parts


def _distinct(images: Images, parts: Mapping[str, str], left_out: list[str]) -> dict[str, str]:
    """The parts without copies of an image, and without images that are filed under two names."""
    same_file: dict[str, list[str]] = {}
    for path in images.paths:
        content = read_bytes(images.folder / path)
        same_file.setdefault(hashlib.sha1(content).hexdigest(), []).append(path)
    kept = dict(parts)
    copies = doubtful = 0
    for paths in same_file.values():
        chosen = [path for path in paths if path in parts]
        if len({_shown(path) for path in paths}) > 1:
            doubtful += len(chosen)
        elif len(chosen) > 1:
            # The shortest name last: a copy is called <name>(1).jpg, and no list names it.
            chosen.sort(key=lambda path: (_PARTS.index(parts[path]), -len(path), path))
            chosen.pop()
            copies += len(chosen)
        else:
            continue
        for path in chosen:
            del kept[path]
    if copies:
        left_out.append(f"{copies} images that are copies of another of the same person")
    if doubtful:
        left_out.append(f"{doubtful} images that lie, as the same file, under two names")
    return kept


def _names(pairs: Iterable[Pair]) -> Iterator[str]:
    for pair in pairs:
        yield pair.first
        yield pair.second
