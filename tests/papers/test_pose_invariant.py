"""The recipe of pose-invariant recognition: what its networks are, and its rows of what weights follow."""

from __future__ import annotations

from typing import Any

import pytest

from polyface.networks.network import build
from polyface.papers import paper
from polyface.tasks import build as build_task
from polyface.training.recipe import Recipe, load
from polyface.training.specs import StageSpec
from polyface.training.start import network_config

PEOPLE = [f"person {number}" for number in range(28)]
LIGHTS = [f"light {number}" for number in range(22)]


def stage(name: str, size: str = ":small") -> StageSpec:
    return load(f"pose-invariant{size}").variant(name, 0).measured


def config(chosen: StageSpec) -> dict[str, Any]:
    """The network of a stage that learnt 28 people."""
    known = {"identity": {"people": PEOPLE}, "grouped": {"people": PEOPLE}}
    pose = {"vocabulary": ["c05", "c07", "c09", "c27", "c29"]}
    tasks = {
        name: build_task(name, given | known.get(name, {}) | (pose if given.get("column") == "camera" else {}))
        for name, given in chosen.tasks.items()
    }
    return network_config(chosen, tasks)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load("pose-invariant:small")


def test_a_row_of_routing_is_the_same_network_compared_by_another_embedding(recipe: Recipe) -> None:
    asked = {}
    for way in ("none", "hard", "stochastic"):
        chosen = stage(f"PIE p-CNN {way}")
        asked[way] = chosen.evaluation.protocol["embedding"]
        assert chosen.network == stage("PIE p-CNN stochastic").network
    assert asked == {"none": "identity", "hard": "hard", "stochastic": "stochastic"}
    assert {recipe.variants[f"PIE p-CNN {way}"].model for way in ("none", "hard")} == {"PIE p-CNN stochastic"}


def test_routed_networks_in_the_wild_are_compared_by_what_is_routed(recipe: Recipe) -> None:
    """Whatever they are asked: a row with a protocol of its own names the embedding too."""
    names = [name for name in recipe.variants if name.startswith(("wild p-CNN", "wild scratch p-CNN"))]
    assert len(names) == 9
    for name in names:
        expected = "identity" if name.startswith("wild p-CNN none") else "stochastic"
        assert stage(name).evaluation.protocol["embedding"] == expected


def test_branches_are_of_the_poses_that_their_names_say() -> None:
    """c05 sees the face turned to the picture's right edge, c29 to the left one (reader `pie`)."""
    parts = stage("PIE p-CNN stochastic").network.parts
    cameras = ("c05", "c07", "c09", "c27", "c29")
    groups = {
        name: [cameras[place] for place in part["rows"]["classes"]] for name, part in parts.items() if "rows" in part
    }
    assert groups == {"left": ["c29"], "frontal": ["c07", "c09", "c27"], "right": ["c05"]}


def test_branches_cost_three_layers() -> None:
    plain, routed = (build(config(stage(f"PIE {name}"))) for name in ("m-CNN dynamic", "p-CNN stochastic"))
    numbers = [sum(p.numel() for p in network.parameters()) for network in (plain, routed)]
    assert numbers[1] - numbers[0] == 3 * (160 + 1) * 28
    assert set(routed.embeddings) == {"identity", "features", "hard", "stochastic"}


def test_side_tasks_alone_have_no_identity() -> None:
    for task in ("pose", "illumination", "expression"):
        chosen = stage(f"PIE {task} alone")
        assert list(chosen.tasks) == [task]
        assert chosen.evaluation.main == task
        assert not chosen.network.parts


def test_small_leaves_out_what_nobody_trains_in_minutes(recipe: Recipe) -> None:
    assert not [name for name in recipe.variants if name.startswith("Multi-PIE")]
    assert len([name for name in load("pose-invariant").variants if name.startswith("Multi-PIE")]) == 11
    own = [stage.network.trunk for stage in recipe.stages if stage.name not in ("multipie", "wild", "dlib")]
    assert {trunk["width"] for trunk in own} == {0.5}


def test_published_figures_are_means_of_three_groups() -> None:
    """Of every row of the paper's table rank-1 is the mean over left, frontal and right (spec: to ±0.01)."""
    figures = {(one.row, one.metric): one.value for one in paper("pose-invariant").figures}
    rows = {row for row, metric in figures if metric == "rank-1"}
    assert len(rows) == 8
    for row in rows:
        groups = [figures[row, f"rank-1 {group}"] for group in ("left", "frontal", "right")]
        assert figures[row, "rank-1"] == pytest.approx(sum(groups) / 3, abs=0.011)
