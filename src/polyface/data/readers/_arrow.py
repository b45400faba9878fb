"""Faces in Arrow's columns, be they of Parquet files or of folders that Hugging Face ``datasets`` saved."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polyface.data.readers._labels import LabelReader, Layout, Row, layout, target_of
from polyface.data.seal import footer_of
from polyface.data.tablefile import check_names, declaration_of, empty_as_null, mapped
from polyface.errors import PolyfaceError, short, utf8
from polyface.schema import Column, built_in, is_column

_BATCH = 256
_UNREADABLE = (ValueError, TypeError, OverflowError, IndexError, pa.ArrowException)  # what Python cannot hold
_log = logging.getLogger(__name__)
_SPLITS = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class Part:
    """One file of rows. split: of all its faces, where its name says one."""

    file: Path
    schema: pa.Schema
    split: str = ""

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        """Column → the words that its integers stand for (a ClassLabel of Hugging Face)."""
        return {
            name: [utf8(str(word)) for word in feature["names"]]
            for name, feature in _features(self.schema).items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
            if isinstance(feature.get("names"), list)
        }

    def rows(self, wanted: Collection[str], image: str = "") -> Iterator[Row]:
        """Its rows. A value that cannot be read is the error that says why; a picture without a path gets one."""
        names = [name for name in self.schema.names if name in wanted or name == image]
        place = 0
        for batch in _batches(self.file, names):
            columns = [_values(batch.column(name), self.classes.get(name)) for name in names]
            for each in zip(*columns, strict=True):
                values = dict(zip(names, each, strict=True))
                if self.split:
                    values.setdefault("split", _SPLITS.get(self.split, self.split))
                if image and isinstance(picture := values[image], dict | bytes):
                    held = picture if isinstance(picture, dict) else {"bytes": picture}
                    path = held.get("path") or (held["bytes"] and f"{self.split}/{self.file.stem}/{place}".lstrip("/"))
                    values[image] = held | {"path": os.fsdecode(path) if isinstance(path, bytes) else path}
                yield f"{self.file.name} row {place}", self.file, values
                place += 1


def part_of(file: Path, split: str = "") -> Part:
    """A file of rows: Parquet, or with the ending .arrow a stream as ``datasets`` writes it.

    Raises:
        PolyfaceError: it is none, or has a column twice.
    """
    if not file.is_file():
        raise PolyfaceError(f"{file}: not a regular file")
    with _readable(file):
        if file.suffix == ".arrow":
            with mapped(file) as stream:
                schema = pa.ipc.open_stream(stream).schema
        else:
            footer_of(file)
            schema = pq.read_schema(mapped(file))
        check_names(file, schema)
    return Part(file, schema, split)


def _batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    with _readable(file):
        if file.suffix == ".arrow":
            with mapped(file) as stream:
                for batch in pa.ipc.open_stream(stream):
                    batch.validate()
                    for name in names:
                        _check_bounds(batch.column(name))
                    yield batch.select(names)
        else:
            yield from pq.ParquetFile(mapped(file), page_checksum_verification=True).iter_batches(_BATCH, columns=names)


def _check_bounds(array: pa.Array) -> None:
    """Refuse an array that reaches out of its buffers, as a damaged stream may hold: to read it would end the process.

    Words need not be UTF-8: one that is not is its row's matter.
    """
    kind = array.type
    if pa.types.is_struct(kind):  # a picture, or shares
        parts = [array.field(place) for place in range(kind.num_fields)]
    elif pa.types.is_dictionary(kind):
        pa.DictionaryArray.from_arrays(array.indices, pa.nulls(len(array.dictionary))).validate(full=True)
        parts = [array.dictionary]
    elif any(test(kind) for test in _LISTS):
        if not pa.types.is_fixed_size_list(kind):
            type(array).from_arrays(array.offsets, pa.nulls(len(array.values))).validate(full=True)
        parts = [array.values]
    else:
        bare = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind)
        (array.view(bare) if bare else array).validate(full=True)
        parts = []
    for part in parts:
        _check_bounds(part)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        kind = "Arrow" if file.suffix == ".arrow" else "Parquet"
        raise PolyfaceError(f"{file}: not a readable {kind} file ({short(error)})") from error


def rows_of(parts: Sequence[Part], options: LabelReader) -> tuple[Layout, Iterator[Row]]:
    """What the columns of these files become, and their rows.

    Raises:
        PolyfaceError: no column of images, a column that files hold differently, or classes for a number.
    """
    image = options.image or _image_column(parts[0])
    held: dict[str, Column] = {}
    left: dict[str, str] = {}
    names: dict[str, None] = {}  # in order
    for part in parts:
        _check_image(part, image)
        for field in part.schema:
            if field.name == image:
                continue
            if not _usable(field.type):
                left[field.name] = f"it is {field.type}"
                continue
            names[field.name] = None
            if column := declaration_of(field) or _of_classes(part, field.name, options):
                if held.setdefault(field.name, column) != column:
                    raise PolyfaceError(
                        f"{part.file}: column '{field.name}' is {column}, and {held[field.name]} before"
                    )
    if any(part.split for part in parts):
        names["split"] = None
    rows = (row for part in parts for row in part.rows(names))
    found = layout([image, *names], rows, replace(options, image=image), parts[0].file.name, held)
    found = replace(found, plan=replace(found.plan, left={**left, **found.plan.left}))
    return found, (row for part in parts for row in part.rows(names, image))


def _of_classes(part: Part, name: str, options: LabelReader) -> Column | None:
    """The words of a ClassLabel, in the order of its integers; None where the column has a fixed meaning."""
    words, target = part.classes.get(name), target_of(name, options)
    if words is None:
        return None
    if not is_column(target):
        return Column("words", tuple(words))
    if target not in options.columns and built_in(target).type != "words":
        raise PolyfaceError(
            f"{part.file}: column '{name}' holds classes ({short(', '.join(words))}), which are no {target}: leave it "
            f"out (--option columns.{target}=none) or give it another name (--map {name}=…)"
        )
    return None


def _values(array: pa.Array, words: Sequence[str] | None) -> list[Any]:
    if pa.types.is_fixed_size_list(array.type):
        array = empty_as_null(pa.chunked_array([array]))
    try:
        values = array.to_pylist()
    except _UNREADABLE:
        values = [_value(one) for one in array]
    if words is None or not pa.types.is_integer(array.type):
        return list(values)
    return [_word(value, words) for value in values]


def _value(one: pa.Scalar) -> Any:
    try:
        return one.as_py()
    except _UNREADABLE as error:
        return ValueError(f"not UTF-8 ({error.reason})" if isinstance(error, UnicodeDecodeError) else short(error))


def _word(value: int | None, words: Sequence[str]) -> Any:
    """The word of a ClassLabel's integer; −1 is its null."""
    if value is None or value == -1:
        return None
    return words[value] if 0 <= value < len(words) else ValueError(f"class {value} is none of the {len(words)} named")


