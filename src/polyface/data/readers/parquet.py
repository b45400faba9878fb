"""Parquet files with an image column: Polyface's own, or those of Hugging Face ``datasets``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyface.data.readers.common import demand, stable_path
from polyface.data.table import Record, Skipped
from polyface.errors import PolyfaceError
from polyface.schema import column_type, is_column, landmark_count

_BATCH = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parquet:
    """Rows of a Parquet file, or of every ``.parquet`` file of a folder, in the order of their names.

    Layout: a column ``image``, a struct of ``bytes`` and ``path`` as Hugging Face ``datasets`` writes it (or plain
    binary). Where ``bytes`` is null, ``path`` is an image file beside the Parquet file.

    Labels: every column that has a name of the schema. Landmarks may be flat (x, y, x, y, …) or nested (one pair a
    point). A ``ClassLabel`` of Hugging Face is read by its names, −1 as null. Columns of any other name are left out,
    and are named in a line of the log (``polyface.data.readers.parquet``) and by :meth:`ignored`.

    Licence and source: those of the file.
    """

    name = "parquet"
    verified = True
    about = "Parquet files with an image column, as Polyface or Hugging Face datasets write them"
    layout = "a .parquet file, or a folder of them, with a column 'image' of struct<bytes: binary, path: string>"

    def records(self, root: Path) -> Iterator[Record | Skipped]:
        """One face a row.

        Raises:
            PolyfaceError: no Parquet file, no image column, or a column of a type its name does not go with.
        """
        files = self._files(Path(root))
        schemas = {file: _schema(file) for file in files}
        for file, schema in schemas.items():
            converters = _converters(file, schema)
            unknown = _unknown(schema)
            if unknown:
                _log.warning("%s: left out columns that the schema does not know: %s", file, ", ".join(unknown))
            row = 0
            for batch in pq.ParquetFile(file).iter_batches(_BATCH, columns=["image", *converters]):
                for values in batch.to_pylist():
                    yield _record(file, row, values, converters)
                    row += 1

    def ignored(self, root: Path) -> list[str]:
        """Names of the columns that :meth:`records` leaves out, sorted."""
        return sorted({name for file in self._files(Path(root)) for name in _unknown(_schema(file))})

    def _files(self, root: Path) -> list[Path]:
        files = sorted(demand(root, self).glob("*.parquet")) if root.is_dir() else [demand(root, self)]
        if not files:
            raise PolyfaceError(f"{root}: no .parquet file; reader '{self.name}' expects {self.layout}")
        return files


Converter = Callable[[Any], Any]


def _schema(file: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise PolyfaceError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0][:160]})") from error
    if "image" not in schema.names:
        raise PolyfaceError(
            f"{file}: no column 'image' (it has {', '.join(schema.names)}); rename the one of the images"
        )
    kind = schema.field("image").type
    inner = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {"bytes": kind}
    if not _is_binary(inner.get("bytes")):
        raise PolyfaceError(f"{file}: column 'image' is {kind}, expected struct<bytes: binary, path: string>")
    return schema


def _unknown(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name != "image" and not is_column(name)]


def _is_binary(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _converters(file: Path, schema: pa.Schema) -> dict[str, Converter]:
    """A function for each label column, from the value as Parquet holds it to the value as a Record does."""
    named = _class_names(schema)
    found: dict[str, Converter] = {}
    for field in schema:
        if field.name == "image" or not is_column(field.name):
            continue
        wanted, kind = column_type(field.name), field.type
        if pa.types.is_null(kind):
            continue
        if field.name in named and pa.types.is_integer(kind) and _is_text(wanted):
            found[field.name] = _words(named[field.name])
        elif (_is_text(wanted) and _is_text(kind)) or (_is_number(wanted) and _is_number(kind)):
            found[field.name] = _same
        elif _is_list(wanted) and _is_list(kind) and _holds_numbers(kind, field.name):
            found[field.name] = _pairs if landmark_count(field.name) else _same
        else:
            raise PolyfaceError(f"{file}: column '{field.name}' is {kind}, expected {wanted}; convert or rename it")
    return found


def _holds_numbers(kind: pa.DataType, name: str) -> bool:
    inner = kind.value_type
    if landmark_count(name) and _is_list(inner):
        inner = inner.value_type
    return _is_number(inner)


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column → names of the classes that Hugging Face's metadata gives for its integers."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = described.get("info", {}).get("features", {})
        return {
            name: [str(word) for word in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature
        }
    except (ValueError, AttributeError, TypeError) as error:
        _log.warning("metadata 'huggingface' is not as datasets writes it (%s); it is not used", error)
        return {}


def _same(value: Any) -> Any:
    return value


def _words(names: list[str]) -> Converter:
    def word(value: int) -> str | None:
        if value == -1:
            return None
        if not 0 <= value < len(names):
            raise ValueError(f"class {value} is none of the {len(names)} named")
        return names[value]

    return word


def _pairs(value: list[Any]) -> Any:
    """Points ``[N, 2]`` with NaN for null, from x, y, x, y, … or from pairs (a null pair is an unseen point)."""
    if any(isinstance(point, list) for point in value):
        value = [number for point in value for number in (point or (None, None))]
    if len(value) % 2:
        raise ValueError(f"{len(value)} coordinates, an odd number")
    return np.array(value, dtype=np.float64).reshape(-1, 2)


def _record(file: Path, row: int, values: dict[str, Any], converters: dict[str, Converter]) -> Record | Skipped:
    where = f"{file.name} row {row}"
    image = values["image"]
    if not isinstance(image, dict):
        image = {"bytes": image, "path": None}
    data: bytes | None = image["bytes"]
    path: str = image.get("path") or ""
    if data is None and not path:
        return Skipped(where, "image is null")
    labels: dict[str, Any] = {}
    for column, convert in converters.items():
        try:
            labels[column] = None if values[column] is None else convert(values[column])
        except ValueError as error:
            return Skipped(where, f"{column}: {error}")
    if data is not None:
        return Record(image=data, where=where, path=path or f"{file.stem}/{row}", labels=labels)
    try:
        path = stable_path(path)
    except ValueError as error:
        return Skipped(where, str(error))
    return Record(image=file.parent / path, where=where, path=path, labels=labels)
