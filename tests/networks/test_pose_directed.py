"""The networks of Yin & Liu 2018 in both wirings: their sizes, and what side tasks and pose groups do to gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyface import networks, weighting
from polyface.networks import FaceNetwork
from polyface.networks.routing import Join, Rows, Walk
from polyface.weighting import Context

SIDES = {"pose": 13, "illumination": 19, "expression": 6}
GROUPS = {"left": list(range(9, 13)), "frontal": list(range(4, 9)), "right": list(range(4))}
TASKS = ("identity", "identity_by_pose", *SIDES)


def shared_pool5(people: int = 200, groups: bool = False, **trunk: Any) -> dict[str, Any]:
    """All fully connected layers read x. With groups each has its own, and the merged rows are one identity task."""
    routed = {name: {"kind": "linear", "width": people, "rows": rows(own)} for name, own in GROUPS.items()}
    config: dict[str, Any] = {
        "trunk": {"name": "casia-net", **trunk},
        "parts": {"joint": {"kind": "linear", "width": people}} | (routed if groups else {}),
        "heads": {"identity": {"reads": ["joint"], "outputs": people, "layer": "none"}, **SIDES},
    }
    if groups:
        config["heads"]["identity_by_pose"] = merged(people) | {"layer": "none"}
        both = {"reads": ["joint", *GROUPS]}
        config["embeddings"] = {
            "features": {"reads": ["trunk"]},
            "hard": both | {"merge": "hard"},
            "identity": {"reads": ["joint"]},
            "stochastic": both | {"merge": "stochastic", "similarity": "inner"},
        }
    return config


def split_pool4(people: int = 200, groups: bool = False, width: float = 1.0, **trunk: Any) -> dict[str, Any]:
    """Side tasks have their own last block from pool4; with groups each of these too, and one layer after the merge."""
    block = {"kind": "casia", "width": width}
    routed = {name: block | {"rows": rows(own)} for name, own in GROUPS.items()}
    config: dict[str, Any] = {
        "trunk": {"name": "casia-net", "end": "pool4", "width": width, **trunk},
        "parts": {"joint": block, "sides": block} | (routed if groups else {}),
        "heads": {
            "identity": {"reads": ["joint"], "outputs": people},
            **{name: {"reads": ["sides"], "outputs": outputs} for name, outputs in SIDES.items()},
        },
    }
    if groups:
        config["heads"]["identity_by_pose"] = merged(people)
    return config


def rows(classes: list[int]) -> dict[str, Any]:
    return {"task": "pose", "classes": classes}


def merged(people: int) -> dict[str, Any]:
    return {"merge": "rows", "of": list(GROUPS), "outputs": people}


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def side_weights(features: int | list[int]) -> nn.Module:
    group = {"tasks": list(SIDES), "budget": 0.1}
    return weighting.build("yin-liu", ["identity", *SIDES], features=features, groups=[group])


# ------------------------------------------------------------------------------------------------ sizes


def test_the_multi_task_network_in_the_papers_wiring() -> None:
    """1,833,009 with the layer of the dynamic weights: 320 → 3 and its biases, 963 of them."""
    network = networks.build(shared_pool5())
    assert parameters(network) == 1_755_648 + 321 * (200 + 13 + 19 + 6) == 1_832_046
    assert parameters(network, side_weights(network.shared_shape()[0])) == 1_833_009


def test_the_multi_task_network_in_the_released_wiring() -> None:
    """2,662,926: a second last block for the side tasks, fixed weights, and so no layer for them."""
    network = networks.build(split_pool4())
    assert parameters(network) == 1_755_648 + 830_880 + 321 * 238 == 2_662_926


def test_the_pose_directed_network_in_the_released_wiring() -> None:
    """5,219,766: three more last blocks, and one layer 320 → 200 that all three share, beside the joint one."""
    network = networks.build(split_pool4(groups=True))
    assert parameters(network) == 2_662_926 + 3 * 830_880 + 321 * 200 == 5_219_766


def test_the_pose_directed_network_in_the_papers_wiring() -> None:
    """Three more layers 320 → 200, and for its two identity losses weights of their own."""
    network = networks.build(shared_pool5(groups=True))
    assert parameters(network) == 1_832_046 + 3 * 321 * 200
    groups = [{"tasks": TASKS[:2], "budget": 1.0}, {"tasks": list(SIDES), "budget": 0.1}]
    assert parameters(weighting.build("yin-liu", list(TASKS), features=320, groups=groups)) == 321 * (2 + 3)


# ------------------------------------------------------------------------------------------------ gradients

SMALL = {"size": 16, "width": 0.1, "dropout": 0.0}
PEOPLE, FACES = 4, 9


def small(made: Any, groups: bool = False) -> FaceNetwork:
    torch.manual_seed(0)
    return networks.build(made(PEOPLE, groups, **SMALL)).train()


def labels(seed: int = 0) -> dict[str, Tensor]:
    """Of every group a third of the faces."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randint(outputs, (FACES,), generator=generator) for name, outputs in SIDES.items()}
    people = torch.arange(FACES) % PEOPLE
    return drawn | {"identity": people, "identity_by_pose": people, "pose": torch.tensor([0, 5, 10] * 3)}


