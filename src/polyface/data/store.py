"""Finding the face tables that a recipe names."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from polyface.data.table import FaceTable, Progress
from polyface.data.writing import Reader, import_table
from polyface.errors import NoDataError, PolyfaceError
from polyface.files import PATIENCE, atomic_path, cache_folder, lock

_log = logging.getLogger(__name__)
_said: set[str] = set()


def open_source(
    name: str, root: Path | None, options: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> FaceTable:
    """The table called `name`: a .parquet file, `<root>/<name>.parquet`, the raw data set `<root>/<name>` (or the
    `folder` that its reader names; imported once into the cache, with the reader's `options`), or one that its reader
    draws.

    Raises:
        NoDataError: there is none, or it is a raw data set of which more than half of the faces are missing or bad.
    """
    from polyface.data.readers import READERS, reader

    if name in READERS and getattr(READERS.get(name), "drawn", False):
        return _drawn(reader(name, **(options or {})), progress)
    file = Path(name) if name.endswith(".parquet") else None
    for candidate in [file, root / f"{name}.parquet" if root else None, root / name if root and file else None]:
        if candidate is not None and candidate.exists():
            table = FaceTable.open(candidate)
            table.check_labels()
            return _told(table)
    if file is not None or name not in READERS:
        if file is None:
            reader(name)  # raises with the nearest name
        raise NoDataError(f"{name}: no such face table" + (f", nor under {root}" if root else ""))
    known = getattr(READERS.get(name), "folder", name)  # LFWA's labels lie beside LFW's images
    found = root and next((root / one for one in (name, known) if (root / one).exists()), None)
    if root is None or found is None:
        where = f"{root / known} is missing" if root else "no data folder was given"
        raise NoDataError(
            f"data set '{name}': {where}; pass --data DIR that holds {name}.parquet or {known}/ — {reader(name).layout}"
        )
    folder, made = found.resolve(), reader(name, **(options or {}))

    def make(path: Path) -> None:
        report = import_table(made, folder, path, on_bad="skip", progress=progress)
        with atomic_path(path.with_suffix(".import.json")) as aside:
            aside.write_text(report.to_json(), encoding="utf-8")

    chosen = f"{folder} {sorted(options.items()) if options else ''}"
    images = getattr(made, "images", "")  # a reader of label files may take pictures from elsewhere
    source = f"{chosen} {listing(folder, *([Path(images)] if images else []))}"
    table = cached_table(name, os.fsencode(source) + _code(made), make)
    if lost := next((lost for lost in table.left_out if lost.most), None):
        raise NoDataError(
            f"data set '{name}': {lost}; fetch what is missing, or train on what is there as a table of its own: "
            f"polyface data import {name} {folder} {root / name}.parquet --on-bad skip"
        )
    return _told(table)


def listing(*roots: Path) -> str:
    """A digest of what lies below folders: each file's path, size and time. Links are followed, each folder once."""
    content, seen = hashlib.sha1(), set()
    for root in roots:
        for folder, inner, names in os.walk(root, followlinks=True):
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in seen:
                inner.clear()
                continue
            seen.add((here.st_dev, here.st_ino))
            inner.sort()
            below = "" if folder == os.fspath(root) else os.path.relpath(folder, root)  # once: of every file it is dear
            for name in sorted(names):
                with suppress(OSError):  # a link that leads nowhere
                    found = os.stat(os.path.join(folder, name))
                    place = os.path.join(below, name)
                    content.update(f"{place!r} {found.st_size} {found.st_mtime_ns}\n".encode())
        if root.is_file():
            content.update(f"{root.stat().st_size} {root.stat().st_mtime_ns}".encode())
    return content.hexdigest()


def _told(table: FaceTable) -> FaceTable:
    """The table, after a line for the faces that its source had and it lacks: once a process."""
    for lost in table.left_out:
        line = f"{table.name}: {lost}"
        if line not in _said:
            _said.add(line)
            _log.warning(line)
    return table


def cached_table(name: str, source: bytes, make: Callable[[Path], object]) -> FaceTable:
    """The table that `make` writes at a path, made once, by one process. source: what tells it from others of its name.

    A table that was damaged since is made again.
    """
    path = cache_folder("tables") / f"{name}-{hashlib.sha1(source).hexdigest()[:16]}.parquet"
    table = _made(path)
    if table is None:
        with lock(path, wait=PATIENCE):
            table = _made(path)
            if table is None:
                make(path)
    return table or FaceTable.open(path)


def _made(path: Path) -> FaceTable | None:
    with suppress(PolyfaceError):
        return FaceTable.open(path) if path.exists() else None
    return None


def _drawn(made: Reader, progress: Progress | None) -> FaceTable:
    """The table of a reader that draws its pictures."""
    from polyface.data import synthetic

    # What draws them is part of what they are.
    sources = sorted(Path(synthetic.__file__).parent.glob("*.py"))
    content = b"".join(source.read_bytes() for source in sources) + _code(made) + repr(made).encode()
    return cached_table(made.name, content, lambda path: import_table(made, Path(), path, progress=progress))


def _code(made: Reader) -> bytes:
    """The sources of a reader and of what readers share: a table that an older reader wrote may hold other labels."""
    from polyface.data.readers import common

    shared = Path(common.__file__)
    found = [shared, *sorted(shared.parent.glob("_[a-z]*.py"))]
    for kind in type(made).__mro__[:-1]:
        with suppress(OSError, TypeError):  # one that was made in a notebook has no file
            found.append(Path(inspect.getfile(kind)))
    return b"".join(source.read_bytes() for source in found)
