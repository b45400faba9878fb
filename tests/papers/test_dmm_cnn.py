"""The recipe of DMM-CNN: what its rows change; and the rows and pictures of its own page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from polyface.metrics.attributes import evaluate_attributes
from polyface.metrics.landmarks import evaluate_landmarks
from polyface.metrics.result import Row
from polyface.metrics.sections import Curves, Table
from polyface.papers.dmm_cnn.page import rows, sections
from polyface.reproduce import Runs
from polyface.reproduce.jobs import trains
from polyface.schema import ATTRIBUTES
from polyface.training.recipe import Recipe, load
from polyface.training.specs import StageSpec

GROUPS = {"objective": ["Bald", "Male"], "subjective": ["Young"]}
EACH = ("Bald", "Male", "Young")
TRUTH = np.array([[1.0, 1, 1], [-1, 1, -1], [1, -1, 1], [-1, -1, -1]])


def said(scores: Any, names: Iterable[str] = EACH, truth: Any = TRUTH) -> Any:
    values = np.asarray(scores, dtype=float)
    return evaluate_attributes(values, values > 0, truth, list(names))


def made(results: Mapping[str, Mapping[int, Any]], **more: Any) -> Any:
    """Finished runs of these results by variant and seed, each of which trained a network."""
    variant = SimpleNamespace(model=None, average=[], predictor="network")
    stage = SimpleNamespace(
        evaluation=SimpleNamespace(main="attributes"),
        network=SimpleNamespace(heads={"attributes": GROUPS}),
        data=SimpleNamespace(tables=[SimpleNamespace(labels=["face68"])]),
    )
    pairs = [SimpleNamespace(better="DMM-CNN", than="Baseline")] if "DMM-CNN" in results else []
    return SimpleNamespace(
        **{
            "recipe": SimpleNamespace(variants=dict.fromkeys(results, variant), comparisons=pairs),
            "measured": dict.fromkeys(results, variant),
            "out": None,
            "faces": SimpleNamespace(data=None),
            "title": lambda name: name,
            "stage": lambda name: stage,
            "seeds": lambda name: list(results[name]),
            "main": lambda name, part="test": results[name] if part == "test" else {},
            "record": lambda name, seed: {},
            "side": lambda name: {},
            "whole": lambda name, found: found,
            "told": lambda rows, *names: list(rows),
        }
        | more
    )


def rows_by_key(runs: Any, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Row]:
    monkeypatch.setattr("polyface.papers.dmm_cnn.page.Runs", lambda *given: runs)
    return {row.key: row for row in rows(cast("Runs", runs))}


# -------------------------------------------------------------------------------------------------------------- recipe


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load("dmm-cnn:small")


def stage(recipe: Recipe, name: str) -> StageSpec:
    return recipe.variant(name, 0).measured


def test_rows_that_are_compared_see_the_same_faces_as_long_and_as_often(recipe: Recipe) -> None:
    """All rows on CelebA that train a network, but for those that are about just that."""
    named = {"paper network", "Longer", "Any size"}
    own = [name for name, row in recipe.variants.items() if trains(row) and row.stages == ["celeba"]]
    rows = {name: stage(recipe, name) for name in own if not any(name.startswith(one) for one in named)}
    assert len(rows) == 18
    assert len({(one.data.model_dump_json(), str(one.network.trunk), one.network.cached) for one in rows.values()}) == 1
    assert {one.optimisation.epochs for one in rows.values()} == {8}
    times = {name: one.optimisation.validate_times for name, one in rows.items() if one.optimisation.validate_times}
    assert {name: often for name, often in times.items() if often != 5} == {
        "DMM-CNN, 1 pass an epoch": 1,
        "DMM-CNN, 20 passes an epoch": 20,
    }
    far = [
        stage(recipe, name).extras["thresholds"].rate * often
        for name, often in times.items()
        if "FIX" not in name and "SGD" not in name
    ]
    assert far == pytest.approx([0.1] * len(far))  # γ times passes: how far a threshold may go in an epoch


def test_groups_are_exchanged_or_drawn(recipe: Recipe) -> None:
    heads = {
        name: stage(recipe, name).network.heads["attributes"] for name in ("DMM-CNN", "Groups swapped", "Random groups")
    }
    groups = cast("dict[str, list[str]]", heads["DMM-CNN"])
    assert heads["Groups swapped"] == {"objective": groups["subjective"], "subjective": groups["objective"]}
    assert heads["Random groups"] == {name: len(group) for name, group in groups.items()}


def test_rows_where_weights_act_differ_in_weights_and_in_their_best_rate_alone(recipe: Recipe) -> None:
    rows = [stage(recipe, f"{name}, SGD") for name in ("Baseline", "DMM-EQ-FIX", "DMM-DW-FIX", "DMM-CNN")]
    for row in rows:
        asked = row.optimisation
        assert (asked.optimiser, asked.momentum, asked.ema) == ("sgd", 0.9, None)
        assert row.tasks["attributes"]["loss"] == "mse"
    assert len({row.optimisation.model_copy(update={"lr": 1.0}).model_dump_json() for row in rows}) == 1
    assert rows[2].optimisation.lr == rows[3].optimisation.lr  # the same network
    assert rows[3].weighting.options == {"fixed": {"landmarks": 0.5}}  # Eq. 4 as it stands
    assert rows[2].weighting == rows[3].weighting
    assert rows[1].network == rows[3].network
    assert "thresholds" not in rows[1].extras


def test_rows_of_lfwa_go_on_from_the_row_of_the_same_name(recipe: Recipe) -> None:
    """By Kumar's halves, of which one is for training as a whole, and weights and thresholds follow it."""
    tuned = [name for name, row in recipe.variants.items() if row.stages == ["lfwa"] and trains(row) and row.start]
    assert len(tuned) == 9
    for name in tuned:
        row, (start,) = stage(recipe, name), recipe.variants[name].start
        assert name.removeprefix("LFWA ").removesuffix(", all faces") == start
        assert row.network == stage(recipe, start).network
        (table,) = row.data.tables
        assert (table.options, table.splits, row.data.validate_on) == ({"split": "kumar"}, ["train", "val"], "train")


