"""A search for settings: what a space may be, trials that end, are pruned, fail or are killed, and studies that go on.

Trials whose training is not the point are processes that only tell the study a figure.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.models.predict import predict
from polyface.reproduce import tune
from polyface.reproduce.jobs import started
from polyface.training import stages
from polyface.training.recipe import Recipe, load
from polyface.training.stages import RunOptions

optuna = pytest.importorskip("optuna")
RECIPE = """
name: searched
seed: 5
stages:
  - name: one
    data:
      tables: [{name: synthetic, options: {n: 200, size: 40}}]
      boxes: {source: table}
      crop: {size: 40, channels: 1, scale: 1.2}
      batch: 32
    network: {trunk: {name: tcdcn}}
    tasks:
      landmarks: {kind: landmarks, points: 5, loss: l1}
      smile: {kind: classification, column: smile}
    optimisation: {epochs: 3, lr: 0.001, precision: 32-true}
space:
  one.optimisation.lr: {low: 0.0001, high: 0.01, log: true}
  one.optimisation.epochs: {low: 2, high: 3}
  one.network.trunk.activation: {choices: [abs_tanh, relu]}
  one.optimisation.milestones: {choices: [[0.5], [0.25, 0.75]]}
"""
OPTIONS = RunOptions(accelerator="cpu", logger="none")


def recipe(folder: Path, text: str = RECIPE) -> Recipe:
    path = folder / "searched.yaml"
    path.write_text(text)
    return load(path)


def test_a_row_is_searched_from_what_another_row_trained(tmp_path: Path) -> None:
    """The earlier row is trained once, and its trunk is in the trial's network."""
    head, stage = RECIPE.split("space:")[0].split("  - name: one")
    one = f"  - &one\n    name: one{stage}"
    two = "  - {<<: *one, name: two, init: {source: one, parts: [trunk]}}\n"
    frozen = "{stages: [two], start: first, set: {two.network.trunk.frozen: true}}"
    variants = f"variants: {{first: {{stages: [one], seeds: 1}}, second: {frozen}}}\n"
    space = "space: {two.optimisation.lr: {choices: [0.001]}}\n"
    chosen = recipe(tmp_path, head + one + two + variants + space)
    made = set()
    for _ in range(2):
        earlier = started(chosen, "second", None, tmp_path / "runs", OPTIONS, seed=2)  # first has one seed, 0
        assert earlier == {"one": tmp_path / "runs/first/seed0/one/model"}
        made.add((earlier["one"] / "polyface.json").stat().st_mtime_ns)
    assert len(made) == 1
    (trial,) = tune.tune(chosen.variant("second"), None, tmp_path / "study", OPTIONS, trials=1, earlier=earlier)
    assert trial.state == "complete", trial.why
    (grown,) = (tmp_path / "study/trials").glob("*/two/model")
    trunks = [load_bundle(place).network.trunk.state_dict() for place in (earlier["one"], grown)]
    assert all(torch.equal(trunks[0][key], trunks[1][key]) for key in trunks[0])


def test_a_row_that_nothing_trains_is_started_from(tmp_path: Path) -> None:
    """A network as its `init` leaves it is made before the rows that begin with it, once."""
    head, stage = RECIPE.split("space:")[0].split("  - name: one")
    one = f"  - &one\n    name: one{stage}"
    two = "  - {<<: *one, name: two, init: {source: one, parts: [trunk]}}\n"
    rows = "{first: {stages: [one], predictor: start, seeds: 1}, second: {stages: [two], start: first}}"
    chosen = recipe(tmp_path, head + one + two + f"variants: {rows}\n")
    made = set()
    for _ in range(2):
        earlier = started(chosen, "second", None, tmp_path / "runs", OPTIONS)
        made.add((earlier["one"] / "polyface.json").stat().st_mtime_ns)
    assert len(made) == 1
    assert load_bundle(earlier["one"]).tasks.keys() == {"landmarks", "smile"}


# ------------------------------------------------------------------------------------------------ the space


@pytest.mark.parametrize(
    "space, line",
    [
        ("{one.optimisation.lr: {low: 1, high: 0.1}}", "low must be below high"),
        ("{one.optimisation.lr: {low: 0, high: 0.1, log: true}}", "low must be below high, and above 0 where log"),
        ("{one.optimisation.lr: {choices: []}}", "at least 1 item"),
        ("{one.optimisation.lr: {low: 0.1, hihg: 1}}", "space.one.optimisation.lr"),
        ("{one.optimisation.lr: [0.1, 1]}", r"space\.one\.optimisation\.lr.*: expected {low: …, high: …} or {choices"),
    ],
)
def test_a_space_that_cannot_be_is_one_line(tmp_path: Path, space: str, line: str) -> None:
    with pytest.raises(PolyfaceError, match=line):
        recipe(tmp_path, RECIPE.split("space:")[0] + f"space: {space}\n")


