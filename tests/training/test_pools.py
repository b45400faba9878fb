"""Which faces of a table are of which part of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from polyface.data.loader import FacePool
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.training.recipe import of_tree
from polyface.training.specs import SourceSpec
from polyface.training.stages import _of_few, _rows, stage_pool, stage_tasks


def table(file: Path, splits: list[str | None]) -> FaceTable:
    picture = np.zeros((8, 8, 3), np.uint8)
    write_table([Record(picture, f"row {i}", f"{i}.png", {"split": split}) for i, split in enumerate(splits)], file)
    return FaceTable.open(file)


@pytest.mark.parametrize(
    "splits, trained, tested",
    [
        ([None, None, None], [0, 1, 2], []),  # without splits it is all for training
        (["train", None, "test"], [0], [2]),  # of one with splits a face without is in no part
        (["val", "test", None], [], [1]),
    ],
)
def test_a_face_without_a_split_is_trained_on_only_where_no_face_has_one(
    tmp_path: Path, splits: list[str | None], trained: list[int], tested: list[int]
) -> None:
    faces, source = table(tmp_path / "t.parquet", splits), SourceSpec(name="t")
    assert _rows(faces, "train", source).tolist() == trained
    assert _rows(faces, "test", source).tolist() == tested


def test_a_stage_may_train_on_several_splits(tmp_path: Path) -> None:
    faces = table(tmp_path / "t.parquet", ["train", "val", "test", None])
    every = SourceSpec(name="t", splits=["train", "val", "test"])
    assert _rows(faces, "train", every).tolist() == [0, 1, 2]
    assert _rows(faces, "val", every).tolist() == [1]
    assert _rows(faces, "train", SourceSpec(name="t", splits=["test"])).tolist() == [2]


def test_a_box_is_asked_of_the_faces_of_the_part_alone(tmp_path: Path) -> None:
    """The third face has no box, and is a test face."""
    picture, file, box = np.zeros((24, 24, 3), np.uint8), tmp_path / "t.parquet", [2.0, 2.0, 20.0, 20.0]
    labels = [
        {"split": "train", "gender": "male", "box": box},
        {"split": "test", "gender": "female", "box": box},
        {"split": "test", "gender": "female"},
    ]
    write_table([Record(picture, f"row {i}", f"{i}.png", each) for i, each in enumerate(labels)], file)
    asked = {"tasks": {"gender": {"kind": "classification", "column": "gender"}}, "evaluation": {"main": "gender"}}
    one = {**STAGE, "data": STAGE["data"] | {"tables": [{"name": str(file)}]}, **asked}
    stage = of_tree({"name": "gender", "stages": [one]}, "here").measured
    pool = stage_pool(stage, "train", None, stage_tasks(stage))
    assert pool is not None
    assert len(pool) == 1
    with pytest.raises(PolyfaceError, match=r"t\.parquet row 2 has no box to crop by \(1 of 2 rows lack it\)"):
        stage_pool(stage, "test", None, stage_tasks(stage))


def test_people_with_few_faces_of_the_part_are_left_out(tmp_path: Path) -> None:
    """ann has two faces to train on, bob one (his other is a test face), and one face is nobody's."""
    picture, file = np.zeros((8, 8, 3), np.uint8), tmp_path / "t.parquet"
    faces = [("ann", "train"), ("bob", "train"), ("ann", "train"), ("bob", "test"), (None, "train")]
    write_table(
        [
            Record(picture, f"row {i}", f"{i}.png", {"identity": who, "split": part})
            for i, (who, part) in enumerate(faces)
        ],
        file,
    )
    found = FaceTable.open(file)
    assert _rows(found, "train", SourceSpec(name="t", faces_each=2)).tolist() == [0, 2]
    assert _rows(found, "test", SourceSpec(name="t", faces_each=2)).tolist() == []
    assert _rows(found, "test", SourceSpec(name="t", faces_each=1)).tolist() == [3]


def test_faces_of_few_people_alone_are_trained_on() -> None:
    """Whoever is drawn, all of their faces stay, in their order, and nobody's do not; always the same draw."""
    people = np.array(["ann", "bob", None, "eve", "ann", "bob", "eve", "dan"], dtype=object)
    rows = np.array([0, 1, 2, 3, 4, 6, 7])
    kept = _of_few(people, rows, 2)
    named = set(people[kept])
    assert len(named) == 2
    assert None not in named
    assert kept.tolist() == [row for row in rows if people[row] in named]
    assert kept.tolist() == _of_few(people, rows, 2).tolist()
    assert _of_few(people, rows, 9).tolist() == [0, 1, 3, 4, 6, 7]


FACES = {"name": "synthetic", "options": {"n": 40, "size": 24}}
STAGE = {
    "name": "one",
    "data": {"tables": [FACES], "boxes": {"source": "table"}, "crop": {"size": 24, "channels": 1}},
    "network": {"trunk": {"name": "tcdcn"}},
    "tasks": {"landmarks": {"kind": "landmarks"}, "smile": {"kind": "classification", "column": "smile"}},
}


def test_few_faces_keep_a_tasks_labels_and_all_keep_the_others() -> None:
    """Those that a limit of as many faces would leave; validation faces keep theirs."""

    def pool(part: str, **data: object) -> FacePool:
        stage = of_tree({"name": "few", "stages": [{**STAGE, "data": STAGE["data"] | data}]}, "few").measured
        found = stage_pool(stage, part, None, stage_tasks(stage))
        assert found is not None
        return found

    whole, few, limited = pool("train"), pool("train", labelled={"landmarks": 5}), pool("train", limit=5)
    kept = few.targets["landmarks"].labelled.all(1).numpy()
    assert few.targets["landmarks"].labelled.any(1).sum() == kept.sum() == 5
    assert [few.table.path(row) for row in np.flatnonzero(kept)] == [limited.table.path(row) for row in range(5)]
    assert torch.equal(few.targets["smile"].labelled, whole.targets["smile"].labelled)
    assert pool("val", labelled={"landmarks": 1}).targets["landmarks"].labelled.any(1).sum() > 1
    even = pool("train", labelled={"landmarks": 5}, balance=["landmarks"])
    shown = even.order(0, "one", 0, shuffle=True)
    assert len(shown) == len(whole)
    assert abs(2 * kept[shown].sum() - len(shown)) <= 1
    with pytest.raises(PolyfaceError, match=r"data.labelled.*'landmark'"):
        pool("train", labelled={"landmark": 5})
