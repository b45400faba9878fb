"""What the readers share: file lists, safe paths, and the fixed cut of a validation part."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from polyface.errors import PolyfaceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".jp2", ".avif")
"""File name endings, in lower case, by which a reader knows an image."""


class Described(Protocol):
    """As much of a reader as an error message names."""

    name: str
    layout: str


def demand(path: Path, reader: Described) -> Path:
    """`path`, or an error that says what was expected there and where the data set is obtained."""
    if not path.exists():
        raise PolyfaceError(f"{path}: not found; reader '{reader.name}' expects {reader.layout}")
    return path


def read_text(path: Path) -> str:
    """A label file's text: UTF-8, with or without a byte-order mark, or else Latin-1, which holds any byte."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolyfaceError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def stable_path(name: str) -> str:
    """A path as a list writes it, with '/' separators.

    Raises:
        ValueError: it is absolute or climbs out of the data set's folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or not path.parts:
        raise ValueError(f"path '{name}' is not one inside the data set's folder")
    return str(path)


def hash_order(name: str) -> str:
    """The key that fixed random cuts sort by: hexadecimal SHA-1 of the UTF-8 name."""
    return hashlib.sha1(name.encode()).hexdigest()


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
