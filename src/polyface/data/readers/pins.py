"""Pins Face Recognition: 105 celebrities, from Pinterest (Burak, Kaggle 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers._labelled import trained_on
from polyface.data.readers.common import Images, check_word, demand, hash_order, person_name
from polyface.data.writing import Record, Skipped

_FOLDER, _PREFIX = "105_classes_pins_dataset", "pins_"
_TESTED = 10
_SPLITS = ("people", "none")


@dataclass(frozen=True)
class Pins:
    """Pins Face Recognition.

    Layout: ``105_classes_pins_dataset/pins_<name>/<name>102_4.jpg``, 17,534 images; a part of them is read as it is.
    Folder names vary in case ("pins_Tom Hardy", "pins_tom ellis").

    Labels: ``identity``: the folder's name without ``pins_``, in small letters with _ for blanks and points, known
    misspellings mended (:func:`polyface.data.readers.common.person_name`), so that it is the same in CaVI and
    WebCaricature and can be compared with LFW's names put through that function. ``source`` (pins), ``modality``
    (photo). The pictures are loose crops of faces; some show somebody else.

    Split, by the option ``split``. ``people``, the default: the 10 people whose identities have the smallest SHA-1 are
    test; of the others a tenth of the faces, by whole people, is val, and the rest train. ``none``: no part.

    Licence: for research; the rights in the pictures are their photographers'. Source:
    https://www.kaggle.com/datasets/hereisburak/pins-face-recognition
    """

    split: str = "people"

    name = "pins"
    verified = True
    about = "Pins Face Recognition: 17,534 pictures of 105 celebrities in the wild (Kaggle)"
    layout = (
        "the folder 105_classes_pins_dataset of folders pins_<name> with images; obtain it from "
        "https://www.kaggle.com/datasets/hereisburak/pins-face-recognition"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by path; `root` is the folder of ``105_classes_pins_dataset``, or is it.

        Raises:
            PolyfaceError: the folder is missing, holds no image, or ``split`` is none of its words.
        """
        check_word(self, "split", self.split, _SPLITS)
        root = demand(Path(root), self)
        images = Images(root / _FOLDER if (root / _FOLDER).is_dir() else root, 2, self)
        faces = [_face(images.folder, path) for path in images.paths]
        if self.split == "none":
            yield from faces
            return
        people = {face.labels["identity"] for face in faces if isinstance(face, Record)}
        tested = set(sorted(people, key=hash_order)[:_TESTED])
        rest = [face for face in faces if isinstance(face, Record) and face.labels["identity"] not in tested]
        trained_on(rest)
        for face in faces:
            if isinstance(face, Record):
                face.labels.setdefault("split", "test")
            yield face


def _face(folder: Path, path: str) -> Record | Skipped:
    person = path.split("/")[0]
    if not person.startswith(_PREFIX) or not (name := person[len(_PREFIX) :].strip()):
        return Skipped(path, f"expected {_PREFIX}<name> as its folder")
    labels = {"source": "pins", "modality": "photo", "identity": person_name(name)}
    return Record(image=folder / path, where=path, path=path, labels=labels)
