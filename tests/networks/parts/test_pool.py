"""Pyramid pooling, and the networks of Mao et al. 2020 that such branches make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.parts.pool import PoolPart, SpatialPyramid
from polyface.networks.shapes import Shape
from polyface.schema import ATTRIBUTES

RESNET50 = {"name": "timm", "model": "resnet50", "size": 224, "pool": "map"}
SMALL = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}
OBJECTIVE, SUBJECTIVE = list(range(0, 40, 2)) + [1, 3], list(range(5, 40, 2))
DMM: dict[str, Any] = {
    "branches": {
        "objective": {"levels": 1, "hidden": [1024]},
        "subjective": {"levels": 3, "hidden": [2048, 1024]},
        "points": {"levels": 1, "hidden": [1024]},
    },
    "heads": {
        "attributes": {"objective": OBJECTIVE, "subjective": SUBJECTIVE},
        "landmarks": {"points": list(range(144))},
    },
}


def small(hidden: int = 8) -> networks.FaceNetwork:
    branches = {name: {"levels": options["levels"], "hidden": [hidden]} for name, options in DMM["branches"].items()}
    torch.manual_seed(0)
    return networks.build({"trunk": SMALL, "branches": branches, "heads": DMM["heads"]})


def parameters(config: dict[str, Any]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in networks.build(config).parameters())


@given(st.integers(3, 12), st.integers(3, 12), st.integers(1, 4))
def test_pyramid_is_adaptive_max_pooling_level_by_level(height: int, width: int, levels: int) -> None:
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 13 + width))
    expected = [torch.nn.functional.adaptive_max_pool2d(maps, n).flatten(1) for n in range(1, levels + 1)]
    assert torch.equal(SpatialPyramid(levels)(maps), torch.cat(expected, 1))


def test_pyramid_length_does_not_depend_on_the_map() -> None:
    pool = SpatialPyramid(3)
    assert {tuple(pool(torch.randn(2, 5, h, w)).shape) for h, w in ((3, 3), (7, 7), (4, 9))} == {(2, 14 * 5)}


def test_pyramid_levels_agree_with_each_other() -> None:
    """The first C numbers are the one-level vector; the maximum over the 3×3 bins is the global one."""
    maps = torch.randn(4, 6, 7, 7)
    three = SpatialPyramid(3)(maps)
    assert torch.equal(three[:, :6], SpatialPyramid(1)(maps))
    assert torch.equal(three[:, 6 * 5 :].view(4, 6, 9).amax(2), three[:, :6])


def test_branch_by_average_without_layers_is_the_mean() -> None:
    maps = torch.randn(2, 6, 5, 5)
    branch = PoolPart([Shape(6, 8)], levels=0)
    torch.testing.assert_close(branch([maps]), maps.mean((2, 3)))
    assert branch.maps == {"": Shape(6)}


def test_normalised_layers_are_of_mean_zero_before_their_relu() -> None:
    torch.manual_seed(0)
    branch = PoolPart([Shape(6, 8)], levels=2, hidden=[16, 4], norm=True)
    seen: list[torch.Tensor] = []
    relus = [layer for layer in branch.fc if isinstance(layer, torch.nn.ReLU)]
    assert len(relus) == 2
    for relu in relus:
        relu.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    branch([torch.randn(64, 6, 5, 5) * 9 + 4])
    for values in seen:
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.std(0), torch.ones(values.shape[1]), atol=0.05, rtol=0)
    assert not any(isinstance(layer, torch.nn.BatchNorm1d) for layer in PoolPart([Shape(6, 8)], hidden=[4]).fc)


# ------------------------------------------------------------------------------------------------ networks of branches


def test_branches_are_isolated() -> None:
    """∂ objective / ∂ the subjective branch is 0, and the other way round; the trunk hears both."""
    network = small()
    output = network(torch.rand(2, 3, 64, 64) * 255).outputs["attributes"]
    for own, other, places in (("objective", "subjective", OBJECTIVE), ("subjective", "objective", SUBJECTIVE)):
        network.zero_grad()
        output[:, places].sum().backward(retain_graph=True)
        foreign = [*network.branches[other].parameters(), *network.heads["attributes"].parts[other].parameters()]  # type: ignore[union-attr, index]
        assert all(p.grad is None or not p.grad.any() for p in foreign)
        assert all(p.grad is not None and p.grad.any() for p in network.branches[own].parameters())
        assert any(p.grad is not None and p.grad.any() for p in network.trunk.parameters())


def test_every_parameter_gets_a_gradient() -> None:
    network = small()
    output = network(torch.rand(4, 3, 64, 64) * 255)
    sum(o.square().sum() for o in output.outputs.values()).backward()  # type: ignore[union-attr]
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_shared_is_the_map_that_the_branches_read() -> None:
    network = small()
    output = network(torch.rand(2, 3, 64, 64) * 255)
    assert output.shared.ndim == 4
    assert output.shared.shape[1] == network.shared_dim
    for values in output.outputs.values():
        (gradient,) = torch.autograd.grad(values.sum(), output.shared, retain_graph=True)
        assert gradient.any()


def test_a_network_with_branches_is_rebuilt_from_its_config() -> None:
    network = small().eval()
    again = networks.build(network.config).eval()
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 64, 64) * 255
    ours, theirs = network(images).outputs, again(images).outputs
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"level": 3}, "branches.a .*unknown option 'level'.*levels"),
        ({"levels": -1}, "branches.a .*at least 1 level"),
        ({"hidden": ["many"]}, "branches.a "),
        ({"kind": "inseption"}, "branches.a.kind is 'inseption'.*'inception'"),
        ({"kind": "inception", "levels": 1}, "branches.a .*unknown option 'levels'"),
        ({"kind": "inception", "block": 1}, "unknown option 'block'.*'blocks'"),
        ({"similarty": "cosine"}, "unknown option 'similarty'.*'similarity'"),
        ({"similarity": "cosin"}, "branches.a.similarity: .*'cosin'.*'cosine'"),
        ({"kind": "inception", "blocks": -1}, "branches.a .*blocks is -1"),
        ({"kind": "inception", "bottleneck": 0}, "bottleneck 0"),
        ({"kind": "inception", "dropout": 2}, "branches.a .*dropout"),
    ],
)
def test_bad_branches(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        networks.build({"trunk": SMALL, "branches": {"a": options}, "heads": {"x": {"a": [0]}}})
    with pytest.raises(PolyfaceError, match=message.replace("branches", "parts")):
        networks.build({"trunk": SMALL, "parts": {"a": options}, "heads": {"x": {"a": [0]}}})


def test_a_head_of_an_unknown_branch() -> None:
    with pytest.raises(PolyfaceError, match="heads.x names 'fase'.*face"):
        networks.build({"trunk": SMALL, "branches": {"face": {}}, "heads": {"x": {"fase": [0]}}})


@pytest.mark.parametrize("kind", ["pool", "inception"])
def test_branches_need_a_map(kind: str) -> None:
    config = {"trunk": SMALL | {"pool": "avg"}, "branches": {"a": {"kind": kind}}, "heads": {"x": {"a": [0]}}}
    with pytest.raises(PolyfaceError, match="network.branches.a .*set network.trunk.pool to map"):
        networks.build(config)


def test_parameter_counts_of_the_paper() -> None:
    """Spec 3.3: DMM-CNN 88,713,464 (354.9 MB of float32), DMM-SPP 86,615,288, Baseline 23,589,992."""
    every = list(range(len(ATTRIBUTES)))
    spp = {
        "branches": {"face": {"levels": 3, "hidden": [2048, 1024]}, "points": {"levels": 1, "hidden": [1024]}},
        "heads": {"attributes": {"face": every}, "landmarks": DMM["heads"]["landmarks"]},
    }
    plain = {"branches": {"face": {"levels": 0}}, "heads": {"attributes": {"face": every}}}
    assert (len(OBJECTIVE), len(SUBJECTIVE)) == (22, 18)
    assert [parameters({"trunk": RESNET50} | config) for config in (DMM, spp, plain)] == [
        88_713_464,
        86_615_288,
        23_589_992,
    ]