@pytest.mark.parametrize(
    "space, line",
    [
        ({}, "recipe searched has no space to search"),
        ({"two.optimisation.lr": {"choices": [1]}}, "^space: no stage or key 'two'"),
        ({"one.optimisation.learning": {"choices": [1]}}, "unknown key"),
        ({"one.optimisation.epochs": {"low": -1, "high": 3}}, "greater than or equal to 1"),
        ({"one.data.validate_on": {"choices": ["val", "test"]}}, "no setting is chosen on test faces"),
    ],
)
def test_what_no_trial_could_be_trained_with_is_told_at_once(tmp_path: Path, space: Any, line: str) -> None:
    chosen = recipe(tmp_path).searching(space, "space.yaml")
    with pytest.raises(PolyfaceError, match=line):
        tune.tune(chosen, None, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out" / "study.db").exists()


def test_a_trials_settings_are_those_of_its_recipe(tmp_path: Path) -> None:
    settings = {"one.optimisation.lr": 0.002, "one.optimisation.milestones": [0.25, 0.75]}
    own = tune.with_settings(recipe(tmp_path), settings)
    assert own.measured.optimisation.lr == 0.002
    assert own.measured.optimisation.milestones == [0.25, 0.75]
    assert own.seed == 5


def test_without_optuna_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PolyfaceError, match=r"polyface tune needs optuna, `pip install polyface\[tune\]`"):
        tune.tune(recipe(tmp_path), None, tmp_path, OPTIONS)


# ------------------------------------------------------------------------------------------------ trials in processes


def score(settings: dict[str, Any]) -> float:
    """Best at a rate of 0.001."""
    return -abs(float(np.log10(settings["one.optimisation.lr"])) + 3)


def telling(then: Callable[[int, Path], None]) -> Callable[..., None]:
    """A trial that does something, then tells its score."""

    def work(number: int, key: int, settings: dict[str, Any], recipe: Recipe, data: Any, out: Path, *_: Any) -> None:
        then(number, out)
        tune._study(out, recipe.seed).tell(number, score(settings))

    return work


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, Path], None]], None]:
    """Let trials be processes of this one, which do what they are given."""

    def be(then: Callable[[int, Path], None]) -> None:
        monkeypatch.setattr(tune, "_work", telling(then))
        monkeypatch.setattr(tune, "get_context", lambda _: multiprocessing.get_context("fork"))
        monkeypatch.setattr(tune, "_LOOK", 0.01)

    return be


def test_a_study_has_so_many_trials_and_goes_on_where_it_was(tmp_path: Path, trials: Any) -> None:
    trials(lambda number, out: None)
    chosen, out = recipe(tmp_path), tmp_path / "out"
    first = tune.tune(chosen, None, out, OPTIONS, trials=3, workers=2)
    assert sorted(one.number for one in first) == [0, 1, 2]
    assert [one.value for one in first] == sorted((score(dict(one.settings)) for one in first), reverse=True)
    assert all(one.settings["one.optimisation.milestones"] in ([0.5], [0.25, 0.75]) for one in first)
    again = tune.tune(chosen, None, out, OPTIONS, trials=5)
    assert sorted(one.number for one in again) == [0, 1, 2, 3, 4]
    assert {one.number: one for one in again} | {one.number: one for one in first} == {one.number: one for one in again}
    assert tune.tune(chosen, None, out, OPTIONS, trials=5) == again  # nothing is left to do


def test_a_trial_that_is_killed_is_tried_again_and_the_study_goes_on(tmp_path: Path, trials: Any) -> None:
    def once(number: int, out: Path) -> None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    trials(once)
    found = tune.tune(recipe(tmp_path), None, tmp_path / "out", OPTIONS, trials=4)
    assert [one.state for one in found] == ["complete"] * 4
    assert sorted(one.number for one in found) == [0, 2, 3, 4]
    kept = tune._study(tmp_path / "out", 5).get_trials()
    assert (kept[1].state.name, kept[1].params) == ("FAIL", kept[2].params)  # the next one has its settings


def test_a_trial_that_is_killed_every_time_counts_as_failed(tmp_path: Path, trials: Any) -> None:
    def killed(number: int, out: Path) -> None:
        if number < 3:
            os.kill(os.getpid(), signal.SIGKILL)

    trials(killed)
    found = tune.tune(recipe(tmp_path), None, tmp_path / "out", OPTIONS, trials=2)
    assert [(one.number, one.state) for one in found] == [(3, "complete"), (2, "fail")]
    assert found[1].why == "its process was killed (exit status -9)"