def pixels() -> Tensor:
    return torch.rand((FACES, 1, 16, 16), generator=torch.Generator().manual_seed(1)) * 255


def losses(network: FaceNetwork, known: dict[str, Tensor]) -> tuple[dict[str, Tensor], networks.FaceOutput]:
    output = network(pixels(), {"pose": known["pose"]})
    return {name: F.cross_entropy(output.outputs[name], known[name]) for name in output.outputs}, output


def gradients(network: FaceNetwork, loss: Tensor, prefix: str | tuple[str, ...]) -> dict[str, Tensor]:
    named = {name: p for name, p in network.named_parameters() if name.startswith(prefix)}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))


@pytest.mark.parametrize("made", [shared_pool5, split_pool4])
def test_without_a_budget_side_tasks_change_nothing_for_identity(made: Any) -> None:
    """φ_s = 0: trunk and identity layer have the gradients of a network that knows identity alone, exactly."""
    network, known = small(made), labels()
    each, output = losses(network, known)
    group = {"tasks": list(SIDES), "budget": 0.0}
    shape = network.shared_shape()
    scheme = weighting.build(
        "yin-liu", ["identity", *SIDES], features=shape if len(shape) > 1 else shape[0], groups=[group]
    )
    total = scheme.combine({name: each[name] for name in ("identity", *SIDES)}, Context(output.shared)).total
    of_identity = ("trunk.", "branches.joint.", "heads.identity.")
    together, alone = (gradients(network, loss, of_identity) for loss in (total, each["identity"]))
    assert any(bool(values.any()) for values in alone.values())
    assert all(torch.equal(values, alone[name]) for name, values in together.items())


@pytest.mark.parametrize("made", [shared_pool5, split_pool4])
def test_split_then_merged_rows_are_in_their_own_places(made: Any) -> None:
    """With the same labels, splitting and merging is the identity: with equal parts for all groups the merged rows are
    those of one part that sees every face."""
    network, known = small(made, groups=True).eval(), labels()
    for name in GROUPS:
        network.branches[name].load_state_dict(network.branches["joint"].state_dict())
    if made is split_pool4:
        network.heads["identity_by_pose"].load_state_dict(network.heads["identity"].state_dict())
    output = network.train()(pixels(), {"pose": known["pose"]}) if made is shared_pool5 else network(pixels())
    torch.testing.assert_close(output.outputs["identity_by_pose"], output.outputs["identity"])


def test_a_group_learns_from_its_own_rows_alone() -> None:
    """The gradient of W^g is that of the loss over its rows, written out: Σ over them of (softmax − one-hot) xᵀ / N."""
    network, known = small(shared_pool5, groups=True), labels()
    each, output = losses(network, known)
    found = gradients(network, each["identity_by_pose"], "branches.")
    probabilities = output.outputs["identity_by_pose"].softmax(1)
    residual = probabilities - F.one_hot(known["identity"], PEOPLE)
    for name, own in GROUPS.items():
        mine = torch.tensor([int(pose) in own for pose in known["pose"]])
        expected = residual[mine].T @ output.shared[mine] / FACES
        torch.testing.assert_close(found[f"branches.{name}.fc.weight"], expected.detach())
    assert not found["branches.joint.fc.weight"].any()


@pytest.mark.parametrize("made", [shared_pool5, split_pool4])
def test_a_group_that_nobody_is_in_gives_0(made: Any) -> None:
    network, known = small(made, groups=True), labels()
    known["pose"] = torch.tensor([5] * 5 + [0] * 4)
    each, _ = losses(network, known)
    assert all(bool(loss.isfinite()) for loss in each.values())
    found = gradients(network, sum(each.values(), torch.zeros(())), "branches.")
    assert all(bool(values.isfinite().all()) for values in found.values())
    assert {name.split(".")[1] for name, values in found.items() if values.any()} == {"joint", "frontal", "right"} | (
        {"sides"} if made is split_pool4 else set()
    )


def test_both_identity_losses_and_the_side_tasks_have_a_budget_each() -> None:
    """Σ weights of [identity, identity_by_pose] is φ_m = 1, of the side tasks φ_s = 0.1."""
    network, known = small(shared_pool5, groups=True), labels()
    each, output = losses(network, known)
    groups = [{"tasks": TASKS[:2], "budget": 1.0}, {"tasks": list(SIDES), "budget": 0.1}]
    scheme = weighting.build("yin-liu", list(TASKS), features=network.shared_shape()[0], groups=groups)
    nn.init.normal_(scheme.get_parameter("logits.0.weight"))
    combined = scheme.combine({name: each[name] for name in TASKS}, Context(output.shared))
    assert sum(combined.weights[name] for name in TASKS[:2]) == pytest.approx(1.0)
    assert sum(combined.weights[name] for name in SIDES) == pytest.approx(0.1)
    assert combined.weights["identity"] != pytest.approx(0.5, abs=1e-3)


# ------------------------------------------------------------------------------------------------ embeddings


def test_groups_of_13_classes_share_all_probability() -> None:
    """Cut points after the classes 3 and 8: by hand, softmax of log 1 … log 13 is 1/91 … 13/91, of which the classes
    0-3 have 10, 4-8 have 35 and 9-12 have 46. With the unit vectors as what the parts say, the merge is the shares."""
    maps = {name: torch.eye(3)[place].expand(2, 3) for place, name in enumerate(GROUPS)}
    outputs = torch.stack([torch.arange(1.0, 14).log(), torch.zeros(13)])
    join = Join(tuple(GROUPS), "expected", {name: Rows("pose", tuple(own)) for name, own in GROUPS.items()})
    found = join(Walk(maps, {}, {"pose": outputs}))
    expected = torch.tensor([[46 / 91, 35 / 91, 10 / 91], [4 / 13, 5 / 13, 4 / 13]])  # left, frontal, right
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def test_one_network_has_an_embedding_for_each_kind_of_routing() -> None:
    network = small(shared_pool5, groups=True)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0  # statistics of these faces: with those of a fresh network x is next to nothing
    network(pixels())
    found = network.eval()(pixels()).embeddings
    assert {name: (embedding.dim, embedding.similarity) for name, embedding in network.embeddings.items()} == {
        "features": (32, "cosine"),
        "hard": (2 * PEOPLE, "cosine"),
        "identity": (PEOPLE, "cosine"),
        "stochastic": (2 * PEOPLE, "inner"),
    }
    assert network.own_embeddings == ["features", "hard", "stochastic"]
    lengths = {name: values.norm(dim=1) for name, values in found.items()}
    for name in ("features", "hard", "identity"):
        torch.testing.assert_close(lengths[name], torch.ones(FACES))
    assert float(lengths["stochastic"].detach().max()) < 1  # whoever is not sure of the pose is less alike
    # all share the joint part: ½ of the cosine of the joint logits is in both kinds of routing
    torch.testing.assert_close(found["hard"][:, :PEOPLE], found["identity"] / 2**0.5)
    torch.testing.assert_close(found["stochastic"][:, :PEOPLE], found["identity"] / 2**0.5)
