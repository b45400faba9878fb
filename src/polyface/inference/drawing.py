"""A picture with what was found drawn on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from polyface.files import atomic_path
from polyface.inference.inputs import pixels
from polyface.inference.results import FaceResult, ImageResult
from polyface.report.faces import draw_face


def draw(image: Any, result: ImageResult, labels: bool = True) -> Image.Image:
    """The picture with boxes, points and (unless `labels` is false) words of all its faces, as a new RGB image.

    image: what was analysed: a path, PIL image, array or tensor.
    """
    picture = Image.fromarray(pixels(image, result.path or "image"))
    for face in result.faces:
        _draw_points(picture, face)
    if labels:
        for face in result.faces:
            _draw_words(picture, face)
    return picture


def draw_all(results: Iterable[ImageResult], folder: Path | str) -> Iterator[Path]:
    """Draw every analysed file into `folder`, as `<name>.jpg`, and yield each picture's path once it is written.

    Files of the same name from several folders are numbered. Unreadable images and pictures from memory are left out.
    """
    folder, taken = Path(folder), set[str]()
    for result in results:
        if result.path is None or result.error is not None:
            continue
        stem = Path(result.path).stem
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        taken.add(name)
        path = folder / f"{name}.jpg"
        with atomic_path(path) as aside:
            draw(result.path, result).save(aside, "JPEG", quality=92)
        yield path


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
