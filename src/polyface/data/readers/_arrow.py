"""Faces in Arrow's columns, be they of Parquet files or of folders that Hugging Face ``datasets`` saved."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from polyface.data import images
from polyface.data.readers._labels import LabelReader, Layout, layout, target_of
from polyface.data.readers.common import stable_path
from polyface.data.table import declaration_of, empty_as_null
from polyface.data.writing import Record, Skipped, short
from polyface.errors import PolyfaceError
from polyface.schema import Column, built_in, is_column

_log = logging.getLogger(__name__)
_SPLITS = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class Part:
    """One file of rows. batches: those of some of its columns. split: of all its faces, where its name says one."""

    file: Path
    schema: pa.Schema
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    split: str = ""

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        """Column → the words that its integers stand for (a ClassLabel of Hugging Face)."""
        return {
            name: [str(word) for word in feature["names"]]
            for name, feature in _features(self.schema).items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature
        }

    def rows(self, wanted: Collection[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Place and values of every row. A value that cannot be read is the error that says why."""
        names = [name for name in self.schema.names if name in wanted]
        place = 0
        for batch in self.batches(names):
            columns = [_values(batch.column(name), self.classes.get(name)) for name in names]
            for values in zip(*columns, strict=True):
                yield place, dict(zip(names, values, strict=True))
                place += 1


@dataclass(frozen=True)
class Source:
    """Files of rows. images: the folder of pictures that lie in files; "": that of the rows' own file."""

    parts: Sequence[Part]
    images: str
    layout: Layout

    def records(self) -> Iterator[Record | Skipped]:
        """One face a row, in the order of the files."""
        columns = [name for names, _ in self.layout.columns.values() for name in names]
        for part in self.parts:
            folder = Path(self.images) if self.images else part.file.parent
            for place, values in part.rows({self.layout.image, *columns, *self.layout.box}):
                yield _record(part, place, values, self.layout, folder)


def source(parts: Sequence[Part], options: LabelReader) -> Source:
    """What the columns of these files become.

    Raises:
        PolyfaceError: no column of images, or a column whose type does not go with what it is to hold.
    """
    image = options.image or _image_column(parts[0])
    held: dict[str, Column] = {}
    kinds: dict[str, pa.DataType] = {}
    left: dict[str, str] = {}
    for part in parts:
        _check_image(part, image)
        for field in part.schema:
            if field.name == image:
                continue
            if not _usable(field.type):
                left[field.name] = f"it is {field.type}"
                continue
            kinds.setdefault(field.name, field.type)
            if column := declaration_of(field) or _of_classes(part, field.name, options):
                if held.setdefault(field.name, column) != column:
                    raise PolyfaceError(
                        f"{part.file}: column '{field.name}' is {column}, and {held[field.name]} before"
                    )
    rows = (row for part in parts for _, row in part.rows(kinds))
    found = layout([image, *kinds], rows, replace(options, image=image), parts[0].file.name, held)
    boxes = {"box": (found.box, built_in("box"))} if len(found.box) == 1 else {}
    for name, (sources, column) in {**found.columns, **boxes}.items():
        kind = kinds[sources[0]]
        named = name in found.words or any(sources[0] in part.classes for part in parts)
        if not _fits(kind, column, named):
            what = f"column '{sources[0]}' is {kind}, expected {column.arrow}"
            raise PolyfaceError(f"{parts[0].file}: {what}; convert or rename it")
    columns, origins = dict(found.plan.columns), dict(found.plan.origins)
    if any(part.split for part in parts) and "split" not in columns:
        columns["split"], origins["split"] = built_in("split"), "the files' names"
    plan = replace(found.plan, columns=columns, origins=origins, left={**left, **found.plan.left})
    return Source(parts, options.images, replace(found, plan=plan))


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


def _record(part: Part, place: int, values: dict[str, Any], found: Layout, folder: Path) -> Record | Skipped:
    where = f"{part.file.name} row {place}"
    image = values[found.image]
    if not isinstance(image, dict):
        image = {"bytes": image, "path": None}
    data, path = image["bytes"], image.get("path") or ""
    if data is None and not path:
        return Skipped(where, "image is null")
    try:
        path = stable_path(path) if data is None else path or f"{part.split}/{part.file.stem}/{place}".lstrip("/")
        picture = folder / path if data is None else data
        labels = found.labels(values, lambda: images.size_of(picture))
    except (ValueError, PolyfaceError) as error:
        return Skipped(where, short(error))
    if part.split and "split" not in found.columns:
        labels["split"] = _SPLITS.get(part.split, part.split)
    return Record(picture, where, path, labels)


def _values(array: pa.Array, words: Sequence[str] | None) -> list[Any]:
    if pa.types.is_fixed_size_list(array.type):
        array = empty_as_null(pa.chunked_array([array]))
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        values = [_value(one) for one in array]
    if words is None or not pa.types.is_integer(array.type):
        return list(values)
    return [_word(value, words) for value in values]


def _value(one: pa.Scalar) -> Any:
    try:
        return one.as_py()
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8 ({error.reason})")


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
    """Refuse a file without the column of images, or with a column that is there twice."""
    every = part.schema.names
    if twice := [name for name in every if every.count(name) > 1]:
        raise PolyfaceError(f"{part.file}: column '{twice[0]}' is there twice; rename one")
    if image not in every:
        names = ", ".join(part.schema.names)
        raise PolyfaceError(
            f"{part.file}: no column '{image}' (it has {names}); name that of the images: --option image=…"
        )
    kind = part.schema.field(image).type
    inner = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {"bytes": kind}
    if not _is_binary(inner.get("bytes")):
        raise PolyfaceError(f"{part.file}: column '{image}' is {kind}, expected struct<bytes: binary, path: string>")


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's metadata says of the columns."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(described.get("info", {}).get("features", {}))
    except (ValueError, AttributeError, TypeError) as error:
        _log.warning("metadata 'huggingface' is not as datasets writes it (%s); it is not used", error)
        return {}


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


def _of_numbers(kind: pa.DataType, deep: bool) -> bool:
    if not _is_list(kind):
        return False
    inner = kind.value_type
    return _is_number(inner) or (deep and _of_numbers(inner, False))


def _usable(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return all(_is_number(field.type) for field in kind)
    single = _is_text(kind) or _is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    return bool(single or _is_list(kind))


def _fits(kind: pa.DataType, column: Column, named: bool) -> bool:
    """Whether a column of this type can be read as that. named: its values stand for words."""
    if pa.types.is_null(kind):
        return True
    if column.type == "words":
        return _is_text(kind) or pa.types.is_boolean(kind) or (_is_number(kind) and (named or not column.vocabulary))
    if column.type in ("number", "whole"):
        return _is_number(kind) and not named
    structs = column.type == "distribution" and pa.types.is_struct(kind)
    return structs or _of_numbers(kind, column.type == "points")
