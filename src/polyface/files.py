"""Files that are either whole or absent: written aside, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from polyface.errors import PolyfaceError, short

_Model = TypeVar("_Model", bound=BaseModel)
PATIENCE = 24 * 3600.0
"""Seconds that a process waits for another one to make the same file of a cache (`lock`)."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it if the block succeeds and removed if it fails.

    Whatever stood at `path` before stays whole until the rename, which the file system does at once. What a killed
    process left aside in the folder is removed by the next one that writes there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), _aside(path.parent) as aside:
        yield aside
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let an OSError that names no file, as one of a full disk does not, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


@contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place if the block succeeds and is removed if it fails.

    The folder that stood there is moved away first: a process that is killed between the two leaves it under another
    name, from which the next one brings it back.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        os.rename(old, folder)
    with _aside(folder.parent, a_folder=True) as aside:
        yield aside
        os.chmod(aside, 0o777 & ~_umask())
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(aside, folder)
        shutil.rmtree(old, ignore_errors=True)


_ASIDE = (".polyface-", ".tmp")
_cleared: set[Path] = set()


@contextmanager
def _aside(folder: Path, a_folder: bool = False) -> Iterator[Path]:
    """A new file or folder in `folder`, of a short name, removed at the end if it is still there.

    It is held by a lock that ends with the process, so that another process can tell it from one that was left.
    """
    if folder not in _cleared:  # once a process: a folder may hold a million pictures
        _clear(folder)
        _cleared.add(folder)
    prefix, suffix = _ASIDE
    while True:
        if a_folder:
            aside = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=folder))
            handle = os.open(aside, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
            aside = Path(name)
        _hold(handle)
        if aside.exists():  # no other process cleared it before it was held
            break
        os.close(handle)
    try:
        yield aside
    finally:
        os.close(handle)
        _remove(aside)


def _clear(folder: Path) -> None:
    """Remove what killed processes left aside in a folder."""
    prefix, suffix = _ASIDE
    for aside in folder.glob(f"{prefix}*{suffix}"):
        with suppress(OSError):  # another process was quicker, or may do what this one may not
            handle = os.open(aside, os.O_RDONLY)
            try:
                if _hold(handle):
                    _remove(aside)
            finally:
                os.close(handle)


def _hold(handle: int) -> bool:
    """Whether an open file is this process's alone from now on, until it is closed; False where files have no locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _remove(aside: Path) -> None:
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _beside(path: Path, what: str) -> Path:
    """A hidden name beside a path that tells both; of a long name, its hash."""
    name = path.name if len(os.fsencode(path.name)) < 200 else hashlib.sha1(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".{name}.{what}")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextmanager
def lock(path: Path | str, wait: float = 0.0) -> Iterator[None]:
    """Keep every other process that locks `path` (a file or folder, there or not) waiting until the block ends.

    The lock is a file `.<name>.lock` beside it while it is held, and ends with the process, however that ends. wait:
    seconds.

    Raises:
        PolyfaceError: another process holds it for longer than `wait`.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(_beside(path, "lock"), timeout=wait)
    try:
        held.acquire()
    except Timeout:
        raise PolyfaceError(f"{path}: another process is at work on it; wait for its end, or name another") from None
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: whoever waits with it open sees it gone, and asks again
            os.unlink(held.lock_file)
        held.release()


def check_output(path: Path | str, overwrite: bool = False, inputs: Iterable[Path | str] = ()) -> None:
    """Raise unless `path` may be written: nothing is there, an empty file, a file that Polyface made, or `overwrite`.

    Call it before any work. inputs: files that are read; they are never written, through a link neither.

    Raises:
        PolyfaceError: the file is an input or not Polyface's, is no regular file, or its folder cannot be written.
    """
    path = Path(path)
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PolyfaceError(f"{path}: {folder} is no folder that can be written; name another path")
    if not path.exists():
        return
    if not path.is_file():
        raise PolyfaceError(f"{path}: is a {'folder' if path.is_dir() else 'device'}; name a file")
    if any(same_file(path, each) for each in inputs):
        raise PolyfaceError(f"{path}: is read by this command, and would be overwritten; name another file")
    if not overwrite and not made_here(path):
        raise PolyfaceError(
            f"{path}: is there, and was not made by Polyface; name another file, or say --overwrite to replace it"
        )


def check_name(name: str, where: str) -> str:
    """A name that becomes a folder's, if it is one plain component of a path on every system. where: what names it.

    Raises:
        PolyfaceError: it is empty, too long, hidden, a device of Windows, or holds a separator, a colon or a character
            that is not shown.
    """
    shown = all(not unicodedata.category(one).startswith("C") and one not in _SEPARATORS for one in name)
    if name.partition(".")[0].casefold() in _DEVICES:
        raise PolyfaceError(f"{where} is {short(repr(name))}: Windows has a device of that name; take another")
    if not (shown and 0 < len(name.encode("utf-8", "replace")) <= _LONGEST) or name[0] == "." or name.strip() != name:
        raise PolyfaceError(
            f"{where} is {short(repr(name))}: it names a folder, so it has 1 to {_LONGEST} bytes, no / \\ or :, "
            "no full stop before it and no blank around it"
        )
    return name


def check_apart(names: Iterable[str], where: str) -> None:
    """Refuse two names that a file system may take for one, as they differ in letter case alone, in how accents are
    encoded, or in full stops at the end. where: what names them."""
    seen: dict[str, str] = {}
    for name in names:
        if (alike := unicodedata.normalize("NFC", name).casefold().rstrip(".")) in seen:
            raise PolyfaceError(f"{where}: '{seen[alike]}' and '{name}' would share a folder; rename one")
        seen[alike] = name


_LONGEST, _SEPARATORS = 200, "/\\:"
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def same_file(one: Path | str, other: Path | str) -> bool:
    """Whether two paths lead to one file, through links or not; False where one leads nowhere."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def status_of(path: Path | str) -> os.stat_result | None:
    """Size, time and identity of the file that a path leads to; None where it leads nowhere."""
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def made_here(path: Path) -> bool:
    """Whether Polyface wrote this file: it says so in its first or last 64 KB as its format says such things, or holds
    nothing. A letter that names Polyface was not made by it."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        ends = file.read(_ENDS)
        file.seek(max(size - _ENDS, 0))
        ends += file.read(_ENDS)
    return size == 0 or bool(_MADE.search(ends))


_ENDS = 2**16
_MADE = re.compile(
    rb"\x18[\x08-\x7f]polyface"  # Parquet: a key of the metadata, after its length
    rb"|\n\x08polyface"  # ONNX: the same
    rb"|Software\0polyface|Polyface drawing of "  # PNG; the EXIF data of a JPEG
    rb'|\A\{"made_by":"polyface '  # a line of answers
    rb'|<meta name="generator" content="Polyface"|:root { --ink: #1c2024;'  # a page; one of 0.2
)


def cache_folder(*parts: str) -> Path:
    """A folder under `$POLYFACE_CACHE`, made if it is absent; by default the user's cache folder, or where the user has
    none that can be written, one in the system's folder for temporary files.

    Raises:
        PolyfaceError: it cannot be made or written.
    """
    asked = os.environ.get("POLYFACE_CACHE")
    for root in [Path(asked)] if asked else _default_caches():
        folder = root.joinpath(*parts)
        with suppress(OSError):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            if asked or (os.access(folder, os.W_OK) and root.lstat().st_uid == _user()):
                return folder
    raise PolyfaceError(f"{root}: cannot be written; set POLYFACE_CACHE to a folder for what Polyface keeps")


def _default_caches() -> list[Path]:
    """The user's cache folder, where the user has a home, and one that nobody else may read from or write into: what
    lies there is believed."""
    home = os.environ.get("XDG_CACHE_HOME") or (Path.home() / ".cache" if _has_home() else None)
    return [*([Path(home) / "polyface"] if home else []), Path(tempfile.gettempdir()) / f"polyface-{_user()}"]


def _has_home() -> bool:
    try:
        return bool(Path.home())
    except RuntimeError:
        return False


def _user() -> int:
    """The user's number; 0 where files have no owners."""
    return os.getuid() if hasattr(os, "getuid") else 0


def check_regular(path: Path | str, where: str = "") -> None:
    """Raise where a path is a pipe, a socket or a device, which may keep whoever opens it waiting for ever.

    Call it before a path that a user gave is opened. Folders and paths that are not there are left to the caller.
    """
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise PolyfaceError(f"{where or path}: not a regular file but a pipe, a socket or a device; name a file")


def read_bytes(path: Path | str, where: str = "") -> bytes:
    """A file's bytes; raises with its path, or with `where`, if it cannot be read or is no regular file."""
    check_regular(path, where)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that no system has
        reason = getattr(error, "strerror", None) or error
        raise PolyfaceError(f"{where or path}: cannot be read ({reason}); check the path") from error


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


def rounded(values: Any) -> Any:
    """Plain values with floats to six significant digits: what a figure can carry, and a file that diffs well."""
    if isinstance(values, Mapping):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
