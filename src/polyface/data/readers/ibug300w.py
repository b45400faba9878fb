"""300-W and the other sets in iBUG's layout: a ``.pts`` file of points beside each image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.data.folders import look
from polyface.data.readers.common import cut, demand, lacking, numbered_lines
from polyface.data.writing import Record, Skipped
from polyface.errors import check_names

_SOURCES = {
    "afw": "AFW",
    "helen": "Helen",
    "lfpw": "LFPW",
    "ibug": "IBUG",
    "300w": "300W",
    "indoor": "300W",
    "outdoor": "300W",
}
_PARTS = {"trainset": "train", "train": "train", "testset": "test", "test": "test"}
_SPLITS = {"AFW": "train", "IBUG": "test", "300W": "test"}  # of the sets that come undivided


@dataclass(frozen=True)
class Ibug300W:
    """Faces annotated with a ``.pts`` file each: AFW, LFPW, Helen, IBUG, 300-W, and one's own in that layout.

    Layout: any tree of folders, in which ``name.pts`` stands beside ``name.jpg`` or ``.png``. The official archives
    unpack to ``afw``, ``helen/trainset``, ``helen/testset``, ``lfpw/trainset``, ``lfpw/testset``, ``ibug`` and
    ``300W/01_Indoor``, ``300W/02_Outdoor``; any of them will do.

    A ``.pts`` file of iBUG has a header, ``version: 1``, ``n_points: 68`` and the points between braces, and counts
    pixels from 1: 1 is taken off. A bare file, of nothing but lines ``x y``, is taken as it is, from 0. Any number of
    points makes ``landmarks_<number>``; ``nan nan`` is a point that is not visible.

    Labels: ``landmarks_N``; ``source`` by the names of the folders (AFW, Helen, LFPW, IBUG, 300W), else null;
    ``split`` as in the papers of 2014: AFW and the ``trainset`` folders are train, IBUG, 300W and the ``testset``
    folders are test, else null. Of each source's training faces a tenth is val: the photos of smallest SHA-1 of
    ``<source>/<photo>``, until a tenth is reached. Helen and AFW name a face ``<photo>_<k>``, and faces of one photo
    are never parted. With the option ``tested: [AFW]`` all faces of these sources are test faces instead.

    Licence: research only, no commercial use. Source: https://ibug.doc.ic.ac.uk/resources/300-W/
    """

    tested: Sequence[str] = ()

    name = "300w"
    verified = True  # Helen and AFW
    about = "300-W, Helen, LFPW, AFW, IBUG: a .pts file of 68 (or any number of) points beside each image"
    layout = (
        "a tree of folders in which each <name>.pts stands beside <name>.jpg or .png (afw, helen, lfpw, ibug, 300W); "
        "obtain them from https://ibug.doc.ic.ac.uk/resources/300-W/"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a ``.pts`` file under `root`, by path.

        Raises:
            PolyfaceError: `root` is missing or holds no ``.pts`` file, or `tested` names a source that there is not.
        """
        check_names(self.tested, sorted({*_SOURCES.values()}), "300w: tested")
        root = demand(Path(root), self)
        files = look(root, (".pts",)).whole().files
        if not files:
            raise lacking(root, "no .pts file", self)
        images = {name.with_suffix(""): name for name in reversed(look(root).files)}
        faces = [_face(file, images.get(file.with_suffix("")), root) for file in files]
        for face in faces:
            if isinstance(face, Record) and face.labels["source"] in self.tested:
                face.labels["split"] = "test"
        training = [f for f in faces if isinstance(f, Record) and f.labels["split"] == "train"]
        for source in {face.labels["source"] for face in training}:
            cut([face for face in training if face.labels["source"] == source], "val", _photo)
        yield from faces


def _face(file: Path, image: Path | None, root: Path) -> Record | Skipped:
    """The face of a ``.pts`` file and the image beside it, both by their paths from `root`."""
    where = file.as_posix()
    if image is None:
        return Skipped(where, "no image of that name beside it (.jpg, .png or the like)")
    try:
        points = _points(numbered_lines(root / file))
    except ValueError as error:
        return Skipped(where, str(error))
    words = _words(file, root)
    source = next((_SOURCES[word] for word in words if word in _SOURCES), None)
    split = next((_PARTS[word] for word in words if word in _PARTS), _SPLITS.get(source or ""))
    labels: dict[str, Any] = {f"landmarks_{len(points)}": points, "source": source, "split": split}
    return Record(image=root / image, where=where, path=image.as_posix(), labels=labels)


def _points(numbered: list[tuple[int, str]]) -> NDArray[np.float64]:
    """Points ``[N, 2]``, pixels from 0, of a ``.pts`` file's lines; ValueError names the line and what is wrong."""
    lines = [(number, line.strip()) for number, line in numbered]
    header = [line for _, line in lines if re.match(r"version\s*:|n_points\s*:|\{", line)]
    if not header:
        return _coordinates(lines)
    braces = {line[0]: place for place, (_, line) in enumerate(lines) if line[0] in "{}"}
    if len(braces) < 2:
        raise ValueError("has a header, but its points are not between { and }")
    points = _coordinates(lines[braces["{"] + 1 : braces["}"]])
    declared = re.search(r"n_points\s*:\s*(\d+)", " ".join(header))
    if declared and int(declared.group(1)) != len(points):
        raise ValueError(f"{len(points)} points, but its header says {declared.group(1)}")
    return points - 1  # counted from 1


def _coordinates(lines: list[tuple[int, str]]) -> NDArray[np.float64]:
    points = []
    for number, line in lines:
        fields = line.split()
        try:
            x, y = map(float, fields)
        except ValueError:
            raise ValueError(f"line {number}: '{line[:40]}' is not a point (x y)") from None
        points.append((x, y))
    if not points:
        raise ValueError("holds no points")
    return np.array(points)


def _words(file: Path, root: Path) -> list[str]:
    """The words of the folders that hold a file, innermost first; last, the name of `root` if it is a part or a set.

    A root called "300w" says nothing: people keep all of these sets in a folder of that name.
    """
    inner = [folder.lower().replace("300-w", "300w") for folder in reversed(file.parent.parts)]
    words = [word for folder in inner for word in re.split(r"[^0-9a-z]+", folder)]
    for outer in [root.resolve(), root.resolve().parent][: 2 if root.resolve().name.lower() in _PARTS else 1]:
        if outer.name.lower() in {*_PARTS, *_SOURCES} - {"300w"}:
            words.append(outer.name.lower())
    return words


def _photo(face: Record) -> str:
    """The photo that a face is cut from, named the same whichever folder the reader was pointed at."""
    stem = PurePosixPath(face.path).stem
    if face.labels["source"] in ("AFW", "Helen"):
        stem = re.sub(r"_\d+$", "", stem)
    return f"{face.labels['source']}/{stem}"
