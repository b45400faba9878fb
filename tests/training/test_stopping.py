"""Task-wise stopping in training: both losses measured alike on fixed faces, every so many steps, and kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from polyface.data.loader import FaceLoader, assemble
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.extras.stopping import Stopping, StoppingSpec
from polyface.training.learner import Learner
from polyface.weighting import TaskStopping

from .recognition import Gone, first_batch, learner_of, stopping_at

DATA = {"tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}}], "batch": 16}
STOPPING = {"main": ["landmarks"], "window": 1, "every": 2, "faces": 30, "threshold": 1e9}


def recipe_of(toy: Any, **stopping: Any) -> recipes.Recipe:
    return recipes.load(toy({"data": DATA, "stopping": STOPPING | stopping, "optimisation": {"epochs": 2}}))


def run(recipe: recipes.Recipe, out: Any, **options: Any) -> dict[str, Any]:
    chosen = stages.RunOptions(**{"accelerator": "cpu", "logger": "none"} | options)
    stages.run(recipe, out, None, chosen)
    record: dict[str, Any] = json.loads((out / "one/history.json").read_text())
    return record


def test_both_losses_are_plain_evaluations_of_fixed_faces(toy) -> None:
    """By hand: the first faces of the loader's fixed order, without augmentation, in evaluation mode."""
    learner = learner_of(recipe_of(toy))
    learner.network.train()
    for part, loader in (("train", learner._train), ("val", learner._validation)):
        assert loader is not None
        rows = np.concatenate([raw.rows.numpy() for raw in loader.fixed(30)])
        assert len(set(rows)) == len(rows) == min(30, len(loader.pool))
        batch = assemble(loader._raw(rows, None), learner.crop, learner.tasks, None)
        with torch.no_grad():
            outputs = learner.network.eval()(batch.images).outputs
        learner.network.train()
        seen = batch.labelled["smile"][:, 0]
        by_hand = torch.nn.functional.cross_entropy(outputs["smile"][seen], batch.targets["smile"][seen])
        found = learner.plain_losses(part, 30)
        assert found["smile"] == pytest.approx(float(by_hand), rel=1e-5)
        assert learner.plain_losses(part, 30) == found
        assert learner.network.training


