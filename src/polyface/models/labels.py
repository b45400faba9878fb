"""Pseudo-labels: what a trained model says of faces, as label columns of a face table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyface.data.boxes import boxes_of
from polyface.data.crops import cut
from polyface.data.store import cached_table
from polyface.data.table import FaceTable, Progress
from polyface.data.writing import ImportReport, Record, write_table
from polyface.errors import PolyfaceError, nearest
from polyface.files import sha256
from polyface.models import find
from polyface.models.bundle import WEIGHTS, load_bundle
from polyface.models.predict import answers

_BATCH = 256


def label_table(
    table: FaceTable,
    model: str | Path,
    path: Path | str,
    *,
    tasks: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> ImportReport:
    """Write `table` again with a model's answers in the label columns of its tasks, marked (`FaceTable.pseudo`).

    model: a bundle's folder or a shipped model's name; it finds and crops the faces as it was trained to. tasks: some
    of its tasks instead of all. A face that the model's detector does not find, or whose points leave the picture by
    more than its size, is not labelled. Returns what was written.

    Raises:
        PolyfaceError: an unknown model or task, or a column that is labelled already: pseudo-labels among a person's
            labels could not be told apart.
    """
    if not len(table):
        raise PolyfaceError(f"{table.name}: holds no face to label")
    bundle = load_bundle(find(model), quiet=True)
    if unknown := [name for name in tasks if name not in bundle.tasks]:
        raise PolyfaceError(f"{model} has no task '{unknown[0]}'; {nearest(unknown[0], bundle.tasks)}")
    chosen = {name: task for name, task in bundle.tasks.items() if not tasks or name in tasks}
    for name, task in chosen.items():
        if task.column in table.columns and table.column(task.column).null_count < len(table):
            raise PolyfaceError(
                f"the table has labels in {task.column}, which {model} would answer ({name}): pseudo-labels may not "
                "mix with them; choose other tasks of the model"
            )
    boxes = boxes_of(table, bundle.boxes, progress=progress)
    columns: dict[str, list[Any]] = {task.column: [] for task in chosen.values()}
    network, crops = bundle.network.to(device), torch.from_numpy(bundle.crop.crops(boxes.xyxy))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(table), _BATCH):
            rows = range(start, min(start + _BATCH, len(table)))
            cuts = np.stack(list(pool.map(lambda row: cut(table.image(row), boxes.xyxy[row], bundle.crop), rows)))
            here = crops[start : rows.stop].to(device)
            found = answers(network, chosen, torch.from_numpy(cuts).to(device), here, bundle.crop)
            for name, task in chosen.items():
                columns[task.column] += task.labels(found[name])
            if progress:
                progress(rows.stop, len(table), f"faces labelled by {model}")
    for row in boxes.missed:
        for values in columns.values():
            values[row] = None
    said = dict.fromkeys(columns, Path(model).name)
    answered = {task.column: held for task in chosen.values() if (held := task.declares())}
    own = answered | table.own
    return write_table(_records(table, columns), path, progress=progress, pseudo=said, columns=own)


def _records(table: FaceTable, columns: dict[str, list[Any]]) -> Iterator[Record]:
    """The rows of a table as a reader would give them, with more columns."""
    known = {name: table.column(name).to_pylist() for name in table.columns if name not in columns}
    points = {name: table.points(name) for name in known if table.declared(name).type == "points"}
    for row in range(len(table)):
        data, path = table.image_struct(row)
        labels = {name: values[row] for name, values in known.items()}
        labels |= {name: None if np.isnan(values[row]).all() else values[row] for name, values in points.items()}
        width, height = table.image_size(row)
        labels |= {name: _sane(values[row], width, height) for name, values in columns.items()}
        yield Record(data if data is not None else table.image(row), f"row {row}", path, labels)


def _sane(value: Any, width: int, height: int) -> Any:
    """The answer, or None for points that lie further outside the picture than it is large."""
    if not isinstance(value, np.ndarray):
        return value
    size = np.array([width, height])
    return value if ((value > -size) & (value < 2 * size)).all() else None


def labelled(table: FaceTable, model: str, progress: Progress | None = None) -> FaceTable:
    """`table` with a model's answers, made once and kept in the cache."""
    weights = sha256(find(model) / WEIGHTS)
    source = f"{table.fingerprint} {weights}".encode()
    return cached_table("labelled", source, lambda path: label_table(table, model, path, progress=progress))
