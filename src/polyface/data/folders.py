"""What a folder holds: the files of a tree by what they end in, and what is passed over, by one rule for all commands.

Hidden files and folders (whose names begin with a full stop) are passed over. A linked folder is followed, each real
folder once, those of the tree itself first. A folder that cannot be opened is never taken for an empty one.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from polyface.data.images import by_extra, suffixes
from polyface.errors import PolyfaceError, one_line

_log = logging.getLogger(__name__)
_KINDS = 12  # of what is passed over that a line names
_LONGEST = 8  # characters of an ending: what follows a full stop may also be half of a name


@dataclass
class Held:
    """What a folder holds. Paths are from that folder.

    files: those that end as asked, sorted. folders: those that were looked into. passed: what is passed over, and how
    many of it: files by their ending, and what is "hidden" and the like. closed: folders that cannot be opened, and
    why.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    closed: dict[Path, str] = field(default_factory=dict)

    def whole(self) -> Held:
        """The same; a PolyfaceError where a folder of it cannot be opened."""
        for inner, reason in self.closed.items():
            raise PolyfaceError(f"{self.folder / inner}: this folder cannot be opened ({reason}); mend its rights")
        return self

    def told(self) -> str:
        """What is passed over, in a line: "passed over: 3 .heic, 1 .txt"; empty if nothing is."""
        kinds = sorted(self.passed.items(), key=lambda kind: (-kind[1], kind[0]))
        parts = [f"{count:,} {kind}" + by_extra(kind) for kind, count in kinds[:_KINDS]]
        if more := sum(count for _, count in kinds[_KINDS:]):
            parts.append(f"{more:,} of other kinds")
        return "passed over: " + ", ".join(parts) if parts else ""

    def tell(self) -> Held:
        """The same, once a line of the log (which is stderr, unless a program has it elsewhere) says what is passed
        over."""
        if told := self.told():
            _log.warning("%s: %s", one_line(self.folder), told)
        return self


def look(folder: Path | str, endings: Collection[str] | None = None) -> Held:
    """Look through a tree of folders for files of these endings (".pts"); by default for pictures that are decoded."""
    held = Held(Path(folder))
    wanted = suffixes() if endings is None else endings
    seen: set[str] = set()
    inner, links = deque([Path()]), deque[Path]()
    while inner or links:
        here = inner.popleft() if inner else links.popleft()
        real = os.path.realpath(held.folder / here)
        if real in seen:
            held.passed["linked to twice"] += 1
            continue
        seen.add(real)
        try:
            with os.scandir(real) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            held.closed[here] = error.strerror or str(error)
            continue
        held.folders.append(here)
        for entry in entries:
            kind, ending = _kind(entry)
            if entry.name.startswith("."):
                held.passed["hidden"] += 1
            elif kind == "folder":
                (links if entry.is_symlink() else inner).append(here / entry.name)
            elif kind == "file" and ending in wanted:
                held.files.append(here / entry.name)
            else:
                held.passed[kind if kind != "file" else ending or "without an ending"] += 1
    held.files.sort()
    return held


def pictures(folder: Path | str) -> list[Path]:
    """The pictures of a tree of folders, by their path from `folder`; a line of the log says what is passed over.

    Raises:
        PolyfaceError: it holds none, or a folder of it cannot be opened.
    """
    held = look(folder).whole()
    if not held.files:
        raise PolyfaceError(f"{folder}: holds no image ({held.told() or 'it is empty'}); name another folder")
    return held.tell().files


def _kind(entry: os.DirEntry[str]) -> tuple[str, str]:
    """What an entry is, through links, and the ending of its name, in small letters."""
    ending = os.path.splitext(entry.name)[1].lower()
    try:
        kind = "folder" if entry.is_dir() else "file" if entry.is_file() else "not a file"
    except OSError:  # a link in a circle
        kind = "not a file"
    return kind, ending if 1 < len(ending) <= _LONGEST else ""
