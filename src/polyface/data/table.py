"""The face table: one row a face, its image beside every label known of it, in Parquet.

`image` is the struct {bytes, path} that Hugging Face `datasets` reads as an image. Labels are read at once, images
row group by row group when they are asked for, so a table larger than memory opens in an instant.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polyface.data import images
from polyface.errors import PolyfaceError, short
from polyface.schema import IMAGE, Column, built_in, column_type, is_column, read_column

FINGERPRINT = b"polyface.fingerprint"
PSEUDO = b"polyface.pseudo"  # of a field: whose answers its column holds
DECLARED = b"polyface.column"  # of a field: what its column holds (`schema.Column`), where the schema does not say it
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) now and then while something long runs."""
_Result = TypeVar("_Result")


def each_row(work: Callable[[int], _Result], rows: int, progress: Progress | None, what: str) -> Iterator[_Result]:
    """What `work` gives for every row, in order; it runs in as many threads as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(work, range(rows)), 1):
            yield result
            if progress and (done % 64 == 0 or done == rows):
                progress(done, rows, what)


class _ImageFile:
    """The image column of one Parquet file, read a row group at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: pq.ParquetFile | None = None
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()  # a ParquetFile is not safe to read from two threads at once
        meta = pq.read_metadata(path)
        self._starts = np.cumsum([0] + [meta.row_group(i).num_rows for i in range(meta.num_row_groups)])

    def __reduce__(self) -> tuple[Any, ...]:  # another process opens the file itself
        return _ImageFile, (self.path,)

    def struct(self, row: int) -> dict[str, Any] | None:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            column = self._groups.get(group)
            if column is None:
                if self._file is None:
                    self._file = pq.ParquetFile(self.path, memory_map=True, page_checksum_verification=True)
                try:
                    column = self._file.read_row_group(group, columns=["image"]).column("image")
                except (pa.ArrowException, OSError) as error:
                    reason = f"its pictures are damaged ({short(error)})"
                    raise PolyfaceError(f"{self.path.name} row {row}: {reason}; import them again") from error
                self._groups[group] = column
                while len(self._groups) > 4:
                    self._groups.popitem(last=False)
            value: dict[str, Any] | None = column[row - int(self._starts[group])].as_py()
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
            if wrong := _wrong(schema):
                raise PolyfaceError(f"{path}: {wrong}; bring it in with `polyface data import parquet {path} OUT`")
            names = [name for name in schema.names if name != "image"]
            labels = pq.read_table(path, columns=names, memory_map=True, page_checksum_verification=True)
            if not names:  # Arrow forgets how many rows a table without columns has
                labels = pa.table({"source": pa.nulls(labels.num_rows, column_type("source"))})
        except (pa.ArrowException, OSError) as error:
            raise PolyfaceError(f"{path}: not a readable Parquet file ({short(error)})") from error
        for place, name in enumerate(labels.column_names):
            if pa.types.is_fixed_size_list(labels.field(place).type):
                labels = labels.set_column(place, labels.field(place), empty_as_null(labels.column(name)))
        fingerprint = (pq.read_metadata(path).metadata or {}).get(FINGERPRINT, b"").decode()
        if not fingerprint:
            stat = os.stat(path)
            fingerprint = _digest(path.name, str(stat.st_size), str(stat.st_mtime_ns))
        rows = np.arange(labels.num_rows)
        return cls(labels.replace_schema_metadata(None), [_ImageFile(path)], np.zeros_like(rows), rows, fingerprint)

    @staticmethod
    def concat(tables: Sequence[FaceTable]) -> FaceTable:
        """One table after the other; a column that one of them lacks is null there. Copies no image.

        Raises:
            PolyfaceError: two tables that declare a column differently.
        """
        if len(tables) == 1:
            return tables[0]
        first: dict[str, FaceTable] = {}
        for table in tables:
            for name in table.columns:
                other = first.setdefault(name, table)
                if table.declared(name) != other.declared(name):
                    raise PolyfaceError(
                        f"column '{name}' is {other.declared(name)} in {other.name} and {table.declared(name)} in "
                        f"{table.name}: import one again so that they agree (`polyface data import parquet` with --map "
                        f"{name}.WORD=WORD or --option columns.{name}=…)"
                    )
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
    def name(self) -> str:
        """The file it was opened from, the first of several: for errors."""
        return self._files[0].path.name

    @property
    def columns(self) -> list[str]:
        return list(self.labels.column_names)

    def declared(self, name: str) -> Column:
        """What a label column holds: as this table declares it, or else as the schema has it.

        Raises:
            PolyfaceError: a name that neither knows, with its nearest neighbour.
        """
        return self._own(name) or built_in(name, self.columns)

    @property
    def own(self) -> dict[str, Column]:
        """The columns that this table declares itself."""
        found = {name: self._own(name) for name in self.columns}
        return {name: column for name, column in found.items() if column}

    def _own(self, name: str) -> Column | None:
        return declaration_of(self.labels.schema.field(name)) if name in self.labels.column_names else None

    def pseudo(self, name: str) -> str | None:
        """The model whose answers a label column holds; None where people labelled it."""
        if name not in self.labels.column_names:
            return None
        mark = (self.labels.schema.field(name).metadata or {}).get(PSEUDO)
        return mark.decode() if mark else None

    def column(self, name: str) -> pa.Array:
        """A label column as one Arrow array; a column this table lacks is all null."""
        if name not in self.labels.column_names:
            return pa.nulls(len(self), self.declared(name).arrow)
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
        """A column's class indices int64 [N] in `vocabulary`, −1 where null or not in it. Of a distribution it is the
        word of the largest share; where two words share that, the face counts as unlabelled."""
        column, array = self.declared(name), self.column(name)
        if column.type == "distribution":
            shares = np.nan_to_num(self.numbers(name))
            largest = shares == shares.max(axis=1, keepdims=True, initial=0)
            words = np.array(column.vocabulary, dtype=object)[largest.argmax(axis=1)]
            array = pa.array(words, pa.string(), mask=largest.sum(axis=1) != 1)
        elif column.type != "words":
            raise PolyfaceError(f"column '{name}' holds no words, so no row can be chosen by a word of it")
        found = pc.index_in(array, value_set=pa.array(list(vocabulary), pa.string()))
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
        file, place = self._files[self._part[row]], int(self._row[row])
        value = file.struct(place)
        if value is None or (value["bytes"] is None and not value["path"]):
            raise PolyfaceError(f"{file.path.name} row {place}: image is null")
        return value["bytes"], value["path"] or ""

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
        where = f"{file.path.name} row {int(self._row[row])}"
        if data is not None:
            return data, f"{where} ({path})"
        inside = PurePosixPath(path)
        if inside.is_absolute() or ".." in inside.parts or not (file.path.parent / path).is_file():
            raise PolyfaceError(f"{where}: image path '{path}' is not a file inside the table's folder")
        return file.path.parent / path, f"{where} ({path})"

    def path(self, row: int) -> str:
        return self.image_struct(row)[1]


