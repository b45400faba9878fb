"""Readers: public data sets, in the layout their authors publish, as records of a face table.

A reader is a class as :class:`polyface.data.writing.Reader` says, in a file of its own here, or under the entry point
group ``polyface.readers`` of somebody's package::

    [project.entry-points."polyface.readers"]
    mine = "my_package:MyReader"

It is imported when it is first asked for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from polyface.data.writing import Reader
from polyface.registry import Registry, check_options, lacks

__all__ = ["READERS", "reader"]

READERS = Registry(
    "reader",
    group="polyface.readers",
    folder="polyface.data.readers",
    without=("common",),
    built_in={"300w": "polyface.data.readers.ibug300w:Ibug300W"},
    check=lambda part: lacks(part, "name", "verified", "about", "layout", "records"),
)
"""Readers by name: classes, or instances of them."""


def reader(name: str, **options: Any) -> Reader:
    """The reader of that name, with its options (such as ``people`` of ``folder``) set.

    Raises:
        PolyfaceError: an unknown name or option, or an entry point that cannot be imported or is no reader.
    """
    part = READERS.get(name)
    kind = part if isinstance(part, type) else type(part)
    check_options(kind, options, f"reader '{name}'")
    made: Reader = kind(**options) if part is kind else dataclasses.replace(part, **options) if options else part
    return made
