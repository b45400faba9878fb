"""`polyface tune`: what it prints and keeps, and the line that answers a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyface.reproduce import tune

Command = Callable[..., Any]


def test_trials_are_printed_best_first_with_the_command_that_trains_the_best(
    polyface: Command, toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def found(recipe: Any, data: Any, out: Path, options: Any, trials: int, workers: int, *_: Any) -> list[Any]:
        given.append((list(recipe.space), out.name, trials, workers))
        best = tune.Trial(1, dict(zip(recipe.space, (0.0123456, 1, 16), strict=True)), 71.5, "complete")
        return [best, tune.Trial(0, {"one.optimisation.lr": 0.1}, None, "fail", "the loss is not finite")]

    monkeypatch.setattr(tune, "tune", found)
    space, results = tmp_path / "space.yaml", tmp_path / "rows.json"
    space.write_text(
        "one.optimisation.lr: {low: 0.001, high: 0.1, log: true}\n"
        "one.optimisation.epochs: {low: 1, high: 2}\none.data.batch: {choices: [16, 32]}\n"
    )
    told = polyface("tune", toy(), "--space", space, "--trials", "2", "--workers", "3", "--results", results)
    assert told.status == 0, told.err
    assert given == [(["one.optimisation.lr", "one.optimisation.epochs", "one.data.batch"], "toy-tune", 2, 3)]
    lines = told.out.splitlines()
    assert lines[1].split() == ["1", "71.50", "complete", "lr=0.01235", "epochs=1", "batch=16"]
    assert lines[2].endswith("the loss is not finite")
    assert lines[3] == " ".join(
        [f"best: polyface train {toy()} --set one.optimisation.lr=0.0123456", "--set one.optimisation.epochs=1"]
        + ["--set one.data.batch=16"]
    )
    (row,) = json.loads(results.read_text())["rows"]
    assert (row["row"], row["mean"], row["note"]) == ("trial 1", 71.5, "lr=0.01235 epochs=1 batch=16")


def test_a_recipe_without_a_space_is_one_line(polyface: Command, toy: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    assert "recipe toy has no space to search" in polyface("tune", toy(), "--out", tmp_path).mistake
    (tmp_path / "space.yaml").write_text("one.optimisation.lr: {low: 1, high: 0}\n")
    told = polyface("tune", toy(), "--space", tmp_path / "space.yaml", "--out", tmp_path)
    assert "space.yaml: space.one.optimisation.lr: low must be below high" in told.mistake
