"""Networks with more beside what they had: the same tensors, the same answers, and nothing of it can learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.growing import grown

TRUNK = {"name": "timm", "model": "test_resnet", "size": 32, "channels": 1, "pool": "map", "frozen": ["conv1"]}
POOL = {"kind": "pool", "levels": 0, "hidden": [5], "norm": True, "dropout": 0.5}
OLD: dict[str, Any] = {
    "trunk": TRUNK,
    "branches": {"joint": POOL | {"similarity": "cosine"}},
    "parts": {
        "left": POOL | {"rows": {"task": "pose", "classes": [0]}},
        "right": POOL | {"rows": {"task": "pose", "classes": [1]}, "frozen": True},
    },
    "heads": {
        "pose": {"joint": [1, 0]},
        "who": {"merge": "rows", "of": ["left", "right"], "outputs": 3},
        "people": {"joint": [0, 1, 2]},
    },
    "embeddings": {"who": {"reads": ["joint", "left", "right"], "merge": "stochastic", "similarity": "inner"}},
    "cosine": ["people"],
    "normalise": {"mean": [100.0], "std": [50.0]},
}
NEW: dict[str, Any] = {
    "trunk": {},
    "parts": {"mood": {"kind": "column", "reads": ["trunk.stage2"], "blocks": 1, "widths": [3], "convs_per_group": 1}},
    "heads": {"mood": {"mood": [0, 1]}, "hair": {"reads": ["joint", "mood"], "outputs": 2}},
    "embeddings": {"features": {"reads": ["mood"]}},
    "normalise": {"mean": 0.0, "std": 1.0},
}


def test_all_that_it_had_is_as_it_was() -> None:
    """Routed parts, a grouped and a cosine head, embeddings, a trunk of which a module was frozen."""
    torch.manual_seed(0)
    old = networks.build(OLD).eval()
    new = networks.build(grown(OLD, NEW))
    before = old.state_dict()
    assert before.keys() <= new.state_dict().keys()
    new.load_state_dict(new.state_dict() | before)
    images = torch.rand(6, 1, 32, 32) * 255
    for found in (new.eval()(images), new.train()(images)):  # frozen parts are in evaluation mode always
        then = old(images)
        assert all(torch.equal(value, found.outputs[name]) for name, value in then.outputs.items())
        assert all(torch.equal(value, found.embeddings[name]) for name, value in then.embeddings.items())
        assert [*found.outputs] == ["pose", "who", "people", "mood", "hair"]
        assert found.embeddings.keys() == {"joint", "who", "features"}
    learning = {name for name, p in new.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in new.named_parameters() if name not in before}


def test_a_network_that_has_grown_can_grow_again() -> None:
    once = grown(OLD, NEW)
    more = {
        "parts": {"age": NEW["parts"]["mood"] | {"reads": ["trunk.stage2", "mood"]}},
        "heads": {"age": {"age": [0]}},
    }
    twice = networks.build(grown(once, more))
    assert {name.split(".")[1] for name, p in twice.named_parameters() if p.requires_grad} == {"age"}
    assert OLD["trunk"]["frozen"] == ["conv1"]  # no config was changed
    assert "frozen" not in OLD["parts"]["left"]


@pytest.mark.parametrize(
    "key, name", [("heads", "pose"), ("heads", "joint"), ("parts", "joint"), ("parts", "who"), ("embeddings", "people")]
)
def test_no_name_is_given_twice(key: str, name: str) -> None:
    """Also not a task's to a part or an embedding: answers are known by these names."""
    given = {"heads": {"mood": 2}, key: {name: {"reads": ["trunk"], "outputs": 2}}}
    with pytest.raises(PolyfaceError, match=rf"network\.{key}\.{name}: it has a '{name}' already; take another name"):
        grown(OLD, given)
