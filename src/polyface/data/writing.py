"""Writing face tables: every record is validated, and a table is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyface.data import images
from polyface.data.table import DECLARED, FINGERPRINT, PSEUDO, FaceTable, Progress, check_declaration, each_row
from polyface.errors import PolyfaceError, nearest, short
from polyface.files import atomic_path
from polyface.schema import IMAGE, Column, built_in, is_column

ROW_GROUP = 512
_GROUP_BYTES = 2**28


@dataclass(frozen=True)
class Record:
    """One face as a reader found it.

    image: a file, encoded bytes, or uint8 RGB [H, W, 3]. where: file and line, for errors. path: the image's stable
    name inside its data set, with '/' separators. labels: column → value; a missing key or None is "not labelled";
    landmarks are [N, 2] pixels with NaN for an invisible point.
    """

    image: Path | bytes | np.ndarray
    where: str
    path: str
    labels: dict[str, Any]


@dataclass(frozen=True)
class Skipped:
    """A face that could not be taken: where it stood and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a reader makes of the columns of a source whose columns are not fixed.

    columns: what each column of the table holds. origins: the names that they have in the source. left: what is left
    out, each with the reason. hints: what else is to be said of a column.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """Turns a public data set, in the layout its authors publish, into records. `verified`: tried on the real files."""

    name: str
    verified: bool
    about: str
    layout: str

    def records(self, root: Path) -> Iterator[Record | Skipped]: ...


@runtime_checkable
class PlanningReader(Protocol):
    """A reader of sources that have columns of their own, which it looks at before it reads the faces."""

    def plan(self, root: Path) -> Plan: ...


@dataclass
class ImportReport:
    """What an import took and left: rows written, every skipped face with its reason, labelled rows per column, and
    the plan of a reader that makes one."""

    rows: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    labelled: dict[str, int] = field(default_factory=dict)
    plan: Plan = Plan()

    def to_json(self) -> str:
        skipped = [{"where": s.where, "reason": s.reason} for s in self.skipped]
        told = {"rows": self.rows, "labelled": self.labelled, "left out": dict(self.plan.left), "skipped": skipped}
        return json.dumps(told, indent=1)


LONGEST_WORD = 4096  # bytes of UTF-8
_SMALLEST_BOX = 2.0  # pixels


def _value(name: str, column: Column, value: Any, size: tuple[int, int], where: str) -> Any:
    """A label as Arrow takes it, or a PolyfaceError that names the place. size: width and height of the picture."""
    if value is None:
        return None
    where = f"{where}: {name}"
    try:
        return _CHECKS[column.type](column, value, size, where)
    except (TypeError, ValueError, OverflowError) as error:
        raise PolyfaceError(f"{where} is not a value of its kind ({short(error)})") from error


