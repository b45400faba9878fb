"""Pseudo-labels: what a trained model says of faces, as label columns of a face table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyface.data import pose as heads
from polyface.data.boxes import boxes_of
from polyface.data.crops import cut
from polyface.data.store import cached_table
from polyface.data.table import FaceTable, Progress
from polyface.data.writing import ImportReport, Record, write_table
from polyface.errors import PolyfaceError, nearest
from polyface.files import sha256
from polyface.models import find, model_info
from polyface.models.bundle import WEIGHTS, load_bundle
from polyface.models.predict import answers

_BATCH = 256


def label_table(
    table: FaceTable,
    model: str | Path,
    path: Path | str,
    *,
    tasks: Sequence[str] = (),
    pose: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ImportReport:
    """Write `table` again with a model's answers in the label columns of its tasks, marked (`FaceTable.pseudo`).

    model: a bundle's folder or a shipped model's name; it finds and crops the faces as it was trained to. tasks: some
    of its tasks, instead of all in whose column the table has no label. pose: also measure how heads are turned, by the
    68 points that it answers or the table holds (`polyface.data.pose`): yaw, pitch, roll and pose (words), where
    neither the table has labels in that column nor the model answers it. A face that the model's detector does not
    find, or whose points leave the picture by more than its size, is not labelled. Returns what was written.

    Raises:
        PolyfaceError: an unknown model or task, a chosen task whose column is labelled already (pseudo-labels among a
            person's labels could not be told apart), a model whose columns all are, or a pose without 68 points to
            measure it by.
    """
    if not len(table):
        raise PolyfaceError(f"{table.name}: holds no face to label")
    bundle = load_bundle(find(model), quiet=True)
    if unknown := [name for name in tasks if name not in bundle.tasks]:
        raise PolyfaceError(f"{model} has no task '{unknown[0]}'; {nearest(unknown[0], bundle.tasks)}")
    known = [name for name, task in bundle.tasks.items() if _has_labels(table, task.column)]
    for name in known:
        if name in tasks or len(known) == len(bundle.tasks):
            raise PolyfaceError(
                f"the table has labels in {bundle.tasks[name].column}, which {model} would answer ({name}): "
                "pseudo-labels may not mix with them"
            )
    chosen = {name: bundle.tasks[name] for name in tasks or bundle.tasks if name not in known}
    points = "landmarks_68"
    answers_points = points in [task.column for task in chosen.values()]
    if pose and not answers_points and not _has_labels(table, points):
        raise PolyfaceError(f"pose is measured by {points}, which neither {model} nor the table gives: take face68")
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
    sizes = [table.image_size(row) for row in range(len(table))]
    columns = {name: list(map(_sane, values, sizes)) for name, values in columns.items()}
    said = dict.fromkeys(columns, model_info(model).name)
    if pose:
        measured = _turns(columns[points]) if answers_points else _turns(table.points(points))
        columns = {name: values for name, values in measured.items() if not _has_labels(table, name)} | columns
        by = said.get(points) or table.pseudo(points) or "the mean face"
        said = dict.fromkeys(columns, by) | said
    said = {name: earlier for name in table.columns if (earlier := table.pseudo(name))} | said
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
        labels |= {name: values[row] for name, values in columns.items()}
        yield Record(data if data is not None else table.image(row), f"row {row}", path, labels)


def _has_labels(table: FaceTable, column: str) -> bool:
    return column in table.columns and table.column(column).null_count < len(table)


def _sane(value: Any, size: tuple[int, int]) -> Any:
    """The answer, or None for points that lie further outside the picture (width, height) than it is large."""
    if not isinstance(value, np.ndarray):
        return value
    return value if ((value > -np.array(size)) & (value < 2 * np.array(size))).all() else None


def _turns(points: Iterable[np.ndarray | None]) -> dict[str, list[Any]]:
    """How heads are turned by 68 points each [68, 2], as label columns; None where there are no points or no pose."""
    nothing = np.full((68, 2), np.nan)
    found = heads.head_pose(np.array([nothing if one is None else one for one in points]).reshape(-1, 68, 2))
    angles = {"yaw": found.yaw, "pitch": found.pitch, "roll": found.roll}
    columns: dict[str, list[Any]] = {
        name: [None if np.isnan(one) else float(one) for one in values] for name, values in angles.items()
    }
    return columns | {"pose": heads.pose_words(found.yaw)}


def labelled(table: FaceTable, model: str, progress: Progress | None = None, pose: bool = False) -> FaceTable:
    """`table` with a model's answers, and with what pose is measured by its points, made once and kept in the cache."""
    source = [table.fingerprint, sha256(find(model) / WEIGHTS)]
    if pose:  # what measures it is part of what it is
        source.append(sha256(Path(heads.__file__)))
    key = " ".join(source).encode()
    return cached_table("labelled", key, lambda path: label_table(table, model, path, pose=pose, progress=progress))
