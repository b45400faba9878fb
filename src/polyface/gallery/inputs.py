"""What is given to a gallery, checked: names, boxes, embeddings, and columns that go with the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyface.data.detector import Detection, face_of
from polyface.errors import PolyfaceError
from polyface.inference.embeddings import FoundFace
from polyface.inference.inputs import column, together
from polyface.schema import person

_PHOTOS, _PIXELS = 64, 1 << 25  # pictures that are embedded, and then acknowledged, together: 100 MB of RGB
_UNIT = 1e-3  # how far from 1 the length of a cosine embedding may be
_Item = TypeVar("_Item")
Infos = Iterable[Mapping[str, Any] | None] | Mapping[str, Any] | None


def names(people: str | Iterable[str]) -> Iterator[str]:
    """Names of people: one for all, or one each."""
    return repeat(person(people)) if isinstance(people, str) else map(person, people)


def infos(given: Infos) -> Iterator[Any]:
    """What else is kept of each face: the same of all, one each, or nothing."""
    return repeat(given) if isinstance(given, Mapping) else column(given)


def batches(items: Iterable[Any], called: str, size: int, **columns: Iterator[Any]) -> Iterator[list[tuple[Any, ...]]]:
    """Items, each with its entry of every column, `size` together; raises where a column is shorter or longer."""
    rows = together(items, called, **columns)
    while batch := list(islice(rows, size)):
        yield batch


def bounded(items: Iterable[_Item], pixels: Callable[[_Item], NDArray[np.uint8] | None]) -> Iterator[list[_Item]]:
    """Items that hold decoded pictures (None: none), as many together as memory should hold at once."""
    batch, held = list[_Item](), 0
    for item in items:
        picture = pixels(item)
        batch.append(item)
        held += 0 if picture is None else picture.shape[0] * picture.shape[1]
        if len(batch) == _PHOTOS or held >= _PIXELS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def checked(embeddings: ArrayLike, dim: int, unit: bool, where: str = "embeddings") -> NDArray[np.float32]:
    """Embeddings [N, dim], or one [dim], as float32 [N, dim]; raises where one is not finite or, with `unit`, not of
    length 1."""
    vectors = np.atleast_2d(np.asarray(embeddings, np.float32))
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise PolyfaceError(f"{where}: the shape is {list(np.shape(embeddings))}, expected [N, {dim}]")
    lengths = np.linalg.norm(vectors, axis=1)
    bad = ~np.isfinite(lengths) | ((np.abs(lengths - 1) > _UNIT) & unit)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        expected = "1, as cosine similarity needs" if unit else "a finite one"
        raise PolyfaceError(f"{where}: row {row} has length {lengths[row]:.4g}, expected {expected}")
    return vectors


def subject(found: Sequence[FoundFace], pixels: NDArray[np.uint8]) -> FoundFace:
    """The face that a photo of a person is about."""
    height, width = pixels.shape[:2]
    points = np.zeros((5, 2), np.float32)
    boxes = [Detection(np.asarray(face.box, np.float32), 1.0, points) for face in found]
    chosen = face_of(boxes, width, height)
    return next(face for face, box in zip(found, boxes, strict=True) if box is chosen)


def digest(content: NDArray[Any]) -> str:
    """32 hexadecimal digits of a picture's pixels, or of an embedding."""
    told = hashlib.blake2b(str(content.shape).encode(), digest_size=16)
    told.update(np.ascontiguousarray(content).data)
    return told.hexdigest()
