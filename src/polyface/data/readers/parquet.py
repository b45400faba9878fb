"""Parquet files with an image column: Polyface's own, or those of Hugging Face ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers import _arrow
from polyface.data.readers._labels import LabelReader, Layout, Row
from polyface.data.readers.common import demand, lacking


@dataclass(frozen=True)
class Parquet(LabelReader):
    """Rows of a Parquet file, or of every ``.parquet`` file of a folder, in the order of their names.

    Layout: a column ``image``, a struct of ``bytes`` and ``path`` as Hugging Face ``datasets`` writes it (or plain
    binary). Where ``bytes`` is null, ``path`` is an image file beside the Parquet file.

    Labels: every column: what the table itself declares, what a name of the schema means, or as its values say and
    options have it (:class:`LabelReader`). Landmarks may be flat (x, y, x, y, …) or nested (one pair a point). A
    ``ClassLabel`` of Hugging Face is read by its names, −1 as null.

    Licence and source: those of the file.
    """

    name = "parquet"
    verified = True
    about = "Parquet files with an image column, as Polyface or Hugging Face datasets write them"
    layout = "a .parquet file, or a folder of them, with a column 'image' of struct<bytes: binary, path: string>"

    follows_links = False

    def inputs(self, root: Path) -> list[Path]:
        files = sorted(demand(root, self).glob("*.parquet")) if root.is_dir() else [demand(root, self)]
        if not files:
            raise lacking(root, "no .parquet file", self)
        return files

    def _read(self, root: Path) -> tuple[Layout, Iterator[Row]]:
        return _arrow.rows_of([_arrow.part_of(file) for file in self.inputs(root)], self)
