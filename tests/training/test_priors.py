"""Where the biases of new heads start: at the answer that is best for a face of which nothing is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from polyface import tasks as task_kinds
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.models.bundle import load_bundle
from polyface.networks.heads import GroupedHead, set_bias
from polyface.schema import ATTRIBUTES
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.start import build_network

from .recognition import fit

GLASSES = ["yes"] * 3 + ["no"] * 17 + [None] * 20
POSES = ["frontal"] * 30 + ["left"] * 6 + ["right"] * 4


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 faces: Bald 4 of 20 known, Young of all, Male unknown, glasses 3 of 20 known."""
    known = {"Bald": [1] * 4 + [-1] * 16 + [None] * 20, "Young": [1] * 40}
    picture = np.full((48, 48, 3), 90, np.uint8)
    points = np.array([[15, 18], [33, 18], [24, 26], [18, 34], [30, 34]], np.float32)
    faces = [
        {
            "attributes": [known[name][row] if name in known else None for name in ATTRIBUTES],
            "glasses": GLASSES[row],
            "pose": POSES[row],
            "yaw": float(row),
            "landmarks_5": points,
            "split": "train",
        }
        for row in range(40)
    ]
    path = tmp_path_factory.mktemp("table") / "faces.parquet"
    write_table([Record(picture, str(i), f"{i}.png", face) for i, face in enumerate(faces)], path)
    return path


def prior(table: Path, **config: Any) -> list[float] | None:
    task = task_kinds.build("task", config)
    task.learn(FaceTable.open(table))
    return task.prior


def test_attributes_by_hand(table) -> None:
    """Bald ln(4/16); Young of all 40: half a face is counted without it; Male is not labelled."""
    asked: dict[str, Any] = {"kind": "attributes", "attributes": ["Bald", "Male", "Young"]}
    expected = [math.log(4 / 16), 0.0, math.log(40 / 0.5)]  # in the data set's order
    assert prior(table, **asked, loss="bce") == pytest.approx(expected)
    assert prior(table, **asked, loss="mse") == pytest.approx([0.2 - 0.8, 0.0, 1 - 1 / 80])


def test_classes_by_hand(table) -> None:
    """Logarithms of shares: the softmax of the biases is how often each word was seen."""
    words = ["no", "yes"]
    found = prior(table, kind="classification", column="glasses", vocabulary=words)
    assert torch.tensor(found).softmax(0).tolist() == pytest.approx([17 / 20, 3 / 20])
    found = prior(table, kind="classification", column="glasses", vocabulary=words, weights={"yes": 2.0})
    assert torch.tensor(found).softmax(0).tolist() == pytest.approx([17 / 23, 6 / 23])
    found = prior(table, kind="classification", column="glasses", vocabulary=words, weights="balanced")
    assert torch.tensor(found).softmax(0).tolist() == pytest.approx([0.5, 0.5])
    found = prior(table, kind="classification", column="glasses", vocabulary=words, smoothing=0.2)
    assert torch.tensor(found).softmax(0).tolist() == pytest.approx([0.8 * 0.85 + 0.1, 0.8 * 0.15 + 0.1])
    cut = {"kind": "classification", "column": "yaw", "edges": [9.5], "vocabulary": ["little", "much"]}
    assert torch.tensor(prior(table, **cut)).softmax(0).tolist() == pytest.approx([0.25, 0.75])


def test_it_is_the_answer_of_the_lowest_loss(table) -> None:
    """The property that makes it a start: no other constant has a lower mean loss over the training faces."""
    for config in (
        {"kind": "attributes", "attributes": ["Bald"], "loss": "bce"},
        {"kind": "attributes", "attributes": ["Bald"], "loss": "mse"},
        {"kind": "classification", "column": "pose", "smoothing": 0.1, "weights": {"left": 3.0}},
    ):
        task, faces = task_kinds.build("task", dict(config)), FaceTable.open(table)
        task.learn(faces)
        targets = task.targets(faces)
        kept = targets.labelled[:, 0]
        bias = torch.tensor(task.prior, requires_grad=True)
        eye = torch.eye(2, 3).expand(len(faces), 2, 3)
        target = task.prepare(targets.values, eye, 40)[kept]
        task.loss(bias.expand(len(target), -1), target).mean().backward()
        assert bias.grad is not None
        assert bias.grad.abs().max() < 0.02, config  # classes that are not there count as half a face


