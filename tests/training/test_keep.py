"""Rows that say which tasks they keep: the same stages as those that take everything else away key by key."""

from __future__ import annotations

from typing import Any

import pytest

from polyface.errors import PolyfaceError
from polyface.training.recipe import Recipe, VariantSpec, load
from polyface.training.specs import StageSpec

from .recognition import STAGE, recipe_of, stage_tree

# The rows of caricature.yaml and dmm-cnn.yaml that keep some tasks, and what their `keep` leaves to be said.
KEPT: dict[tuple[str, str], tuple[list[str], dict[str, Any]]] = {
    ("caricature", "Single-verif"): (["verification"], {"cavi.weighting": {"name": "uniform"}}),
    ("caricature", "Single-visual"): (["visual"], {"cavi.weighting": {"name": "uniform"}}),
    ("caricature", "Single-cari"): (["caricature"], {"cavi.weighting": {"name": "uniform"}}),
    ("caricature:small", "Single-visual"): (["visual"], {"cavi.weighting": {"name": "uniform"}}),
    ("caricature", "Single-verif across"): (["verification"], {"across.weighting": {"name": "uniform"}}),
    ("dmm-cnn", "DMM-FAC"): (["attributes"], {}),
}


def tree_of(stage: StageSpec) -> dict[str, Any]:
    """The settings with the places of tasks, heads and branches, which say where the random start goes."""
    orders = [list(stage.tasks), list(stage.network.heads), list(stage.network.branches)]
    return stage.model_dump() | {"orders": orders}


@pytest.mark.parametrize("name, row", KEPT)
def test_keeping_tasks_equals_taking_the_others_away(name: str, row: str) -> None:
    recipe = load(name)
    kept, changes = KEPT[name, row]
    short = recipe.variants[row].model_copy(update={"keep": kept, "set": changes})
    ours = recipe.model_copy(update={"variants": recipe.variants | {row: short}})
    assert tree_of(ours.variant(row, 1).measured) == tree_of(recipe.variant(row, 1).measured)


def kept(folder: Any, changes: dict[str, Any], *names: str) -> StageSpec:
    recipe = recipe_of(folder, stage_tree(changes))
    recipe.variants["row"] = VariantSpec(stages=["one"], keep=list(names))
    return recipe.variant("row").measured


def test_what_names_a_dropped_task_goes_with_it(tmp_path) -> None:
    stage = kept(
        tmp_path,
        {
            "weighting": {"name": "fixed", "options": {"weights": {"visual": 0.5, "caricature": 2.0}}},
            "centres": {"tasks": ["verification", "visual"], "rate": 0.25},
            "distil": {"teacher": "visual", "tasks": ["caricature"]},
            "stopping": {"main": ["verification"], "window": 2},
        },
        "visual",
        "verification",
    )
    assert list(stage.tasks) == list(stage.network.heads) == list(stage.network.branches) == ["verification", "visual"]
    assert stage.weighting.options == {"weights": {"visual": 0.5}}
    assert stage.extras["centres"].tasks == ["verification", "visual"]
    assert stage.extras["centres"].rate == 0.25
    assert stage.extras["stopping"].main == ["verification"]
    assert "distil" not in stage.extras  # none of its tasks is left
    assert stage.evaluation.main == "verification"


def test_the_first_kept_task_stands_in_for_a_main_task_that_goes(tmp_path) -> None:
    stage = kept(tmp_path, {"stopping": {"main": ["verification"]}}, "visual", "caricature")
    assert stage.main == "visual"
    assert "stopping" not in stage.extras  # no task is left that never stops


def test_a_branch_that_a_kept_task_reads_stays_and_so_does_one_that_none_reads(tmp_path) -> None:
    face = STAGE["network"]["branches"]["visual"]
    network = STAGE["network"] | {
        "branches": {"both": face, "own": face, "nobody": face},
        "heads": {"verification": "both", "visual": "both", "caricature": "own"},
    }
    assert list(kept(tmp_path, {"network": network}, "visual").network.branches) == ["both", "nobody"]


def test_a_task_that_no_stage_has(tmp_path) -> None:
    with pytest.raises(PolyfaceError, match=r"variants.row.keep names 'visal'; did you mean 'visual'\?"):
        kept(tmp_path, {}, "visal")


def test_a_stage_without_the_kept_tasks_stays_as_it_is(tmp_path) -> None:
    """Such as one that another stage starts from."""
    recipe: Recipe = recipe_of(
        tmp_path, stage_tree(), stage_tree({"name": "two", "tasks": {"who": {"kind": "identity"}}, "weighting": None,
                                            "network": STAGE["network"] | {"heads": {"who": "visual"}},
                                            "evaluation": {"main": "who"}}),
        variants={"row": {"stages": ["one", "two"], "keep": ["who"]}},
    )  # fmt: skip
    before, last = recipe.variant("row").stages
    assert before == recipe.stages[0]
    assert last == recipe.stages[1]
