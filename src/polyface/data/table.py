"""The face table: one row a face, its image beside every label known of it, in Parquet.

`image` is the struct {bytes, path} that Hugging Face `datasets` reads as an image. Labels are read at once, images
row group by row group when they are asked for, so a table larger than memory opens in an instant.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polyface.data import images
from polyface.errors import PolyfaceError, nearest
from polyface.files import atomic_path
from polyface.schema import IMAGE, VOCABULARIES, column_type, is_column, landmark_count

ROW_GROUP = 512
_FINGERPRINT = b"polyface.fingerprint"
_PSEUDO = b"polyface.pseudo"  # of a field: whose answers its column holds
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) now and then while something long runs."""


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


class Reader(Protocol):
    """Turns a public data set, in the layout its authors publish, into records. `verified`: tried on the real files."""

    name: str
    verified: bool
    about: str
    layout: str

    def records(self, root: Path) -> Iterator[Record | Skipped]: ...


@dataclass
class ImportReport:
    """What an import took and left: rows written, every skipped face with its reason, labelled rows per column."""

    rows: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    labelled: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        skipped = [{"where": s.where, "reason": s.reason} for s in self.skipped]
        return json.dumps({"rows": self.rows, "labelled": self.labelled, "skipped": skipped}, indent=1)


class _ImageFile:
    """The image column of one Parquet file, read a row group at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: pq.ParquetFile | None = None
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()  # a ParquetFile is not safe to read from two threads at once
        meta = pq.read_metadata(path)
        self._starts = np.cumsum([0] + [meta.row_group(i).num_rows for i in range(meta.num_row_groups)])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_groups": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def struct(self, row: int) -> dict[str, Any]:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            column = self._groups.get(group)
            if column is None:
                if self._file is None:
                    self._file = pq.ParquetFile(self.path, memory_map=True)
                column = self._file.read_row_group(group, columns=["image"]).column("image")
                self._groups[group] = column
                while len(self._groups) > 4:
                    self._groups.popitem(last=False)
            value: dict[str, Any] = column[row - int(self._starts[group])].as_py()
        return value


class FaceTable:
    """Rows of one or more face-table files. Immutable: `take`, `where`, `concat` give views of the same files."""

    def __init__(
        self, labels: pa.Table, files: list[_ImageFile], part: np.ndarray, row: np.ndarray, fingerprint: str
    ) -> None:
        self.labels = labels
        self.fingerprint = fingerprint
        self._files, self._part, self._row = files, part, row

    @classmethod
    def open(cls, *paths: Path | str) -> FaceTable:
        """Open one or more Parquet face tables (a folder means every .parquet file in it)."""
        found: list[Path] = []
        for path in map(Path, paths):
            found += sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found:
            raise PolyfaceError(f"no face table (.parquet) at {', '.join(map(str, paths))}: run `polyface data import`")
        return cls.concat([cls._open_file(path) for path in found])

    @classmethod
    def _open_file(cls, path: Path) -> FaceTable:
        if not path.exists():
            raise PolyfaceError(f"{path}: no such face table; make one with `polyface data import`")
        try:
            schema = pq.read_schema(path)
            names = [name for name in schema.names if name != "image"]
            unknown = [name for name in names if not is_column(name)]
            wrong = [n for n in names if n not in unknown and schema.field(n).type != column_type(n)]
            if "image" not in schema.names or schema.field("image").type != IMAGE or unknown or wrong:
                what = f"unknown column '{unknown[0]}'" if unknown else "no image column of bytes and path"
                if wrong:
                    what = f"column '{wrong[0]}' is {schema.field(wrong[0]).type}, expected {column_type(wrong[0])}"
                raise PolyfaceError(f"{path}: {what}; bring it in with `polyface data import parquet {path} OUT`")
            labels = pq.read_table(path, columns=names, memory_map=True)
            if not names:  # Arrow forgets how many rows a table without columns has
                labels = pa.table({"source": pa.nulls(labels.num_rows, column_type("source"))})
        except (pa.ArrowException, OSError) as error:
            raise PolyfaceError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error
        fingerprint = (pq.read_metadata(path).metadata or {}).get(_FINGERPRINT, b"").decode()
        if not fingerprint:
            stat = os.stat(path)
            fingerprint = _digest(path.name, str(stat.st_size), str(stat.st_mtime_ns))
        rows = np.arange(labels.num_rows)
        return cls(labels.replace_schema_metadata(None), [_ImageFile(path)], np.zeros_like(rows), rows, fingerprint)

    @staticmethod
    def concat(tables: Sequence[FaceTable]) -> FaceTable:
        """One table after the other; a column that one of them lacks is null there. Copies no image."""
        if len(tables) == 1:
            return tables[0]
        offsets = np.cumsum([0] + [len(t._files) for t in tables])
        return FaceTable(
            pa.concat_tables([t.labels for t in tables], promote_options="default"),
            [file for t in tables for file in t._files],
            np.concatenate([t._part + offset for t, offset in zip(tables, offsets, strict=False)]),
            np.concatenate([t._row for t in tables]),
            _digest(*[t.fingerprint for t in tables]),
        )

    def __len__(self) -> int:
        return int(self.labels.num_rows)

    @property
    def columns(self) -> list[str]:
        return list(self.labels.column_names)

    def pseudo(self, name: str) -> str | None:
        """The model whose answers a label column holds; None where people labelled it."""
        if name not in self.labels.column_names:
            return None
        mark = (self.labels.schema.field(name).metadata or {}).get(_PSEUDO)
        return mark.decode() if mark else None

    def column(self, name: str) -> pa.Array:
        """A label column as one Arrow array; a column this table lacks is all null."""
        if name not in self.labels.column_names:
            return pa.nulls(len(self), column_type(name))
        return self.labels.column(name).combine_chunks()

    def numbers(self, name: str) -> np.ndarray:
        """A number or list column as float32 [N] or [N, k], null as NaN."""
        array = self.column(name)
        if not pa.types.is_fixed_size_list(array.type):
            return np.asarray(array.cast(pa.float32()).to_numpy(zero_copy_only=False), dtype=np.float32)
        width = array.type.list_size
        out = np.full((len(array), width), np.nan, dtype=np.float32)
        values = array.flatten().cast(pa.float32())  # flatten leaves null rows out
        out[array.is_valid().to_numpy(zero_copy_only=False)] = values.to_numpy(zero_copy_only=False).reshape(-1, width)
        return out

    def points(self, name: str) -> np.ndarray:
        """A landmark column as float32 [N, points, 2], unlabelled and invisible points NaN."""
        return self.numbers(name).reshape(len(self), -1, 2)

    def words(self, name: str) -> np.ndarray:
        """A word column as an object array [N] of str, null as None."""
        return np.array(self.column(name).to_pylist(), dtype=object)

    def classes(self, name: str, vocabulary: Sequence[str]) -> np.ndarray:
        """A word column as class indices int64 [N] in `vocabulary`, −1 where null or not in it."""
        if not pa.types.is_string(column_type(name)):
            raise PolyfaceError(f"column '{name}' holds no words, so no row can be chosen by a word of it")
        found = pc.index_in(self.column(name), value_set=pa.array(list(vocabulary), pa.string()))
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def take(self, rows: np.ndarray) -> FaceTable:
        """The given rows (int indices), in that order."""
        rows = np.asarray(rows, dtype=np.int64)
        digest = _digest(self.fingerprint, hashlib.sha1(rows.tobytes()).hexdigest())
        return FaceTable(self.labels.take(pa.array(rows)), self._files, self._part[rows], self._row[rows], digest)

    def where(self, **conditions: str | Sequence[str]) -> FaceTable:
        """Rows whose columns hold one of the given words: `table.where(split="train", source=["net_7876"])`."""
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in conditions.items():
            keep &= self.classes(name, [wanted] if isinstance(wanted, str) else wanted) >= 0
        return self.take(np.flatnonzero(keep))

    def image_struct(self, row: int) -> tuple[bytes | None, str]:
        """(encoded bytes or None, path) of a row's image."""
        file = self._files[self._part[row]]
        value = file.struct(int(self._row[row]))
        return value["bytes"], value["path"]

    def image(self, row: int) -> np.ndarray:
        """A row's picture, uint8 RGB [H, W, 3]."""
        return images.decode(*self._stored(row))

    def image_size(self, row: int) -> tuple[int, int]:
        """(width, height) of a row's picture, without decoding it."""
        return images.size_of(*self._stored(row))

    def _stored(self, row: int) -> tuple[bytes | Path, str]:
        """A row's encoded picture, or its file, and what to call it in an error."""
        data, path = self.image_struct(row)
        file = self._files[self._part[row]]
        where = f"{file.path.name} row {int(self._row[row])} ({path})"
        return (data if data is not None else file.path.parent / path), where

    def path(self, row: int) -> str:
        return self.image_struct(row)[1]


