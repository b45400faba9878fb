"""What a finished stage leaves beside its model: the file `history.json`, which says how and on what it was trained."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from polyface.data.store import open_source
from polyface.errors import PolyfaceError
from polyface.files import first_wrong, read_model
from polyface.models.bundle import MANIFEST
from polyface.training.specs import BaseStage, SourceSpec

HISTORY = "history.json"
SHEETS = "sheets"
"""The folder of a stage's in which pictures show what it learnt; its record says of each what it shows."""
_log = logging.getLogger(__name__)


class Faces(BaseModel):
    """The faces of a table: how many, the fingerprint of what it holds, and how many of its source it lacks."""

    table: str
    faces: int
    skipped: int = 0
    fingerprint: str


class _Moment(BaseModel):
    """What pages and tables read of an epoch or a validation: losses, weights and the like are numbers by task."""

    train: dict[str, float] = {}
    validation: dict[str, float] = {}
    weights: dict[str, float] = {}
    equilibrium: dict[str, float] = {}
    criterion: dict[str, float] = {}
    stopped: dict[str, float] | list[str] = {}
    thresholds: dict[str, list[float]] = {}


class _Epoch(_Moment):
    epoch: float


class _Step(_Moment):
    step: float


class _Course(BaseModel):
    """See `polyface.training.course`."""

    iterations: int
    step: list[int]
    compared: list[int]
    agreed: list[int]
    hardest: dict[str, list[int]]
    loss: dict[str, list[float | None]]
    weight: dict[str, list[float | None]]


class _Told(BaseModel):
    """What is read of a record further down."""

    history: list[_Epoch]
    validations: list[_Step] = []
    stopping: list[_Step] = []
    validation_seconds: float = 0.0
    precision: str = ""
    sheets: dict[str, str] = {}
    course: _Course | None = None


class Inputs(BaseModel):
    """What a stage is made from beside its settings. data: its tables, None where one is not here, and `missing` says
    why. models: SHA-256 of the weights of other stages that its settings name."""

    data: list[Faces] | None = None
    missing: str = ""
    models: dict[str, str] = {}

    def changed(self, kept: Record) -> str:
        """Which of these are other ones than those a stage was made from; "" where none is known to be."""
        if kept.data is not None and self.data is not None:
            then, now = ([(one.table, one.fingerprint) for one in each] for each in (kept.data, self.data))
            if then != now:
                return "the data " + ", ".join(dict.fromkeys(name for name, _ in set(then) ^ set(now)))
        models = [name for name, weights in self.models.items() if kept.models.get(name, weights) != weights]
        return "the weights of " + ", ".join(models) if models else ""


class Record(BaseModel):
    """settings: of the stage, and its seed. history: a dict an epoch. seconds: of training. data, models: see `Inputs`;
    files of older versions have neither."""

    model_config = ConfigDict(extra="allow")
    settings: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: float
    data: list[Faces] | None = None
    models: dict[str, str] = {}

    @model_validator(mode="after")
    def _further_down(self) -> Record:
        try:
            _Told.model_validate({"history": self.history, **(self.model_extra or {})})
        except ValidationError as error:
            raise PydanticCustomError("damaged", "{why}", {"why": first_wrong(error)}) from error
        return self


def read_record(folder: Path) -> Record | None:
    """The record of the stage in a folder; None where none was finished there."""
    path = folder / HISTORY
    if not path.exists():
        return None
    return read_model(Record, path, "put an intact copy there, or train anew: --fresh, or without this file")


def inputs_of(stage: BaseStage, data: Path | None, earlier: Mapping[str, Path]) -> Inputs:
    """What a stage would be made from now. earlier: bundles of other stages, by name."""
    settings = json.loads(stage.model_dump_json())
    named = {name for name in _words(settings) if name in earlier}
    models = {name: sha for name in sorted(named) if (sha := weights_of(earlier[name]))}
    try:
        return Inputs(data=[faces_of(source, data) for source in stage.data.tables], models=models)
    except PolyfaceError as error:
        return Inputs(missing=str(error), models=models)


def faces_of(source: SourceSpec, data: Path | None) -> Faces:
    """What there is of a table.

    Raises:
        PolyfaceError: it is not here, or cannot be read.
    """
    files = [Path(source.name), *([data / source.name, data / f"{source.name}.parquet"] if data else [])]
    stamps = tuple((stat.st_mtime_ns, stat.st_size) for file in files if file.is_file() and (stat := file.stat()))
    return _faces_of(source.name, json.dumps(source.options, sort_keys=True), data, stamps)


@lru_cache(1024)  # many runs are looked at before the first is trained
def _faces_of(name: str, options: str, data: Path | None, stamps: tuple[tuple[int, int], ...]) -> Faces:
    table = open_source(name, data, json.loads(options))
    skipped = sum(lost.skipped for lost in table.left_out)
    return Faces(table=name, faces=len(table), skipped=skipped, fingerprint=table.fingerprint)


def weights_of(bundle: Path) -> str | None:
    """The SHA-256 of a bundle's weights, as its manifest says it; None where there is no bundle."""
    try:
        return str(json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def warn_unseen(folder: Path, kept: Record, now: Inputs) -> None:
    """Say that a finished stage is taken as it is, though the data that it was made from is not here to compare."""
    if kept.data is not None and now.data is None:
        _log.warning("%s: taken as it was finished; its data is not here to compare (%s)", folder, now.missing)


def _words(node: Any) -> set[str]:
    """All keys and words of a tree."""
    if isinstance(node, Mapping):
        return set(node).union(*(_words(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_words(value) for value in node))
    return {node} if isinstance(node, str) else set()
