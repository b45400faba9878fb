"""Inception-ResNet-v1 and the branches of Ming et al. 2021: the table's shapes and counts, gradients, batch norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.networks.parts.inception import InceptionPart
from polyface.networks.shapes import Shape
from polyface.networks.trunks.inception_resnet import (
    InceptionBlock,
    InceptionResNet,
    Reduction,
    block8,
    block17,
    block35,
)

BRANCHES = ("verification", "visual", "caricature")
TABLE = {
    "conv1": (32, 79, 79),
    "conv2": (32, 77, 77),
    "conv3": (64, 77, 77),
    "maxpool1": (64, 38, 38),
    "conv4": (80, 38, 38),
    "conv5": (192, 36, 36),
    "conv6": (256, 17, 17),
    "inception1": (256, 17, 17),
    "inception2": (896, 8, 8),
    "inception3": (896, 8, 8),
    "inception4": (1792, 3, 3),
    "shared": (1792, 3, 3),
}


def config(**branch: Any) -> dict[str, Any]:
    """The paper's network at 107 px, the smallest with a Z of more than one place."""
    return {
        "trunk": {"name": "inception-resnet", "size": 107},
        "branches": {name: {"kind": "inception"} | branch for name in BRANCHES},
        "heads": {name: {name: list(range(3))} for name in BRANCHES},
    }


@pytest.fixture(scope="module")
def network() -> FaceNetwork:
    torch.manual_seed(0)
    return networks.build(config(similarity="cosine"))


def on_meta(make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """Shapes without numbers: nothing is computed."""
    with torch.device("meta"):
        return make(**options).eval()


def side(size: int) -> int:
    shape = on_meta(InceptionResNet, size=size)(torch.empty(1, 3, size, size, device="meta"))["shared"].shape
    assert shape[1] == 1792
    assert shape[2] == shape[3]
    return int(shape[2])


def learns(module: nn.Module) -> bool:
    """Whether any of its parameters has a gradient."""
    return any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters())


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ------------------------------------------------------------------------------------------------ the table's


def test_shapes_of_the_table() -> None:
    """Spec 2.2, stage by stage at 160 px; Z has d_z = 16,128 numbers."""
    maps = on_meta(InceptionResNet)(torch.empty(2, 3, 160, 160, device="meta"))
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == TABLE
    assert list(maps) == list(TABLE)
    assert maps["shared"].flatten(1).shape == (2, 16_128)


@pytest.mark.parametrize("channels, repeats, expected", [(3, (1, 1), 6_439_296), (1, (1, 1), 6_438_720)])
def test_parameters_of_the_trunk(channels: int, repeats: tuple[int, int], expected: int) -> None:
    """6,439,296 with scale and shift of every batch norm; a grey image leaves out 2 · 32 · 3 · 3."""
    assert count(on_meta(InceptionResNet, channels=channels, repeats=repeats)) == expected


def test_parameters_of_a_branch() -> None:
    """3,201,536 is two Block8s; nothing else has parameters, unless there is a bottleneck."""
    assert count(on_meta(InceptionPart, reads=[Shape(1792, 32)])) == 3_201_536
    assert count(on_meta(InceptionPart, reads=[Shape(1792, 32)], bottleneck=128)) == 3_201_536 + 1793 * 128


def test_the_papers_network_has_one_trunk_and_three_equal_branches(network: FaceNetwork) -> None:
    assert count(network.trunk) == 6_439_296
    assert [count(network.branches[name]) for name in BRANCHES] == [3_201_536] * 3
    keys = [list(network.branches[name].state_dict()) for name in BRANCHES]
    assert keys[0] == keys[1] == keys[2]
    network.branches["visual"].load_state_dict(network.branches["verification"].state_dict())  # as a start copies them


