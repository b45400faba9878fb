"""Routed parts in training: by the label where there is one, by the network's own answer elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from polyface.networks import FaceNetwork

from .recognition import first_batch, learner_of, recipe_of, stage_tree, unlabelled


def test_labels_route_in_training_and_answers_in_validation(tmp_path, monkeypatch) -> None:
    part = {"kind": "pool", "levels": 0, "hidden": [8]}
    network: dict[str, Any] = {
        "trunk": {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map"},
        "parts": {
            "all": part,
            "men": part | {"rows": {"task": "gender", "classes": ["male"]}},
            "women": part | {"rows": {"task": "gender", "classes": ["female"]}},
        },
        "heads": {"gender": "all", "verification": {"merge": "rows", "of": ["men", "women"]}},
    }
    tasks = {"gender": {"kind": "classification", "column": "gender"}, "verification": {"kind": "identity"}}
    changes = {"network": network, "tasks": tasks, "weighting": {"name": "uniform"}}
    learner = learner_of(recipe_of(tmp_path, stage_tree(changes)))
    seen: list[Any] = []
    original = FaceNetwork.forward
    monkeypatch.setattr(
        FaceNetwork,
        "forward",
        lambda self, images, routes=None, *nodes: seen.append(routes) or original(self, images, routes, *nodes),
    )
    raw = unlabelled(first_batch(learner), "gender", slice(0, 4))
    learner.training_step(raw, 0).backward()
    (routes,) = seen
    assert routes.keys() == {"gender"}
    assert routes["gender"].tolist() == [-1] * 4 + raw.values["gender"][4:].tolist()
    learner.network.eval()
    with torch.no_grad():
        learner.training_step(raw, 0)
    assert seen[-1] is None


def test_frozen_parameters_are_in_no_group(tmp_path) -> None:
    learner = learner_of(recipe_of(tmp_path, stage_tree()))
    frozen = learner.network.heads["visual"].requires_grad_(False)
    grouped = [p for group in learner.configure_optimizers()["optimizer"].param_groups for p in group["params"]]
    assert not {id(p) for p in frozen.parameters()} & {id(p) for p in grouped}
    assert {id(p) for p in learner.parameters() if p.requires_grad} == {id(p) for p in grouped}
