"""Validations that weights and thresholds follow: when, on which network, whether often enough, and what is kept."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.files import rounded
from polyface.models.bundle import load_bundle
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.following import Period
from polyface.training.learner import Learner
from polyface.training.specs import OptimisationSpec
from polyface.weighting import ValidationTrend

from .recognition import Gone, learner_of, stopping_at
from .test_attribute_training import ASKED, changes, loaded, table

__all__ = ["table"]


def due(batches: int, **settings: Any) -> list[int]:
    period = Period(OptimisationSpec(**settings), batches)
    return [done for done in range(1, settings["epochs"] * batches + 1) if period.due(done)]


def test_periods_by_hand() -> None:
    assert due(5, epochs=2, validate_steps=3) == [3, 6, 9]
    assert due(10, epochs=2, validate_steps=3, accumulate=2) == [6, 12, 18]
    assert due(5, epochs=2, validate_times=1) == [5, 10]
    assert due(5, epochs=2, validate_times=2) == [3, 5, 8, 10]
    assert due(5, epochs=3, validate_every=2) == [10, 15]
    assert Period(OptimisationSpec(epochs=3, accumulate=4), 5).steps == 4  # 15 batches


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_so_many_times_an_epoch_ends_with_the_epoch(batches: int, times: int, epochs: int) -> None:
    found = due(batches, epochs=epochs, validate_times=times)
    assert len(found) == epochs * min(times, batches)
    assert found[-1] == epochs * batches


def test_a_period_is_given_once(toy) -> None:
    with pytest.raises(PolyfaceError, match="optimisation: validate_steps and validate_times: give one of them"):
        recipes.load(toy({"optimisation": {"validate_steps": 2, "validate_times": 2}}))


@pytest.mark.parametrize(
    "others, named",
    [
        ({}, "thresholds and weighting dmm"),
        ({"weighting": {"name": "fixed"}}, "thresholds"),
        ({"thresholds": None}, "weighting dmm"),
    ],
)
def test_fewer_than_two_validations_are_an_error_that_names_both(
    toy, table, others: dict[str, Any], named: str
) -> None:
    """Fifteen steps: one validation, before them, at P = 16, and two at P = 15."""
    optimisation = {"epochs": 3, "validate_steps": 16}
    for name in named.split(" and "):
        with pytest.raises(PolyfaceError, match=rf"stage one: .*{name}.* every 16 steps .*the run has 15 steps"):
            learner_of(loaded(toy, changes(table, optimisation=optimisation) | others))
    learner_of(loaded(toy, changes(table, optimisation=optimisation | {"validate_steps": 15}) | others))


def test_what_follows_nothing_may_have_any_period(toy, table) -> None:
    given = changes(table, optimisation={"epochs": 1, "validate_steps": 500}, thresholds=None)
    learner_of(loaded(toy, given | {"weighting": {"name": "fixed"}}))


@pytest.mark.parametrize("name", ["dmm-cnn", "dmm-cnn:small"])
def test_the_stages_of_the_paper_that_weights_follow_have_validations_enough(name: str) -> None:
    """Half of LFWA's 2,999 faces are 23 batches of 64: with CelebA's P of 500 steps its weights never moved."""
    recipe = recipes.load(name)
    for variant, chosen in recipe.variants.items():
        if chosen.stages == ["lfwa"]:
            stage = recipe.variant(variant).measured
            found = due(23, **stage.optimisation.model_dump())
            if stage.weighting.name == "dmm":
                assert len(found) == 2 * stage.optimisation.epochs == 30, variant


@pytest.mark.parametrize("name", ["tcdcn", "dmm-cnn", "dmm-cnn:small", "caricature", "caricature:small", "synthetic"])
def test_shipped_recipes_leave_the_precision_to_the_device(name: str) -> None:
    """But for rows as printed, by plain SGD, which are in float32."""
    recipe = recipes.load(name)
    free = [variant for variant in recipe.variants if ", SGD" not in variant]
    stages_of = [recipe.stages, *(recipe.variant(variant).stages for variant in free)]
    assert {stage.with_tasks.optimisation.precision for each in stages_of for stage in each} == {"auto"}


def fitted(recipe: recipes.Recipe, out: Path, **options: Any) -> dict[str, Any]:
    stages.run(recipe, out, None, stages.RunOptions(**{"accelerator": "cpu", "logger": "none"} | options))
    return dict(json.loads((out / "one/history.json").read_text()))


def test_every_validation_leaves_a_record(toy, table, tmp_path, monkeypatch) -> None:
    """Before the first step and after every second of fifteen: mean losses, the weights and thresholds that follow from
    them, and the mistakes that moved these. Eq. 4 and Eq. 6 hold from one record to the next; a resumed run has the
    same records."""
    recipe = loaded(toy, changes(table))
    whole = fitted(recipe, tmp_path / "whole")
    rows = whole["validations"]
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8, 10, 12, 14]
    names = ["landmarks", *(f"smile/{name}" for name in ASKED)]
    assert set(rows[0]["losses"]) == set(names) - {"smile/Young"}
    assert rows[0]["weights"] == dict.fromkeys(names, 1.0) | {"landmarks": 0.5}
    faces = 20  # of the validation set, two thirds of them with a label for Smiling
    for before, row in itertools.pairwise(rows):
        for name in names[1:4]:
            trend = abs(row["losses"][name] - before["losses"][name]) / before["losses"][name]
            assert row["weights"][name] == pytest.approx(trend, rel=1e-3, abs=1e-5)
        epoch = (row["step"] - 1) // 5 + 1
        for place in (0, 1, 3):  # Eyeglasses, Male and the one without labels
            moved = row["thresholds"]["smile"][place] - before["thresholds"]["smile"][place]
            wrong = row["false positives"]["smile"][place] - row["false negatives"]["smile"][place]
            assert moved == pytest.approx(0.1 * epoch * wrong / faces, abs=1e-5)
    assert any(sum(row["false positives"]["smile"]) for row in rows)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stopping_at(5))
        with pytest.raises(Gone):
            fitted(recipe, tmp_path / "killed", checkpoint_steps=1)
    assert fitted(recipe, tmp_path / "killed", checkpoint_steps=1)["validations"] == rows
    assert [row["step"] for row in whole["history"]] == [5, 10, 15]


@pytest.mark.parametrize("follow", ["network", "mean"])
def test_weights_and_thresholds_look_at_the_network_itself_unless_asked(
    toy, table, tmp_path, monkeypatch, follow: str
) -> None:
    """What is selected by is the running mean's, whose losses are not the network's."""
    given: list[float] = []
    followed = ValidationTrend.on_validation

    def watch(self: Any, losses: Any, counts: Any) -> None:
        given.append(losses["landmarks"])
        followed(self, losses, counts)

    monkeypatch.setattr(ValidationTrend, "on_validation", watch)
    optimisation = {"optimiser": "adamw", "lr": 0.01, "epochs": 2, "ema": 0.999, "follow": follow}
    record = fitted(loaded(toy, changes(table, optimisation=optimisation)), tmp_path)
    averaged = [row["validation"]["landmarks"] for row in record["history"]]
    assert len(given) == 3  # before the first step and after both epochs
    assert [a == b for a, b in zip(given[1:], averaged, strict=True)] == [follow == "mean"] * 2


def test_without_followers_there_is_no_validation_but_that_of_epochs(toy, tmp_path, monkeypatch) -> None:
    calls: list[int] = []
    original = Learner._totals

    def watch(self: Learner, *given: Any, **more: Any) -> Any:
        calls.append(self.batches_done)
        return original(self, *given, **more)

    monkeypatch.setattr(Learner, "_totals", watch)
    data = {"tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}}], "batch": 16}
    record = fitted(recipes.load(toy({"data": data, "optimisation": {"epochs": 2, "ema": 0.9}})), tmp_path)
    assert calls == [5, 10]
    assert record["validations"] == []


def test_thresholds_found_are_those_of_the_bundle(toy, table, tmp_path) -> None:
    record = fitted(loaded(toy, changes(table)), tmp_path)
    task = load_bundle(tmp_path / "one/model", quiet=True).tasks["smile"]
    assert record["validations"][-1]["thresholds"]["smile"] == rounded(task.thresholds)  # type: ignore[attr-defined]


def test_numbers_are_rounded_to_six_digits() -> None:
    found = rounded({"a": [1.23456789, 2], "b": {"c": 1e-9 / 3}, "d": "x", "e": None})
    assert found == {"a": [1.23457, 2], "b": {"c": 3.33333e-10}, "d": "x", "e": None}
