"""The share of right answers in the history: that of the saved network on the validation faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from polyface import tasks
from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.models.predict import predict
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.stages import pool_of

ASKED = {
    "gender": {"kind": "classification", "column": "gender"},
    "age": {"kind": "age"},
    "landmarks": {"kind": "landmarks", "points": 5, "loss": "l2"},
}


def train(toy: Any, out: Path, accuracy: dict[str, Any] | None) -> stages.StageResult:
    changes = {"tasks": ASKED, "optimisation": {"epochs": 2}, "evaluation": {"main": "gender"}, "accuracy": accuracy}
    options = stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    return stages.run(recipes.load(toy(changes)), out, None, options)["one"]


def test_it_is_that_of_the_saved_network_and_changes_nothing_that_is_learnt(toy, tmp_path: Path) -> None:
    """Of tasks that are right or wrong; "smile" of the toy is labelled on photos alone."""
    with_it, without = train(toy, tmp_path / "a", {}), train(toy, tmp_path / "b", None)
    told = [row["accuracy"] for row in with_it.history]
    assert [set(one) for one in told] == [{"gender", "age", "smile"}] * 2
    assert [{key: row[key] for key in row if key != "accuracy"} for row in with_it.history] == without.history
    bundle = load_bundle(with_it.bundle, quiet=True)
    chosen = recipes.load(toy({"tasks": ASKED, "evaluation": {"main": "gender"}})).measured
    pool = pool_of(chosen, None, bundle.tasks, "val")
    answers = predict(bundle.network, bundle.tasks, pool)
    for name, share in told[-1].items():
        result = bundle.tasks[name].evaluate(answers[name], pool.table)
        assert result.figure(result.metrics[0]) == pytest.approx(share), name


def test_tasks_that_are_neither_right_nor_wrong_are_refused(toy, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="accuracy.tasks names 'landmarks'"):
        train(toy, tmp_path, {"tasks": ["landmarks"]})


def test_right_by_hand() -> None:
    """Years 12 and 20 are of the groups 8-14 and 15-22; a span over two groups is in none."""
    age = tasks.build("age", {"kind": "age", "oldest": 30, "vocabulary": ["0-2", "3-7", "8-14", "15-22", "23-34"]})
    output = torch.full((4, 31), -9.0)
    output[[0, 1, 2, 3], [9, 9, 20, 9]] = 9.0
    target = torch.tensor([[12.0, 12], [20, 20], [15, 22], [8, 20]])
    assert age.right(output, target).tolist() == [True, False, True, False]
    gender = tasks.build("gender", {"kind": "classification", "column": "gender"})
    assert gender.right(torch.tensor([[1.0, 2], [2, 1]]), torch.tensor([[0.4, 0.6], [0.4, 0.6]])).tolist() == [
        True,
        False,
    ]
