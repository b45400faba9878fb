"""A fully connected layer as a part, and heads that take what it gives as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.explain.weights import linear_head
from polyface.networks.heads import set_bias
from polyface.networks.parts.linear import LinearPart
from polyface.networks.shapes import Shape

TRUNK = {"name": "casia-net", "size": 16, "width": 0.1}


def built(**changes: Any) -> networks.FaceNetwork:
    torch.manual_seed(0)
    config = {
        "trunk": TRUNK,
        "parts": {"joint": {"kind": "linear", "width": 5}},
        "heads": {"who": {"reads": ["joint"], "outputs": 5, "layer": "none"}, "pose": 3},
    }
    return networks.build(config | changes).eval()


def test_it_is_one_matrix_and_joins_what_it_reads() -> None:
    part = LinearPart([Shape(2), Shape(1)], 2)
    with torch.no_grad():
        part.fc.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]]))
    assert part.maps == {"": Shape(2)}
    assert not part.fc.bias.any()
    found = part([torch.tensor([[1.0, 1.0]]), torch.tensor([[-2.0]])])
    assert found.tolist() == [[-3.0, -3.0]]  # nothing is cut off below 0


def test_a_head_without_a_layer_is_its_parts_output() -> None:
    network, pixels = built(embeddings={"who": {"reads": ["joint"]}}), torch.rand(3, 1, 16, 16) * 255
    output = network(pixels)
    logits = network.branches["joint"]([output.shared])
    assert torch.equal(output.outputs["who"], logits)
    torch.testing.assert_close(output.embeddings["who"], torch.nn.functional.normalize(logits, eps=1e-5))
    assert [name for name in network.state_dict() if name.startswith("heads.")] == [
        "heads.pose.weight",
        "heads.pose.bias",
    ]
    again = networks.build(network.config).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(pixels).outputs["who"], output.outputs["who"])


def test_it_is_the_same_as_a_head_with_a_layer() -> None:
    """A linear head on x, and a linear part on x whose output is the answer: the same gradients of the same weights."""
    plain, pixels = built(parts={}, heads={"who": 5, "pose": 3}), torch.rand(3, 1, 16, 16) * 255
    ours = built()
    state = {name.replace("heads.who.", "branches.joint.fc."): values for name, values in plain.state_dict().items()}
    ours.load_state_dict(state)
    for network in (plain, ours):
        sum(values.square().sum() for values in network(pixels).outputs.values()).backward()  # type: ignore[union-attr]
    gradients = {name.replace("heads.who.", "branches.joint.fc."): p.grad for name, p in plain.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


def test_the_prior_of_a_task_leaves_a_head_without_a_layer_alone() -> None:
    network = built()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    set_bias(network.heads["who"], torch.arange(5.0))
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    set_bias(network.heads["pose"], torch.arange(3.0))
    assert network.heads["pose"].bias.tolist() == [0, 1, 2]


def test_the_layer_of_a_task_is_found_in_the_part_that_it_reads() -> None:
    """So that its weights are compared with those of heads on the same vector (`explain energy`)."""
    network, pixels = built(), torch.rand(3, 1, 16, 16) * 255
    output, x = network(pixels), network(pixels).shared.detach().numpy()
    for task in ("who", "pose"):
        head = linear_head(network, task)
        assert (head.reads, head.merge) == (("trunk",), "concat")
        np.testing.assert_allclose(head(x), output.outputs[task].detach().numpy(), atol=1e-5)
    pooled = {"kind": "pool", "levels": 0, "reads": ["trunk.pool4"]}
    given = {"who": {"reads": ["joint"], "outputs": 24, "layer": "none"}}
    with pytest.raises(PolyfaceError, match="the outputs of 'who' come from joint, not from one"):
        linear_head(built(parts={"joint": pooled}, heads=given), "who")


LOGITS = {"reads": ["joint"], "outputs": 5, "layer": "none"}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"heads": {"who": LOGITS | {"outputs": 6}}},
            "network.heads.who: layer none, but what it reads has 5 numbers, and the task has 6 outputs",
        ),
        (
            {"heads": {"who": LOGITS | {"reads": ["joint", "trunk"]}}},
            "network.heads.who: layer none, but what it reads has 37 numbers",
        ),
        ({"heads": {"who": LOGITS}, "cosine": ["who"]}, "heads.who: layer none, but cosines come from a layer of"),
        ({"heads": {"who": LOGITS | {"layer": "non"}}}, "network.heads.who: layer is 'non'; did you mean 'none'"),
        (
            {"parts": {"joint": {"kind": "linear", "width": 0}}},
            r"parts.joint \(linear\): width is 0; expected 1 or more",
        ),
        (
            {"parts": {"joint": {"kind": "linear", "width": "who"}}},
            "parts.joint.*width is 'who'",
        ),
        ({"parts": {"joint": {"kind": "linear"}}}, "parts.joint.*width"),
        (
            {"parts": {"joint": {"kind": "linear", "width": 5, "reads": ["trunk.pool4"]}}},
            "parts.joint.*it reads a map; expected vectors",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        built(**changes)


def test_a_whole_map_is_read_where_its_side_is_told() -> None:
    """[B, C, h, w] is flattened as it lies: the layer of a map of 2 × 3 × 3 has 18 numbers."""
    part = LinearPart([Shape(2, 4)], width=5, side=3)
    assert part.fc.weight.shape == (5, 18)
    assert not part.any_size
    maps = torch.randn(4, 2, 3, 3).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(part([maps]), maps.reshape(4, 18) @ part.fc.weight.T)
    with pytest.raises(PolyfaceError, match="it reads a vector; expected one map"):
        LinearPart([Shape(2)], width=5, side=3)
