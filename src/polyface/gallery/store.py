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
acknowledged. A removal or a correction is a line as well; `compact` then writes the next generation without the removed
faces.
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
from polyface.gallery.faces import Faces
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
    mark,
    names_of,
    read_manifest,
    unlock_folder,
    write_all,
    write_manifest,
)

_CHUNK = 8192  # faces that are copied or checked at a time
_OURS = ("faces-*.jsonl", "vectors-*.f32", "index-*.faiss", ".*.tmp", LOCK)

_written: WeakSet[FaceStore] = WeakSet()


@after_fork
def _leave_all() -> None:
    for store in list(_written):
        store.leave()


class FaceStore:
    """The faces of one folder and their vectors. faces: all that the log tells of them."""

    def __init__(self, folder: Path, lock: int | None) -> None:
        self.folder, self._lock = folder, lock
        self.recovered = ""
        self.manifest = read_manifest(folder)
        self.faces = Faces(0)
        self._hash, self._size = hashlib.sha256(), 0  # of the log, as far as it was read
        self._checked = 0
        self._files: list[int] = []
        self._broken = "" if lock is None else "its opening was not finished"
        self._load()
        if lock is not None:
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
                store = cls(folder, lock)
                store.recover()
                return store
            except BaseException:
                unlock_folder(lock)
                raise

    @classmethod
    def open(cls, folder: Path | str, write: bool = False) -> FaceStore:
        """Open a gallery, for reading (what it holds now; any number at a time) or for writing (one at a time; after
        `recover`).

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
                unlock_folder(lock)
            raise

    def close(self, told: bool = True) -> None:
        """Note counts and hashes in the manifest, and let others write. The faces are safe without it. told: whether
        what was done ended well, so that nobody will do it again."""
        try:
            if self._lock is not None and not self._broken:
                self.update(**({"erased": ()} if told else {}))
        finally:
            self._close_files()
            if self._lock is not None:
                unlock_folder(self._lock)
            self._lock, self._broken = None, "it was closed"

    def leave(self) -> None:
        """In a forked process: leave what is open for writing, and the lock, to the parent."""
        with suppress(OSError):  # the parent may just have been closing them
            self._close_files()
            if self._lock is not None:
                os.close(self._lock)  # and not unlocked: it stays the parent's
        self._lock, self._broken = None, "it was opened for writing by the process that this one was forked from"

    def update(self, **changes: Any) -> None:
        """Replace the manifest: present counts and hashes, and `changes`."""
        self.must_write()
        faces = self.faces
        now: dict[str, Any] = {"faces": faces.live, "people": len(faces.people()), "next_id": faces.next_id}
        now |= {"log_bytes": self._size, "log_sha256": self._hash.hexdigest()}
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
        """Read the log into memory."""
        self.faces, self._checked = Faces(self.manifest.next_id), 0
        self._mapped = np.zeros((0, self.manifest.dim), np.float32)
        self._hash, self._size = hashlib.sha256(), 0
        log, closed, as_closed = self._path(0), self.manifest.log_bytes, self.manifest.log_bytes == 0
        with open(log, "rb") as file:
            for number, line in enumerate(file, 1):
                if self._size >= closed and not line.endswith(b"\n"):
                    break  # cut off while it was written, or being written now
                entry = entry_of(line)
                if entry is None and self._size >= closed and not file.read(1):
                    break  # the last line, of which a power cut left only some blocks
                if entry is None or not self.faces.take(entry):
                    raise PolyfaceError(f"{log}: line {number} is damaged; restore the gallery from a copy")
                self._count(line)
                as_closed |= self._size == closed and self._hash.hexdigest() == self.manifest.log_sha256
        if not as_closed:
            raise PolyfaceError(f"{log}: is not the log that {MANIFEST} was closed with; restore the gallery")
        vectors, row, faces = self._path(1), 4 * self.manifest.dim, len(self.faces)
        if (have := os.path.getsize(vectors)) < row * faces:
            raise PolyfaceError(f"{vectors}: holds {have // row:,} vectors of {faces:,}; restore the gallery")
        _ = self.vectors  # mapped now, for after a compaction by someone else there is no such name
        if self.manifest.sha256 is None and faces and not self._sound(np.array([0, faces - 1])).any():
            raise PolyfaceError(
                f"{vectors}: holds no vectors of {self.manifest.dim} numbers, as {MANIFEST} says; restore the gallery"
            )

    def recover(self) -> None:
        """Drop what was never acknowledged, and what an interrupted compaction or index left behind. To be called when
        all is checked that is to be checked: nothing is changed before."""
        extra = sum(os.path.getsize(self._path(which)) - size for which, size in enumerate(self._sizes()))
        if extra:
            with disk_errors(self.folder, "the faces in it are safe"):
                self._roll_back()
            self.recovered = f"{self.folder}: {extra:,} bytes of a batch that was never finished were dropped"
        self._clean()
        self._broken = ""

    def _clean(self) -> None:
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

    @property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors, float32 [N, dim], mapped from the disk; unchecked (see `check`)."""
        if len(self._mapped) != len(self.faces):
            shape = (len(self.faces), self.manifest.dim)
            self._mapped = np.asarray(np.memmap(self._path(1), "<f4", "r", shape=shape))
        return self._mapped

    def check(self, rows: NDArray[np.int64] | None = None, progress: Progress | None = None) -> None:
        """That the vectors of these rows (all that are live) are those that were written; each is read once.

        Raises:
            PolyfaceError: one is not.
        """
        known = self.faces.rows
        if self._checked == len(known):
            return
        wanted = np.flatnonzero(known["live"]) if rows is None else rows
        wanted = np.unique(wanted[~known["sound"][wanted]])
        for start in range(0, len(wanted), _CHUNK):
            some = wanted[start : start + _CHUNK]
            if (bad := some[~self._sound(some)]).size:
                face = self.faces.face(int(bad[0]))
                raise PolyfaceError(
                    f"{self._path(1)}: vector {bad[0]} ('{face.person}', {face.path}) is damaged; restore the gallery, "
                    "or remove the person and enrol again"
                )
            known["sound"][some] = True
            if progress and rows is None:
                progress(start + len(some), len(wanted), "faces checked")
        if rows is None:
            self._checked = len(known)  # what is appended is sound, so that only loading asks again

    def _sound(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the vectors of these rows are those that were written."""
        raw, size = np.ascontiguousarray(self.vectors[rows]).data.cast("B"), 4 * self.manifest.dim
        found = [zlib.crc32(raw[at : at + size]) for at in range(0, len(raw), size)]
        same: NDArray[np.bool_] = np.array(found, np.uint32) == self.faces.rows["crc"][rows]
        return same

    # ------------------------------------------------------------------------------------------------------ writing

    def append(self, vectors: NDArray[np.float32], faces: Sequence[Face]) -> None:
        """Store faces with their vectors [N, dim]. When it returns they are on the disk; if it raises, none is held.

        Raises:
            PolyfaceError: not open for writing, an `info` that JSON cannot hold, or the disk is full or fails.
        """
        if faces:
            vectors = np.ascontiguousarray(vectors, "<f4").reshape(len(faces), self.manifest.dim)
            first = self.faces.next_id
            ids = range(first, first + len(faces))
            self._commit(batch_entry(ids, faces, [zlib.crc32(vector.data) for vector in vectors]), vectors)

    def change(self, drop: Iterable[int] = (), move: Iterable[int] = (), person: str = "") -> int:
        """Forget the faces of some ids, and give those of others to a person, at once; returns how many were forgotten.
        Their vectors stay in the file, and are never read again, until `compact`."""
        before = self.faces.live
        entry = {"op": "change", "drop": sorted(map(int, drop)), "move": sorted(map(int, move)), "person": person}
        self._commit(entry)
        return before - self.faces.live

    def compact(self, progress: Progress | None = None) -> int:
        """Write the next generation without what was removed, and delete this one; returns how many faces it erased.

        Killed at any moment, it leaves the one or the other. Needs as much free disk as the live faces take.

        Raises:
            PolyfaceError: a damaged vector, or the disk is full or fails; the gallery then stays as it is.
        """
        self.must_write()
        erased, generation = len(self.faces) - self.faces.live, self.manifest.generation + 1
        if not erased:
            return 0
        try:
            with disk_errors(self.folder, "it was not compacted; its faces are safe"):
                size, digest = self._copy(generation, progress)
                self.update(generation=generation, log_bytes=size, log_sha256=digest, erased=self._gone())
        finally:
            # An interrupt may have come on either side of the moment at which the manifest was replaced.
            self._broken = "its compaction was interrupted"
            self._close_files()
            self._load()
            self._clean()
            self._broken = ""
        return erased

    def was_removed(self, name: str) -> bool:
        """Whether a person, or a face of this path, was forgotten and is not erased yet, or was just erased by a
        process that was killed before it said so."""
        dead = np.flatnonzero(~self.faces.rows["live"]).tolist()
        forgotten = self.faces.of([name], live=False).size or any(self.faces.told(row) == name for row in dead)
        return bool(forgotten) or mark(name) in self.manifest.erased

    def _gone(self) -> tuple[str, ...]:
        """Marks of the names and paths of which no face is left."""
        faces, live = self.faces, self.faces.rows["live"]
        dead, left = (set(map(faces.told, np.flatnonzero(rows).tolist())) for rows in (~live, live))
        return tuple(sorted(map(mark, (set(faces.names) - set(faces.people())) | (dead - left - {""}))))

    def must_write(self) -> None:
        if self._lock is None or self._broken:
            reason = self._broken or "it was opened for reading"
            raise PolyfaceError(f"{self.folder}: cannot be changed, {reason}; open the gallery for writing")

    def _copy(self, generation: int, progress: Progress | None) -> tuple[int, str]:
        """Write the live faces' log and vectors of another generation; returns the log's length and SHA-256."""
        rows, digest, size = self.faces.rows, hashlib.sha256(), 0
        live = np.flatnonzero(rows["live"])
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        files = [os.open(self.folder / name, flags, 0o666) for name in names_of(generation)]
        try:
            for start in range(0, len(live), _CHUNK):
                some = live[start : start + _CHUNK]
                self.check(some)
                write_all(files[1], np.ascontiguousarray(self.vectors[some]).data.cast("B"))
                faces, crcs = [self.faces.face(int(row)) for row in some], rows["crc"][some].tolist()
                line = line_of(batch_entry(rows["id"][some].tolist(), faces, crcs))
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
            with disk_errors(self.folder, f"nothing of it was stored, the {self.faces.live:,} faces here are safe"):
                if vectors is not None:
                    self._write(1, vectors.data.cast("B"))
                self._write(0, line)
        except BaseException:
            with suppress(OSError):
                self._roll_back()
                self._broken = ""
            raise
        self.faces.take(entry_of(line) or {}, sound=True)
        self._count(line)
        self._broken = ""

    def _sizes(self) -> tuple[int, int]:
        """Bytes of the log and of the vectors that hold what was acknowledged."""
        return self._size, len(self.faces) * 4 * self.manifest.dim

    def _roll_back(self) -> None:
        for file, size in zip(self._files, self._sizes(), strict=True):
            os.ftruncate(file, size)

    def _write(self, which: int, data: bytes | memoryview) -> None:
        """Add to the log (0) or the vectors (1), and wait until it is on the disk."""
        os.lseek(self._files[which], 0, os.SEEK_END)
        write_all(self._files[which], data)
        os.fsync(self._files[which])

    def _count(self, line: bytes) -> None:
        self._hash.update(line)
        self._size += len(line)
