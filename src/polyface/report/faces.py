"""Pictures of faces: landmarks and boxes drawn on images, contact sheets.

Coordinates are those of the whole project: pixel centres at integers, (x, y) from 0 at the top left. Marks are drawn at
several times the resolution and reduced, so they are smooth, and their size follows the face's, so they suit both a
60-pixel crop and a large photo.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Floats
from polyface.schema import landmark_groups

# Okabe & Ito's: sky blue and orange stand out on skin.
PREDICTED, TRUE, BOX = (86, 200, 255), (255, 159, 10), (255, 255, 255)

Picture = Image.Image | NDArray[np.uint8]


def as_image(picture: Picture) -> Image.Image:
    """An RGB image of a PIL image or a uint8 array [H, W], [H, W, 1] or [H, W, 3]."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not array.size:
        raise PolyfaceError(f"a picture must be uint8 [H, W] or [H, W, 3], found {array.dtype} {list(array.shape)}")
    return Image.fromarray(array).convert("RGB")


def draw_face(
    image: Picture,
    box: ArrayLike | None = None,
    points: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    lines: bool = True,
    size: int | None = None,
) -> Image.Image:
    """The image with a face drawn on it, as a new RGB image.

    `box` is xyxy; `points` (predicted, blue) and `truth` (orange) are [P, 2], NaN where invisible. With `lines`, a
    layout of known outlines (68 points) gets them, and points drawn with their truth are joined to it. `size` scales
    the longer side first, so that a small crop is drawn on at a readable resolution.
    """
    picture = as_image(image)
    scale = 1.0 if size is None else size / max(picture.size)
    if size is not None:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    shapes = [_scaled(values, scale) for values in (truth, points)]
    corners = None if box is None else _scaled(np.asarray(box, dtype=np.float64).reshape(2, 2), scale)
    known = np.concatenate([shape for shape in (*shapes, corners) if shape is not None] or [np.empty((0, 2))])
    known = known[np.isfinite(known).all(1)]
    if not len(known):
        return picture
    layer = _Layer(picture.size, known)
    if corners is not None:
        layer.path(corners[[0, 0, 1, 1, 0], 0], corners[[0, 1, 1, 0, 0], 1], BOX, 1.0)
    if lines and all(shape is not None for shape in shapes):
        for (x0, y0), (x1, y1) in zip(*(shape for shape in shapes if shape is not None), strict=True):
            layer.path(np.array([x0, x1]), np.array([y0, y1]), TRUE, 1.0)
    for shape, colour in zip(shapes, (TRUE, PREDICTED), strict=True):
        if shape is not None:
            layer.landmarks(shape, colour, lines)
    return layer.onto(picture)


def _scaled(values: ArrayLike | None, scale: float) -> Floats | None:
    if values is None:
        return None
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise PolyfaceError(f"landmarks of one face must have the shape [points, 2], found {list(points.shape)}")
    return (points + 0.5) * scale - 0.5


class _Layer:
    """A transparent layer over the part of an image around some points, at a multiple of its resolution."""

    def __init__(self, size: tuple[int, int], points: Floats) -> None:
        extent = float(np.clip(np.ptp(points, axis=0).max(), 0.1 * min(size), max(size)))
        self.unit = max(extent / 110, 0.45)  # a thin line, in pixels of the image
        low = np.clip(np.floor(points.min(0) - 6 * self.unit), 0, np.array(size) - 1).astype(int)
        high = np.clip(np.ceil(points.max(0) + 6 * self.unit) + 1, low + 1, size).astype(int)
        self.low, self.size = low, high - low
        # Large faces need no supersampling to look smooth, and memory is bounded.
        self.times = max(1, min(4, math.isqrt(24_000_000 // int(self.size.prod()))))
        width, height = (int(side) for side in self.size * self.times)
        self.canvas = Image.new("RGBA", (width, height))
        self.draw = ImageDraw.Draw(self.canvas)

    def _place(self, points: Floats) -> list[tuple[float, float]]:
        placed = (points - self.low + 0.5) * self.times - 0.5
        return [(float(x), float(y)) for x, y in placed]

    def path(self, x: Floats, y: Floats, colour: tuple[int, int, int], weight: float) -> None:
        """A polyline over a dark rim; it is interrupted at invisible points."""
        points = np.stack([x, y], axis=1)
        gaps = np.flatnonzero(~np.isfinite(points).all(1))
        runs = [run[np.isfinite(run).all(1)] for run in np.split(points, gaps)]
        for rim, ink in ((2.0, (0, 0, 0, 70)), (1.0, (*colour, 235))):
            width = max(1, round(weight * rim * self.unit * self.times))
            for run in runs:
                if len(run) > 1:
                    self.draw.line(self._place(run), fill=ink, width=width, joint="curve")

    def landmarks(self, points: Floats, colour: tuple[int, int, int], lines: bool) -> None:
        """Dots, smaller the more there are, over the layout's outlines."""
        if lines:
            for group in landmark_groups(len(points)).values():
                self.path(points[group, 0], points[group, 1], colour, 0.9)
        radius = self.unit * self.times * (3.4 if len(points) <= 10 else 1.5)
        for x, y in self._place(points[np.isfinite(points).all(1)]):
            for rim, ink in ((1.35, (0, 0, 0, 170)), (1.0, (*colour, 255))):
                r = math.floor(radius * rim) + 0.5  # the drawing truncates to whole pixels: half ones keep the centre
                self.draw.ellipse((round(x - r), round(y - r), round(x + r), round(y + r)), fill=ink)

    def onto(self, picture: Image.Image) -> Image.Image:
        """The picture with the layer reduced and laid over it."""
        width, height = (int(side) for side in self.size)
        layer = self.canvas.resize((width, height), Image.Resampling.BOX)
        result = picture.convert("RGBA")
        result.alpha_composite(layer, (int(self.low[0]), int(self.low[1])))
        return result.convert("RGB")


def contact_sheet(
    images: Sequence[Picture],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    cell: int = 180,
) -> Image.Image:
    """Pictures in a grid, each fitted into `cell` × `cell` pixels, with a caption below; long lines are cut."""
    if not images:
        raise PolyfaceError("a contact sheet needs at least one picture")
    texts = [""] * len(images) if captions is None else list(captions)
    if len(texts) != len(images):
        raise PolyfaceError(f"{len(texts)} captions for {len(images)} pictures: give one each")
    font = ImageFont.load_default(max(11, cell / 14))
    line = math.ceil(max(11, cell / 14) * 1.3)
    below = line * max(len(text.splitlines()) for text in texts)
    columns = max(1, min(columns, len(images)))
    gap = max(4, cell // 22)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (gap + columns * (cell + gap), gap + rows * (cell + below + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        left, top = gap + (i % columns) * (cell + gap), gap + (i // columns) * (cell + below + gap)
        sheet.paste(ImageOps.pad(as_image(image), (cell, cell), Image.Resampling.LANCZOS, "white"), (left, top))
        for row, words in enumerate(text.splitlines()):
            draw.text(
                (left, top + cell + row * line + line // 6), _shortened(words, font, cell), fill=(20, 20, 20), font=font
            )
    return sheet


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def png(image: Picture) -> bytes:
    """The picture as PNG bytes, which say what drew it (`files.made_here`)."""
    buffer, drawn_by = io.BytesIO(), PngInfo()
    drawn_by.add_text("Software", "polyface")
    as_image(image).save(buffer, "PNG", optimize=True, pnginfo=drawn_by)
    return buffer.getvalue()
