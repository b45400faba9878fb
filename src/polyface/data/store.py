"""Finding the face tables that a recipe names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyface.data.table import FaceTable, Progress
from polyface.data.writing import import_table, write_table
from polyface.errors import NoDataError
from polyface.files import cache_folder


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
    stamp = hashlib.sha1(f"{folder} {folder.stat().st_mtime_ns}{chosen}".encode()).hexdigest()[:16]
    path = cache_folder("tables") / f"{name}-{stamp}.parquet"
    if not path.exists():
        report = import_table(reader(name, **(options or {})), folder, path, on_bad="skip", progress=progress)
        path.with_suffix(".import.json").write_text(report.to_json())
    return FaceTable.open(path)


def _synthetic(options: dict[str, Any], progress: Progress | None) -> FaceTable:
    from polyface.data import synthetic

    options = {"n": 4000, "size": 64, "seed": 0} | options
    sources = sorted(Path(synthetic.__file__).parent.glob("*.py"))  # what draws them is part of what they are
    content = b"".join(source.read_bytes() for source in sources) + repr(sorted(options.items())).encode()
    stamp = hashlib.sha1(content).hexdigest()[:16]
    path = cache_folder("tables") / f"synthetic-{stamp}.parquet"
    if not path.exists():
        write_table(synthetic.records(**options), path, progress=progress)
    return FaceTable.open(path)
