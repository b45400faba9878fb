"""The face table: one row a face, its image beside every label known of it, in Parquet.

`image` is the struct {bytes, path} that Hugging Face `datasets` reads as an image. Labels are read at once, images
row group by row group when they are asked for, so a table larger than memory opens in an instant.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyface.data import images
from polyface.data.tablefile import PSEUDO, LeftOut, TableFile, declaration_of, names_in_one_form
from polyface.errors import PolyfaceError, nearest, short
from polyface.schema import Column, built_in

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


_ROUNDING = 1e-3  # of shares, which together are 1
_NUMBER = r"([+-]?\d+(?:\.\d+)?)"
_BEYOND = re.compile(rf"\s*([<>])\s*{_NUMBER}\s*")
_RANGE = re.compile(rf"\s*{_NUMBER}\s*(?:…|\.\.)\s*{_NUMBER}\s*")


class FaceTable:
    """Rows of one or more face-table files. Immutable: `take`, `where`, `concat` give views of the same files."""

    def __init__(
        self, labels: pa.Table, files: list[TableFile], part: np.ndarray, row: np.ndarray, fingerprint: str
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
        file = TableFile(path)
        labels = file.labels()
        rows = np.arange(labels.num_rows)
        return cls(labels, [file], np.zeros_like(rows), rows, file.fingerprint())

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
    def left_out(self) -> list[LeftOut]:
        """Of each of its files that lacks faces of its source: how many, and why the first."""
        return [told for file in self._files if (told := file.left_out)]

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
        known = pa.array(list(vocabulary), pa.string())
        found = pc.index_in(array, value_set=names_in_one_form(known) if name == "identity" else known)
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def check_labels(self) -> None:
        """Refuse what training would pass over or be ruined by: words outside a vocabulary, numbers without end, soft
        labels that are no shares.

        Of a file that Polyface wrote each label was checked then.

        Raises:
            PolyfaceError: the first such label, with its file and row.
        """
        for name in self.columns if not all(file.sealed for file in self._files) else ():
            array, held = self.column(name), self.declared(name)
            words, labelled = held.vocabulary, array.is_valid().to_numpy(zero_copy_only=False)
            if pa.types.is_string(array.type):
                wrong = labelled & ~np.asarray(self.classes(name, words) >= 0 if words else True)
            elif held.type == "distribution":
                shares = self.numbers(name)
                wrong = labelled & ~((shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) < _ROUNDING))
            else:
                wrong = np.isinf(self.numbers(name)).reshape(len(self), -1).any(axis=1)
            if wrong.any():
                row = int(wrong.argmax())
                (file, place), value = self._place(row), short(array[row].as_py())
                told = {"words": nearest(value, words), "distribution": "shares are 0 or more, and together 1"}
                expected = told.get(held.type, "numbers are finite")
                raise PolyfaceError(
                    f"{file.where(place)}: {name} is {value}: {expected}; mend it, or leave such rows out: "
                    f"polyface data import parquet {file.path} OUT --on-bad skip"
                )

    def take(self, rows: np.ndarray) -> FaceTable:
        """The given rows (int indices), in that order."""
        rows = np.asarray(rows, dtype=np.int64)
        digest = _digest(self.fingerprint, hashlib.sha1(rows.tobytes()).hexdigest())
        return FaceTable(self.labels.take(pa.array(rows)), self._files, self._part[rows], self._row[rows], digest)

    def holding(self, column: str, wanted: str | Sequence[str]) -> np.ndarray:
        """Bool [N]: the rows whose column holds one of these words; of a column of numbers, whose number is in one of
        these ranges: "> 30", "< -30", "-15 … 15" (or "-15..15"; the ends belong to it). Null is in none."""
        words = [wanted] if isinstance(wanted, str) else list(wanted)
        if self.declared(column).type not in ("number", "whole"):
            return self.classes(column, words) >= 0
        numbers, found = self.numbers(column), np.zeros(len(self), dtype=bool)
        for word in words:
            if one := _BEYOND.fullmatch(str(word)):
                found |= numbers > float(one[2]) if one[1] == ">" else numbers < float(one[2])
            elif (one := _RANGE.fullmatch(str(word))) and float(one[1]) <= float(one[2]):
                found |= (numbers >= float(one[1])) & (numbers <= float(one[2]))
            else:
                raise PolyfaceError(
                    f"column '{column}' holds numbers, of which '{short(word)}' is no range: write such as '> 30', "
                    "'< -30' or '-15..15'"
                )
        return found

    def where(self, **conditions: str | Sequence[str]) -> FaceTable:
        """Rows whose columns hold one of the given words: `table.where(split="train", source=["net_7876"])`; see
        `holding`."""
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in conditions.items():
            keep &= self.holding(name, wanted)
        return self.take(np.flatnonzero(keep))

    def told(self, row: int) -> str:
        """What errors call a row: its file, and where it stands in it."""
        file, place = self._place(row)
        return file.where(place)

    def image_struct(self, row: int) -> tuple[bytes | None, str]:
        """(encoded bytes or None, path) of a row's image."""
        file, place = self._place(row)
        return file.struct(place)

    def image(self, row: int) -> np.ndarray:
        """A row's picture, uint8 RGB [H, W, 3]."""
        return images.decode(*self._stored(row))

    def image_size(self, row: int) -> tuple[int, int]:
        """(width, height) of a row's picture, without decoding it."""
        return images.size_of(*self._stored(row))

    def _stored(self, row: int) -> tuple[bytes | Path, str]:
        """A row's encoded picture, or its file, and what to call it in an error."""
        file, place = self._place(row)
        return file.picture(place)

    def _place(self, row: int) -> tuple[TableFile, int]:
        """The file that holds a row, and where in it."""
        return self._files[self._part[row]], int(self._row[row])

    def path(self, row: int) -> str:
        return self.image_struct(row)[1]


def _digest(*parts: str) -> str:
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()