def test_tasks_without_a_prior_start_at_random(table) -> None:
    assert prior(table, kind="landmarks", points=5) is None
    assert prior(table, kind="classification", column="smile") is None  # of no face is it known


def test_a_grouped_head_has_them_in_the_tasks_order() -> None:
    head = GroupedHead({"a": 2, "b": 2}, {"a": [3, 1], "b": [0, 2]})
    set_bias(head, torch.tensor([10.0, 11.0, 12.0, 13.0]))
    for layer in head.parts.values():
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    assert head({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}).tolist() == [[10.0, 11.0, 12.0, 13.0]]


def recipe(toy: Any, table: Path, **changes: Any) -> recipes.Recipe:
    tasks = {"pose": {"kind": "classification", "column": "pose"}}
    tasks |= {"smile": {"kind": "attributes", "attributes": ["Bald", "Young"], "loss": "bce", "where": {}}}
    given = {"data": {"tables": [{"name": str(table)}], "boxes": {"source": "landmarks"}, "batch": 20}, "tasks": tasks}
    tree = recipes.load(toy({"optimisation": {"epochs": 1, "lr": 1e-9}})).stages[0].model_dump()
    for key, value in [*given.items(), *changes.items()]:
        tree[key] = tree[key] | value
    del tree["tasks"]["landmarks"]
    tree["evaluation"]["main"] = "pose"
    return recipes.Recipe.model_validate({"name": "toy", "seed": 3, "stages": [tree]})


def biases(chosen: recipes.Recipe, **earlier: Path) -> list[float]:
    stage = chosen.measured
    network = build_network(stage, stages.stage_tasks(stage, every=True), 3, earlier)
    return [value for name in ("pose", "smile") for value in network.heads[name].bias.tolist()]  # type: ignore[union-attr, operator]


def test_new_heads_start_there_and_heads_of_others_do_not(toy, table, tmp_path) -> None:
    """By the training faces; unless the recipe says random, an earlier stage gives the heads, or the batches show every
    class equally often."""
    chosen = recipe(toy, table)
    tasks = stages.stage_tasks(chosen.measured, every=True)
    expected = [value for name in ("pose", "smile") for value in tasks[name].prior or ()]
    assert biases(chosen) == pytest.approx(expected)
    random = biases(recipe(toy, table, network={"biases": "random"}))
    assert all(abs(value) < 0.11 for value in random)  # 1/√100, PyTorch's own
    balanced = biases(recipe(toy, table, data={"balance": ["pose"]}))
    assert balanced[:5] == random[:5]
    assert balanced[5:] == pytest.approx(expected[5:])
    result = fit(recipe(toy, table, network={"biases": "random"}), tmp_path)["one"]
    init = recipe(toy, table).measured.model_dump() | {"init": {"source": "one", "parts": ["trunk", "heads"]}}
    given = recipes.Recipe.model_validate({"name": "toy", "seed": 3, "stages": [init]})
    assert biases(given, one=result.bundle) == pytest.approx(random, abs=1e-6)
    trained = fit(chosen, tmp_path / "prior")["one"]  # what is trained begins there too
    assert trained.bundle.exists()
    heads = load_bundle(trained.bundle, quiet=True).network.heads
    assert heads["smile"].bias.tolist() == pytest.approx(expected[5:], abs=1e-6)  # type: ignore[union-attr, operator]


def test_a_finished_run_of_before_is_taken_as_it_is(toy, table, tmp_path) -> None:
    """Its settings have none of the keys that were added since."""
    chosen = recipe(toy, table)
    first = fit(chosen, tmp_path)["one"]
    path = tmp_path / "one/history.json"
    record = json.loads(path.read_text())
    del record["settings"]["network"]["biases"], record["settings"]["optimisation"]["follow"]
    del record["settings"]["optimisation"]["validate_times"]
    record["settings"]["optimisation"]["precision"] = "bf16-mixed"
    path.write_text(json.dumps(record))
    auto = recipe(toy, table, optimisation={"precision": "auto"})
    assert fit(auto, tmp_path)["one"].history == first.history  # else it would be trained again
    stamp = path.stat().st_mtime_ns
    fit(auto, tmp_path)
    assert path.stat().st_mtime_ns == stamp
    fit(chosen, tmp_path)  # 32-true is asked for by name, and this was not
    assert path.stat().st_mtime_ns != stamp
