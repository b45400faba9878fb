"""One Parquet file of a face table: what its columns are, whether it is whole, and its pictures."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polyface.data.seal import footer_of
from polyface.data.values import LONGEST_WORD
from polyface.errors import PolyfaceError, short
from polyface.files import check_regular
from polyface.schema import IMAGE, Column, column_type, is_column, read_column

FINGERPRINT = b"polyface.fingerprint"
LEFT_OUT = b"polyface.left-out"  # the faces of the source that the table lacks (`LeftOut`)
PSEUDO = b"polyface.pseudo"  # of a field: whose answers its column holds
DECLARED = b"polyface.column"  # of a field: what its column holds (`schema.Column`), where the schema does not say it
_READ = 2**28  # bytes of pictures that are read at once
_KEPT = 2**29  # and those that are kept


@dataclass(frozen=True)
class LeftOut:
    """Faces of a source that its table lacks: how many of how many, and the first with the reason."""

    skipped: int
    faces: int
    first: str

    @property
    def most(self) -> bool:
        """Whether they are more than half: the source is not whole."""
        return 2 * self.skipped > self.faces

    def to_json(self) -> str:
        return json.dumps([self.skipped, self.faces, self.first])

    def __str__(self) -> str:
        return f"{self.skipped:,} of {self.faces:,} faces were skipped (first: {self.first})"


class TableFile:
    """A file that is open; pictures are read a row group at a time.

    Raises:
        PolyfaceError: no such file, none that holds faces, or a damaged one.
    """

    def __init__(self, path: Path, stamp: tuple[int, ...] | None = None) -> None:
        """stamp: what the file was (`stamp`) when another process opened it."""
        if not path.exists():
            raise PolyfaceError(f"{path}: no such face table; make one with `polyface data import`")
        check_regular(path)
        self.path = path
        self.stamp = _stamp(path)
        if stamp not in (None, self.stamp):
            raise PolyfaceError(f"{path}: was changed while it was read; start again")
        with self._readable():
            self._footer, self.sealed = footer_of(path)
            self._parquet = pq.ParquetFile(mapped(path), page_checksum_verification=True)
            check_names(path, self._parquet.schema_arrow)
            wrong = _wrong(self._parquet.schema_arrow)
        if wrong:
            raise PolyfaceError(f"{path}: {wrong}; bring it in with `polyface data import parquet {path} OUT`")
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()  # a ParquetFile is not safe to read from two threads at once
        meta = self._parquet.metadata
        self._starts = np.cumsum([0] + [meta.row_group(i).num_rows for i in range(meta.num_row_groups)])

    def __reduce__(self) -> tuple[Any, ...]:  # another process opens the file itself
        return TableFile, (self.path, self.stamp)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise PolyfaceError(f"{self.path}: not a readable Parquet file ({short(error)})") from error

    def labels(self) -> pa.Table:
        """Every column but the pictures; lists that hold nothing but nulls are null."""
        names = [name for name in self._parquet.schema_arrow.names if name != "image"]
        rows = int(self._starts[-1])
        with self._readable():
            labels = self._parquet.read(columns=names)
        if not names:  # Arrow forgets how many rows a table without columns has
            labels = pa.table({"source": pa.nulls(rows, column_type("source"))})
        if labels.num_rows != rows:
            raise PolyfaceError(f"{self.path}: is damaged ({labels.num_rows} of {rows} rows); make the table again")
        for place, name in enumerate(labels.column_names):
            if pa.types.is_fixed_size_list(labels.field(place).type):
                labels = labels.set_column(place, labels.field(place), empty_as_null(labels.column(name)))
            if pa.types.is_string(labels.field(place).type):
                self._check_words(name, labels.column(name))
            if name == "identity":
                labels = labels.set_column(place, labels.field(place), names_in_one_form(labels.column(name)))
        return labels.replace_schema_metadata(None)

    def _check_words(self, name: str, column: pa.ChunkedArray) -> None:
        lengths = pc.binary_length(column)
        wrong = pc.greater(lengths, LONGEST_WORD).to_numpy() == True  # noqa: E712  null is not
        reason = f"is a word of more than {LONGEST_WORD:,} bytes"
        if not wrong.any():
            try:
                column.validate(full=True)
                return
            except pa.ArrowInvalid:
                wrong, reason = np.array([not _is_text(one) for one in column]), "is not UTF-8"
        remedy = f"leave it out: polyface data import parquet {self.path} OUT --on-bad skip"
        raise PolyfaceError(f"{self.path} row {int(wrong.argmax())}: {name} {reason}; {remedy}")

    @property
    def left_out(self) -> LeftOut | None:
        """The faces of its source that were skipped when it was made."""
        mark = (self._parquet.metadata.metadata or {}).get(LEFT_OUT)
        return LeftOut(*json.loads(mark)) if mark and self.sealed else None

    def fingerprint(self) -> str:
        """A digest that differs where the content does.

        Of a table that Polyface wrote it is the digest of the content itself. Of another one it is that of the file's
        size, time and footer, and of the sizes and times of pictures that lie outside the file.
        """
        own: bytes = (self._parquet.metadata.metadata or {}).get(FINGERPRINT, b"")
        if self.sealed and own:
            return own.decode()
        content = hashlib.sha1(self._footer)
        for stamp in (self.stamp[:2], *self._outside()):
            content.update(repr(stamp).encode())
        return content.hexdigest()

    def _outside(self) -> Iterator[tuple[int, ...]]:
        """Sizes and times of the pictures that the file names and does not hold."""
        meta = self._parquet.metadata
        leaves = [meta.schema.column(i).path for i in range(meta.num_columns)]
        stored = [meta.row_group(i).column(leaves.index("image.bytes")) for i in range(meta.num_row_groups)]
        if all(each.statistics and each.statistics.null_count == 0 for each in stored):
            return
        with self._readable():
            column = self._parquet.read(columns=["image.path"]).column("image").combine_chunks()
            paths = column.field("path").cast(pa.binary()).to_pylist()
        for path in paths:
            file = self._inside(os.fsdecode(path)) if path else None
            if file:
                yield _stamp(file)[:2]

    def struct(self, row: int) -> tuple[bytes | None, str]:
        """(encoded bytes or None, path) of a row's picture.

        Raises:
            PolyfaceError: it has none, or the file is damaged there.
        """
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            with self._lock:
                value = self._group(group)[row - int(self._starts[group])].as_py()
        except UnicodeDecodeError as error:
            raise PolyfaceError(f"{self.where(row)}: the image's path is not UTF-8") from error
        except (pa.ArrowException, OSError, IndexError) as error:
            reason = f"its pictures are damaged ({short(error)})"
            raise PolyfaceError(f"{self.where(row)}: {reason}; import them again") from error
        if value is None or (value["bytes"] is None and not value["path"]):
            raise PolyfaceError(f"{self.where(row)}: image is null")
        return value["bytes"], value["path"] or ""

    def picture(self, row: int) -> tuple[bytes | Path, str]:
        """A row's encoded picture, or its file, and what to call it in an error."""
        data, path = self.struct(row)
        if data is not None:
            return data, f"{self.where(row)} ({short(path)})"
        file = self._inside(path)
        if file is None:
            raise PolyfaceError(
                f"{self.where(row)}: image path '{short(path)}' is not a file inside the table's folder"
            )
        return file, f"{self.where(row)} ({short(path)})"

    def where(self, row: int) -> str:
        return f"{self.path.name} row {row}"

    def _inside(self, path: str) -> Path | None:
        """The regular file of that path in the table's folder; None of a path that leads out, through links or not."""
        return file_inside(self.path.parent, path)

    def _group(self, group: int) -> pa.ChunkedArray:
        """The pictures of a row group, in parts: Arrow reads at most 2 GiB of them at once."""
        column = self._groups.pop(group, None)
        if column is None:
            meta = self._parquet.metadata.row_group(group)
            at_once = max(1, meta.num_rows * _READ // max(meta.total_byte_size, _READ))
            parts = self._parquet.iter_batches(at_once, row_groups=[group], columns=["image"])
            column = pa.chunked_array([part.column("image") for part in parts], IMAGE)
            if len(column) != meta.num_rows:
                raise pa.ArrowInvalid(f"{len(column)} of {meta.num_rows} rows")
            while self._groups and sum(kept.nbytes for kept in self._groups.values()) + column.nbytes > _KEPT:
                self._groups.popitem(last=False)
        self._groups[group] = column
        return column


def file_inside(folder: Path, path: str) -> Path | None:
    """The regular file at a relative path in a folder; None if there is none, or a link leads out of the folder."""
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts:
        return None
    try:
        file = (folder / path).resolve()
        return file if file.is_relative_to(folder.resolve()) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # names that no system has, links that go in circles
        return None


def mapped(path: Path) -> pa.BufferReader:
    """A file's bytes without a copy of them. Arrow itself opens no path that is not UTF-8.

    Raises:
        ValueError: the file is empty.
    """
    with open(path, "rb") as file:
        return pa.BufferReader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def check_names(path: Path, schema: pa.Schema) -> None:
    """Refuse a file with a column, or a part of one, that is there twice: nobody knows which is meant."""
    for names in (schema.names, *([part.name for part in one.type] for one in schema if pa.types.is_struct(one.type))):
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise PolyfaceError(f"{path}: column '{twice[0]}' is there twice; rename one")


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
    vocabulary, points another mirror. Refuse settings that could not be read again, too."""
    read_column(column.settings(), f"column '{name}'")
    if is_column(name):
        fixed = column_type(name)
        if name == "image" or column.arrow != fixed or column.type not in ("words", "points"):
            raise PolyfaceError(f"column '{name}' is {fixed} and cannot be declared as {column}: choose another name")


def _wrong(schema: pa.Schema) -> str | None:
    """What makes a Parquet file no face table."""
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


def names_in_one_form(names: pa.Array | pa.ChunkedArray) -> Any:
    """People's names in the form in which they are compared, as `schema.person` gives it; those of blanks are null."""
    plain = pc.utf8_trim_whitespace(pc.utf8_normalize(names, "NFC"))
    return pc.if_else(pc.equal(plain, ""), None, plain)


def _is_text(word: pa.StringScalar) -> bool:
    try:
        word.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _stamp(path: Path) -> tuple[int, ...]:
    """Size and time of a file, and which it is."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino
