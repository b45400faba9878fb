"""Routed parts: who learns from whom, and how the parts' vectors are merged, against selections made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork

TINY = {"name": "timm", "model": "test_resnet", "size": 32, "channels": 3, "pool": "map"}
POSES = {"left": [0, 1], "frontal": [2], "right": [3, 4]}
PART = {"kind": "pool", "levels": 0, "hidden": [6], "norm": True}


def config(**changes: Any) -> dict[str, Any]:
    """Three parts for groups of five poses, one for all faces, and a person's vector merged from the three."""
    parts = {"joint": PART, **{name: PART | {"rows": {"task": "pose", "classes": own}} for name, own in POSES.items()}}
    heads = {
        "who": {"merge": "rows", "of": list(POSES), "outputs": 3},
        "pose": {"reads": ["joint"], "outputs": 5},
    }
    return {"trunk": TINY, "parts": parts, "heads": heads} | changes


def built(**changes: Any) -> FaceNetwork:
    torch.manual_seed(0)
    network = networks.build(config(**changes))
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    with torch.no_grad():  # every pose is answered for some faces
        network.heads["pose"].bias -= network.eval()(images(32)).outputs["pose"].mean(0)  # type: ignore[operator]
    return network


def images(count: int = 6) -> Tensor:
    return torch.rand((count, 3, 32, 32), generator=torch.Generator().manual_seed(1)) * 255


def part_of(pose: int) -> str:
    return next(name for name, own in POSES.items() if pose in own)


def by_hand(network: FaceNetwork, pixels: Tensor) -> dict[str, Tensor]:
    """Every part's vector of every face."""
    maps = network.features(pixels)["shared"]
    return {name: part([maps]) for name, part in network.branches.items()}


# ------------------------------------------------------------------------------------------------ evaluation


def test_the_pose_head_is_computed_before_the_parts_that_it_routes() -> None:
    order = [node.where.removeprefix("network.") for node in built().graph.order]
    assert order == ["parts.joint", "heads.pose", "parts.left", "parts.frontal", "parts.right", "heads.who"]
    assert built().routed_by == ["pose"]


def test_merging_is_choosing_by_the_answer() -> None:
    network, pixels = built().eval(), images(32)
    output, vectors = network(pixels), by_hand(network, pixels)
    poses = output.outputs["pose"].argmax(1).tolist()
    assert {part_of(pose) for pose in poses} == set(POSES)
    chosen = torch.stack([vectors[part_of(pose)][row] for row, pose in enumerate(poses)])
    torch.testing.assert_close(output.outputs["who"], network.heads["who"](chosen))


def test_labels_come_before_answers_and_minus_1_is_no_label() -> None:
    network, pixels = built().eval(), images(6)
    answers = network(pixels).outputs["pose"].argmax(1)
    labels = torch.tensor([0, 2, 4, -1, 3, -1])
    told = torch.where(labels < 0, answers, labels).tolist()
    vectors = by_hand(network, pixels)
    chosen = torch.stack([vectors[part_of(pose)][row] for row, pose in enumerate(told)])
    torch.testing.assert_close(network(pixels, {"pose": labels}).outputs["who"], network.heads["who"](chosen))
    unknown = torch.full((6,), -1)
    assert torch.equal(network(pixels, {"pose": unknown}).outputs["who"], network(pixels).outputs["who"])


# ------------------------------------------------------------------------------------------------ training


def test_a_routed_part_learns_from_its_own_rows_alone() -> None:
    network, pixels = built().train(), images(6)
    network.trunk.eval()  # its batch norms would mix the faces
    labels = torch.tensor([0, 2, 1, 4, 0, 2])
    for name, rows in (("left", [0, 2, 4]), ("frontal", [1, 5])):
        given = pixels.clone().requires_grad_()
        seen: list[Tensor] = []
        hook = network.branches[name].register_forward_hook(lambda *args, seen=seen: seen.append(args[2]))
        output = network(given, {"pose": labels}).outputs["who"]
        hook.remove()
        assert [len(values) for values in seen] == [len(rows)]
        network.zero_grad()
        seen[0].square().sum().backward(retain_graph=True)
        others = [row for row in range(6) if row not in rows]
        assert not given.grad[others].any()  # type: ignore[index]
        assert all(bool(given.grad[row].any()) for row in rows)  # type: ignore[index]
        network.zero_grad()
        output[others].sum().backward()
        assert not any(bool(p.grad.any()) for p in network.branches[name].parameters() if p.grad is not None)


