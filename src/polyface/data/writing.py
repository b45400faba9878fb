"""Writing face tables: every record is validated, and a table is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyface.data import images, values
from polyface.data.seal import seal
from polyface.data.table import FaceTable, Progress, each_row
from polyface.data.tablefile import DECLARED, FINGERPRINT, LEFT_OUT, PSEUDO, LeftOut, check_declaration
from polyface.errors import PolyfaceError, one_line, short, utf8
from polyface.files import atomic_path, read_bytes
from polyface.schema import IMAGE, Column, built_in, is_column

ROW_GROUP = 512
GROUP_BYTES = 2**28  # of a row group's pictures: Arrow reads at most 2 GiB of them at once
_AT_ONCE = 64  # faces that are decoded before they are written


Picture = Path | bytes | np.ndarray | Callable[[], np.ndarray]
"""A file, encoded bytes, uint8 RGB [H, W, 3], or what draws such an array when the face is written."""


@dataclass(frozen=True)
class Record:
    """One face as a reader found it.

    where: file and line, for errors. path: the image's stable
    name inside its data set, with '/' separators. labels: column → value; a missing key or None is "not labelled";
    landmarks are [N, 2] pixels with NaN for an invisible point.
    """

    image: Picture
    where: str
    path: str
    labels: dict[str, Any]


@dataclass(frozen=True)
class Skipped:
    """A face that could not be taken: where it stood and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


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
    """Turns a public data set, in the layout its authors publish, into records. `verified`: tried on the real files.

    One whose attribute `drawn` is true draws its pictures, and reads nothing at the path that it is given.
    """

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

    def skip(self, where: str, reason: str) -> None:
        """Note a face that is left out, in words that are cut to a line."""
        where = short(one_line(where))
        self.skipped.append(Skipped(where, short(one_line(reason).removeprefix(f"{where}: "))))

    @property
    def left_out(self) -> LeftOut | None:
        """What is told of the skipped faces in one line; None without any."""
        if not self.skipped:
            return None
        return LeftOut(len(self.skipped), self.rows + len(self.skipped), str(self.skipped[0]))

    def to_json(self) -> str:
        skipped = [{"where": s.where, "reason": s.reason} for s in self.skipped]
        told = {"rows": self.rows, "labelled": self.labelled, "left out": dict(self.plan.left)}
        return json.dumps(told | {"hints": dict(self.plan.hints), "skipped": skipped}, indent=1)


def _row(record: Record, columns: Mapping[str, Column]) -> dict[str, Any]:
    path = values.word(utf8(record.path), f"{record.where}: path")
    where = f"{record.where}: {short(path)}" if record.where != path else path
    image = record.image() if callable(record.image) else record.image
    image = images.encode_png(image) if isinstance(image, np.ndarray) else image
    data = image if isinstance(image, bytes) else read_bytes(image, where)
    height, width = images.decode(data, where, images.log).shape[:2]
    row: dict[str, Any] = {"image": {"bytes": data, "path": path}}
    for name, column in columns.items():
        row[name] = values.checked(name, column, record.labels.get(name), (width, height), record.where)
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
            raise PolyfaceError(f"{short(item.where)}: {short(item.reason)}; mend it, or pass --on-bad skip")
        else:
            report.skip(item.where, item.reason)
    names = sorted({name for record in found for name, value in record.labels.items() if value is not None})
    given = columns or {}
    held = {name: given.get(name) or built_in(name, given) for name in names}
    total = len(found) + len(report.skipped)

    def convert(record: Record) -> dict[str, Any] | Skipped:
        try:
            return _row(record, held)
        except PolyfaceError as error:
            if on_bad == "error":
                raise
            return Skipped(record.where, str(error))

    with atomic_path(path) as aside:
        with _Writer(aside, held, pseudo or {}) as writer, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            for start in range(0, len(found), _AT_ONCE):
                for result in pool.map(convert, found[start : start + _AT_ONCE]):
                    if isinstance(result, Skipped):
                        report.skip(result.where, result.reason)
                    else:
                        writer.add(result)
                if progress:
                    left = f" · {len(report.skipped):,} skipped" if report.skipped else ""
                    progress(writer.rows, total, f"faces read{left}")
            report.rows, report.labelled = writer.rows, writer.labelled
            left_out = report.left_out
            if not report.rows:
                raise PolyfaceError(f"no face could be read for {path}" + (f": {left_out}" if left_out else ""))
            if left_out:
                writer.note(LEFT_OUT, left_out.to_json())
        seal(aside)
    return report