def _near(numbers: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Refuse coordinates [..., 2] that lie further outside the picture than it is large."""
    pairs, (width, height) = numbers.reshape(-1, 2), size
    far = (pairs < [-width, -height]) | (pairs > [2 * width, 2 * height]) | np.isinf(pairs)
    if far.any():
        x, y = pairs[far.any(axis=1)][0]
        raise PolyfaceError(f"{where} has ({x:g}, {y:g}), far outside its {width}×{height} image")


def _shaped(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    numbers = np.array(value, dtype=np.float64)
    if numbers.shape != shape:
        raise PolyfaceError(f"{where} has shape {list(numbers.shape)}, expected {list(shape)}")
    return numbers


def _points(column: Column, value: Any, size: tuple[int, int], where: str) -> list[float | None]:
    numbers = _shaped(value, (column.points, 2), where)
    numbers[np.isnan(numbers).any(axis=1)] = np.nan
    _near(numbers, size, where)
    return [None if math.isnan(x) else x for x in numbers.ravel()]


def _box(column: Column, value: Any, size: tuple[int, int], where: str) -> list[float]:
    box = _shaped(value, (4,), where)
    _near(box, size, where)
    hint = "; other forms are read with --option box=xywh, box=fractions or box=xywh-fractions"
    if not (box[2] > box[0] and box[3] > box[1]):
        raise PolyfaceError(f"{where} {box.tolist()} is empty; expected x0 < x1 and y0 < y1 in pixels{hint}")
    if (box[2:] - box[:2]).max() < min(_SMALLEST_BOX, min(size) / 2):
        raise PolyfaceError(f"{where} {box.tolist()} is smaller than {_SMALLEST_BOX:g} pixels{hint}")
    return list(box)


def _word(column: Column, value: Any, size: tuple[int, int], where: str) -> str:
    word = value if isinstance(value, str) else str(value)
    if column.vocabulary and word not in column.vocabulary:
        known = nearest(short(word), column.vocabulary)
        raise PolyfaceError(f"{where} is '{short(word)}'; {known}")
    if (length := len(word.encode())) > LONGEST_WORD:
        raise PolyfaceError(f"{where} is a word of {length:,} bytes; at most {LONGEST_WORD:,} are taken")
    return word


def _shares(column: Column, value: Any, size: tuple[int, int], where: str) -> list[float]:
    """Shares, or votes, for each word: in order, or by word (a word that is not named has none)."""
    if isinstance(value, Mapping):
        if unknown := [word for word in value if word not in column.vocabulary]:
            raise PolyfaceError(f"{where} names '{short(unknown[0])}'; {nearest(short(unknown[0]), column.vocabulary)}")
        value = [value.get(word) or 0 for word in column.vocabulary]
    shares = _shaped(value, (len(column.vocabulary),), where)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise PolyfaceError(f"{where} is {shares.tolist()}; expected shares of 0 or more that are not all 0")
    return list((shares / shares.sum()).tolist())


def _attributes(column: Column, value: Any, size: tuple[int, int], where: str) -> list[int | None]:
    if len(value) != 40 or any(v not in (-1, 1, None) for v in value):
        raise PolyfaceError(f"{where} must be 40 values out of -1, 1 and null")
    return list(value)


def _number(column: Column, value: Any, size: tuple[int, int], where: str) -> float | None:
    number = float(value)
    if abs(number) > float(np.finfo(np.float32).max):
        raise PolyfaceError(f"{where} is {number:g}, out of the range of a number")
    return None if math.isnan(number) else number


def _whole(column: Column, value: Any, size: tuple[int, int], where: str) -> int | None:
    number = _number(column, value, size, where)
    if number is None:
        return None
    if number != int(number) or not -(2**31) <= number < 2**31:
        raise PolyfaceError(f"{where} is {value}, expected a whole number from -2³¹ to 2³¹ - 1")
    return int(number)


_CHECKS: dict[str, Callable[[Column, Any, tuple[int, int], str], Any]] = {
    "points": _points,
    "box": _box,
    "words": _word,
    "distribution": _shares,
    "attributes": _attributes,
    "number": _number,
    "whole": _whole,
}


def _row(record: Record, columns: Mapping[str, Column]) -> dict[str, Any]:
    image = record.image
    try:
        data = images.encode_png(image) if isinstance(image, np.ndarray) else image
        data = data if isinstance(data, bytes) else Path(data).read_bytes()
    except OSError as error:
        raise PolyfaceError(f"{record.where}: cannot read {record.path} ({error.strerror})") from error
    _word(Column("words"), record.path, (0, 0), f"{record.where}: path")
    height, width = images.decode(data, f"{record.where} ({record.path})").shape[:2]
    row: dict[str, Any] = {"image": {"bytes": data, "path": record.path}}
    for name, column in columns.items():
        row[name] = _value(name, column, record.labels.get(name), (width, height), record.where)
    return row


def import_table(
    reader: Reader,
    source: Path,
    path: Path | str,
    *,
    on_bad: str = "error",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring what a reader reads at `source` into the face table at `path`, its own columns included."""
    plan = reader.plan(source) if isinstance(reader, PlanningReader) else Plan()
    records = reader.records(source)
    report = write_table(records, path, on_bad=on_bad, workers=workers, progress=progress, columns=plan.columns)
    report.plan = plan
    return report


def write_table(
    records: Iterable[Record | Skipped],
    path: Path | str,
    *,
    on_bad: str = "error",
    workers: int | None = None,
    progress: Progress | None = None,
    pseudo: Mapping[str, str] | None = None,
    columns: Mapping[str, Column] | None = None,
) -> ImportReport:
    """Validate every record and write the face table at `path` in one piece, or not at all.

    pseudo: column → the model that answered it, which the table then says of it (`FaceTable.pseudo`). columns: what
    columns hold of which the schema does not say it, or another vocabulary of one of its columns of words.

    Images are decoded once, in parallel, to be sure that they can be. A bad face is a PolyfaceError that names its
    file and line, or with `on_bad="skip"` an entry of the report. Raises if nothing is left to write.
    """
    if on_bad not in ("error", "skip"):
        raise PolyfaceError(f"on_bad is '{on_bad}', expected 'error' or 'skip'")
    report = ImportReport()
    found: list[Record] = []
    for item in records:  # labels are small: reading them first tells which columns there are
        if isinstance(item, Record):
            found.append(item)
        elif on_bad == "error":
            raise PolyfaceError(f"{item.where}: {item.reason}; mend it, or pass --on-bad skip")
        else:
            report.skipped.append(item)
    names = sorted({name for record in found for name, value in record.labels.items() if value is not None})
    given = columns or {}
    held = {name: given.get(name) or built_in(name, given) for name in names}
    own = {name: column for name, column in held.items() if not is_column(name) or column != built_in(name)}
    for name, column in own.items():
        check_declaration(name, column)
    marks = {name: {PSEUDO: model.encode()} for name, model in (pseudo or {}).items()}
    for name, column in own.items():
        marks[name] = marks.get(name, {}) | {DECLARED: column.to_json().encode()}
    fields = [pa.field(name, column.arrow, metadata=marks.get(name)) for name, column in held.items()]
    schema = pa.schema([pa.field("image", IMAGE), *fields])

    def convert(record: Record) -> dict[str, Any] | Skipped:
        try:
            return _row(record, held)
        except PolyfaceError as error:
            if on_bad == "error":
                raise
            return Skipped(record.where, str(error).removeprefix(f"{record.where}: "))

    content = hashlib.sha1()
    with atomic_path(path) as aside, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        compression = {"image.bytes": "none"} | dict.fromkeys(names, "zstd")
        with pq.ParquetWriter(aside, schema, compression=compression, write_page_checksum=True) as w:
            for start in range(0, len(found), ROW_GROUP):
                rows: list[dict[str, Any]] = []
                for result in pool.map(convert, found[start : start + ROW_GROUP]):
                    if isinstance(result, Skipped):
                        report.skipped.append(result)
                    else:
                        rows.append(result)
                for group in _groups(rows):
                    for name in names:
                        labelled = sum(row[name] is not None for row in group)
                        report.labelled[name] = report.labelled.get(name, 0) + labelled
                    lists = [field for field in schema if pa.types.is_fixed_size_list(field.type)]
                    nulls = {field.name: [None] * field.type.list_size for field in lists}
                    batch = [row | {name: row[name] or null for name, null in nulls.items()} for row in group]
                    w.write_table(pa.Table.from_pylist(batch, schema=schema), row_group_size=ROW_GROUP)
                    for row in group:
                        content.update(row["image"]["bytes"])
                        content.update(repr([row[name] for name in names]).encode())
                    report.rows += len(group)
                if progress:
                    progress(min(start + ROW_GROUP, len(found)), len(found), "faces read")
            content.update(repr(names).encode())
            for name, column in own.items():
                content.update(f"{name} {column.to_json()}".encode())
            w.add_key_value_metadata({FINGERPRINT.decode(): content.hexdigest()})
        if not report.rows:
            reason = f" (first: {report.skipped[0].where}: {report.skipped[0].reason})" if report.skipped else ""
            raise PolyfaceError(f"no face could be read for {path}{reason}")
    return report


def _groups(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows of a row group in parts whose pictures have at most `_GROUP_BYTES` together: Arrow reads no more."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        size += len(row["image"]["bytes"])
        if group and size > _GROUP_BYTES:
            yield group
            group, size = [], len(row["image"]["bytes"])
        group.append(row)
    if group:
        yield group


def check_table(table: FaceTable, progress: Progress | None = None) -> list[Skipped]:
    """Decode every image and validate every label again: the faces that fail, and why."""
    values = {name: (table.declared(name), table.column(name)) for name in table.columns}

    def check(row: int) -> Skipped | None:
        where = f"row {row}"
        try:
            height, width = table.image(row).shape[:2]
            for name, (column, labels) in values.items():
                value = labels[row].as_py()
                if column.type == "points" and value is not None:
                    value = np.array(value, dtype=float).reshape(-1, 2)
                _value(name, column, value, (width, height), where)
        except (PolyfaceError, UnicodeDecodeError) as error:
            return Skipped(where, short(error).rpartition(f"{where}: ")[2])
        return None

    return [bad for bad in each_row(check, len(table), progress, "faces checked") if bad]