def test_the_faces_are_a_pure_function_of_the_seed(toy) -> None:
    pool = learner_of(recipe_of(toy))._train.pool

    def rows(seed: int, batch: int = 16, **share: int) -> list[int]:
        loader = FaceLoader(pool, batch, seed=seed, shuffle=True, **share)
        return [row for raw in loader.fixed(30) for row in raw.rows.tolist()]

    assert rows(3) == rows(3, batch=7)
    assert rows(3) != rows(4)
    halves = [rows(3, batch=8, rank=rank, world=2) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(rows(3))
    every = [row for raw in FaceLoader(pool, 16, seed=3, shuffle=True).fixed(10**6) for row in raw.rows.tolist()]
    assert sorted(every) == list(range(len(pool)))


def test_it_looks_every_so_many_steps_and_keeps_what_it_saw(toy, tmp_path, monkeypatch) -> None:
    """Ten steps, a look at every second; the first look fills half the window. What was kept is what decided."""
    given: list[tuple[Any, ...]] = []
    update = TaskStopping.update

    def watch(self: TaskStopping, train: Any, validation: Any, weights: Any) -> Any:
        given.append((dict(train), dict(validation), dict(weights)))
        return update(self, train, validation, weights)

    monkeypatch.setattr(TaskStopping, "update", watch)
    record = run(recipe_of(toy), tmp_path)
    looks = record["stopping"]
    assert [look["step"] for look in looks] == [2, 4, 6, 8, 10]
    assert [set(look["criterion"]) for look in looks] == [set(), *[{"smile"}] * 4]
    for look, (train, validation, weights) in zip(looks, given, strict=True):
        assert look["train"] == pytest.approx(train, rel=1e-5)
        assert look["validation"] == pytest.approx(validation, rel=1e-5)
        assert weights == {"landmarks": 1.0, "smile": 1.0}
    assert record["history"][-1]["criterion"] == looks[-1]["criterion"]
    assert len({look["train"]["smile"] for look in looks}) == 5


def test_a_task_stops_within_an_epoch(toy, tmp_path) -> None:
    """Looks after steps 3 and 6 of five an epoch: the second stops it, after 1.2 epochs."""
    record = run(recipe_of(toy, every=3, threshold=-1e9), tmp_path)
    assert [look["stopped"] for look in record["stopping"]] == [[], ["smile"]]  # and no look after the last task
    assert record["history"][0]["stopped"] == {}
    assert record["history"][1]["stopped"] == {"smile": 1.2}


def test_it_looks_on_for_the_curve_and_changes_nothing(toy, tmp_path) -> None:
    """All have stopped after step 6 of ten: it looks up to step 9, or not; what is learnt is the same to the bit."""
    plain, on = (run(recipe_of(toy, every=3, threshold=-1e9, until=u), tmp_path / str(u)) for u in (0, 9))
    assert [look["step"] for look in plain["stopping"]] == [3, 6]
    assert [(look["step"], look["stopped"]) for look in on["stopping"]] == [(3, []), (6, ["smile"]), (9, [])]
    assert on["stopping"][:2] == plain["stopping"]
    assert {"landmarks", "smile"} <= set(on["stopping"][2]["validation"])
    assert on["history"][-1]["stopped"] == plain["history"][-1]["stopped"] == {"smile": 1.2}
    model = "one/model/model.safetensors"
    assert (tmp_path / "0" / model).read_bytes() == (tmp_path / "9" / model).read_bytes()


def test_a_killed_run_looks_and_stops_as_a_whole_one(toy, tmp_path, monkeypatch) -> None:
    recipe = recipe_of(toy, threshold=0.01)
    whole = run(recipe, tmp_path / "whole")
    for step in (3, 6):
        with monkeypatch.context() as patch:
            patch.setattr(Learner, "training_step", stopping_at(step))
            with pytest.raises(Gone):
                run(recipe, tmp_path / "killed", checkpoint_steps=1)
    resumed = run(recipe, tmp_path / "killed", checkpoint_steps=1)
    assert resumed["stopping"] == whole["stopping"]
    assert resumed["history"] == whole["history"]
    model = "one/model/model.safetensors"
    assert (tmp_path / "killed" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


def test_a_weight_is_that_of_the_last_step_in_which_the_task_was_there(toy) -> None:
    """An absent task's weight of 0 would make its criterion as large as can be."""
    learner = learner_of(recipe_of(toy))
    raw = first_batch(learner)
    learner.training_step(raw, 0)
    raw.labelled["smile"][:] = False
    learner.training_step(raw, 0)
    assert learner.weights == {"landmarks": 1.0, "smile": 1.0}


def test_the_weight_of_a_task_is_the_mean_of_its_terms(toy) -> None:
    stopping = learner_of(recipe_of(toy)).extras["stopping"]
    assert isinstance(stopping, Stopping)
    stopping.task_of = {"a/x": "a", "a/y": "a", "b": "b"}
    stopping.weights = lambda: {"a/x": 1.0, "a/y": 3.0, "b": 0.5}
    assert stopping._task_weights() == {"a": 2.0, "b": 0.5}


def test_a_run_that_is_too_short_to_look_twice_says_so(toy) -> None:
    message = r"stage one: stopping cannot act: .* 275 steps \(stopping.every 25, window 10 \+ 1\).*the run has 10:"
    with pytest.warns(UserWarning, match=message):
        learner_of(recipe_of(toy, every=25, window=10))


def test_settings_of_older_runs_still_load() -> None:
    spec = StoppingSpec.model_validate({"main": ["landmarks"], "window": 3, "threshold": 2.19})
    assert (spec.every, spec.faces, spec.bounded) == (25, 500, False)
