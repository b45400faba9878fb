"""Faces on disk such that none that was acknowledged is lost: a log with checksums, vectors beside it, a manifest.

A gallery's folder holds

- ``gallery.json``, the manifest: format, embedder, dim, similarity, generation, counts and hashes; only ever replaced
  as a whole;
- ``faces-<generation>.jsonl``, the log: one line a batch of faces or a removal, each after its CRC-32;
- ``vectors-<generation>.f32``: embeddings, little-endian float32 [faces, dim] in the log's order, whose CRC-32 the log
  holds;
- ``index-….faiss``, which can be made again from the vectors; and ``lock``, held by whoever writes.

A batch's vectors are on the disk before the log's line that speaks of them, and the batch is acknowledged once that
line is on the disk too. So the log decides what the gallery holds, and whatever follows its last whole line was never
acknowledged. Removal is a line as well; `compact` then writes the next generation without the removed faces.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from polyface.data.table import Progress
from polyface.errors import PolyfaceError
from polyface.forks import after_fork
from polyface.gallery.format import (
    LOCK,
    MANIFEST,
    Face,
    Manifest,
    batch_entry,
    disk_errors,
    entry_of,
    line_of,
    lock_folder,
    names_of,
    read_manifest,
    write_all,
    write_manifest,
)

_CHUNK = 8192  # faces that are copied or checked at a time
_OURS = ("faces-*.jsonl", "vectors-*.f32", "index-*.faiss", ".*.tmp", LOCK)
_ROW = np.dtype([
    ("id", "<i8"), ("person", "<i4"), ("image", "S32"), ("box", "<f4", 4), ("crc", "<u4"), ("live", "?"), ("sound", "?")
])  # fmt: skip


_written: WeakSet[FaceStore] = WeakSet()


@after_fork
def _leave_all() -> None:
    for store in list(_written):
        store.leave()


class FaceStore:
    """The faces of one folder; `len` counts rows of `vectors`, those of removed faces (until `compact`) included.

    rows: structured array [N] of id (rises, is never used twice), person (index into `names`), image, box, live. live:
    how many were not removed.
    """

    def __init__(self, folder: Path, lock: int | None) -> None:
        self.folder, self._lock = folder, lock
        self.recovered = ""
        self.manifest, self.next_id = read_manifest(folder), 0
        self._hash, self._end = hashlib.sha256(), (0, 0)  # of the log: what was read; faces, and bytes
        self._people: dict[str, int] | None = None
        self.live, self._checked = 0, 0
        self._files: list[int] = []
        self._broken = ""
        self._load()
        if lock is not None:
            self._clean()
            _written.add(self)

    # ---------------------------------------------------------------------------------------------- opening, closing

    @classmethod
    def create(cls, folder: Path | str, manifest: Manifest) -> FaceStore:
        """Make an empty gallery and open it for writing.

        Raises:
            PolyfaceError: the folder holds a gallery, or something else; or cannot be written.
        """
        folder = Path(folder)
        with disk_errors(folder, "no gallery was made"):
            folder.mkdir(parents=True, exist_ok=True)
            ours = {path.name for pattern in (MANIFEST, *_OURS) for path in folder.glob(pattern)}
            if other := sorted({path.name for path in folder.iterdir()} - ours):
                raise PolyfaceError(f"{folder}: holds '{other[0]}' and no gallery; name a new or empty folder")
            lock = lock_folder(folder)
            try:
                if (folder / MANIFEST).exists():
                    raise PolyfaceError(f"{folder}: is a gallery already; open it, or name another folder")
                for name in names_of(manifest.generation):
                    os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
                write_manifest(folder, manifest)
                return cls(folder, lock)
            except BaseException:
                os.close(lock)
                raise

    @classmethod
    def open(cls, folder: Path | str, write: bool = False) -> FaceStore:
        """Open a gallery, for reading (what it holds now; any number at a time) or for writing (one at a time).

        Raises:
            PolyfaceError: no gallery, a damaged or truncated file, another version, or, for writing, locked.
        """
        folder = Path(folder)
        read_manifest(folder)  # no lock file is to be left in a folder that is no gallery
        with disk_errors(folder, "it cannot be opened for writing"):
            lock = lock_folder(folder) if write else None
        try:
            return cls(folder, lock)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise

    def close(self) -> None:
        """Note counts and hashes in the manifest, and let others write. The faces are safe without it."""
        try:
            if self._lock is not None and not self._broken:
                self.update()
        finally:
            self._close_files()
            if self._lock is not None:
                os.close(self._lock)
            self._lock, self._broken = None, "it was closed"

    def leave(self) -> None:
        """In a forked process: leave what is open for writing, and the lock, to the parent."""
        with suppress(OSError):  # the parent may just have been closing them
            self._close_files()
            if self._lock is not None:
                os.close(self._lock)  # which unlocks it for this process alone
        self._lock, self._broken = None, "it was opened for writing by the process that this one was forked from"

    def update(self, **changes: Any) -> None:
        """Replace the manifest: present counts and hashes, and `changes`."""
        self.must_write()
        now: dict[str, Any] = {"faces": self.live, "people": len(self.people()), "log_bytes": self._end[1]}
        now |= {"log_sha256": self._hash.hexdigest(), "next_id": self.next_id}
        manifest = self.manifest.model_copy(update=now | changes)
        if manifest != self.manifest:
            with disk_errors(self.folder, "its faces are safe"):
                write_manifest(self.folder, manifest)
            self.manifest = manifest

    def _load(self) -> None:
        for attempt in range(5):
            self.manifest = read_manifest(self.folder)
            try:
                if self._lock is not None:
                    flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
                    self._files = [os.open(self._path(which), flags) for which in (0, 1)]
                self._replay()
                return
            except FileNotFoundError as error:
                # a compaction may have ended between reading the manifest and opening what it names
                if attempt == 4 or read_manifest(self.folder).generation == self.manifest.generation:
                    raise PolyfaceError(f"{error.filename}: is missing; restore the gallery from a copy") from error
            except BaseException:
                self._close_files()
                raise

    def _close_files(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []

    def _replay(self) -> None:
        """Read the log into memory; for writing, cut off what was never acknowledged."""
        self._rows, self.names, self._numbers = np.zeros(0, _ROW), list[str](), dict[str, int]()
        self.paths, self.infos = list[str | None](), dict[int, Any]()
        self._mapped = np.zeros((0, self.manifest.dim), np.float32)
        self._hash, self._end, self.next_id = hashlib.sha256(), (0, 0), self.manifest.next_id
        self._people, self.live, self._checked = None, 0, 0
        log, closed, as_closed = self._path(0), self.manifest.log_bytes, self.manifest.log_bytes == 0
        with open(log, "rb") as file:
            for number, line in enumerate(file, 1):
                if self._end[1] >= closed and not line.endswith(b"\n"):
                    break  # cut off while it was written, or being written now
                entry = entry_of(line)
                if entry is None and self._end[1] >= closed and not file.read(1):
                    break  # the last line, of which a power cut left only some blocks
                if entry is None or not self._take(entry, line):
                    raise PolyfaceError(f"{log}: line {number} is damaged; restore the gallery from a copy")
                as_closed |= self._end[1] == closed and self._hash.hexdigest() == self.manifest.log_sha256
        if not as_closed:
            raise PolyfaceError(f"{log}: is not the log that {MANIFEST} was closed with; restore the gallery")
        vectors, row = self._path(1), 4 * self.manifest.dim
        have, need = os.path.getsize(vectors), row * self._end[0]
        if have < need:
            raise PolyfaceError(f"{vectors}: holds {have // row:,} vectors of {self._end[0]:,}; restore the gallery")
        _ = self.vectors  # mapped now, for after a compaction by someone else there is no such name
        extra = have - need + os.path.getsize(log) - self._end[1]
        if self._lock is not None and extra:
            self.recovered = f"{self.folder}: {extra:,} bytes of a batch that was never finished were dropped"
            with disk_errors(self.folder, "the faces in it are safe"):
                self._roll_back()

    def _clean(self) -> None:
        """Remove what an interrupted compaction or index left behind."""
        keep = {*names_of(self.manifest.generation), LOCK, self.manifest.built.file if self.manifest.built else ""}
        for pattern in _OURS:
            for path in self.folder.glob(pattern):
                if path.name not in keep:
                    with suppress(OSError):  # on some systems a file that is read elsewhere cannot be removed
                        path.unlink()

    def _path(self, which: int) -> Path:
        """Of the log (0) or the vectors (1)."""
        return self.folder / names_of(self.manifest.generation)[which]

    # ------------------------------------------------------------------------------------------------------ reading

    def __len__(self) -> int:
        return self._end[0]

    @property
    def rows(self) -> NDArray[Any]:
        return self._rows[: len(self)]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors, float32 [N, dim], mapped from the disk; unchecked (see `check`)."""
        if len(self._mapped) != len(self):
            shape = (len(self), self.manifest.dim)
            self._mapped = np.asarray(np.memmap(self._path(1), "<f4", "r", shape=shape))
        return self._mapped

    def people(self) -> Mapping[str, int]:
        """Faces of every person, by name."""
        if self._people is None:  # kept, for every search asks
            counts = np.bincount(self.rows["person"][self.rows["live"]], minlength=len(self.names))
            self._people = {self.names[number]: int(counts[number]) for number in np.flatnonzero(counts)}
        return self._people

    def face(self, row: int) -> Face:
        record = self.rows[row]
        box = None if np.isnan(record["box"][0]) else tuple(float(value) for value in record["box"])
        return Face(self.names[record["person"]], record["image"].decode(), self.paths[row], box, self.infos.get(row))

    def check(self, rows: NDArray[np.int64] | None = None, progress: Progress | None = None) -> None:
        """That the vectors of these rows (all that are live) are those that were written; each is read once.

        Raises:
            PolyfaceError: one is not.
        """
        if self._checked == len(self):
            return
        wanted = np.flatnonzero(self.rows["live"]) if rows is None else rows
        wanted = np.unique(wanted[~self.rows["sound"][wanted]])
        vectors, size = self.vectors, 4 * self.manifest.dim
        for start in range(0, len(wanted), _CHUNK):
            some = wanted[start : start + _CHUNK]
            raw = np.ascontiguousarray(vectors[some]).data.cast("B")
            found = [zlib.crc32(raw[at : at + size]) for at in range(0, len(raw), size)]
            if (bad := some[np.array(found, np.uint32) != self.rows["crc"][some]]).size:
                face = self.face(int(bad[0]))
                raise PolyfaceError(
                    f"{self._path(1)}: vector {bad[0]} ('{face.person}', {face.path}) is damaged; restore the gallery, "
                    "or remove the person and enrol again"
                )
            self.rows["sound"][some] = True
            if progress and rows is None:
                progress(start + len(some), len(wanted), "faces checked")
        if rows is None:
            self._checked = len(self)  # what is appended is sound, so that only loading asks again

    # ------------------------------------------------------------------------------------------------------ writing

    def append(self, vectors: NDArray[np.float32], faces: Sequence[Face]) -> None:
        """Store faces with their vectors [N, dim]. When it returns they are on the disk; if it raises, none is held.

        Raises:
            PolyfaceError: not open for writing, an `info` that JSON cannot hold, or the disk is full or fails.
        """
        if faces:
            vectors = np.ascontiguousarray(vectors, "<f4").reshape(len(faces), self.manifest.dim)
            ids = range(self.next_id, self.next_id + len(faces))
            self._commit(batch_entry(ids, faces, [zlib.crc32(vector.data) for vector in vectors]), vectors)

    def remove(self, people: Iterable[str]) -> int:
        """Forget these people, who must be here; returns how many faces they had. Their vectors stay in the file, and
        are never read again, until `compact`."""
        before = self.live
        self._commit({"op": "remove", "person": sorted(people)})
        return before - self.live

    def compact(self, progress: Progress | None = None) -> int:
        """Write the next generation without what was removed, and delete this one; returns how many faces it erased.

        Killed at any moment, it leaves the one or the other. Needs as much free disk as the live faces take.

        Raises:
            PolyfaceError: a damaged vector, or the disk is full or fails; the gallery then stays as it is.
        """
        self.must_write()
        erased, generation = len(self) - self.live, self.manifest.generation + 1
        if not erased:
            return 0
        try:
            with disk_errors(self.folder, "it was not compacted; its faces are safe"):
                size, digest = self._copy(generation, progress)
                self.update(generation=generation, log_bytes=size, log_sha256=digest)
        finally:
            # An interrupt may have come on either side of the moment at which the manifest was replaced.
            self._broken = "its compaction was interrupted"
            self._close_files()
            self._load()
            self._clean()
            self._broken = ""
        return erased

    def must_write(self) -> None:
        if self._lock is None or self._broken:
            reason = self._broken or "it was opened for reading"
            raise PolyfaceError(f"{self.folder}: cannot be changed, {reason}; open the gallery for writing")

    def _copy(self, generation: int, progress: Progress | None) -> tuple[int, str]:
        """Write the live faces' log and vectors of another generation; returns the log's length and SHA-256."""
        live, digest, size = np.flatnonzero(self.rows["live"]), hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        files = [os.open(self.folder / name, flags, 0o666) for name in names_of(generation)]
        try:
            for start in range(0, len(live), _CHUNK):
                some = live[start : start + _CHUNK]
                self.check(some)
                write_all(files[1], np.ascontiguousarray(self.vectors[some]).data.cast("B"))
                faces, crcs = [self.face(int(row)) for row in some], self.rows["crc"][some].tolist()
                line = line_of(batch_entry(self.rows["id"][some].tolist(), faces, crcs))
                write_all(files[0], line)
                digest.update(line)
                size += len(line)
                if progress:
                    progress(start + len(some), len(live), "faces rewritten")
            for file in files:
                os.fsync(file)
        finally:
            for file in files:
                os.close(file)
        return size, digest.hexdigest()

    def _commit(self, entry: Mapping[str, Any], vectors: NDArray[np.float32] | None = None) -> None:
        """Write a line of the log, after its vectors. Whatever fails, an interrupt included, leaves all as it was."""
        self.must_write()
        line = line_of(entry)
        self._broken = "a change to it was interrupted"  # stays, should an interrupt come between disk and memory
        try:
            with disk_errors(self.folder, f"nothing of it was stored, the {self.live:,} faces before it are safe"):
                if vectors is not None:
                    self._write(1, vectors.data.cast("B"))
                self._write(0, line)
        except BaseException:
            with suppress(OSError):
                self._roll_back()
                self._broken = ""
            raise
        self._take(entry_of(line) or {}, line, sound=True)
        self._broken = ""

    def _roll_back(self) -> None:
        rows, size = self._end
        os.ftruncate(self._files[0], size)
        os.ftruncate(self._files[1], rows * 4 * self.manifest.dim)

    def _write(self, which: int, data: bytes | memoryview) -> None:
        """Add to the log (0) or the vectors (1), and wait until it is on the disk."""
        os.lseek(self._files[which], 0, os.SEEK_END)
        write_all(self._files[which], data)
        os.fsync(self._files[which])

    def _take(self, entry: Mapping[str, Any], line: bytes, sound: bool = False) -> bool:
        """Do in memory what a line of the log says; False where it says nothing that this version knows."""
        count = len(self)
        if entry["op"] == "remove":
            gone = [self._numbers[name] for name in entry["person"]]
            self.rows["live"][np.isin(self.rows["person"], gone)] = False
            self.live = int(np.count_nonzero(self.rows["live"]))
        elif entry["op"] == "add":
            new = np.zeros(len(entry["id"]), _ROW)
            for name in ("id", "image", "crc"):
                new[name] = entry[name]
            new["person"] = [self._number(name) for name in entry["person"]]
            new["box"] = [[np.nan] * 4 if box is None else box for box in entry["box"]]
            new["live"], new["sound"] = True, sound
            if len(self._rows) < count + len(new):  # twice as large, so that many small batches stay cheap
                self._rows = np.concatenate([self.rows, np.zeros(max(count, len(new)), _ROW)])
            self._rows[count : count + len(new)] = new
            self.paths[count:] = entry["path"]
            self.infos |= {row: info for row, info in enumerate(entry["info"], count) if info is not None}
            count, self.live = count + len(new), self.live + len(new)
            self.next_id = max(self.next_id, int(new["id"].max()) + 1)
        else:
            return False
        self._people = None
        self._hash.update(line)
        self._end = count, self._end[1] + len(line)
        return True

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]
