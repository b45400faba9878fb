"""MTFL: five points, gender, smile, glasses and pose of 12,995 faces (Zhang et al., ECCV 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.readers.common import cut, demand, numbered_lines, numbers, stable_path
from polyface.data.writing import Record, Skipped
from polyface.schema import VOCABULARIES

_PARTS = {"training": "train", "testing": "test"}
_FIELDS = 15  # path, x1…x5, y1…y5, gender, smile, glasses, pose
_CODES: dict[str, tuple[str, ...]] = {  # the word of code k is the k-th, from 1
    "gender": ("male", "female"),
    "smile": ("yes", "no"),
    "glasses": ("yes", "no"),
    "pose": VOCABULARIES["pose"],
}


@dataclass(frozen=True)
class MTFL:
    """Multi-Task Facial Landmark data set, version 1.0.

    Layout: ``training.txt`` (10,000 faces) and ``testing.txt`` (2,995) beside the image folders ``lfw_5590``,
    ``net_7876`` and ``AFLW``. One face a line: ``path x1 … x5 y1 … y5 gender smile glasses pose``. The training list
    separates folders by a backslash, and every line but the first starts with a blank.

    Labels: ``landmarks_5`` (left eye, right eye, nose, left and right mouth corner: the viewer's left), ``gender`` (1
    male, 2 female), ``smile`` and ``glasses`` (1 yes, 2 no), ``pose`` (1 left profile … 5 right profile), ``source``
    (the image folder) and ``split``. There are no boxes.

    Coordinates: the lists count pixels from 1, as Matlab does, so 1 is taken off. Their readme does not say so; we
    measured it with a detector whose own offset is under 0.15 pixels (by the points it finds in a mirrored image):
    the published points of ``lfw_5590`` and ``net_7876`` lie 0.8 to 1.2 pixels right of and below it. Those of ``AFLW``
    lie 1.9 pixels off; that further 0.9 (of 128 pixels) is in the published test labels and is left there, so a network
    trained on the training list meets it as an error.

    Split: ``testing.txt`` is test. The authors name no validation part: it is the tenth (1,000) of the training faces
    whose path, written with '/', has the smallest SHA-1; the other 9,000 are train.

    Licence: none is stated; for research. Source: http://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html
    """

    name = "mtfl"
    verified = True
    about = "MTFL: 12,995 faces with 5 points, gender, smile, glasses and pose (Zhang et al. 2014)"
    layout = (
        "MTFL as its authors publish it: training.txt and testing.txt beside the image folders lfw_5590, net_7876 and "
        "AFLW; obtain it from http://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """Faces of both lists, in their order; `root` is the folder of the lists, or holds it as ``MTFL``.

        Raises:
            PolyfaceError: a list or an image folder that a list names is missing.
        """
        root = Path(root)
        if not (root / "training.txt").exists() and (root / "MTFL").is_dir():
            root = root / "MTFL"
        for part in _PARTS:
            demand(root / f"{part}.txt", self)
        faces = [face for part in _PARTS for face in _faces(root / f"{part}.txt", _PARTS[part])]
        good = [face for face in faces if isinstance(face, Record)]
        for source in sorted({face.labels["source"] for face in good}):
            demand(root / source, self)
        cut(good, "val", lambda face: face.path)
        yield from faces


def _faces(file: Path, split: str) -> Iterator[Record | Skipped]:
    for number, line in numbered_lines(file):
        where = f"{file.name}:{number}"
        try:
            path, labels = _parse(line)
        except ValueError as error:
            yield Skipped(where, str(error))
        else:
            yield Record(image=file.parent / path, where=where, path=path, labels=labels | {"split": split})


def _parse(line: str) -> tuple[str, dict[str, Any]]:
    """Path and labels of one line; ValueError says what is wrong with it."""
    fields = line.split()
    if len(fields) != _FIELDS:
        raise ValueError(f"{len(fields)} fields, expected {_FIELDS}: path, 5 x, 5 y, gender, smile, glasses, pose")
    path = stable_path(fields[0])
    if "/" not in path:
        raise ValueError(f"path '{fields[0]}' names no image folder")
    points = numbers(fields[1:11]).reshape(2, 5).T - 1  # counted from 1
    labels: dict[str, Any] = {"source": path.split("/")[0], "landmarks_5": points}
    for (column, words), code in zip(_CODES.items(), fields[11:], strict=True):
        if not (code.isdecimal() and 1 <= int(code) <= len(words)):
            raise ValueError(f"{column} is '{code}', expected a code from 1 to {len(words)}")
        labels[column] = words[int(code) - 1]
    return path, labels
