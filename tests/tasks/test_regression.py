"""Regression: what it learns and answers, by hand and on the circle, under masks and mirrors, and all the way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface import tasks
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.inference import Analyzer
from polyface.inference.results import to_json_lines, to_parquet
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.schema import Column
from polyface.tasks.regression import RegressionTask
from polyface.training import stages
from polyface.training.recipe import load
from polyface.training.stages import pool_of

PLAIN = torch.eye(2, 3)[None]
MIRROR = torch.tensor([[[-1.0, 0.0, 39.0], [0.0, 1.0, 0.0]]])
BOTH = torch.cat([PLAIN, MIRROR])
LOSSES: dict[str, Callable[[float], float]] = {
    "l2": lambda d: d * d / 2,
    "l1": abs,
    "smooth-l1": lambda d: d * d / 2 if abs(d) < 1 else abs(d) - 0.5,
}


def made(column: str = "age", **settings: Any) -> RegressionTask:
    built = tasks.build("x", {"kind": "regression", "column": column, **settings})
    assert isinstance(built, RegressionTask)
    return built


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    picture = np.full((40, 40, 3), 128, np.uint8)
    rows = [{"age": 31.5, "yaw": -20, "gender": "male"}, {"age": None, "yaw": 45}, {"age": 2, "gender": "female"}]
    path = tmp_path_factory.mktemp("numbers") / "t.parquet"
    write_table([Record(picture, str(i), f"{i}.png", row) for i, row in enumerate(rows)], path)
    return FaceTable.open(path)


# --------------------------------------------------------------------------------------------- labels and answers


def test_labels_are_the_numbers_of_a_column(faces: FaceTable) -> None:
    found = made().targets(faces)
    assert found.values.tolist() == [31.5, 0, 2]
    assert found.labelled.tolist() == [[True], [False], [True]]
    women = made(where={"gender": "female"}).targets(faces)
    assert women.labelled.tolist() == [[False], [False], [True]]
    assert not made("beard").targets(faces).labelled.any()  # a table that lacks the column


def test_a_column_of_something_else_is_refused() -> None:
    for column, what in (("landmarks_5", "5 points"), ("gender", "words .male, female."), ("attributes", "attributes")):
        with pytest.raises(PolyfaceError, match=f"task 'x': column '{column}' is {what}.*; a number is needed"):
            made(column)


def test_a_table_declares_unit_and_mirror_of_its_own_column(tmp_path: Path) -> None:
    record = Record(np.zeros((9, 9, 3), np.uint8), "0", "0.png", {"tilt": 12.0})
    declared = Column("number", mirror="negate", unit="degrees")
    write_table([record], tmp_path / "t.parquet", columns={"tilt": declared})
    table, task = FaceTable.open(tmp_path / "t.parquet"), made("tilt")
    task.learn(table)
    assert task.targets(table).values.tolist() == [12]
    assert task.prepare(torch.tensor([12.0]), MIRROR, 40).tolist() == [[-12]]
    assert (task.unit, task.declares()) == ("degrees", declared)
    again = made(**{key: value for key, value in task.config().items() if key != "kind"})
    assert (again.negated, again.unit, again.config()) == (True, "degrees", task.config())
    assert (made("yaw").negated, made("yaw").unit, made("age").unit, made("yaw").declares()) == (
        True, "degrees", "years", None
    )  # fmt: skip


@given(st.floats(-200, 200), st.floats(-100, 100), st.floats(0.1, 50))
def test_what_is_learnt_is_read_again(value: float, offset: float, scale: float) -> None:
    task = made(offset=offset, scale=scale)
    target = task.prepare(torch.tensor([value]), PLAIN, 40)
    assert target.tolist() == [[pytest.approx((value - offset) / scale, rel=1e-4, abs=1e-4)]]
    assert task.decode(target, PLAIN, 40)["value"][0] == pytest.approx(value, rel=1e-4, abs=1e-3)


@given(st.floats(-720, 720), st.floats(0.1, 9), st.booleans())
def test_degrees_are_learnt_as_cosine_and_sine_of_any_length(value: float, length: float, mirrored: bool) -> None:
    task, crops = made("yaw", circular=True), MIRROR if mirrored else PLAIN
    target = task.prepare(torch.tensor([value]), crops, 40)
    assert target.square().sum() == pytest.approx(1, rel=1e-5)
    answer = task.decode(length * target, crops, 40)["value"][0]
    assert -180 < answer <= 180
    assert math.cos(math.radians(answer - value)) == pytest.approx(1, abs=1e-5)


def test_a_mirror_negates_a_yaw_and_what_says_so() -> None:
    for task, sign in ((made("yaw"), -1), (made("age"), 1), (made("lean", mirror="negate"), -1)):
        assert task.prepare(torch.tensor([30.0, 30.0]), BOTH, 40).tolist() == [[30], [30 * sign]]
        assert task.decode(torch.tensor([[30.0], [30.0]]), BOTH, 40)["value"].tolist() == [30, 30 * sign]
    assert made("yaw", mirror="none").prepare(torch.tensor([30.0]), MIRROR, 40).tolist() == [[30]]
    circle = made("yaw", circular=True)
    assert circle.prepare(torch.tensor([90.0, 90.0]), BOTH, 40)[:, 1].tolist() == pytest.approx([1, -1])


def test_the_mean_of_angles_over_views_goes_the_short_way() -> None:
    """170° and −170° are 180° on average, not 0°."""
    task = made("yaw", circular=True)
    numbers = task.read(task.prepare(torch.tensor([170.0, -170.0]), PLAIN.expand(2, 2, 3), 40), PLAIN, 40)
    mean = {key: value.mean(0, keepdims=True) for key, value in numbers.items()}
    assert abs(task.conclude(mean)["value"][0]) == pytest.approx(180, abs=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
@given(a=st.floats(-5, 5), b=st.floats(-5, 5))
def test_losses_by_their_formulas(loss: str, a: float, b: float) -> None:
    found = made(loss=loss).loss(torch.tensor([[a]]), torch.tensor([[b]]))
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(LOSSES[loss](a - b), rel=1e-4, abs=1e-5)
    two = made("yaw", circular=True, loss=loss).loss(torch.tensor([[a, b]]), torch.tensor([[b, a]]))
    assert two.item() == pytest.approx(2 * LOSSES[loss](a - b), rel=1e-4, abs=1e-5)


def test_answers_are_evaluated_where_there_are_labels(faces: FaceTable) -> None:
    result = made(unit="years").evaluate({"value": np.float32([30, 99, 3])}, faces)
    assert (result.n, result.unlabelled, result.unit) == (2, 1, "years")
    assert result.figure(result.metrics[0]) == pytest.approx(1.25)
    assert made("yaw", circular=True).evaluate({"value": np.float32([340, 45, 0])}, faces).errors[:2].tolist() == [0, 0]


def test_settings() -> None:
    assert made("yaw", circular=True).config()["mirror"] == "negate"
    assert tasks.build("x", made("yaw").config()).config() == made("yaw").config()
    assert (made().output_dim, made("yaw", circular=True).output_dim) == (1, 2)
    assert made().labels({"value": np.float32([1.5, 2])}) == [1.5, 2]
    with pytest.raises(PolyfaceError, match="offset and scale are for numbers that are not circular"):
        made("yaw", circular=True, scale=9.0)
    with pytest.raises(PolyfaceError, match=r"tasks.x.los: .*did you mean 'loss'"):
        made(los="l1")
    with pytest.raises(PolyfaceError, match="tasks.x.scale"):
        made(scale=0)


# --------------------------------------------------------------------------------------------------- all the way


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that tells yaw as a number and on the circle, and age, of rendered faces."""
    folder = tmp_path_factory.mktemp("regression")
    recipe = {
        "name": "numbers",
        "stages": [
            {
                "name": "one",
                "data": {
                    "tables": [{"name": "synthetic", "options": {"n": 1200, "size": 48}}],
                    "boxes": {"source": "table"},
                    "crop": {"size": 40, "channels": 1, "scale": 1.2},
                    "augment": {"mirror": 0.5},
                    "batch": 32,
                },
                "network": {"trunk": {"name": "tcdcn"}},
                "tasks": {
                    "yaw": {"kind": "regression", "column": "yaw", "scale": 40},
                    "turn": {"kind": "regression", "column": "yaw", "circular": True, "loss": "smooth-l1"},
                    "age": {"kind": "regression", "column": "age", "offset": 40, "scale": 25, "loss": "l1"},
                },
                "evaluation": {"main": "yaw"},
                "optimisation": {"optimiser": "adamw", "lr": 0.003, "epochs": 8},
            }
        ],
    }
    (folder / "numbers.yaml").write_text(json.dumps(recipe))
    options = stages.RunOptions(accelerator="cpu", threads=1, logger="none")
    return stages.run(load(str(folder / "numbers.yaml")), folder, None, options)["one"].bundle


