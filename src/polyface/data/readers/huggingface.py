"""Data sets that Hugging Face ``datasets`` saved, read with Arrow alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from polyface.data.readers import _arrow
from polyface.data.readers._labels import LabelReader
from polyface.data.readers.common import demand
from polyface.data.readers.parquet import part_of
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

    def _read(self, root: Path) -> _arrow.Source:
        return _arrow.source(self._parts(root), self)

    def _parts(self, root: Path) -> list[_arrow.Part]:
        folder = demand(root, self)
        if not folder.is_dir():
            raise PolyfaceError(f"{folder}: not a folder; reader '{self.name}' expects {self.layout}")
        named = sorted(path.parent for path in folder.glob("*/state.json"))
        folders = [(one, one.name) for one in named] or [(folder, "")]
        arrow = [(file, split) for one, split in folders for file in _arrow_files(one)]
        if arrow:
            return [_arrow_part(file, split or _split(file)) for file, split in arrow]
        files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
        if not files:
            raise PolyfaceError(f"{folder}: no .arrow or .parquet file; reader '{self.name}' expects {self.layout}")
        return [part_of(file, _split(file)) for file in files]


def _split(file: Path) -> str:
    match = _SPLIT.fullmatch(file.stem)
    return match.group(1) if match else ""


def _arrow_files(folder: Path) -> list[Path]:
    state = folder / "state.json"
    if not state.exists():
        return sorted(folder.glob("*.arrow"))
    try:
        files = [folder / str(one["filename"]) for one in json.loads(state.read_text())["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PolyfaceError(f"{state}: not as datasets writes it ({error}); save the data set again") from error
    if outside := [file for file in files if file.parent != folder or not file.is_file()]:
        raise PolyfaceError(f"{state}: names {outside[0].name}, which is no file beside it; save the data set again")
    return files


def _arrow_part(file: Path, split: str) -> _arrow.Part:
    try:
        with pa.memory_map(str(file)) as source:
            schema = pa.ipc.open_stream(source).schema
    except (pa.ArrowException, OSError) as error:
        raise PolyfaceError(f"{file}: not an Arrow file of datasets ({str(error).splitlines()[0][:160]})") from error
    return _arrow.Part(file, schema, partial(_batches, file), split)


def _batches(file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pa.memory_map(str(file)) as source:
            for batch in pa.ipc.open_stream(source):
                yield batch.select(list(names))
    except (pa.ArrowException, OSError) as error:
        raise PolyfaceError(f"{file}: not an Arrow file of datasets ({str(error).splitlines()[0][:160]})") from error
