"""Data sets that Hugging Face ``datasets`` saved, read with Arrow alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyface.data.readers import _arrow
from polyface.data.readers._labels import LabelReader, Layout, Row
from polyface.data.readers.common import demand, lacking
from polyface.errors import PolyfaceError

_SPLIT = re.compile(r"(?:.*[-_])?(train|training|validation|valid|val|dev|test|testing)(?:-\d+)?(?:-of-\d+)?")


@dataclass(frozen=True)
class HuggingFace(LabelReader):
    """A folder of ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``, or one of Parquet files.

    Layout: Arrow files (``data-00000-of-00001.arrow``), in the order in which ``state.json`` lists them; those of a
    ``DatasetDict`` lie in a folder for each split. Or ``.parquet`` files, which may lie in ``data``. The images are the
    column ``image``, or the first that is an ``Image``.

    Labels: as reader ``parquet`` has them; a ``ClassLabel`` is read by its names, in their order, −1 as null. ``split``
    is that of the folder or of the file's name (validation is val), where there is no column of that name.

    Licence and source: those of the data set.
    """

    name = "huggingface"
    verified = True
    about = "a data set that Hugging Face datasets saved to disk (Arrow or Parquet), its images and labels"
    layout = "a folder that Dataset.save_to_disk wrote, or one of .parquet files with an image column"

    follows_links = False

    def inputs(self, root: Path) -> list[Path]:
        return [file for file, _ in self._files(root)]

    def _read(self, root: Path) -> tuple[Layout, Iterator[Row]]:
        return _arrow.rows_of([_arrow.part_of(file, split) for file, split in self._files(root)], self)

    def _files(self, root: Path) -> list[tuple[Path, str]]:
        """The files of rows, each with its split where that is known."""
        folder = demand(root, self)
        if not folder.is_dir():
            raise lacking(folder, "not a folder", self)
        named = sorted(path.parent for path in folder.glob("*/state.json"))
        folders = [(one, one.name) for one in named] or [(folder, "")]
        files = [(file, split) for one, split in folders for file in _arrow_files(one)]
        files = files or [(file, "") for place in (folder, folder / "data") for file in sorted(place.glob("*.parquet"))]
        if not files:
            raise lacking(folder, "no .arrow or .parquet file", self)
        return [(file, split or _split(file)) for file, split in files]


def _split(file: Path) -> str:
    match = _SPLIT.fullmatch(file.stem)
    return match.group(1) if match else ""


def _arrow_files(folder: Path) -> list[Path]:
    state = folder / "state.json"
    if not state.exists():
        return sorted(folder.glob("*.arrow"))
    try:
        files = [folder / str(one["filename"]) for one in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PolyfaceError(f"{state}: not as datasets writes it ({error}); save the data set again") from error
    if outside := [file for file in files if file.parent != folder or not file.is_file()]:
        raise PolyfaceError(f"{state}: names {outside[0].name}, which is no file beside it; save the data set again")
    return files