def _digest(*parts: str) -> str:
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


# ------------------------------------------------------------------------------------------------ writing


def _value(column: str, value: Any, size: tuple[int, int], where: str) -> Any:
    """A label as Arrow takes it, or a PolyfaceError that names the place."""
    try:
        return _checked(column, value, size, where)
    except (TypeError, ValueError, OverflowError) as error:
        raise PolyfaceError(f"{where}: {column} is not a value of its kind ({_first_line(error)})") from error


def _checked(column: str, value: Any, size: tuple[int, int], where: str) -> Any:
    if value is None:
        return None
    width, height = size
    points = landmark_count(column)
    if points or column == "box":
        shape = (points, 2) if points else (4,)
        numbers = np.array(value, dtype=np.float64)
        if numbers.shape != shape:
            raise PolyfaceError(f"{where}: {column} has shape {list(numbers.shape)}, expected {list(shape)}")
        if points:
            numbers[np.isnan(numbers).any(axis=1)] = np.nan
        pairs = numbers.reshape(-1, 2)
        far = (pairs < [-width, -height]) | (pairs > [2 * width, 2 * height]) | np.isinf(pairs)
        if far.any():
            x, y = pairs[far.any(axis=1)][0]
            raise PolyfaceError(f"{where}: {column} has ({x:g}, {y:g}), far outside its {width}×{height} image")
        if not points and not (numbers[2] > numbers[0] and numbers[3] > numbers[1]):
            raise PolyfaceError(f"{where}: box {numbers.tolist()} is empty; expected x0 < x1 and y0 < y1 in pixels")
        return [None if math.isnan(x) else x for x in numbers.ravel()]
    if column in VOCABULARIES:
        if value not in VOCABULARIES[column]:
            raise PolyfaceError(f"{where}: {column} is '{value}'; {nearest(str(value), VOCABULARIES[column])}")
        return value
    if column == "attributes":
        if len(value) != 40 or any(v not in (-1, 1, None) for v in value):
            raise PolyfaceError(f"{where}: attributes must be 40 values out of -1, 1 and null")
        return list(value)
    if pa.types.is_string(column_type(column)):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if pa.types.is_integer(column_type(column)) else number


