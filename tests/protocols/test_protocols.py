"""Protocols by name, each task by itself, and one of somebody's own through every command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lists import table_of
from typer.testing import CliRunner

from polyface import protocols, tasks
from polyface.cli import app
from polyface.data.detector import Detection
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.metrics.classification import evaluate_classification
from polyface.metrics.result import Result
from polyface.models import find
from polyface.models.bundle import load_bundle
from polyface.protocols.base import Answers, Cases, EvaluationSet
from polyface.report.results import read_results
from polyface.training import stages
from polyface.training.recipe import load
from polyface.training.specs import same_settings

Command = Callable[..., str]


@pytest.fixture
def polyface() -> Command:
    def run(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == code, (done.output, done.exception)
        return done.output if code == 0 else str(done.exception)

    return run


# ---------------------------------------------------------------------------------------------------------- by name


def test_the_names_of_protocols() -> None:
    assert protocols.PROTOCOLS.names() == ["gallery-probe", "listed-pairs", "per-task", "templates"]
    assert protocols.settings(None) == protocols.settings("per-task") == {"name": "per-task"}
    assert protocols.settings("cavi")["name"] == "listed-pairs"
    assert protocols.settings("webcaricature")["name"] == "gallery-probe"


@pytest.mark.parametrize(
    "given, message",
    [
        ("listed-pears", "evaluation.protocol.name is 'listed-pears'; did you mean 'listed-pairs'"),
        ("mtfl", "reader 'mtfl' has no protocol of its own; known: gallery-probe"),
        ({"name": "listed-pairs", "fold": 3}, "unknown option 'fold'; did you mean 'folds'"),
        ({"folds": 3}, "evaluation.protocol.name is ''"),
        ({"name": "listed-pairs", "identification": {"x id": {"tsk": "x"}}}, "identification.x id: unknown key 'tsk'"),
    ],
)
def test_mistakes_in_names_and_options(given: Any, message: str) -> None:
    with pytest.raises(PolyfaceError, match=re.escape(message)):
        protocols.settings(given)


SMALL = """
name: small
stages:
  - name: five
    data:
      tables: [{{name: {table}}}]
      boxes: {{source: image}}
      crop: {{size: 40, channels: 3, scale: 1.0}}
      batch: 8
    network: {{trunk: {{name: tcdcn, channels: 3}}}}
    tasks:
      gender: {{kind: classification, column: gender}}
      pose: {{kind: classification, column: pose}}
    optimisation: {{epochs: 1}}
    evaluation: {{main: gender{protocol}}}
variants:
  one: {{stages: [five], seeds: 1, prefix: "across "}}
  other: {{stages: [five], seeds: 1, prefix: "across ", set: {{five.optimisation.lr: 0.01}}}}
