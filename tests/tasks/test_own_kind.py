"""A kind of task of one's own, all the way: answers, figures, intervals, groups, differences, a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from polyface.data.boxes import BoxSpec, boxes_of
from polyface.data.loader import FacePool, Targets
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.metrics.groups import groups_of, within
from polyface.metrics.result import Metric, differences, rows
from polyface.protocols.evaluation import evaluate, evaluate_tables
from polyface.registry import Registry
from polyface.reproduce import evaluation_report
from polyface.tasks import TASKS, Task, TaskSpec

from ..metrics.systems import Toy
from ..toys import FIVE, make_bundle

POINTS = [[20.0, 22], [40, 22], [30, 32], [23, 42], [38, 42]]
BOXES = BoxSpec(source="landmarks", landmarks="landmarks_5")


class DepthSpec(TaskSpec):
    kind: Literal["depth"] = "depth"


class DepthTask(Task):
    """A kind of its own: how deep the nose is, as far as `age` says; its result is a toy's."""

    Spec = DepthSpec

    def __init__(self, name: str, spec: TaskSpec) -> None:
        super().__init__(name, spec)
        self.column, self.output_dim, self.terms = "age", 1, [name]

    def targets(self, table: FaceTable) -> Targets:
        values = torch.tensor(table.numbers("age"))
        return Targets(values.nan_to_num(), ~values.isnan()[:, None])

    def prepare(self, values: Tensor, crops: Tensor, size: int) -> Tensor:
        return values

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target).abs()[:, None]

    def read(self, output: Tensor, crops: Tensor, size: int) -> dict[str, np.ndarray]:
        return {"depth": output[:, 0].float().cpu().numpy()}

    def labels(self, answer: Mapping[str, Any]) -> list[Any]:
        return list(answer["depth"])

    def evaluate(self, answers: Mapping[str, Any], table: FaceTable) -> Toy:
        truth = table.numbers("age").astype(np.float64)
        metric = Metric("mean depth error", unit="mm", higher_is_better=False, n=int((~np.isnan(truth)).sum()))
        return Toy(np.abs(answers["depth"] - truth), metric)


@pytest.fixture
def depth() -> Iterator[Registry]:
    TASKS.add("depth", DepthTask)
    yield TASKS
    TASKS.remove("depth")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine faces to test on, of which three have no age, and one to train on."""
    random = np.random.default_rng(0)
    records = [
        Record(
            random.integers(0, 256, (60, 60, 3)).astype(np.uint8), str(i), f"{i}.png",
            {"landmarks_5": POINTS, "split": "test" if i < 9 else "train", "age": None if i % 3 == 2 else 20 + i,
             "smile": "yes" if i % 2 else "no", "pose": ("left", "frontal")[i % 2]},
        )
        for i in range(10)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("evaluate") / "t.parquet"
    write_table(records, path)
    return path


def test_a_kind_of_ones_own_goes_all_the_way(depth: Registry, path: Path, tmp_path: Path) -> None:
    """Answers, figures, intervals, groups, differences, page: nothing knows its kind."""
    tasks = {"landmarks": {"kind": "landmarks", "points": 5}, "depth": {"kind": "depth"}}
    bundles = [make_bundle(tasks, seed=seed) for seed in (0, 1)]
    table = FaceTable.open(path).where(split="test")
    pool = FacePool([(table, boxes_of(table, BOXES), 1.0)], bundles[0].crop, bundles[0].tasks)
    found = [evaluate(bundle, pool) for bundle in bundles]
    a, b = ({seed: one.results["depth "]} for seed, one in zip((0, 0), found, strict=True))
    (row,) = rows("toy", a)
    truth = table.numbers("age")
    expected = np.nanmean(np.abs(found[0].answers["depth"]["depth"] - truth))
    assert (row.metric, row.unit, row.n) == ("mean depth error", "mm", 6)
    assert row.mean == pytest.approx(expected)
    assert row.interval is not None
    poses = groups_of(list(table.words("pose")))
    assert {pose: rows(pose, {0: within(a[0], faces)})[0].n for pose, faces in poses.items()} == {
        "left": 3, "frontal": 3
    }  # fmt: skip
    (difference,) = differences("one", "other", a, b)
    assert difference.mean == pytest.approx(row.mean - rows("other", b)[0].mean)
    page = evaluation_report(tmp_path / "r.html", found[0], "depth", ["pose"]).read_text()
    for words in ("depth: figures", "mean depth error", "depth: by pose", "nothing to see"):
        assert words in page


def test_tables_are_evaluated_as_the_bundle_crops_them_where_they_are_labelled(path: Path) -> None:
    bundle = make_bundle(FIVE | {"glasses": {"kind": "classification", "column": "glasses"}})
    bundle.boxes = BOXES
    found = evaluate_tables(bundle, [str(path)], None)
    assert len(found.pool.table) == 9
    assert list(found.results) == ["landmarks ", "pose ", "smile "]
    assert found.results["landmarks "].metrics[0].n == 9
    with pytest.raises(PolyfaceError, match="no face has split 'val'"):
        evaluate_tables(bundle, [str(path)], None, "val")
