"""What a gallery's files say, and how they are written: manifest, lines of the log, lock.

`polyface.gallery.store` tells which files there are and in what order they reach the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from polyface.errors import PolyfaceError
from polyface.files import atomic_path, read_model

MANIFEST, LOCK = "gallery.json", "lock"
_CRC = 9  # eight hexadecimal digits and a space, before a line's JSON


class IndexFile(BaseModel):
    """A search index that was built: its file and SHA-256, how many faces it holds and the highest id among them (which
    the index itself is asked), the share of their exact neighbours that it found when it was built, and its kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str = Field(pattern=r"^index-[\w-]+\.faiss$")
    sha256: str
    faces: int = Field(ge=1)
    last_id: int = Field(ge=0)
    recall: float
    refine: int = Field(ge=1)
    kind: str


class Manifest(BaseModel):
    """What a gallery is. embedder: id of the network, weights and crop that made its embeddings. faces, people,
    log_bytes, log_sha256: as it was last closed; the log may have grown since. next_id: no face has this id yet.
    erased: marks of the names and paths that a compaction erased, until the end of what it was part of was told.
    sha256: of all the rest, as JSON with sorted keys; earlier versions wrote none."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    embedder: str = Field(min_length=1)
    dim: int = Field(ge=1, le=65536)
    similarity: Literal["cosine", "euclidean"]
    index: Literal["auto", "exact", "approximate"] = "auto"
    generation: int = Field(0, ge=0)
    next_id: int = Field(0, ge=0)
    faces: int = Field(0, ge=0)
    people: int = Field(0, ge=0)
    log_bytes: int = Field(0, ge=0)
    log_sha256: str = hashlib.sha256().hexdigest()
    built: IndexFile | None = None
    erased: tuple[str, ...] = ()
    sha256: str | None = None

    def seal(self, unset: bool = True) -> str:
        """What `sha256` is to be. unset: whether keys that the file does not hold are counted."""
        said = self.model_dump(mode="json", exclude={"sha256"}, exclude_unset=not unset)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Face:
    """What is known of an enrolled face. image: hex digest of its picture's content, 32 characters. path: its file.
    box: x0, y0, x1, y1 in its pixels. info: whatever else, as JSON holds it."""

    person: str
    image: str
    path: str | None = None
    box: tuple[float, ...] | None = None
    info: Mapping[str, Any] | None = None


def batch_entry(ids: Iterable[int], faces: Sequence[Face], crcs: Sequence[int]) -> dict[str, Any]:
    columns = {name: [getattr(face, name) for face in faces] for name in ("person", "image", "path", "box", "info")}
    return {"op": "add", "id": list(ids), **columns, "crc": crcs}


def line_of(entry: Mapping[str, Any]) -> bytes:
    try:
        # ASCII, because a file's or a folder's name may be no valid text
        said = json.dumps(entry, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError) as error:
        raise PolyfaceError(f"a face's info or box cannot be kept as JSON ({error}); give plain values") from error
    return b"%08x %s\n" % (zlib.crc32(said), said)


def entry_of(line: bytes) -> dict[str, Any] | None:
    """What a line of the log says; None if it is damaged or not whole."""
    said = line[_CRC:-1]
    if not line.endswith(b"\n") or line[:_CRC] != b"%08x " % zlib.crc32(said):
        return None
    entry: dict[str, Any] = json.loads(said)
    return entry


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the gallery in a folder; raises where there is none that this version reads."""
    path = folder / MANIFEST
    if not path.is_file():
        raise PolyfaceError(f"{folder}: not a gallery ({MANIFEST} is missing); `polyface gallery add` makes one")
    manifest = read_model(Manifest, path, "restore it, or use the version that wrote it")
    if manifest.sha256 not in (None, manifest.seal(unset=False)):
        raise PolyfaceError(f"{path}: was damaged or edited (its sha256 is of other contents); restore it from a copy")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    sync_folder(folder)  # what it names comes first
    with atomic_path(folder / MANIFEST) as aside:
        sealed = manifest.model_copy(update={"sha256": manifest.seal()})
        aside.write_text(json.dumps(sealed.model_dump(mode="json"), indent=1), encoding="utf-8")
    sync_folder(folder)


def mark(name: str) -> str:
    """What is kept of a name that is erased."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def names_of(generation: int) -> tuple[str, str]:
    """Log and vectors."""
    return f"faces-{generation}.jsonl", f"vectors-{generation}.f32"


def write_all(file: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(file, rest) :]


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name != "nt":  # which keeps them with the files
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def lock_folder(folder: Path) -> int:
    """The lock of whoever writes, as an open file; it ends with the process, however that ends."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        os.close(lock)
        raise PolyfaceError(
            f"{folder}: another process is writing to this gallery; wait until it has finished, then run again"
        ) from error
    return lock


def unlock_folder(lock: int) -> None:
    """Let others write. Not by closing alone: a process that was forked a moment ago may still hold the file open."""
    try:
        if sys.platform != "win32":  # where nothing forks
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)


@contextmanager
def disk_errors(folder: Path, rest: str) -> Iterator[None]:
    """An error of the disk in one line, which ends by saying what became of the faces."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise PolyfaceError(f"{folder}: cannot be written ({reason}); {rest}; free space or mend the path") from error
