"""Readers: public data sets, in the layout their authors publish, as records of a face table.

A reader of one's own joins them without a fork: a class (or an instance) as :class:`polyface.data.writing.Reader` says,
under the entry point group ``polyface.readers`` of one's package::

    [project.entry-points."polyface.readers"]
    mine = "my_package:MyReader"

It is imported when it is first asked for.
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from polyface.data.readers.cavi import CaVI
from polyface.data.readers.celeba import CelebA
from polyface.data.readers.csv import Csv
from polyface.data.readers.folder import Folder
from polyface.data.readers.huggingface import HuggingFace
from polyface.data.readers.ibug300w import Ibug300W
from polyface.data.readers.json import Json
from polyface.data.readers.lfwa import LFWA
from polyface.data.readers.mtfl import MTFL
from polyface.data.readers.parquet import Parquet
from polyface.data.readers.webcaricature import WebCaricature
from polyface.data.writing import Reader
from polyface.errors import PolyfaceError, nearest

__all__ = ["GROUP", "READERS", "reader", "reader_names"]

GROUP = "polyface.readers"

_PUBLISHED: tuple[Reader, ...] = (MTFL(), Ibug300W(), CelebA(), LFWA(), CaVI(), WebCaricature())
_BUILT_IN: tuple[Reader, ...] = (*_PUBLISHED, Folder(), Parquet(), Csv(), Json(), HuggingFace())
READERS: dict[str, Reader] = {built_in.name: built_in for built_in in _BUILT_IN}
"""Polyface's own readers by name."""


def reader_names() -> list[str]:
    """Names of all readers, sorted: Polyface's own and those of entry points, which are not imported for it."""
    return sorted({*READERS, *_added()})


def reader(name: str, **options: Any) -> Reader:
    """The reader of that name, with its options (such as ``people`` of ``folder``) set.

    Raises:
        PolyfaceError: an unknown name or option, or an entry point that cannot be imported or is no reader.
    """
    if name in READERS:
        found = READERS[name]
    else:
        added = _added()
        if name not in added:
            raise PolyfaceError(f"unknown reader '{name}': {nearest(name, [*READERS, *added])}")
        found = _load(added[name])
    if not options:
        return found
    # Typed as Any: a Reader need not be a dataclass, and only one that is has options.
    template: Any = found
    known = [field.name for field in dataclasses.fields(template)] if dataclasses.is_dataclass(template) else []
    for option in options:
        if option not in known:
            raise PolyfaceError(f"reader '{name}' has no option '{option}': {nearest(option, known)}")
    changed: Reader = dataclasses.replace(template, **options)
    return changed


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in READERS}


def _load(point: EntryPoint) -> Reader:
    where = f"reader '{point.name}' (entry point {point.value})"
    try:
        found = point.load()
        found = found() if isinstance(found, type) else found
    except Exception as error:  # whatever someone else's package raises when it is imported
        raise PolyfaceError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    missing = [part for part in ("name", "verified", "about", "layout", "records") if not hasattr(found, part)]
    if missing:
        raise PolyfaceError(f"{where} is no reader: it has no {', '.join(missing)}")
    loaded: Reader = found
    return loaded