# ------------------------------------------------------------------------------------------------- types of columns


def _image_column(part: Part) -> str:
    """`image`, or else the first column that Hugging Face's metadata or its type says is one."""
    features = _features(part.schema)
    said = [name for name, one in features.items() if isinstance(one, dict) and one.get("_type") == "Image"]
    return next((name for name in ("image", *said) if name in part.schema.names), "image")


def _check_image(part: Part, image: str) -> None:
    """Refuse a file without the column of images, or with one that cannot hold them."""
    if image not in part.schema.names:
        names = ", ".join(part.schema.names)
        raise PolyfaceError(
            f"{part.file}: no column '{image}' (it has {names}); name that of the images: --option image=…"
        )
    kind = part.schema.field(image).type
    inner = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {"bytes": kind}
    held = inner.get("bytes", pa.null())
    if not any(test(held) for test in _BYTES):
        raise PolyfaceError(f"{part.file}: column '{image}' is {kind}, expected struct<bytes: binary, path: string>")


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's metadata says of the columns."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(described.get("info", {}).get("features", {}))
    except (ValueError, AttributeError, TypeError) as error:
        _log.warning("metadata 'huggingface' is not as datasets writes it (%s); it is not used", error)
        return {}


_NUMBERS = (pa.types.is_integer, pa.types.is_floating)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_WORDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_SINGLE = (*_WORDS, pa.types.is_boolean, pa.types.is_null, pa.types.is_decimal)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)


def _usable(kind: pa.DataType) -> bool:
    """Whether values of a type can be labels: single ones, lists, or shares by word."""
    if pa.types.is_struct(kind):
        return all(any(test(field.type) for test in _NUMBERS) for field in kind)
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in (*_SINGLE, *_NUMBERS, *_LISTS))