def test_what_a_command_left_that_is_no_more_is_tried_again(tmp_path: Path, trials: Any) -> None:
    trials(lambda number, out: None)
    chosen, out = recipe(tmp_path), tmp_path / "out"
    left = tune._study(out, 5).ask(tune._distributions(chosen))  # and no process is at work on it
    found = tune.tune(chosen, None, out, OPTIONS, trials=2)
    assert [one.state for one in found] == ["complete"] * 2
    assert tune._settings(left.params) in [one.settings for one in found]


def test_a_command_that_is_stopped_stops_its_trials(tmp_path: Path, trials: Any) -> None:
    begun = tmp_path / "begun"
    trials(lambda number, out: (begun.touch(), time.sleep(60)))

    def stop(*_: Any) -> None:
        if begun.exists():  # a forked process that has not begun yet may lose the signal
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        tune.tune(recipe(tmp_path), None, tmp_path / "out", OPTIONS, trials=2, progress=stop)
    assert time.monotonic() - began < 30
    assert len(tune._in(tune._study(tmp_path / "out", 5), "RUNNING")) == 1  # for the next command


# ------------------------------------------------------------------------------------------------ one trial


def work(chosen: Recipe, out: Path, study: Any, settings: dict[str, Any]) -> Any:
    """A trial in this process; what the study says of it."""
    study.enqueue_trial(settings)
    trial = study.ask(tune._distributions(chosen))
    options = replace(OPTIONS, threads=1)
    tune._work(trial.number, trial._trial_id, tune._settings(trial.params), chosen, None, out, options, None)
    return study.get_trials()[trial.number]


SETTINGS = {"one.optimisation.epochs": 3, "one.optimisation.lr": 0.001}


def test_a_trial_is_judged_by_the_mean_of_the_tasks_on_validation_faces(tmp_path: Path) -> None:
    chosen, out = recipe(tmp_path), tmp_path / "out"
    found = work(chosen, out, tune._study(out, 5), SETTINGS)
    assert found.state.name == "COMPLETE", found.user_attrs
    assert sorted(found.intermediate_values) == [1, 2]  # an epoch is told once the next one has begun
    (model,) = (out / "trials").glob("*/one/model")
    bundle, own = load_bundle(model), tune.with_settings(chosen, tune._settings(found.params))
    pool = stages.pool_of(own.measured, None, bundle.tasks, "val")
    assert set(pool.table.words("split")) == {"val"}
    answers = predict(bundle.network, bundle.tasks, pool)
    error = bundle.tasks["landmarks"].evaluate(answers["landmarks"], pool.table)
    accuracy = bundle.tasks["smile"].evaluate(answers["smile"], pool.table)
    figures = [-error.figure(error.metrics[0]), accuracy.figure(accuracy.metrics[0])]
    assert found.value == pytest.approx(np.mean(figures))


def test_a_trial_that_does_worse_than_others_is_pruned_between_epochs(tmp_path: Path) -> None:
    chosen, out = recipe(tmp_path), tmp_path / "out"
    study = tune._study(out, 5)
    kinds = tune._distributions(chosen)
    params = {key: one.low if hasattr(one, "low") else one.choices[0] for key, one in kinds.items()}
    for _ in range(5):  # as many as the median needs, each without any loss
        given = {"params": params, "distributions": kinds, "intermediate_values": {1: 0.0, 2: 0.0}}
        study.add_trial(optuna.trial.create_trial(value=100, **given))
    found = work(chosen, out, study, SETTINGS)
    assert found.state.name == "PRUNED"
    assert not list((out / "trials").glob("*/one/model"))


def test_a_trial_that_cannot_be_trained_fails_with_its_reason(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, RECIPE.replace("name: synthetic", "name: no-such-table").replace("n: 200, size: 40", ""))
    out = tmp_path / "out"
    found = work(chosen, out, tune._study(out, 5), SETTINGS)
    assert found.state.name == "FAIL"
    assert "no-such-table" in found.user_attrs["error"]


@pytest.mark.slow
def test_a_search_with_processes_of_its_own(tmp_path: Path) -> None:
    """Two trials at a time, of which one is killed while it trains."""
    chosen, out = recipe(tmp_path), tmp_path / "out"
    struck: list[int] = []

    def strike(*_: Any) -> None:
        for process in multiprocessing.active_children():
            if not struck and process.name == "trial 0" and list((out / "trials").glob("*/one/last.ckpt")):
                struck.append(process.pid or 0)
                os.kill(struck[0], signal.SIGKILL)

    options = replace(OPTIONS, checkpoint_steps=1)
    found = tune.tune(chosen, None, out, options, trials=2, workers=2, progress=strike)
    assert struck
    assert [one.state for one in found] == ["complete"] * 2
