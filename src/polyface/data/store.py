"""Finding the face tables that a recipe names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polyface.data.table import FaceTable, Progress
from polyface.data.writing import import_table, write_table
from polyface.errors import NoDataError
from polyface.files import cache_folder
from polyface.registry import check_options


def open_source(
    name: str, root: Path | None, options: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> FaceTable:
    """The table called `name`: a .parquet file, `<root>/<name>.parquet`, the raw data set `<root>/<name>` (or the
    `folder` that its reader names; imported once into the cache, with the reader's `options`), or "synthetic", rendered
    once with `options` (n, size, seed)."""
    from polyface.data.readers import READERS, reader

    if name == "synthetic":
        return _synthetic(dict(options or {}), progress)
    file = Path(name) if name.endswith(".parquet") else None
    for candidate in [file, root / f"{name}.parquet" if root else None, root / name if root and file else None]:
        if candidate is not None and candidate.exists():
            return FaceTable.open(candidate)
    if file is not None or name not in READERS:
        if file is None:
            reader(name)  # raises with the nearest name
        raise NoDataError(f"{name}: no such face table" + (f", nor under {root}" if root else ""))
    known = getattr(READERS.get(name), "folder", name)  # LFWA's labels lie beside LFW's images
    found = root and next((root / one for one in (name, known) if (root / one).exists()), None)
    if root is None or found is None:
        where = f"{root / known} is missing" if root else "no data folder was given"
        raise NoDataError(
            f"data set '{name}': {where}; pass --data DIR that holds {name}.parquet or {known}/ — {reader(name).layout}"
        )
    folder = found.resolve()
    chosen = f" {sorted(options.items())}" if options else ""

    def make(path: Path) -> None:
        report = import_table(reader(name, **(options or {})), folder, path, on_bad="skip", progress=progress)
        path.with_suffix(".import.json").write_text(report.to_json())

    return cached_table(name, f"{folder} {folder.stat().st_mtime_ns}{chosen}".encode(), make)


def cached_table(name: str, source: bytes, make: Callable[[Path], object]) -> FaceTable:
    """The table that `make` writes at a path, made once. source: what tells it from others of its name."""
    path = cache_folder("tables") / f"{name}-{hashlib.sha1(source).hexdigest()[:16]}.parquet"
    if not path.exists():
        make(path)
    return FaceTable.open(path)


def _synthetic(options: dict[str, Any], progress: Progress | None) -> FaceTable:
    from polyface.data import synthetic

    check_options(synthetic.render, options, "data set 'synthetic'")
    options = {"n": 4000, "size": 64, "seed": 0} | options
    sources = sorted(Path(synthetic.__file__).parent.glob("*.py"))  # what draws them is part of what they are
    content = b"".join(source.read_bytes() for source in sources) + repr(sorted(options.items())).encode()
    faces = synthetic.records(**options)
    return cached_table("synthetic", content, lambda path: write_table(faces, path, progress=progress))