def test_facenets_repeats() -> None:
    """5 Block35, 10 Block17 and 5 + 1 Block8: the parameters that the further blocks have, and the same shapes."""
    trunk, branch = on_meta(InceptionResNet, repeats=[5, 10]), on_meta(InceptionPart, reads=[Shape(1792, 32)], blocks=5)
    further = 4 * count(block35(256)) + 9 * count(block17(896))
    assert count(trunk) == 6_439_296 + further == 12_959_488
    assert count(branch) == 6 * 3_201_536 // 2
    assert sum(isinstance(m, InceptionBlock) for m in [*trunk.modules(), *branch.modules()]) == 5 + 10 + 6
    maps = trunk(torch.empty(1, 3, 160, 160, device="meta"))
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == TABLE
    assert branch([maps["shared"]]).shape == (1, 1792)


@pytest.mark.parametrize("sizes, expected", [((75, 106), 1), ((107, 138), 2), ((139, 160, 170), 3), ((171,), 4)])
def test_any_size_that_leaves_a_map(sizes: tuple[int, ...], expected: int) -> None:
    assert [side(size) for size in sizes] == [expected] * len(sizes)


# ------------------------------------------------------------------------------------------------ the blocks


def by_hand(x: Tensor, layer: nn.Sequential, *, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Convolution, fresh batch norm in evaluation mode (divide by √1.001), ReLU."""
    convolution = layer[0]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is None
    return nn.functional.conv2d(x, convolution.weight, None, stride, padding).div(1.001**0.5).relu()


@pytest.mark.parametrize("relu, scale", [(True, 0.2), (False, 1.0)])
def test_block8_is_the_tables(relu: bool, scale: float) -> None:
    torch.manual_seed(1)
    block = block8(12, scale, relu).eval()
    nn.init.uniform_(block.up.bias)
    x = torch.randn(2, 12, 3, 4)
    before = x.clone()
    (one,), (first, row, column) = block.towers
    other = by_hand(by_hand(by_hand(x, first), row, padding=(0, 1)), column, padding=(1, 0))
    assert [tuple(layer[0].weight.shape[2:]) for layer in (one, first, row, column)] == [(1, 1), (1, 1), (1, 3), (3, 1)]
    joined = torch.cat([by_hand(x, one), other], 1)
    expected = x + scale * nn.functional.conv2d(joined, block.up.weight, block.up.bias)
    torch.testing.assert_close(block(x), expected.relu() if relu else expected)
    assert torch.equal(x, before)  # others read this map too
    assert bool((expected < 0).any())  # else the ReLU would not show


def test_reduction_is_the_tables() -> None:
    torch.manual_seed(1)
    reduction = Reduction(4, [[(5, 3)], [(3, 1), (3, 3), (6, 3)]]).eval()
    x = torch.randn(2, 4, 8, 8)
    (one,), (first, second, third) = reduction.towers
    other = by_hand(by_hand(by_hand(x, first), second, padding=(1, 1)), third, stride=2)
    expected = torch.cat([by_hand(x, one, stride=2), other, nn.functional.max_pool2d(x, 3, 2)], 1)
    torch.testing.assert_close(reduction(x), expected)


def test_scales_and_towers_of_the_blocks() -> None:
    found = [InceptionResNet(size=75).stages["inception1"][0], block17(8), InceptionPart([Shape(8, 32)]).blocks]
    assert [block.scale for block in (found[0], found[1], *found[2])] == [0.17, 0.10, 0.20, 1.0]
    assert [block.relu for block in (found[0], found[1], *found[2])] == [True, True, True, False]
    kernels = [[tuple(layer[0].weight.shape[2:]) for layer in tower] for tower in found[1].towers]
    assert kernels == [[(1, 1)], [(1, 1), (1, 7), (7, 1)]]


def test_starts_as_facenet_does(network: FaceNetwork) -> None:
    """Xavier: uniform within ±√(6 / (fan in + fan out)); biases 0; ε .001, and decay .995 is momentum .005."""
    weight = network.trunk.stages["conv6"][0].weight
    bound = (6 / (9 * (192 + 256))) ** 0.5
    assert 0.99 * bound < float(weight.detach().abs().max()) <= bound
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.005)}
    blocks = [m for m in network.modules() if isinstance(m, InceptionBlock)]
    assert not any(bool(block.up.bias.any()) for block in blocks)


# ------------------------------------------------------------------------------------------------ the branch


def test_branch_without_its_blocks_change_is_average_and_bottleneck() -> None:
    branch = InceptionPart([Shape(6, 32)], bottleneck=4).eval()
    for block in branch.blocks:
        nn.init.zeros_(block.up.weight)
    maps = torch.rand(3, 6, 2, 5)  # not negative: the first block's ReLU leaves it
    layer = branch.bottleneck
    assert isinstance(layer, nn.Linear)
    torch.testing.assert_close(branch([maps]), maps.mean((2, 3)) @ layer.weight.T)
    assert branch.maps == {"": Shape(4)}


def test_dropout_is_of_what_was_pooled() -> None:
    """Keep 0.5: in training about half the features are 0 and the others twice what they are in evaluation."""
    branch = InceptionPart([Shape(400, 32)])
    for block in branch.blocks:
        nn.init.zeros_(block.up.weight)
    maps = torch.rand(4, 400, 2, 2) + 1
    trained, whole = branch.train()([maps]), branch.eval()([maps])
    kept = trained != 0
    assert 0.4 < float(kept.float().mean()) < 0.6
    torch.testing.assert_close(trained[kept], 2 * whole[kept])


def test_every_parameter_receives_a_gradient_and_batch_norm_follows_the_batch(network: FaceNetwork) -> None:
    network.train().zero_grad()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
    output = network(torch.rand(3, 3, 107, 107) * 255)
    assert output.shared.shape == (3, 1792, 2, 2)
    sum(value.square().sum() for value in output.outputs.values()).backward()  # type: ignore[union-attr]
    assert [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
    assert all(bool((norm.running_var != 1).any()) for norm in norms)  # type: ignore[union-attr]


@pytest.mark.parametrize("momentum", [0.005, 0.3, 1.0])
def test_running_statistics_move_by_the_momentum(momentum: float) -> None:
    branch = InceptionPart([Shape(3, 32)], blocks=0, momentum=momentum)
    convolution, norm, _ = branch.blocks[0].towers[0][0]
    maps = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = momentum * convolution(maps).mean((0, 2, 3))
    branch([maps])
    torch.testing.assert_close(norm.running_mean, expected)
    branch.eval()([maps])
    torch.testing.assert_close(norm.running_mean, expected)  # evaluation leaves them


def test_branches_hear_only_their_own_head(network: FaceNetwork) -> None:
    network.eval()
    output = network(torch.rand(1, 3, 107, 107) * 255)
    for own in BRANCHES:
        network.zero_grad()
        output.outputs[own].square().sum().backward(retain_graph=True)
        heard = [name for name in BRANCHES if learns(network.branches[name])]
        assert heard == [own]
        assert learns(network.trunk.stages["conv1"])


def test_the_network_is_rebuilt_from_its_config(network: FaceNetwork) -> None:
    again = networks.build(network.config)
    again.load_state_dict(network.state_dict())
    images = torch.randint(0, 256, (1, 3, 107, 107), dtype=torch.uint8)
    ours, theirs = network.eval()(images), again.eval()(images)
    assert all(torch.equal(ours.outputs[name], theirs.outputs[name]) for name in BRANCHES)
    assert all(torch.equal(ours.embeddings[name], theirs.embeddings[name]) for name in BRANCHES)
    assert again.embeddings == network.embeddings
    assert [network.embeddings[name].dim for name in BRANCHES] == [1792] * 3


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    "trunk, message",
    [
        ({"size": 74}, "size is 74.*expected 75 or more"),
        ({"repeats": [5, 10, 5]}, r"repeats is \[5, 10, 5\].*\[5, 10\] for facenet"),
        ({"repeats": 5}, "repeats is 5; input should be a valid"),
        ({"repeats": [1, -1]}, "repeats is"),
        ({"momentum": 0}, "momentum of batch norm is 0; expected above 0"),
        ({"momentun": 0.1}, "inception-resnet.*momentun"),
        ({"name": "inception_resnet"}, "did you mean 'inception-resnet'"),
    ],
)
def test_wrong_settings_are_named(trunk: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        networks.build({"trunk": {"name": "inception-resnet"} | trunk, "heads": {}})