@pytest.mark.slow
def test_it_learns_and_is_evaluated_like_any_task(trained: Path, tmp_path: Path) -> None:
    from polyface.reproduce import evaluation_report

    bundle = load_bundle(trained)
    found = evaluate(bundle, pool_of(load(str(trained / "../../numbers.yaml")).stages[0], None, bundle.tasks))
    yaw, turn = found.results["yaw "], found.results["turn "]
    figures = {metric.name: yaw.figure(metric) for metric in yaw.metrics}
    truth = found.pool.table.numbers("yaw")
    assert figures["mean absolute error"] < 0.6 * np.abs(truth - truth.mean()).mean()
    assert figures["R²"] > 0.5
    assert turn.figure(turn.metrics[2]) > 0.7
    page = evaluation_report(tmp_path / "report.html", found, "numbers", ["pose"]).read_text()
    for words in ("yaw: figures", "mean absolute error", "yaw: error curve", "age: by pose", "left profile"):
        assert words in page


@pytest.mark.slow
def test_it_is_analysed_exported_and_written_like_any_task(
    trained: Path, tmp_path: Path, told: Any, picture: Callable[..., np.ndarray]
) -> None:
    from polyface.export.onnx import export_onnx

    bundle = load_bundle(trained)
    assert export_onnx(bundle, tmp_path / "m.onnx") <= 1e-4
    (result,) = Analyzer(bundle, detector=told([10, 10, 80, 80]))(picture())
    (face,) = result.faces
    assert list(face.numbers) == ["yaw", "turn", "age"]
    assert json.loads(to_json_lines([result]))["faces"][0]["other"]["age"]["value"] == pytest.approx(
        face.numbers["age"], abs=1e-5
    )
    assert {">yaw", ">turn", ">age"} <= result.table()[0].keys()
    to_parquet([result], tmp_path / "faces.parquet")
    assert pq.read_table(tmp_path / "faces.parquet").to_pylist()[0]["turn"] == pytest.approx(face.numbers["turn"])