def test_the_printed_network_is_the_same_in_both_sizes(recipe: Recipe) -> None:
    whole = load("dmm-cnn")
    for name in ("Baseline", "DMM-CNN"):
        ours, printed = stage(recipe, f"paper network: {name}"), stage(whole, name)
        assert ours.data == printed.data
        assert ours.tasks == printed.tasks
        assert ours.weighting == printed.weighting
        assert ours.network.model_dump(exclude={"parts", "defaults"}) == printed.network.model_dump(
            exclude={"parts", "defaults"}
        )
        assert not ours.network.parts
        assert (ours.optimisation.optimiser, ours.optimisation.lr, ours.init) == ("sgd", 0.001, [])


# ---------------------------------------------------------------------------------------------------------- thresholds


def test_thresholds_of_the_validation_faces_judge_the_test_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bald rests at 0.4, the highest output of who is not, and is best midway to 2: of four test faces, at 0 three are
    right, at 0.4 all four, at 1.2 three. Young is right at 0, where it stays."""
    labels = {"val": [[1, 1], [-1, 1], [-1, -1], [-1, -1]], "test": [[1, 1], [-1, -1], [1, 1], [-1, 1]]}
    outputs = {"val": [[2, 1], [0.4, 1], [0.3, -1], [-1, -1]], "test": [[1.5, 1], [0.2, -1], [0.45, 1], [-2, 1]]}
    results = {part: said(outputs[part], ["Bald", "Young"], np.array(labels[part], float)) for part in labels}
    runs = made(
        {"Baseline": {0: results["test"]}},
        main=lambda name, part="test": {0: results[part]},
        answers=lambda name, seed, part="test": {"attributes": {"scores": np.array(outputs[part])}},
    )
    found = rows_by_key(runs, monkeypatch)
    assert found["Baseline, AT at rest", "mean accuracy"].mean == 100
    assert found["Baseline, τ best on validation", "mean accuracy"].mean == 87.5
    gain = found["Baseline, AT at rest minus Baseline", "mean accuracy"]
    assert (gain.mean, gain.n) == (12.5, 4)
    assert "τ from the validation faces" in found["Baseline, AT at rest", "mean AP"].note
    assert not any(":" in row for row, _ in found)


def test_without_answers_on_the_validation_faces_there_are_no_such_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not rows_by_key(made({"Baseline": {0: said(TRUTH)}}), monkeypatch)


# ---------------------------------------------------------------------------------------------------------- attributes


def test_groups_and_attributes_are_compared_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Baseline is wrong about Male twice, DMM-CNN about Young once."""
    baseline, whole = TRUTH.copy(), TRUTH.copy()
    baseline[:2, 1] *= -1
    whole[0, 2] *= -1
    runs = made({"Baseline": {0: said(baseline)}, "DMM-CNN": {0: said(whole)}})
    found = rows_by_key(runs, monkeypatch)
    groups = {key: row.mean for key, row in found.items() if key[1].endswith("tive mean accuracy")}
    assert groups == {
        ("Baseline", "objective mean accuracy"): 75,
        ("Baseline", "subjective mean accuracy"): 100,
        ("DMM-CNN", "objective mean accuracy"): 100,
        ("DMM-CNN", "subjective mean accuracy"): 75,
        ("DMM-CNN minus Baseline", "objective mean accuracy"): 25,
        ("DMM-CNN minus Baseline", "subjective mean accuracy"): -25,
    }
    moved = {row: one.mean for (row, metric), one in found.items() if metric == "accuracy"}
    assert moved == {f"DMM-CNN minus Baseline: {name}": gap for name, gap in zip(EACH, (0, 50, -25), strict=True)}
    (table,) = next(one for one in sections(cast("Runs", runs)) if "move" in one.title).blocks
    assert isinstance(table, Table)
    assert [line[:3] for line in table.rows] == [
        ["Young", "subjective", "-25.00"],
        ["Bald", "objective", "0.00"],
        ["Male", "objective", "50.00"],
    ]
    assert table.rows[0][-2:] == ["88.48", "88.98"]  # Table 3's


