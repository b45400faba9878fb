"""Pseudo-labels: a model's answers become marked label columns, and nothing that was known is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from polyface import networks, tasks
from polyface.data.boxes import Boxes, BoxSpec, boxes_of
from polyface.data.crops import CropSpec
from polyface.data.loader import FacePool
from polyface.data.pose import head_pose, mean_face, pose_words
from polyface.data.store import open_source
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.models import labels as module
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.labels import label_table, labelled
from polyface.models.predict import predict
from polyface.schema import ATTRIBUTES, Column
from polyface.training import stages
from polyface.training.recipe import load

ASKED = {
    "points": {"kind": "landmarks", "points": 68},
    "gender": {"kind": "classification", "column": "gender"},
    "some": {"kind": "attributes", "attributes": ["Young", "Bald"], "thresholds": [0.05, -0.05]},
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    """Twelve synthetic faces with points, boxes, a split and a smile; some of them without smile or points."""
    found = open_source("synthetic", None, {"n": 12, "size": 48, "seed": 5})
    points, boxes, smiles = found.points("landmarks_5"), found.numbers("box"), found.words("smile")
    path = tmp_path_factory.mktemp("faces") / "faces.parquet"
    records = []
    for row in range(12):
        known = {"box": boxes[row], "split": "train" if row < 8 else "val"}
        known |= {"smile": smiles[row]} if row % 3 else {}
        known |= {"landmarks_5": points[row]} if row % 4 else {}
        records.append(Record(found.image(row), f"row {row}", f"{row}.png", known))
    write_table(records, path)
    return FaceTable.open(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "asker")


def saved(folder: Path, far: bool = False, source: str = "table") -> Path:
    """A random network of three tasks. far: its points lie some fifty crops away."""
    torch.manual_seed(0)
    asked = {name: tasks.build(name, dict(config)) for name, config in ASKED.items()}
    heads = {name: task.output_dim for name, task in asked.items()}
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": heads}).eval()
    if far:
        torch.nn.init.constant_(network.heads["points"].bias, 50.0)  # type: ignore[arg-type]
    boxes = BoxSpec.model_validate({"source": source})
    return Bundle(network, asked, CropSpec(size=40, channels=1), boxes).save(folder)


def test_answers_become_marked_columns_and_the_rest_stays(faces: FaceTable, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    report = label_table(faces, bundle, out)
    told = FaceTable.open(out)
    assert report.rows == len(told) == 12
    assert {name: told.pseudo(name) for name in told.columns} == {
        "landmarks_68": "asker", "gender": "asker", "attributes": "asker",
        "landmarks_5": None, "box": None, "split": None, "smile": None,
    }  # fmt: skip
    for name in faces.columns:
        assert told.column(name).to_pylist() == faces.column(name).to_pylist()
    assert [told.image_struct(row) for row in range(12)] == [faces.image_struct(row) for row in range(12)]
    kept = load_bundle(bundle, quiet=True)
    pool = FacePool.unlabelled(faces, boxes_of(faces, kept.boxes), kept.crop)
    answers = predict(kept.network, kept.tasks, pool)
    np.testing.assert_allclose(told.points("landmarks_68"), answers["points"]["points"], atol=1e-3)
    assert list(told.words("gender")) == answers["gender"]["label"]
    values = told.numbers("attributes")
    places = [ATTRIBUTES.index(name) for name in ("Bald", "Young")]
    np.testing.assert_array_equal(values[:, places] > 0, answers["some"]["positive"])
    assert 0 < (values[:, places] > 0).sum() < 24
    assert np.isnan(np.delete(values, places, axis=1)).all()  # what the model was not asked


def test_columns_of_ones_own_are_answered_and_kept(faces: FaceTable, tmp_path: Path) -> None:
    mask = {"kind": "classification", "column": "mask", "vocabulary": ["no", "yes", "unsure"], "mirror": {"no": "yes"}}
    task = tasks.build("mask", mask)
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": {"mask": 3}}).eval()
    own = Bundle(network, {"mask": task}, CropSpec(size=40, channels=1), BoxSpec(source="table")).save(tmp_path / "own")
    records = [
        Record(faces.image(row), f"row {row}", f"{row}.png", {"box": faces.numbers("box")[row], "mood": [row, 1]})
        for row in range(12)
    ]
    mood = Column("distribution", ("sad", "happy"))
    write_table(records, tmp_path / "faces.parquet", columns={"mood": mood})
    label_table(FaceTable.open(tmp_path / "faces.parquet"), str(own), tmp_path / "out.parquet")
    told = FaceTable.open(tmp_path / "out.parquet")
    assert told.own == {"mask": Column("words", ("no", "yes", "unsure"), mirror=(1, 0, 2)), "mood": mood}
    assert told.pseudo("mask") == "own"
    assert set(told.words("mask")) <= {"no", "yes", "unsure"}
    np.testing.assert_allclose(told.numbers("mood")[3], [0.75, 0.25])


def test_marks_survive_choosing_and_joining_rows(faces: FaceTable, bundle: Path, tmp_path: Path) -> None:
    label_table(faces, bundle, tmp_path / "out.parquet", tasks=["gender"])
    told = FaceTable.open(tmp_path / "out.parquet")
    assert "landmarks_68" not in told.columns
    assert told.take(np.array([3, 1])).pseudo("gender") == "asker"
    assert FaceTable.concat([faces, told]).pseudo("gender") == "asker"
    assert told.where(split="val").pseudo("gender") == "asker"
    assert faces.pseudo("gender") is None


def test_other_programs_read_the_file(faces: FaceTable, bundle: Path, tmp_path: Path) -> None:
    label_table(faces, bundle, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 12


def test_points_far_outside_the_picture_are_no_labels(faces: FaceTable, tmp_path: Path) -> None:
    label_table(faces, saved(tmp_path / "far", far=True), tmp_path / "out.parquet")
    told = FaceTable.open(tmp_path / "out.parquet")
    assert "landmarks_68" not in told.columns  # nobody has any
    assert told.column("gender").null_count == 0


def test_faces_that_the_detector_misses_are_not_labelled(faces: FaceTable, tmp_path: Path, monkeypatch: Any) -> None:
    def some_missed(table: FaceTable, spec: BoxSpec, **others: Any) -> Any:
        found = boxes_of(table, BoxSpec(source="table"))
        return type(found)(found.xyxy, np.array([0, 7]))

    monkeypatch.setattr(module, "boxes_of", some_missed)
    label_table(faces, saved(tmp_path / "detecting", source="detector"), tmp_path / "out.parquet")
    told = FaceTable.open(tmp_path / "out.parquet")
    for name in ("landmarks_68", "gender", "attributes"):
        assert np.flatnonzero(told.column(name).is_null().to_numpy(zero_copy_only=False)).tolist() == [0, 7]


def test_labels_of_people_are_never_mixed_with_answers(faces: FaceTable, tmp_path: Path) -> None:
    torch.manual_seed(0)
    smile = {"smile": tasks.build("smile", {"kind": "classification", "column": "smile"})}
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": {"smile": 2}})
    model = Bundle(network, smile, CropSpec(size=40, channels=1), BoxSpec(source="table")).save(tmp_path / "smiler")
    with pytest.raises(PolyfaceError, match="the table has labels in smile, which .*smiler would answer"):
        label_table(faces, model, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_of_a_models_answers_those_that_the_table_lacks(faces: FaceTable, bundle: Path, tmp_path: Path) -> None:
    """The first labelling answers gender; the second, of all tasks, leaves it as it is, mark included."""
    label_table(faces, bundle, tmp_path / "once.parquet", tasks=["gender"])
    first = FaceTable.open(tmp_path / "once.parquet")
    label_table(first, saved(tmp_path / "other"), tmp_path / "twice.parquet")
    second = FaceTable.open(tmp_path / "twice.parquet")
    assert second.column("gender").to_pylist() == first.column("gender").to_pylist()
    marks = {name: second.pseudo(name) for name in ("gender", "landmarks_68", "attributes", "smile")}
    assert marks == {"gender": "asker", "landmarks_68": "other", "attributes": "other", "smile": None}
    with pytest.raises(PolyfaceError, match=r"labels in gender, which .* would answer \(gender\)"):
        label_table(first, bundle, tmp_path / "out.parquet", tasks=["gender"])


TURNS = ("yaw", "pitch", "roll", "pose")


def staring(folder: Path, yaw: float = 30, source: str = "table") -> Path:
    """A network that sees in every crop the mean face, turned."""
    turn = np.radians(yaw)
    x, y, z = mean_face().T
    points = np.stack([x * np.cos(turn) + z * np.sin(turn), y], axis=1) / 4 + 0.5  # in parts of the crop
    task = tasks.build("points", dict(ASKED["points"]))
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": {"points": 136}}).eval()
    head = network.heads["points"]
    torch.nn.init.zeros_(head.weight)  # type: ignore[arg-type]
    head.bias.data = torch.from_numpy(points.ravel().astype(np.float32))  # type: ignore[union-attr]
    boxes = BoxSpec.model_validate({"source": source})
    return Bundle(network, {"points": task}, CropSpec(size=40, channels=1), boxes).save(folder)


def test_pose_is_measured_by_points_where_it_is_asked_for(faces: FaceTable, tmp_path: Path) -> None:
    model = staring(tmp_path / "staring")
    label_table(faces, model, tmp_path / "plain.parquet")
    assert not set(TURNS) & set(FaceTable.open(tmp_path / "plain.parquet").columns)
    label_table(faces, model, tmp_path / "out.parquet", pose=True)
    told = FaceTable.open(tmp_path / "out.parquet")
    assert [told.pseudo(name) for name in TURNS] == ["staring"] * 4
    np.testing.assert_allclose(told.numbers("yaw"), 30, atol=0.01)
    np.testing.assert_allclose([told.numbers("pitch"), told.numbers("roll")], 0, atol=0.01)
    assert set(told.words("pose")) == {"right"}


def test_a_pose_that_people_labelled_is_never_overwritten_or_filled(faces: FaceTable, tmp_path: Path) -> None:
    known = [{"yaw": 5.0, "pose": "frontal"}, {"pose": "left"}, {}]
    records = [
        Record(faces.image(row), "", f"{row}.png", {"box": faces.numbers("box")[row], **labels})
        for row, labels in enumerate(known)
    ]
    write_table(records, tmp_path / "faces.parquet")
    label_table(
        FaceTable.open(tmp_path / "faces.parquet"), staring(tmp_path / "it"), tmp_path / "out.parquet", pose=True
    )
    told = FaceTable.open(tmp_path / "out.parquet")
    assert told.column("yaw").to_pylist() == [5, None, None]
    assert told.column("pose").to_pylist() == ["frontal", "left", None]
    assert told.pseudo("yaw") is told.pseudo("pose") is None
    np.testing.assert_allclose(told.numbers("roll"), 0, atol=0.01)
    assert told.pseudo("roll") == "it"


def test_faces_without_points_or_without_a_pose_stay_null(faces: FaceTable, tmp_path: Path, monkeypatch: Any) -> None:
    def some_missed(table: FaceTable, spec: BoxSpec, **others: Any) -> Any:
        return Boxes(boxes_of(table, BoxSpec(source="table")).xyxy, np.array([0, 7]))

    monkeypatch.setattr(module, "boxes_of", some_missed)
    label_table(faces, staring(tmp_path / "it", source="detector"), tmp_path / "out.parquet", pose=True)
    told = FaceTable.open(tmp_path / "out.parquet")
    for name in TURNS:
        assert np.flatnonzero(told.column(name).is_null().to_numpy(zero_copy_only=False)).tolist() == [0, 7]
    label_table(faces, staring(tmp_path / "away", yaw=120), tmp_path / "away.parquet", pose=True)
    told = FaceTable.open(tmp_path / "away.parquet")
    assert told.column("landmarks_68").null_count == 2
    assert not set(TURNS) & set(told.columns)  # nobody's can be measured
    label_table(faces, saved(tmp_path / "far", far=True), tmp_path / "far.parquet", pose=True)
    assert not {"landmarks_68", *TURNS} & set(FaceTable.open(tmp_path / "far.parquet").columns)


def test_pose_is_also_measured_by_points_that_the_table_holds(faces: FaceTable, bundle: Path, tmp_path: Path) -> None:
    found = open_source("synthetic", None, {"n": 6, "size": 48, "seed": 5})
    points, boxes = found.points("landmarks_68"), found.numbers("box")
    given = [{"box": boxes[row], "landmarks_68": points[row] if row else None} for row in range(6)]
    write_table((Record(found.image(row), "", "", given[row]) for row in range(6)), tmp_path / "faces.parquet")
    table = FaceTable.open(tmp_path / "faces.parquet")
    label_table(table, bundle, tmp_path / "out.parquet", tasks=["gender"], pose=True)
    told = FaceTable.open(tmp_path / "out.parquet")
    expected = head_pose(table.points("landmarks_68"))
    np.testing.assert_allclose(told.numbers("yaw"), expected.yaw, atol=1e-3)
    assert list(told.words("pose")) == pose_words(expected.yaw)
    assert told.words("pose")[0] is None
    assert (told.pseudo("yaw"), told.pseudo("landmarks_68"), told.pseudo("gender")) == ("the mean face", None, "asker")
    with pytest.raises(PolyfaceError, match="pose is measured by landmarks_68, which neither .*asker nor the table"):
        label_table(faces, bundle, tmp_path / "out.parquet", tasks=["gender"], pose=True)


def test_wrong_models_and_tasks_are_named(faces: FaceTable, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="asker has no task 'gendre'; did you mean 'gender'?"):
        label_table(faces, bundle, tmp_path / "out.parquet", tasks=["gendre"])
    with pytest.raises(PolyfaceError, match="no model 'face67': did you mean 'face68'?"):
        label_table(faces, "face67", tmp_path / "out.parquet")


def test_a_stage_learns_from_answers_made_once(
    faces: FaceTable, bundle: Path, toy: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "faces.parquet"
    write_table((Record(faces.image(r), "", f"{r}.png", {"box": faces.numbers("box")[r]}) for r in range(12)), path)
    source = {"name": str(path), "labels": [str(bundle)]}
    changes = {"data": {"tables": [source], "boxes": {"source": "table", "landmarks": None}, "batch": 4}}
    stage = load(toy(changes)).stages[0]
    asked = {"points": tasks.build("points", dict(ASKED["points"]))}
    pool = stages.stage_pool(stage, "train", None, asked)
    assert pool is not None
    assert pool.targets["points"].labelled.all()
    assert pool.table.pseudo("landmarks_68") == "asker"
    monkeypatch.setattr(module, "label_table", lambda *args, **kwargs: pytest.fail("labelled again"))
    assert labelled(FaceTable.open(path), str(bundle)).columns == pool.table.columns


def test_a_stage_learns_from_measured_pose(faces: FaceTable, toy: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "faces.parquet"
    write_table((Record(faces.image(r), "", f"{r}.png", {"box": faces.numbers("box")[r]}) for r in range(12)), path)
    source = {"name": str(path), "labels": [str(staring(tmp_path / "it"))]}
    changes: dict[str, Any] = {"data": {"boxes": {"source": "table", "landmarks": None}, "batch": 4}}
    asked = {"turn": tasks.build("turn", {"kind": "regression", "column": "yaw"})}
    changes["data"]["tables"] = [source | {"pose": True}]
    pool = stages.stage_pool(load(toy(changes)).stages[0], "train", None, asked)
    assert pool is not None
    np.testing.assert_allclose(pool.targets["turn"].values, 30, atol=0.01)
    changes["data"]["tables"] = [source]  # not asked for: the cache must not give it
    with pytest.raises(PolyfaceError, match="no face with split 'train' is labelled"):
        stages.stage_pool(load(toy(changes)).stages[0], "train", None, asked)
    changes["data"]["tables"] = [source | {"pose": True, "labels": []}]
    with pytest.raises(PolyfaceError, match="pose of .* needs labels: a model that gives 68 points, such as .face68."):
        load(toy(changes))