class _Writer:
    """A table's file on its way: rows in groups of at most `ROW_GROUP` faces and `GROUP_BYTES` of pictures, the digest
    of their content, and how many are labelled."""

    def __init__(self, path: Path, columns: Mapping[str, Column], pseudo: Mapping[str, str]) -> None:
        own = {name: column for name, column in columns.items() if not is_column(name) or column != built_in(name)}
        for name, column in own.items():
            check_declaration(name, column)
        declared = {name: column.to_json() for name, column in own.items()}
        marks = {name: {PSEUDO: model.encode()} for name, model in pseudo.items()}
        for name, text in declared.items():
            marks[name] = marks.get(name, {}) | {DECLARED: text.encode()}
        fields = [pa.field(name, column.arrow, metadata=marks.get(name)) for name, column in columns.items()]
        self._schema = pa.schema([pa.field("image", IMAGE), *fields])
        self._names = list(columns)
        self._lists = {f.name: [None] * f.type.list_size for f in fields if pa.types.is_fixed_size_list(f.type)}
        compression = {"image.bytes": "none"} | dict.fromkeys(columns, "zstd")
        self._sink = open(path, "wb")  # noqa: SIM115  Arrow itself opens no path that is not UTF-8
        self._file = pq.ParquetWriter(self._sink, self._schema, compression=compression, write_page_checksum=True)
        self._content = hashlib.sha1(json.dumps([self._names, declared]).encode())
        self._group: list[dict[str, Any]] = []
        self._size = 0
        self.rows = 0
        self.labelled = dict.fromkeys(columns, 0)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
            self.note(FINGERPRINT, self._content.hexdigest())
        self._file.close()
        self._sink.close()

    def note(self, key: bytes, value: str) -> None:
        """Something that the file says of itself."""
        self._file.add_key_value_metadata({key.decode(): value})

    def add(self, row: dict[str, Any]) -> None:
        data, path = row["image"]["bytes"], row["image"]["path"]
        if self._group and (len(self._group) == ROW_GROUP or self._size + len(data) > GROUP_BYTES):
            self._flush()
        self._group.append(row)
        self._size += len(data)
        self.rows += 1
        for name in self._names:
            self.labelled[name] += row[name] is not None
        content = [hashlib.sha1(data).hexdigest(), path, *(row[name] for name in self._names)]
        self._content.update(b"\n" + json.dumps(content).encode())

    def _flush(self) -> None:
        rows = [row | {name: row[name] or nulls for name, nulls in self._lists.items()} for row in self._group]
        if rows:
            self._file.write_table(pa.Table.from_pylist(rows, schema=self._schema), row_group_size=ROW_GROUP)
        self._group, self._size = [], 0


def check_table(table: FaceTable, progress: Progress | None = None) -> list[Skipped]:
    """Decode every image and validate every label again: the faces that fail, and why."""
    columns = {name: (table.declared(name), table.column(name)) for name in table.columns}

    def check(row: int) -> Skipped | None:
        where = f"row {row}"
        try:
            height, width = table.image(row).shape[:2]
            for name, (column, labels) in columns.items():
                value = labels[row].as_py()
                if column.type == "points" and value is not None:
                    value = np.array(value, dtype=float).reshape(-1, 2)
                values.checked(name, column, value, (width, height), where)
        except PolyfaceError as error:
            return Skipped(where, short(error).rpartition(f"{where}: ")[2])
        return None

    return [bad for bad in each_row(check, len(table), progress, "faces checked") if bad]