def _row(record: Record, columns: Sequence[str]) -> dict[str, Any]:
    image = record.image
    try:
        data = images.encode_png(image) if isinstance(image, np.ndarray) else image
        data = data if isinstance(data, bytes) else Path(data).read_bytes()
    except OSError as error:
        raise PolyfaceError(f"{record.where}: cannot read {record.path} ({error.strerror})") from error
    height, width = images.decode(data, f"{record.where} ({record.path})").shape[:2]
    row: dict[str, Any] = {"image": {"bytes": data, "path": record.path}}
    for column in columns:
        row[column] = _value(column, record.labels.get(column), (width, height), record.where)
    return row


def write_table(
    records: Iterable[Record | Skipped],
    path: Path | str,
    *,
    on_bad: str = "error",
    workers: int | None = None,
    progress: Progress | None = None,
    pseudo: Mapping[str, str] | None = None,
) -> ImportReport:
    """Validate every record and write the face table at `path` in one piece, or not at all.

    pseudo: column → the model that answered it, which the table then says of it (`FaceTable.pseudo`).

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
    columns = sorted({name for record in found for name, value in record.labels.items() if value is not None})
    marks = {name: {_PSEUDO: model.encode()} for name, model in (pseudo or {}).items()}
    fields = [pa.field(name, column_type(name), metadata=marks.get(name)) for name in columns]
    schema = pa.schema([pa.field("image", IMAGE), *fields])

    def convert(record: Record) -> dict[str, Any] | Skipped:
        try:
            return _row(record, columns)
        except PolyfaceError as error:
            if on_bad == "error":
                raise
            return Skipped(record.where, str(error).removeprefix(f"{record.where}: "))

    content = hashlib.sha1()
    with atomic_path(path) as aside, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        with pq.ParquetWriter(aside, schema, compression={"image.bytes": "none"} | dict.fromkeys(columns, "zstd")) as w:
            for start in range(0, len(found), ROW_GROUP):
                rows: list[dict[str, Any]] = []
                for result in pool.map(convert, found[start : start + ROW_GROUP]):
                    if isinstance(result, Skipped):
                        report.skipped.append(result)
                    else:
                        rows.append(result)
                if rows:
                    batch = pa.Table.from_pylist(rows, schema=schema)
                    w.write_table(batch, row_group_size=ROW_GROUP)
                    for name in columns:
                        valid = len(batch) - batch.column(name).null_count
                        report.labelled[name] = report.labelled.get(name, 0) + valid
                    for row in rows:
                        content.update(row["image"]["bytes"])
                        content.update(repr([row[name] for name in columns]).encode())
                    report.rows += len(rows)
                if progress:
                    progress(min(start + ROW_GROUP, len(found)), len(found), "faces read")
            content.update(repr(columns).encode())
            w.add_key_value_metadata({_FINGERPRINT.decode(): content.hexdigest()})
        if not report.rows:
            reason = f" (first: {report.skipped[0].where}: {report.skipped[0].reason})" if report.skipped else ""
            raise PolyfaceError(f"no face could be read for {path}{reason}")
    return report


def check_table(table: FaceTable, progress: Progress | None = None) -> list[Skipped]:
    """Decode every image and validate every label again: the faces that fail, and why."""
    values = {name: table.column(name) for name in table.columns}

    def check(row: int) -> Skipped | None:
        where = f"row {row}"
        try:
            height, width = table.image(row).shape[:2]
            for name, column in values.items():
                value = column[row].as_py()
                if landmark_count(name) and value is not None:
                    value = np.array(value, dtype=float).reshape(-1, 2)
                _value(name, value, (width, height), where)
        except PolyfaceError as error:
            return Skipped(where, str(error).removeprefix(f"{where}: "))
        return None

    bad = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, found in enumerate(pool.map(check, range(len(table))), 1):
            if found:
                bad.append(found)
            if progress and (done % 256 == 0 or done == len(table)):
                progress(done, len(table), "faces checked")
    return bad