def test_the_gradient_of_a_routed_part_is_that_of_its_rows_by_themselves() -> None:
    network, pixels = built().train(), images(6)
    network.trunk.eval()
    labels, rows = torch.tensor([0, 2, 1, 4, 0, 2]), [0, 2, 4]
    network(pixels, {"pose": labels}).outputs["who"][rows].square().sum().backward()
    routed = [p.grad.clone() for p in network.branches["left"].parameters()]  # type: ignore[union-attr]
    network.zero_grad()
    alone = network.branches["left"]([network.features(pixels[rows])["shared"]])
    network.heads["who"](alone).square().sum().backward()
    for ours, own in zip(routed, network.branches["left"].parameters(), strict=True):
        torch.testing.assert_close(ours, own.grad)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_rows_of_a_part(count: int) -> None:
    """Of nobody every gradient is 0, and finite; statistics of batch norms follow two faces or more."""
    network, pixels = built().train(), images(6)
    labels = torch.tensor([3] * count + [2] * (6 - count))
    norm = next(m for m in network.branches["right"].modules() if isinstance(m, nn.BatchNorm1d))
    before = {name: values.clone() for name, values in norm.state_dict().items()}
    output = network(pixels, {"pose": labels})
    sum(values.square().sum() for values in output.outputs.values()).backward()  # type: ignore[union-attr]
    same = all(torch.equal(values, before[name]) for name, values in norm.state_dict().items())
    assert same is (count < 2)
    assert norm.training
    gradients = [p.grad for p in network.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    own = [bool(p.grad.any()) for p in network.branches["right"].parameters()]  # type: ignore[union-attr]
    assert any(own) is (count > 0)


def test_a_frozen_routed_part_is_as_in_evaluation() -> None:
    parts = config()["parts"]
    network = built(parts=parts | {"left": parts["left"] | {"frozen": True}}).train()
    before = {name: values.clone() for name, values in network.branches["left"].state_dict().items()}
    network(images(6), {"pose": torch.zeros(6, dtype=torch.long)}).outputs["who"].sum().backward()
    assert all(torch.equal(values, before[name]) for name, values in network.branches["left"].state_dict().items())


# ------------------------------------------------------------------------------------------------ embeddings


def embedding(merge: str, reads: list[str] | None = None) -> dict[str, Any]:
    return {"who": {"reads": reads or ["joint", *POSES], "merge": merge, "similarity": "inner"}}


def test_stochastic_routing_is_the_double_sum_over_pairs() -> None:
    """½·h(d, d') + ½·Σᵢ Σⱼ pᵢ·p'ⱼ·h(i, j) with h the cosine (Yin & Liu 2018), at most 1."""
    network, pixels = built(embeddings=embedding("stochastic")).eval(), images(8)
    output, vectors = network(pixels), by_hand(network, pixels)
    p = output.outputs["pose"].softmax(1)
    shares = {name: p[:, own].sum(1) for name, own in POSES.items()}
    unit = {name: normalize(values) for name, values in vectors.items()}
    expected = 0.5 * unit["joint"] @ unit["joint"].T
    for i in POSES:
        for j in POSES:
            expected = expected + 0.5 * (unit[i] @ unit[j].T) * (shares[i][:, None] * shares[j][None])
    found = output.embeddings["who"]
    torch.testing.assert_close(found @ found.T, expected)
    assert float((found @ found.T).detach().abs().max()) <= 1 + 1e-5
    assert network.embeddings["who"].dim == found.shape[1] == 12


def test_hard_routing_is_half_of_both_cosines() -> None:
    """½·h(d, d') + ½·h(own, own'): unit blocks, where merged rows would let the longer block count more."""
    network, pixels = built(embeddings=embedding("hard")).eval(), images(8)
    vectors, poses = by_hand(network, pixels), network(pixels).outputs["pose"].argmax(1).tolist()
    own = normalize(torch.stack([vectors[part_of(pose)][row] for row, pose in enumerate(poses)]))
    joint = normalize(vectors["joint"])
    found = network(pixels).embeddings["who"]
    torch.testing.assert_close(found @ found.T, 0.5 * joint @ joint.T + 0.5 * own @ own.T)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(8))