comparisons: [{{better: other, than: one}}]
"""


@pytest.mark.parametrize("short", ["cavi", "webcaricature"])
def test_the_short_form_of_finished_runs_and_the_long_form_are_equal(tmp_path: Path, short: str) -> None:
    (tmp_path / "x.yaml").write_text(SMALL.format(table="synthetic", protocol=f", protocol: {short}"))
    stage = load(tmp_path / "x.yaml").stages[0]
    assert stage.evaluation.protocol == protocols.settings(short)
    kept = stage.model_dump(mode="json") | {"seed": 3}
    assert same_settings(stage, 3, kept)
    kept["evaluation"]["protocol"] = short
    assert same_settings(stage, 3, kept)
    kept["evaluation"]["protocol"] = None
    assert not same_settings(stage, 3, kept)


# ------------------------------------------------------------------------------------------------------- each task


def test_each_task_by_itself(tmp_path: Path) -> None:
    """Four faces: gender is right on three, of which one is not labelled; nobody is labelled with glasses."""
    faces = [("ann", "photo"), ("bob", "photo"), ("cid", "photo"), ("dan", "photo")]
    table = table_of(tmp_path / "t.parquet", faces, gender=["female", "male", None, "male"], pose=["left"] * 4)
    known = {
        name: tasks.build(name, {"kind": "classification", "column": name}) for name in ("gender", "pose", "glasses")
    }
    sure = np.eye(2)[[0, 1, 1, 0]]
    answers: Answers = {
        "gender": {"probabilities": sure[:, [known["gender"].vocabulary.index(w) for w in ("female", "male")]]},
        "pose": {"probabilities": np.eye(len(known["pose"].vocabulary))[[0] * 4]},
        "glasses": {"probabilities": sure},
    }

    def found(main: str, **options: Any) -> dict[str, float]:
        protocol = protocols.build({"name": "per-task"} | options)
        results = protocol.evaluate(answers, protocol.cases(EvaluationSet(table, tasks=known, main=main)))
        return {prefix: one.figure(one.metrics[0]) for prefix, one in results.items()}

    every = found("")
    assert list(every) == ["gender ", "pose "]
    assert every["gender "] == pytest.approx(200 / 3)
    assert found("gender") == {"": every["gender "]}
    assert found("gender", tasks=["pose", "gender"]) == {"pose ": every["pose "], "": every["gender "]}
    protocol = protocols.build({"name": "per-task", "named": True, "tasks": ["pose", "gender"]})
    named = protocol.evaluate(answers, protocol.cases(EvaluationSet(table, tasks=known, main="gender")))
    figures = {metric.name: named[""].figure(metric) for metric in named[""].metrics}
    assert [name for name in figures if " " not in name] == ["pose", "gender"]
    assert "gender balanced accuracy" in figures
    assert (figures["pose"], figures["gender"]) == (every["pose "], every["gender "])
    with pytest.raises(PolyfaceError, match="none of the 4 faces is labelled for glasses"):
        found("glasses")
    with pytest.raises(PolyfaceError, match="evaluation.protocol.tasks names 'gendr'; did you mean 'gender'"):
        found("", tasks=["gendr"])


# ------------------------------------------------------------------------------------------------ somebody's own


class Halves:
    """The main task on the faces of the upper and of the lower half of a table."""

    def __init__(self, task: str = "gender") -> None:
        self.task = task

    def cases(self, faces: EvaluationSet) -> Cases:
        half = len(faces.table) // 2
        rows = np.arange(len(faces.table))[:, None]
        return Cases(faces, {"upper ": rows[:half], "lower ": rows[half:]})

    def evaluate(self, answers: Answers, cases: Cases) -> Mapping[str, Result]:
        task = cases.faces.tasks[self.task]
        truth = cases.faces.table.classes("gender", task.vocabulary)
        said = np.asarray(answers[self.task]["probabilities"]).argmax(1)
        return {
            prefix: evaluate_classification(said[rows[:, 0]], truth[rows[:, 0]], task.vocabulary)
            for prefix, rows in cases.units.items()
        }


@pytest.fixture
def halves() -> Iterator[str]:
    protocols.PROTOCOLS.add("halves", Halves)
    yield "halves"
    protocols.PROTOCOLS.remove("halves")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty grey faces, black women and white men, of three splits."""
    records = []
    for row in range(40):
        labels = {"gender": ("female", "male")[row % 2], "pose": ("left", "frontal")[row // 2 % 2]}
        labels["split"] = "test" if row < 16 else "val" if row < 20 else "train"
        records.append(Record(np.full((24, 24, 3), 255 * (row % 2), np.uint8), f"{row}", f"{row}.png", labels))
    path = tmp_path_factory.mktemp("faces") / "faces.parquet"
    write_table(records, path)
    return path


def test_a_protocol_of_ones_own_through_every_command(
    halves: str, faces: Path, tmp_path: Path, polyface: Command
) -> None:
    recipe, out = tmp_path / "small.yaml", tmp_path / "runs"
    recipe.write_text(SMALL.format(table=faces, protocol=", protocol: {name: halves, task: gender}"))
    polyface("reproduce", recipe, "--out", out, "--device", "cpu", "--yes")
    rows = {row.key: row for row in read_results(out / "small" / "results.json").rows}
    for name in ("one", "other"):
        assert rows[name, "across upper accuracy"].n == rows[name, "across lower accuracy"].n == 8
    assert rows["other minus one", "across lower accuracy"].interval is not None
    assert "across upper accuracy" in (out / "small" / "report.html").read_text()
    model = out / "small" / "one" / "seed0" / "five" / "model"
    said = polyface("evaluate", model, faces, "--protocol", halves, "--by", "pose", "--results", tmp_path / "own.json")
    assert re.search(r"all +upper accuracy +[\d.]+ \([\d.]+–[\d.]+\) % +8\n", said)
    assert re.search(r"pose left +lower accuracy +.* 4\n", said)
    own = {row.key: row for row in read_results(tmp_path / "own.json").rows}
    assert own["small/five", "upper accuracy"].mean == pytest.approx(rows["one", "across upper accuracy"].mean)
    assert {"small/five: pose left", "small/five: pose frontal"} <= {row for row, _ in own}


def test_evaluation_of_chosen_splits_and_groups(faces: Path, tmp_path: Path, polyface: Command) -> None:
    recipe, out = tmp_path / "small.yaml", tmp_path / "runs"
    recipe.write_text(SMALL.format(table=faces, protocol=""))
    stages.run(load(recipe).variant("one"), out, None, stages.RunOptions(accelerator="cpu", logger="none"))
    model = out / "five" / "model"
    for split, n in (("test", 16), ("val", 4), ("all", 40)):
        said = polyface("evaluate", model, faces, "--split", split)
        assert re.search(rf"all +gender accuracy .* {n}\n", said), said
        assert re.search(rf"all +pose accuracy .* {n}\n", said), said
    said = polyface("evaluate", model, faces, "--by", "gender,pose", "--report", tmp_path / "page.html")
    assert re.search(r"gender female +pose accuracy .* 8\n", said)
    page = (tmp_path / "page.html").read_text()
    assert "gender: by pose" in page
    assert "pose: by gender" in page
    message = polyface("evaluate", model, faces, "--split", "tst", code=1)
    assert "no face has split 'tst'; splits: test, train, val, or all" in message
    message = polyface("evaluate", model, faces, "--by", "gendr", code=1)
    assert "no column 'gendr' to tell them apart by; did you mean 'gender'" in message


class Upright:
    """A detector that finds one upright face in the middle of every picture of 60 × 60."""

    id = "upright"

    def __call__(self, image: np.ndarray) -> list[Detection]:
        points = np.array([[20, 25], [40, 25], [30, 35], [22, 45], [38, 45]], np.float32)
        return [Detection(np.array([10, 10, 50, 50], np.float32), 0.9, points)]


def test_a_shipped_embedder_needs_a_protocol_that_compares(
    tmp_path: Path, polyface: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyface.data.boxes.RetinaFace", lambda **_: Upright())
    generator = np.random.default_rng(0)
    people = [generator.integers(0, 256, (60, 60, 3), dtype=np.uint8) for _ in range(4)]
    records = []
    for row in range(12):
        picture = np.clip(people[row % 4] + generator.integers(-9, 9, (60, 60, 3)), 0, 255).astype(np.uint8)
        labels = {"identity": f"p{row % 4}", "gender": ("female", "male")[row % 2], "split": "test"}
        records.append(Record(picture, f"{row}", f"{row}.png", labels))
    write_table(records, tmp_path / "t.parquet")
    message = polyface("evaluate", "identity", tmp_path / "t.parquet", code=1)
    assert (
        "an embedding and no task: name a protocol that compares faces (gallery-probe, listed-pairs, templates)"
        in message
    )
    load_bundle(find("identity")).save(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "polyface.json").read_text())
    manifest["boxes"] = {"source": "image"}  # noise has no face that a detector would find
    (tmp_path / "model" / "polyface.json").write_text(json.dumps(manifest))
    compare = ["--protocol", "gallery-probe", "--protocol-option", "draws=20", "--by", "gender"]
    said = polyface("evaluate", tmp_path / "model", tmp_path / "t.parquet", *compare)
    assert re.search(r"all +rank-1 +[\d.]+ .* 12\n", said), said
    assert re.search(r"gender female +rank-1 .* 6\n", said), said