# ------------------------------------------------------------------------------------------------------------ training


def validations(losses: Mapping[int, float], weight: float) -> list[dict[str, Any]]:
    """At each step Young's loss and threshold, twice as much as the others'."""

    def each(value: float) -> dict[str, float]:
        return {f"attributes/{name}": value * (2 if name == "Young" else 1) for name in ATTRIBUTES} | {"landmarks": 9.0}

    return [
        {"step": step, "losses": each(loss), "weights": each(weight), "thresholds": {"attributes": [loss] * 40}}
        for step, loss in losses.items()
    ]


KEPT = {
    "DMM-CNN": [{0: 1.0, 10: 0.505, 20: 0.5, 30: 0.6}, {0: 1.0, 10: 0.6, 20: 0.5, 30: 0.5}],
    "DMM-EQ-AT": [{0: 1.0, 10: 0.9, 20: 0.8, 30: 0.7}, {0: 3.0, 10: 0.9, 20: 0.8, 30: 0.7, 40: 0.705}],
}


def trained() -> Any:
    pairs = [SimpleNamespace(better="DW", than="DMM-EQ-AT")]
    own, other = (SimpleNamespace(model=name, average=[], predictor="network") for name in (None, "DMM-CNN"))
    variants = {"DMM-CNN": own, "DMM-EQ-AT": own, "DW": other, "Baseline": own}
    one = said(TRUTH)
    return made(
        {name: dict.fromkeys((0, 1), one) for name in variants},
        recipe=SimpleNamespace(variants=variants, comparisons=pairs),
        measured=variants,
        record=lambda name, seed: {"validations": validations(KEPT[name][seed], 0.5)} if name in KEPT else {},
    )


def test_steps_to_within_a_hundredth_of_the_lowest_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.505 is within 1 % of 0.5; compared by the trainings behind a row: 10 and 20 less 30 and 30."""
    found = {
        row: one for (row, metric), one in rows_by_key(trained(), monkeypatch).items() if metric.startswith("steps")
    }
    assert {row: (one.mean, one.unit) for row, one in found.items()} == {
        "DMM-CNN": (15, "steps"),
        "DMM-EQ-AT": (30, "steps"),
        "DW minus DMM-EQ-AT": (-15, "steps"),
    }
    ends = found["DW minus DMM-EQ-AT"].interval
    assert ends == pytest.approx((-15 - 12.7062 * 5, -15 + 12.7062 * 5), abs=1e-2)  # Student's t of one degree


def test_curves_by_iteration_are_means_over_seeds_of_two_attributes_and_of_all() -> None:
    made = {one.title: one.blocks for one in sections(cast("Runs", trained())) if "by iteration" in one.title}
    assert list(made) == [f"{what} by iteration" for what in ("Validation loss", "Weight λ", "Threshold τ")]
    mouth, young, mean = made["Validation loss by iteration"]
    for block, times in ((mouth, 1), (young, 2), (mean, 41 / 40)):
        assert isinstance(block, Curves)
        steps, losses = block.curves["UW"]
        assert list(steps) == [0, 10, 20, 30]  # as far as both seeds go
        np.testing.assert_allclose(losses, np.multiply(times, [2.0, 0.9, 0.8, 0.7]))
        assert list(block.curves) == ["DW", "UW"]


# ----------------------------------------------------------------------------------------------------------- landmarks


def test_the_error_of_landmarks_has_a_row_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All points 2 pixels to the right of a face whose eyes are 20 apart."""
    points = np.zeros((1, 5, 2))
    points[0, :, 0] = (0, 20, 10, 4, 16)
    side = {"landmarks ": {0: evaluate_landmarks(points + [2, 0], points, eyes=([0], [1]))}}
    runs = made({"Baseline": {0: said(TRUTH)}}, side=lambda name: side)
    found = rows_by_key(runs, monkeypatch)
    assert list(found) == [("Baseline", "FLD error")]
    row = found["Baseline", "FLD error"]
    assert row.mean == pytest.approx(10)
    assert "against the points of face68" in row.note