@pytest.mark.parametrize("certain, uncertain", [("hard", "stochastic"), ("rows", "expected")])
def test_certain_probabilities_are_hard_routing(certain: str, uncertain: str) -> None:
    network, pixels = built(embeddings=embedding(uncertain)).eval(), images(8)
    network.heads["pose"].weight.data *= 1e6  # type: ignore[operator]
    hard = built(embeddings=embedding(certain)).eval()
    hard.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(pixels).embeddings["who"], hard(pixels).embeddings["who"])


def test_routing_of_features_is_the_double_sum_where_they_have_length_1() -> None:
    """Σ pᵢ·fᵢ: one vector a face in place of a sum over pairs of parts."""
    network, pixels = built(embeddings=embedding("expected", list(POSES))).eval(), images(8)
    for part in POSES:
        network.branches[part].register_forward_hook(lambda *args: normalize(args[2]))
    output, vectors = network(pixels), by_hand(network, pixels)
    p = output.outputs["pose"].softmax(1)
    shares = torch.stack([p[:, own].sum(1) for own in POSES.values()])
    torch.testing.assert_close(shares.sum(0), torch.ones(8))
    unit = torch.stack([vectors[part] for part in POSES])
    expected = torch.einsum("in,jm,ind,jmd->nm", shares, shares, unit, unit)
    found = output.embeddings["who"]
    torch.testing.assert_close(found @ found.T, expected)


def test_what_is_not_routed_stands_before_what_is_merged() -> None:
    network, pixels = built(embeddings=embedding("rows")).eval(), images(8)
    found, vectors = network(pixels).embeddings["who"], by_hand(network, pixels)
    poses = network(pixels).outputs["pose"].argmax(1).tolist()
    chosen = torch.stack([vectors[part_of(pose)][row] for row, pose in enumerate(poses)])
    torch.testing.assert_close(found, torch.cat([vectors["joint"], chosen], 1))


# ------------------------------------------------------------------------------------------------ errors


def rows(**changes: Any) -> dict[str, Any]:
    return config()["parts"] | {"left": PART | {"rows": {"task": "pose", "classes": [0, 1]} | changes}}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parts": rows(task="poze")}, "network.parts.left.rows.task names 'poze'.*'pose'"),
        (
            {"parts": rows(classes=[0, 5])},
            r"network.parts.left.rows.classes is \[0, 5\]; expected classes of pose, 0 … 4",
        ),
        ({"parts": rows(classes=[])}, "network.parts.left.rows is .*expected {task: name"),
        ({"parts": rows(classes=3)}, "network.parts.left.rows is .*expected {task: name"),
        ({"parts": rows(clases=[1])}, "network.parts.left.rows is .*expected {task: name"),
        ({"parts": rows(classes=[0])}, r"network.heads.who: merge rows .*these hold \[0, 2, 3, 4\] of pose"),
        ({"parts": rows(classes=[0, 1, 2])}, "network.heads.who: merge rows .*every class of one task once"),
        ({"parts": rows(task="who", classes=[0])}, "network.heads.who needs its own result|parts.left needs its own"),
        ({"heads": config()["heads"] | {"pose": {"left": [0, 1, 2, 3, 4]}}}, "network.parts.left needs its own result"),
        (
            {"parts": config()["parts"] | {"left": rows()["left"] | {"hidden": [7]}}},
            r"who: .*one length, not of \[6, 7\]",
        ),
        ({"embeddings": {"who": {"reads": ["joint"], "merge": "stochastic"}}}, "embeddings.who: merge stochastic"),
    ],
)
def test_routing_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        built(**changes)
