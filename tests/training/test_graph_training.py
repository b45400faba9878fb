"""Recipes whose networks have parts: how they are read, and that what is frozen is bit-identical after training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.recipe import StageSpec
from polyface.training.start import build_network, network_config

PART = {"kind": "pool", "hidden": [8], "norm": True, "dropout": 0.5}
NETWORK = {
    "trunk": {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map", "frozen": True},
    "parts": {"old": PART | {"frozen": True}, "new": PART | {"reads": ["trunk.stage2"]}},
    "heads": {"landmarks": "new", "smile": {"reads": ["old"], "frozen": True}},
    "normalise": {"mean": [120.0], "std": [60.0]},
}
POSE = {"kind": "classification", "column": "pose"}


@pytest.fixture
def stage(toy) -> Callable[..., StageSpec]:
    """``stage(network, tasks)``: that of a small recipe."""

    def make(network: dict[str, Any], tasks: dict[str, Any] | None = None) -> StageSpec:
        changes = {"network": {"trunk": {"size": 40, "channels": 1}} | network, "tasks": tasks or {}}
        return recipes.load(toy(changes)).stages[0]

    return make


def test_what_is_frozen_is_bit_identical_after_training(toy, tmp_path: Path) -> None:
    """Batch norm and dropout in it, weight decay and a running mean of the weights over it."""
    optimisation = {"optimiser": "adamw", "weight_decay": 0.1, "epochs": 2, "ema": 0.9}
    tables = [{"name": "synthetic", "options": {"n": 60, "size": 48, "seed": 1}}]
    recipe = recipes.load(toy({"network": NETWORK, "optimisation": optimisation, "data": {"tables": tables}}))
    (spec,) = recipe.stages
    options = stages.RunOptions(accelerator="cpu", logger="none")
    result = stages.run(recipe, tmp_path, None, options)["one"]
    start = build_network(spec, stages.stage_tasks(spec, every=True), recipe.seed, {}).state_dict()
    trained = load_bundle(result.bundle).network.state_dict()
    changed = {name for name in start if not torch.equal(start[name], trained[name])}
    assert changed == {name for name in start if name.startswith(("branches.new.", "heads.landmarks."))}


def test_a_recipe_names_parts_classes_and_what_heads_read(stage) -> None:
    network = {
        "trunk": {"name": "tcdcn"},
        "parts": {
            "a": {"reads": ["trunk.conv4"], "rows": {"task": "pose", "classes": ["left profile", "left", "frontal"]}},
            "b": {"reads": ["trunk.conv4"], "rows": {"task": "pose", "classes": [3, "right profile"]}},
        },
        "heads": {"pose": "trunk", "smile": {"merge": "rows", "of": ["a", "b"]}, "landmarks": "a"},
        "embeddings": {"smile": {"reads": ["a", "b"], "similarity": "euclidean"}, "features": {"reads": ["trunk"]}},
    }
    spec = stage(network, {"pose": POSE})
    config = network_config(spec, tasks := stages.stage_tasks(spec))
    assert tasks["pose"].vocabulary[:3] == ["left profile", "left", "frontal"]  # type: ignore[attr-defined]
    assert [part["rows"]["classes"] for part in config["parts"].values()] == [[0, 1, 2], [3, 4]]
    assert config["heads"] == {
        "landmarks": {"a": list(range(10))},
        "smile": {"merge": "rows", "of": ["a", "b"], "outputs": 2},
        "pose": 5,
    }
    built = build_network(spec, tasks, 0, {})
    assert built.routed_by == ["pose"]
    assert built.embedding_of("smile") == "smile"
    assert built.own_embeddings == ["features"]


def test_the_networks_in_the_documentation_are_built(stage) -> None:
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "stochastic" in block]
    graph, logits = (yaml.safe_load(block)["network"] for block in blocks)
    people = {"kind": "identity", "people": ["anna", "bert"]}
    graph["trunk"] |= {"size": 40, "channels": 1}
    graph["normalise"] = {"mean": 0, "std": 1}
    logits["trunk"]["size"] = 40
    groups = POSE | {"vocabulary": ["left", "frontal", "right"]}
    dims = []
    for network, pose, more in ((graph, POSE, {}), (logits, groups, {"identity_by_pose": people})):
        network["heads"]["landmarks"] = "joint"
        spec = stage(network, {"pose": pose, "identity": people} | more)
        built = build_network(spec, stages.stage_tasks(spec), 0, {})
        assert built.routed_by == ["pose"]
        dims.append({name: embedding.dim for name, embedding in built.embeddings.items()})
    assert dims == [{"identity": 256, "features": 128}, {"identity": 2, "features": 160, "hard": 4, "stochastic": 4}]


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"parts": {"a": {"rows": {"task": "pose", "classes": ["lift"]}}}},
            "parts.a.rows.classes names 'lift'.*'left'",
        ),
        ({"parts": {"a": {"rows": {"task": "landmarks", "classes": ["left"]}}}}, "'left', no class of landmarks"),
        (
            {"parts": {"a": {"rows": {"task": "age", "classes": ["57+"]}}}},
            "network.parts.a.rows.task is 'age', whose outputs are not its classes: choose another task",
        ),
        ({"parts": {"a": {"rows": {"task": "pos", "classes": ["left"]}}}}, "parts.a.rows.task names 'pos'.*'pose'"),
        ({"parts": {"a": {"rows": "left"}}}, "network.parts.a.rows is 'left'"),
        ({"embeddings": {"a/b": {"reads": ["a"]}}}, "network.embeddings.a/b.*nothing can be called 'a/b'"),
        ({"heads": {"smile": {"a": 3}}}, "network.heads.smile.a is 3; expected a list of the task's terms"),
        ({"heads": {"smile": "trunk.conv4"}}, "network.heads.smile names 'trunk.conv4'"),
    ],
)
def test_slips_in_a_recipe_are_named_by_their_key(stage, changes: dict[str, Any], message: str) -> None:
    network = {"trunk": {"name": "tcdcn"}, "parts": {"a": {"reads": ["trunk.conv4"]}}, "heads": {"smile": "a"}}
    spec = stage(network | changes, {"pose": POSE, "age": {"kind": "age"}})
    with pytest.raises(PolyfaceError, match=message):
        build_network(spec, stages.stage_tasks(spec), 0, {})
