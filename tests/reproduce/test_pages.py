"""How a reproduction's page shows trainings: losses, weights that move, tasks that stopped, terms by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyface.metrics.sections import Curves, Table, Text
from polyface.report.page import Code, Figures, Section
from polyface.reproduce.pages import followed, recipe_section, training_section, training_sections
from polyface.training.recipe import load

HISTORY: list[dict[str, Any]] = [
    {"epoch": 1, "train": {"verification": 4.0, "visual": 3.0}, "weights": {"verification": 0.3, "visual": 0.7}},
    {
        "epoch": 2,
        "train": {"verification": 2.0, "visual": 1.0},
        "weights": {"verification": 0.6},
        "validation": {"verification": 5.0},
    },
]


def test_a_history_is_followed_by_task() -> None:
    assert followed(HISTORY, "train") == {"verification": ([1, 2], [4, 2]), "visual": ([1, 2], [3, 1])}
    assert followed(HISTORY, "validation") == {"verification": ([2], [5])}
    epochs, values = followed(HISTORY, "weights")["visual"]
    assert epochs == [1, 2]
    np.testing.assert_array_equal(values, [0.7, np.nan])
    assert followed(HISTORY, "thresholds") == followed([], "train") == {}


def curves(section: Section) -> dict[str, Curves]:
    return {block.y_label: block for block in section.blocks if isinstance(block, Curves)}


def test_weights_are_drawn_where_they_change() -> None:
    section = training_section("Training", HISTORY)
    drawn = curves(section)
    assert (section.title, list(drawn)) == ("Training", ["loss", "weight"])  # of validation in one epoch: no curve
    assert list(drawn["weight"].curves) == ["verification", "visual"]
    assert [(each.x_label, each.caption, each.y_log) for each in drawn.values()] == [
        ("epoch", "Loss per task", True),
        ("epoch", "Weight per task", False),
    ]
    for still in ({"verification": 0.3, "visual": 0.7}, {}):
        assert "weight" not in curves(training_section("t", [row | {"weights": still} for row in HISTORY]))
    rounded = [row | {"weights": {"visual": 0.1 + 1e-15 * row["epoch"]}} for row in HISTORY]
    assert "weight" not in curves(training_section("t", rounded))
    within = [row | {"weights": {"attributes/Male": row["epoch"]}} for row in HISTORY]
    assert "weight" not in curves(training_section("t", within))


def test_a_task_that_stopped_is_marked() -> None:
    last = {"epoch": 3, "train": {"verification": 1.0}, "validation": {"verification": 4.0}, "stopped": {"visual": 2}}
    section = training_section("t", [*HISTORY, last])
    drawn = curves(section)
    assert [each.marks for each in drawn.values()] == [{"visual": 2}] * 3
    assert drawn["loss"].caption == "Loss per task (dotted: the task was stopped)"
    assert drawn["validation loss"].curves == {"verification": ([2, 3], [5, 4])}
    np.testing.assert_array_equal(drawn["loss"].curves["visual"][1], [3, 1, np.nan])
    assert section.blocks[-1] == Table(["task", ">stopped at epoch"], [["visual", "2"]])


def test_validations_and_looks_are_drawn_by_step() -> None:
    """What a run kept by step takes the place of what it kept by epoch."""
    terms = {"attributes/Male": 0.5, "attributes/Bald": 1.5}
    rows = [{"step": step, "weights": terms, "thresholds": {"attributes": [0.1, step / 10]}} for step in (0, 5, 10)]
    looks = [{"step": 5, "criterion": {}}, {"step": 10, "criterion": {"visual": 0.5}}]
    looks.append({"step": 15, "criterion": {"visual": 1.5}})
    _, stopping, own = training_sections("x", HISTORY, rows, looks)
    assert (stopping.title, own.title) == ("Task-wise stopping: x", "Weights and thresholds: x")
    (curves,) = stopping.blocks
    assert isinstance(curves, Curves)
    assert curves.curves == {"visual": ([10.0, 15.0], [0.5, 1.5])}
    assert own.blocks[0] == Text("A line a term of the task, a column a validation.")
    assert len(training_sections("x", HISTORY, [], looks[:1])) == 1  # the window was never full


def test_a_recipe_is_shown_below_its_command() -> None:
    command, text = recipe_section(load("synthetic"), "polyface train synthetic").blocks
    assert command == Code("polyface train synthetic")
    assert recipe_section(load("synthetic")).blocks == [text]


def test_terms_of_a_task_and_thresholds_have_pictures_of_their_own() -> None:
    assert [section.title for section in training_sections("x", HISTORY)] == ["Training: x"]
    terms = {"attributes/Male": 0.5, "attributes/Bald": 1.5, "landmarks": 1.0}
    history = [row | {"weights": terms, "thresholds": {"attributes": [0.1, 0.2 * row["epoch"]]}} for row in HISTORY]
    training, own = training_sections("x", history)
    assert (training.title, own.title) == ("Training: x", "Weights and thresholds: x")
    _, figures = own.blocks
    assert isinstance(figures, Figures)
    assert [figure.alt for figure in figures.figures] == [
        "weight of each term over training",
        "threshold of each term over training",
    ]
