"""Files that are either whole or absent: written aside, then renamed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from polyface.errors import PolyfaceError

_Model = TypeVar("_Model", bound=BaseModel)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it if the block succeeds and removed if it fails.

    Whatever stood at `path` before stays whole until the rename, which the file system does at once.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(aside, 0o666 & ~umask)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def cache_folder(*parts: str) -> Path:
    """A folder under `$POLYFACE_CACHE` (default: the user's cache folder), made if it is absent."""
    root = os.environ.get("POLYFACE_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(root) if root else home / "polyface").joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_bytes(path: Path | str, where: str = "") -> bytes:
    """A file's bytes; raises with its path, or with `where`, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PolyfaceError(f"{where or path}: cannot be read ({error.strerror or error}); check the path") from error


def read_model(kind: type[_Model], path: Path, remedy: str) -> _Model:
    """A JSON file as a pydantic model; raises with the first key that is wrong, and the remedy."""
    try:
        return kind.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise PolyfaceError(f"{path}: {first_wrong(error)}; {remedy}") from error


def first_wrong(error: ValidationError) -> str:
    """The first key that pydantic refuses, what it holds, and why."""
    first = error.errors()[0]
    key, given = ".".join(map(str, first["loc"])) or "its JSON", first["input"]
    shown = f" is '{str(given)[:40]}'" if first["loc"] and not isinstance(given, dict | list) else ""
    return f"{key}{shown}: {first['msg']}"


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
