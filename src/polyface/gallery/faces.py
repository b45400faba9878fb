"""The faces of a gallery in memory: what the lines of its log say, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.errors import PolyfaceError, utf8
from polyface.gallery.format import Face
from polyface.schema import person as one_form

_ROW = np.dtype([
    ("id", "<i8"), ("person", "<i4"), ("image", "S32"), ("box", "<f4", 4), ("crc", "<u4"), ("live", "?"), ("sound", "?")
])  # fmt: skip


class Faces:
    """`len` counts rows, those of removed faces included.

    rows: structured array [N] of id (rises, is never used twice), person (index into `names`), image, box, crc (of the
    vector), live (not removed), sound (the vector was compared with its crc). names: of people, in one form. live: how
    many were not removed. next_id: no face has this id yet. paths: the file of each row.
    """

    def __init__(self, next_id: int) -> None:
        self._rows, self._count = np.zeros(0, _ROW), 0
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}  # of every name as it was written
        self._written: dict[int, str] = {}  # the name of a row, where it was not written in the one form
        self.paths: list[str | None] = []
        self._infos: dict[int, Any] = {}
        self._people: dict[str, int] | None = None
        self.live, self.next_id = 0, next_id

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        return self._rows[: self._count]

    def people(self) -> Mapping[str, int]:
        """Faces of every person, by name."""
        if self._people is None:  # kept, for every search asks
            counts = np.bincount(self.rows["person"][self.rows["live"]], minlength=len(self.names))
            self._people = {self.names[number]: int(counts[number]) for number in np.flatnonzero(counts)}
        return self._people

    def of(self, people: Iterable[str], live: bool = True) -> NDArray[np.int64]:
        """The rows of these people's faces: those that are live, or those that were removed."""
        numbers = [self._numbers[name] for name in people if name in self._numbers]
        return np.flatnonzero(np.isin(self.rows["person"], numbers) & (self.rows["live"] == live))

    def by_id(self, ids: Sequence[int]) -> NDArray[np.int64]:
        """The rows of faces that were enrolled, by id."""
        return np.searchsorted(self.rows["id"], np.asarray(ids, np.int64))

    def face(self, row: int) -> Face:
        record = self.rows[row]
        box = None if np.isnan(record["box"][0]) else tuple(float(value) for value in record["box"])
        return Face(self.names[record["person"]], record["image"].decode(), self.paths[row], box, self._infos.get(row))

    def told(self, row: int) -> str:
        """The path of a row as it is told, whatever bytes it is; empty if there is none."""
        return utf8(self.paths[row] or "")

    def take(self, entry: Mapping[str, Any], sound: bool = False) -> bool:
        """Do what a line of the log says; False where it says nothing that this version knows."""
        if entry["op"] == "add":
            self._add(entry, sound)
        elif entry["op"] == "change":
            self._change(entry)
        elif entry["op"] == "remove":
            self._remove(set(entry["person"]))
        else:
            return False
        self._people = None
        return True

    def _add(self, entry: Mapping[str, Any], sound: bool) -> None:
        new, count = np.zeros(len(entry["id"]), _ROW), self._count
        for name in ("id", "image", "crc"):
            new[name] = entry[name]
        new["person"] = [self._number(name) for name in entry["person"]]
        new["box"] = [[np.nan] * 4 if box is None else box for box in entry["box"]]
        new["live"], new["sound"] = True, sound
        if len(self._rows) < count + len(new):  # twice as large, so that many small batches stay cheap
            self._rows = np.concatenate([self.rows, np.zeros(max(count, len(new)), _ROW)])
        self._rows[count : count + len(new)] = new
        self.paths[count:] = entry["path"]
        self._infos |= {row: info for row, info in enumerate(entry["info"], count) if info is not None}
        given = zip(entry["person"], new["person"].tolist(), strict=True)
        self._written |= {row: name for row, (name, n) in enumerate(given, count) if self.names[n] != name}
        self.next_id = max(self.next_id, int(new["id"].max()) + 1)
        self._count, self.live = count + len(new), self.live + len(new)

    def _change(self, entry: Mapping[str, Any]) -> None:
        self._drop(self.by_id(entry["drop"]))
        if entry["move"]:
            self.rows["person"][self.by_id(entry["move"])] = self._number(entry["person"])

    def _remove(self, names: set[str]) -> None:
        """As earlier versions wrote it: by names, two forms of which were two people."""
        found = self.of(names).tolist()
        written = [self._written.get(row, self.names[self.rows["person"][row]]) for row in found]
        self._drop([row for row, name in zip(found, written, strict=True) if name in names])

    def _drop(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        self.rows["live"][np.asarray(rows, np.int64)] = False
        self.live = int(np.count_nonzero(self.rows["live"]))

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            form = _form(name)
            if form not in self._numbers:
                self._numbers[form] = len(self.names)
                self.names.append(form)
            self._numbers[name] = self._numbers[form]
        return self._numbers[name]


def _form(name: str) -> str:
    try:
        return one_form(name)
    except PolyfaceError:  # an earlier version took it
        return name
