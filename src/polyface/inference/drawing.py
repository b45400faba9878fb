"""A picture with what was found drawn on it."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from polyface.files import atomic_path, check_output, same_file, status_of
from polyface.inference.inputs import pixels
from polyface.inference.results import FaceResult, ImageResult
from polyface.report.faces import draw_face


def draw(image: Any, result: ImageResult, labels: bool = True, channels: str = "rgb") -> Image.Image:
    """The picture with boxes, points and (unless `labels` is false) words of all its faces, as a new RGB image.

    image: what was analysed: a path, PIL image, array or tensor, whose colours are in the order of `channels`.
    """
    picture = Image.fromarray(pixels(image, result.path or "image", channels))
    for face in result.faces:
        _draw_points(picture, face)
    if labels:
        for face in result.faces:
            _draw_words(picture, face)
    return picture


class Drawings:
    """A folder of drawings: `<name>.jpg` of a picture of that name, or `<name>-2.jpg` and so on where that is taken.

    A drawing says in its EXIF data what it is of, so that it takes the place of none but its own earlier one: never of
    a file from elsewhere, of another picture's drawing, or of one of `inputs`, the pictures that are analyzed.

    Raises:
        PolyfaceError: the folder is none, or cannot be written.
    """

    def __init__(self, folder: Path | str, inputs: Iterable[Path | str] = ()) -> None:
        self.folder = Path(folder)
        check_output(self.folder / ".polyface")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._inputs = {(status.st_dev, status.st_ino) for path in inputs if (status := status_of(path))}
        self._places: dict[str, Path] = {}  # real path of a picture → its drawing
        self._taken: set[Path] = set()

    def place(self, picture: Path | str) -> Path:
        """Where the drawing of a picture goes, or is."""
        real = os.path.realpath(picture)
        if real not in self._places:
            names = (_name(Path(picture).stem, number) for number in count(1))
            free = (self.folder / name for name in names if self._free(self.folder / name, real))
            self._places[real] = next(free)
            self._taken.add(self._places[real])
        return self._places[real]

    def has(self, picture: Path | str) -> bool:
        """Whether the folder holds a drawing of the picture as it is now."""
        return mark_of(self.place(picture)) == _mark(os.path.realpath(picture), status_of(picture))

    def add(self, picture: Path | str, result: ImageResult) -> Path:
        """Draw what was found on a picture's file into the folder; returns the drawing's path."""
        place, drawn, data = self.place(picture), draw(picture, result), io.BytesIO()
        exif = Image.Exif()
        exif[_SOFTWARE], exif[_DESCRIPTION] = "Polyface", _mark(os.path.realpath(picture), status_of(picture))
        drawn.thumbnail((_LARGEST, _LARGEST))
        drawn.save(data, "JPEG", quality=92, exif=exif)
        with atomic_path(place) as aside:
            aside.write_bytes(data.getvalue())  # Pillow itself does not tell that a disk is full
        return place

    def _free(self, path: Path, picture: str) -> bool:
        if path in self._taken:
            return False
        if not os.path.lexists(path):
            return True
        status = status_of(path)
        if path.is_symlink() or status is None or (status.st_dev, status.st_ino) in self._inputs:
            return False
        return path != Path(picture) and mark_of(path).startswith(_mark(picture))


def draw_all(results: Iterable[ImageResult], folder: Path | str) -> Iterator[Path]:
    """Draw every analyzed file into `folder`, as `Drawings` does, and yield each drawing's path once it is written.

    Unreadable images and pictures from memory are left out.
    """
    drawings = Drawings(folder)
    for result in results:
        if result.path is not None and result.error is None:
            yield drawings.add(result.path, result)


def without_drawings(pictures: Iterable[Path], folder: Path | str) -> list[Path]:
    """Those pictures that are no drawings in `folder`."""
    inside = lru_cache(maxsize=None)(lambda parent: same_file(parent, folder))
    return [picture for picture in pictures if not (inside(picture.parent) and mark_of(picture))]


_SOFTWARE, _DESCRIPTION = 0x0131, 0x010E  # EXIF tags
_LARGEST = 65_500  # pixels of a JPEG's side


def mark_of(path: Path | str) -> str:
    """What a drawing says that it is of; empty for any other file, or none."""
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            mark = str(image.getexif().get(_DESCRIPTION, ""))
    except Exception:  # no image, or a damaged one: no drawing
        return ""
    return mark if mark.startswith(_MARK) else ""


_MARK = "Polyface drawing of "


def _mark(picture: str, status: os.stat_result | None = None) -> str:
    """The mark of a picture's drawing: a hash of its real path, and the size and time of what was drawn on."""
    mark = _MARK + hashlib.sha256(os.fsencode(picture)).hexdigest()[:16]
    return f"{mark} {status.st_size} {status.st_mtime_ns}" if status else mark


def _name(stem: str, number: int) -> str:
    """The name of the drawing of that number, cut to what file systems take (255 bytes)."""
    end = ".jpg" if number == 1 else f"-{number}.jpg"
    whole = os.fsencode(stem)[: 255 - len(end)].decode("utf-8", "ignore").encode()  # no half of a character
    return (os.fsdecode(whole) or "picture") + end  # as the locale has names, which may hold no such character


def _draw_points(picture: Image.Image, face: FaceResult) -> None:
    """Draw in place, on the part of the picture around the face alone: a crowd must not cost a crowd of pictures."""
    known = np.concatenate([face.box.reshape(2, 2), *face.points.values()]).astype(np.float64)
    known = known[np.isfinite(known).all(1)]
    if not len(known):
        return
    around = 10 + 0.1 * np.ptp(known, axis=0).max()
    low = np.clip(np.floor(known.min(0) - around), 0, picture.size).astype(int)
    high = np.clip(np.ceil(known.max(0) + around), 0, picture.size).astype(int)
    if (high <= low).any():
        return  # outside the picture
    region = picture.crop((*low.tolist(), *high.tolist()))
    shapes = [points - low for points in face.points.values()] or [None]
    box = face.box - np.tile(low, 2)
    for points in shapes:
        region = draw_face(region, box, points)
        box = None
    picture.paste(region, tuple(low.tolist()))


def _draw_words(picture: Image.Image, face: FaceResult) -> None:
    """The words under the box, or above it where there is no room below; in white on a dark rim."""
    lines = [f"{task}: {word} {100 * chance:.0f} %" for task, (word, chance) in face.labels.items()]
    lines += [f"{name}: {value:.3g}" for name, value in face.numbers.items()]
    if not lines or not np.isfinite(face.box).all():
        return
    left, top, right, bottom = (float(v) for v in face.box)
    size = min(max(11.0, (right - left) / 11), max(11.0, min(picture.size) / 18))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    height = math.ceil(1.25 * size) * len(lines)
    y = bottom + 0.3 * size
    if y + height > picture.height:
        y = top - 0.3 * size - height if top - 0.3 * size >= height else max(0.0, picture.height - height)
    width = max(font.getlength(line) for line in lines)
    x = min(max(0.0, left), max(0.0, picture.width - width))
    for number, line in enumerate(lines):
        at = (x, y + number * math.ceil(1.25 * size))
        pen.text(at, line, fill="white", font=font, stroke_width=max(1, round(size / 9)), stroke_fill=(20, 20, 20))
