"""CelebA: 40 attributes, identity, five points and boxes of 202,599 faces (Liu et al., ICCV 2015)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyface.data.folders import look
from polyface.data.images import size_of
from polyface.data.readers.common import (
    check_word,
    demand,
    lacking,
    numbered_lines,
    numbers,
    without_ending,
)
from polyface.data.writing import Reader, Record, Skipped
from polyface.errors import PolyfaceError, nearest
from polyface.schema import ATTRIBUTES

_FOLDERS = {"aligned": ("img_align_celeba", "img_align_celeba_png"), "wild": ("img_celeba",)}
_POINT_LISTS = ("list_landmarks_align_celeba.txt", "list_landmarks_celeba.txt")  # aligned, in the wild
_POINT_COLUMNS = [
    f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
]
_BOX_COLUMNS = ["x_1", "y_1", "width", "height"]
_ALIGNED_SIZE = (178, 218)  # width, height: the frame that the points of aligned images are in
_VALUES = {"1": 1, "-1": -1, "0": None}
_PARTS = {"0": "train", "1": "val", "2": "test"}
_log = logging.getLogger(__name__)

Labels = dict[str, Any]
Parse = Callable[[list[str]], Labels]
"""Labels by the words of a row; a ValueError says what is wrong with them."""


@dataclass(frozen=True)
class CelebA:
    """CelebFaces Attributes.

    Layout: ``list_attr_celeba.txt``, ``identity_CelebA.txt`` and ``list_eval_partition.txt`` and, if present,
    ``list_landmarks_align_celeba.txt``, ``list_landmarks_celeba.txt`` and ``list_bbox_celeba.txt``, in one folder or in
    its ``Anno`` and ``Eval``; aligned images in ``img_align_celeba`` (or ``img_align_celeba_png``) and images in the
    wild in ``img_celeba``, in that folder or its ``Img``. The option ``images``, aligned or wild, says which to read;
    by default those that are there, and the aligned ones of both. An image and its rows share the file's name without
    the ending. Columns are known by their names in the header line, in whatever order.

    A part of the images with the full lists is a table of that part: rows without an image are left out, and counted in
    a line of the log. An image without a row in one of the first three lists is a skipped face, as is one with a row
    twice or with a row that cannot be read. A list that miscounts its rows in its first line, or has other columns than
    it should, is an error.

    Labels: ``attributes`` (1, −1; null for a 0), ``identity`` (the person's number), ``split``, ``source`` (celeba) and
    ``modality`` (photo); ``landmarks_5`` (left eye, right eye, nose, left and right mouth corner: the viewer's left);
    of images in the wild ``box``, null where its published width or height is 0. The points of aligned images are those
    of 178×218 pixels: an image of another size gets none, and the log says how many did not.

    Coordinates are taken as they are. On 60 aligned images the published points lie 0.0 ± 0.1 pixels right of those
    that a detector finds in the image and its mirror image, where a count from 1 would make it 1 (and 0.1 to 0.7 below
    them, by how far the image is enlarged for the detector): they count pixels from 0. There were no images in the wild
    to measure it on.

    Split: ``list_eval_partition.txt`` (0 train, 1 val, 2 test), whose parts share no person.

    Licence: non-commercial research and education only. Source: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
    """

    images: str | None = None

    name = "celeba"
    verified = True  # aligned images, attributes, identity and partition; not points, boxes and images in the wild
    about = "CelebA: 202,599 faces, aligned or in the wild, with 40 attributes and identity (Liu et al. 2015)"
    layout = (
        "CelebA as its authors publish it: list_attr_celeba.txt, identity_CelebA.txt and list_eval_partition.txt (or "
        "in Anno and Eval) beside the image folder img_align_celeba or img_celeba (or in Img); obtain it from "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    )

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face an image, by name; `root` is the folder described above, or holds it as ``CelebA``.

        Raises:
            PolyfaceError: a list or the image folder is missing, a list has another number of rows or other columns
                than it should, or ``images`` is none of its words.
        """
        kinds = list(_FOLDERS) if self.images is None else [self.images]
        check_word(self, "images", kinds[0], _FOLDERS)
        root = demand(Path(root), self)
        homes = (root, root / "CelebA", root / "celeba")
        root = next((home for home in homes if _find(home, "list_attr_celeba.txt")), root)
        folder = image_folder(root, [name for kind in kinds for name in _FOLDERS[kind]], self)
        images = [folder / name for name in look(folder).whole().files if len(name.parts) == 1]
        if not images:
            raise lacking(folder, "no image", self)
        wild = folder.name in _FOLDERS["wild"]
        sources = self._sources(root, wild)
        points = _optional(root, _POINT_LISTS[wild], _POINT_COLUMNS, _points)

        file, rows = sources[0].file, sources[0].rows
        if absent := len(rows.keys() - {image.stem for image in images}):
            _log.warning("%s: left out %d of %d rows, which have no image in %s", file, absent, len(rows), folder)
        resized = 0
        for image in images:
            fits = wild or not points or _size(image) == _ALIGNED_SIZE
            resized += not fits
            yield _face(image, [*sources, *points] if fits else sources)
        if resized:
            _log.warning("%s: left out the points of %d images that are not 178×218 pixels", folder, resized)

    def _sources(self, root: Path, wild: bool) -> list[Listed]:
        """What labels a face whatever its size, attributes first."""
        return [
            Listed.read(self._list(root, "list_attr_celeba.txt"), _attributes, ATTRIBUTES),
            Listed.read(self._list(root, "identity_CelebA.txt"), _identity),
            Listed.read(self._list(root, "list_eval_partition.txt"), part_of),
            *(_optional(root, "list_bbox_celeba.txt", _BOX_COLUMNS, _box) if wild else []),
        ]

    def _list(self, root: Path, name: str) -> Path:
        return _find(root, name) or demand(root / name, self)


def image_folder(root: Path, names: Sequence[str], reader: Reader) -> Path:
    """The first of `names` that is a folder in `root` or its ``Img``, or in a folder of its own name there.

    Raises:
        PolyfaceError: there is none.
    """
    # The authors' archives of several volumes lie in folders such as Img/img_celeba.7z, and are unpacked there.
    bases = [root, root / "Img", *sorted((root / "Img").glob("*.7z"))]
    for name in names:
        for base in bases:
            for folder in (base / name / name, base / name):
                if folder.is_dir():
                    return folder
    return demand(root / names[0], reader)


@dataclass(frozen=True)
class Listed:
    """A list file's rows, each by the name of the image that it is about, and how a row becomes labels.

    rows: the image's name without its ending → line number and the text behind the name. repeated: the image's name →
    line number of a second row of it. order: where in a row the values stand that `parse` takes; None gives it the row
    as it is. required: an image that lacks a row is no face.
    """

    file: Path
    parse: Parse
    rows: dict[str, tuple[int, str]]
    repeated: dict[str, int]
    order: list[int] | None = None
    required: bool = True

    @classmethod
    def read(cls, file: Path, parse: Parse, wanted: Sequence[str] | None = None, required: bool = True) -> Listed:
        """Read `file`. wanted: the columns that `parse` takes; then the first line of the file is the number of rows,
        and its second names the columns.

        Raises:
            PolyfaceError: it cannot be read, has another number of rows than it says, or other columns than `wanted`.
        """
        lines, order = numbered_lines(file), None
        if wanted is not None:
            if len(lines) < 2 or not lines[0][1].strip().isdecimal():
                raise PolyfaceError(
                    f"{file}: does not begin with a line that counts its rows and one that names its columns; "
                    "obtain the file again"
                )
            count, columns, lines = int(lines[0][1]), lines[1][1].split(), lines[2:]
            if count != len(lines):
                raise PolyfaceError(
                    f"{file}:1: says that {count} rows follow, but {len(lines)} do; obtain the file again, or mend the "
                    "number if it is a part of the list"
                )
            order = _order(columns, wanted, f"{file}:2")
        rows: dict[str, tuple[int, str]] = {}
        repeated: dict[str, int] = {}
        for number, line in lines:
            name, *text = line.split(None, 1)
            key = without_ending(name)
            if key in rows:
                repeated[key] = number
            else:
                rows[key] = (number, "".join(text))
        return cls(file, parse, rows, repeated, order, required)

    def labels(self, key: str) -> Labels | Skipped | None:
        """What `parse` makes of the words of an image's row; None without a row.

        Skipped where it raises a ValueError, or where there are two rows, of which nobody knows the right one.
        """
        if key not in self.rows:
            return None
        number, text = self.rows[key]
        if key in self.repeated:
            return Skipped(
                f"{self.file.name}:{self.repeated[key]}", f"a second row of {key}, after that of line {number}"
            )
        fields = text.split()
        try:
            if self.order is not None:
                if len(fields) != len(self.order):
                    raise ValueError(f"{len(fields)} values, expected {len(self.order)}")
                fields = [fields[index] for index in self.order]
            return self.parse(fields)
        except ValueError as error:
            return Skipped(f"{self.file.name}:{number}", str(error))


def _order(columns: list[str], wanted: Sequence[str], where: str) -> list[int]:
    """Where each of the `wanted` columns stands in a row; raises where one is missing, unknown, or there twice."""
    # The header of the boxes names the column of the images too, the others do not.
    columns = columns[1:] if columns[0] == "image_id" else columns
    for index, column in enumerate(columns):
        if column not in wanted:
            raise PolyfaceError(f"{where}: unknown column '{column}'; {nearest(column, wanted)}")
        if column in columns[:index]:
            raise PolyfaceError(f"{where}: column '{column}' stands there twice; obtain the file again")
    if missing := [column for column in wanted if column not in columns]:
        raise PolyfaceError(f"{where}: lacks the column '{missing[0]}'; obtain the file again")
    return [columns.index(column) for column in wanted]


def part_of(fields: list[str]) -> Labels:
    """The ``split`` that a row of a partition list gives; ValueError says what is wrong with it."""
    if len(fields) != 1 or fields[0] not in _PARTS:
        raise ValueError(f"part is '{' '.join(fields)}', expected 0 (train), 1 (val) or 2 (test)")
    return {"split": _PARTS[fields[0]]}


def _optional(root: Path, name: str, columns: Sequence[str], parse: Parse) -> list[Listed]:
    file = _find(root, name)
    return [Listed.read(file, parse, columns, required=False)] if file else []


def _face(image: Path, sources: Sequence[Listed]) -> Record | Skipped:
    path, key = f"{image.parent.name}/{image.name}", image.stem
    labels: Labels = {"source": "celeba", "modality": "photo"}
    for source in sources:
        found = source.labels(key)
        if isinstance(found, Skipped):
            return found
        if found is None and source.required:
            return Skipped(path, f"has no row in {source.file.name}")
        labels |= found or {}
    first = sources[0]
    return Record(image=image, where=f"{first.file.name}:{first.rows[key][0]}", path=path, labels=labels)


def _attributes(values: list[str]) -> Labels:
    for name, value in zip(ATTRIBUTES, values, strict=True):
        if value not in _VALUES:
            raise ValueError(f"{name} is '{value}', expected 1, -1 or 0 (not labelled)")
    return {"attributes": [_VALUES[value] for value in values]}


def _identity(values: list[str]) -> Labels:
    if len(values) != 1:
        raise ValueError(f"{len(values)} values, expected one: the person's number")
    return {"identity": values[0]}


def _points(values: list[str]) -> Labels:
    return {"landmarks_5": numbers(values).reshape(5, 2)}


def _box(values: list[str]) -> Labels:
    x, y, width, height = numbers(values)
    return {"box": [x, y, x + width, y + height] if width and height else None}


def _find(root: Path, name: str) -> Path | None:
    return next((file for file in (root / name, root / "Anno" / name, root / "Eval" / name) if file.is_file()), None)


def _size(image: Path) -> tuple[int, int] | None:
    """Width and height by the file's header; None if it has none, which the import then tells."""
    try:
        return size_of(image)
    except PolyfaceError:
        return None