def declaration_of(field: pa.Field) -> Column | None:
    """What a field of a table's schema declares of its column."""
    mark = (field.metadata or {}).get(DECLARED)
    if not mark:
        return None
    where = f"column '{field.name}'"
    try:
        return read_column(json.loads(mark), where)
    except ValueError as error:
        raise PolyfaceError(f"{where}: its declaration is damaged ({short(error)})") from error


def check_declaration(name: str, column: Column) -> None:
    """Refuse a declaration that gives a column of a fixed meaning another one. A column of words may have another
    vocabulary, points another mirror."""
    if is_column(name):
        fixed = column_type(name)
        if name == "image" or column.arrow != fixed or column.type not in ("words", "points"):
            raise PolyfaceError(f"column '{name}' is {fixed} and cannot be declared as {column}: choose another name")


def _wrong(schema: pa.Schema) -> str | None:
    """What makes a Parquet file no face table."""
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        return f"column '{twice[0]}' is there twice"
    if "image" not in schema.names or schema.field("image").type != IMAGE:
        return "no image column of bytes and path"
    for field in schema:
        try:
            if column := declaration_of(field):
                check_declaration(field.name, column)
        except PolyfaceError as error:
            return str(error)
        if not column and not is_column(field.name):
            return f"unknown column '{field.name}', which the table does not declare"
        wanted = column.arrow if column else column_type(field.name)
        if field.type != wanted:
            return f"column '{field.name}' is {field.type}, expected {wanted}"
    return None


def empty_as_null(lists: pa.ChunkedArray) -> pa.Array:
    """Lists of one length, null where they hold nothing but nulls: so files say "not labelled", since a list that is
    null itself is in a Parquet file what Arrow could not read again before version 26."""
    whole = lists.combine_chunks()
    size = whole.type.list_size
    values = whole.values.slice(whole.offset * size, len(whole) * size)
    holds = values.is_valid().to_numpy(zero_copy_only=False).reshape(-1, size).any(1)
    nulls = pa.array(~(holds & whole.is_valid().to_numpy(zero_copy_only=False)), pa.bool_())
    return pa.FixedSizeListArray.from_arrays(values, type=whole.type, mask=nulls)


def _digest(*parts: str) -> str:
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()
