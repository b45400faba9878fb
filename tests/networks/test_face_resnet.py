"""dlib's network: zero filling by hand, shapes and counts, other sizes, frozen levels, and batch norms unfolded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.parts.residual import ResidualPart
from polyface.networks.shapes import Shape
from polyface.networks.trunks.face_resnet import MEANS, FaceResNet, ResidualBlock, Unit, level, unfold

FROZEN = ["stem", "levels.0"]


def images(count: int, side: int = 150, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 255


def folded(network: nn.Module) -> nn.Module:
    """Units as dlib publishes them: any scale and shift, and no statistics but 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, Unit):
            module.norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.norm.bias.data.normal_(generator=generator)
            module.norm.running_var.fill_(1 - module.norm.eps)
    return network


def small() -> nn.Module:
    torch.manual_seed(0)
    return folded(nn.Sequential(Unit(3, 8, 7, 2), nn.ReLU(), level(8, 8, 2, down=False), level(8, 16, 2, down=True)))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


# ------------------------------------------------------------------------------------------------ blocks


@given(st.integers(3, 11), st.integers(3, 11), st.integers(1, 3), st.integers(3, 5))
def test_a_block_that_halves_fills_up_with_zeros(height: int, width: int, channels: int, wider: int) -> None:
    """By hand: the average of 2×2, and beside it two convolutions, where either is smaller: 0."""
    torch.manual_seed(height * 12 + width)
    block = folded(ResidualBlock(channels, wider, down=True)).eval()
    assert isinstance(block, ResidualBlock)
    x = torch.randn(2, channels, height, width)
    with torch.no_grad():
        change = block.second(block.first(x).relu())
        found = block(x)
    assert change.shape[2:] == ((height - 1) // 2, (width - 1) // 2)
    expected = torch.zeros(2, wider, max(height // 2, change.shape[2]), max(width // 2, change.shape[3]))
    expected[:, :, : change.shape[2], : change.shape[3]] = change
    for i in range(height // 2):
        for j in range(width // 2):
            expected[:, :channels, i, j] += x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    torch.testing.assert_close(found, expected.relu())


def test_even_maps_lose_a_row_to_the_convolution_and_get_it_back_as_zeros() -> None:
    """8×8: 3×3 from the convolution without padding, 4×4 from the average. At the last row there is no change."""
    block = ResidualBlock(1, 1, down=True).eval()
    with torch.no_grad():
        block.second.norm.weight.zero_()
        block.second.norm.bias.fill_(5.0)
        found = block(torch.ones(1, 1, 8, 8))[0, 0]
    assert found.tolist() == [[6.0, 6.0, 6.0, 1.0]] * 3 + [[1.0] * 4]


def test_a_block_that_does_not_halve_adds_the_map_itself() -> None:
    block = folded(ResidualBlock(4, 4)).eval()
    assert isinstance(block, ResidualBlock)
    x = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        change = block.second(block.first(x).relu())
        torch.testing.assert_close(block(x), (x + change).relu())


# ------------------------------------------------------------------------------------------------ the network


def test_maps_and_counts() -> None:
    trunk, branch = FaceResNet().eval(), ResidualPart([Shape(256, 32)], bottleneck=128).eval()
    with torch.no_grad():
        maps = trunk(images(1))
        assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
            "level1": (32, 35, 35),
            "level2": (64, 17, 17),
            "level3": (128, 8, 8),
            "level4": (256, 4, 4),
            "shared": (256, 4, 4),
        }
        assert branch([maps["shared"]]).shape == (1, 128)
        assert branch.blocks(maps["shared"]).shape == (1, 256, 2, 2)
    convolutions = [m for whole in (trunk, branch) for m in whole.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(convolutions) == 29 + 1  # and the last layer
    counts = [sum(p.numel() for p in whole.parameters()) for whole in (trunk, branch, ResidualPart([Shape(256, 32)]))]
    assert (counts[0] + counts[1], counts[2]) == (5_614_592, 1_181_184)


def test_pixels_are_freed_of_dlibs_means_and_divided_by_256() -> None:
    trunk = FaceResNet().eval()
    seen: list[Tensor] = []
    trunk.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pixels = torch.tensor(MEANS).view(1, 3, 1, 1).repeat(1, 1, 150, 150)
    pixels[0, 2, 7, 9] += 128
    with torch.no_grad():
        trunk(pixels)
    expected = torch.zeros(1, 3, 150, 150)
    expected[0, 2, 7, 9] = 0.5
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [48, 112, 200])
def test_pictures_of_another_size_are_brought_to_150(size: int) -> None:
    other, own = FaceResNet(size).eval(), FaceResNet().eval()
    own.load_state_dict(other.state_dict())
    pixels = images(1, size)
    brought = nn.functional.interpolate(pixels, size=(150, 150), mode="bilinear", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(other(pixels)["shared"], own(brought)["shared"])
        assert other(pixels)["shared"].shape == (1, 256, 4, 4)


def test_too_small_pictures() -> None:
    with pytest.raises(PolyfaceError, match="size is 31"):
        FaceResNet(31)


# ------------------------------------------------------------------------------------------------ frozen


@pytest.fixture(scope="module")
def trained() -> tuple[FaceResNet, dict[str, Tensor]]:
    """A trunk with frozen levels after two steps with momentum and weight decay, and how it began."""
    torch.manual_seed(0)
    trunk = FaceResNet(48, frozen=FROZEN).train()
    before = state(trunk)
    optimiser = torch.optim.SGD(trunk.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for seed in range(2):
        optimiser.zero_grad()
        trunk(images(2, 48, seed))["shared"].square().mean().backward()
        optimiser.step()
    return trunk, before


def test_frozen_levels_stay_as_they_start(trained) -> None:
    """To the bit: weights, and statistics of batch norm; all others move."""
    trunk, before = trained
    for name, value in trunk.state_dict().items():
        frozen = name.startswith(("stem.", "levels.0."))
        assert torch.equal(value, before[name]) == frozen, name
    assert not any(p.requires_grad for p in trunk.stem.parameters())


def test_frozen_levels_stay_in_evaluation_mode() -> None:
    network = networks.build({"trunk": {"name": "face-resnet", "size": 48, "frozen": FROZEN}, "heads": {}})
    for mode in (True, False, True):
        network.train(mode)
        training = {name for name, module in network.trunk.named_modules() if module.training}
        if mode:
            assert {"levels.1", "levels.1.0.first.norm"} <= training
        assert not any(name == one or name.startswith(f"{one}.") for name in training for one in FROZEN)


@pytest.mark.parametrize("name, hint", [("levels.9", "; did you mean 'levels"), ("stern", ".*'stem'"), ("", "; ")])
def test_unknown_names_to_freeze(name: str, hint: str) -> None:
    with pytest.raises(PolyfaceError, match=f"frozen names '{name}'{hint}"):
        FaceResNet(48, frozen=["stem", name])


# ------------------------------------------------------------------------------------------------ unfolding


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_unfolding_keeps_every_answer(seed: int) -> None:
    """Also those of pictures that it never saw."""
    network = small().eval()
    others = images(3, 33, seed=seed + 1)
    with torch.no_grad():
        before = network(others)
        unfold(network, images(6, 33, seed=seed))
        torch.testing.assert_close(network(others), before, rtol=1e-4, atol=1e-4)


def test_an_unfolded_network_answers_in_training_as_in_evaluation() -> None:
    network = small()
    pixels = images(6, 33)
    with torch.no_grad():
        before = network.eval()(pixels)
        assert float((network.train()(pixels) - before).abs().max()) > 0.5  # folded: quite another function
    network = small()
    unfold(network, pixels)
    with torch.no_grad():
        torch.testing.assert_close(network.train()(pixels), before, rtol=1e-4, atol=1e-4)


def test_unfolded_norms_have_the_statistics_of_what_they_read() -> None:
    network = small()
    pixels = images(6, 33)
    unfold(network, pixels)
    seen: dict[nn.Module, Tensor] = {}
    units = [module for module in network.modules() if isinstance(module, Unit)]
    for unit in units:
        unit.norm.register_forward_pre_hook(lambda norm, given: seen.update({norm: given[0]}))
    with torch.no_grad():
        network.eval()(pixels)
    assert len(units) == 9
    for unit in units:
        torch.testing.assert_close(unit.norm.running_mean, seen[unit.norm].mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
        variance = seen[unit.norm].var((0, 2, 3), correction=0)
        torch.testing.assert_close(unit.norm.running_var, variance, rtol=1e-3, atol=1e-3)


def test_unfolded_filters_have_hes_deviation() -> None:
    network = small()
    units = [module for module in network.modules() if isinstance(module, Unit)]
    before = [unit.conv.weight.detach().clone() for unit in units]
    unfold(network, images(6, 33))
    for unit, weight in zip(units, before, strict=True):
        expected = (2 / (unit.conv.in_channels * unit.conv.kernel_size[0] ** 2)) ** 0.5
        found = unit.conv.weight.detach()
        assert float(found.std()) == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(found, weight * (expected / weight.std()))


@pytest.mark.parametrize("training", [True, False])
def test_unfolding_leaves_modes_and_no_hook(training: bool) -> None:
    network = small().train(training)
    modes = [module.training for module in network.modules()]
    unfold(network, images(2, 33))
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_whole_network_is_unfolded_frozen_levels_and_branches_too() -> None:
    config = {
        "trunk": {"name": "face-resnet", "size": 48, "frozen": FROZEN},
        "branches": {"face": {"kind": "residual", "bottleneck": 8}},
        "heads": {"who": {"face": [0, 1, 2]}},
        "normalise": {"mean": 0, "std": 1},
    }
    torch.manual_seed(0)
    network, pixels = networks.build(config), images(4, 48)
    folded(network)
    before = state(network)
    unfold(network.train(), pixels)
    assert not network.trunk.stem.training  # type: ignore[union-attr]
    units = {name for name, module in network.named_modules() if isinstance(module, Unit)}
    assert len(units) == 1 + 2 * 14
    for name in units:
        assert not torch.equal(network.state_dict()[f"{name}.norm.running_var"], before[f"{name}.norm.running_var"])
    with torch.no_grad():
        learning = network(pixels).outputs["who"]
        torch.testing.assert_close(network.eval()(pixels).outputs["who"], learning, rtol=1e-3, atol=1e-3)


def test_unfolding_leaves_what_is_kept() -> None:
    """A trunk that is frozen as a whole: the same whichever faces the parts over it are unfolded by."""
    config = {
        "trunk": {"name": "face-resnet", "size": 48, "frozen": True},
        "parts": {"face": {"kind": "residual", "bottleneck": 8}},
        "heads": {"who": {"face": [0, 1, 2]}},
        "normalise": {"mean": 0, "std": 1},
    }
    torch.manual_seed(0)
    network, pixels = networks.build(config), images(4, 48)
    folded(network)
    network.eval()
    before = state(network)
    with torch.no_grad():
        answers = network(pixels).outputs["who"]
        unfold(network, pixels, kept=network.frozen)
        torch.testing.assert_close(network(pixels).outputs["who"], answers, rtol=1e-3, atol=1e-3)
    changed = {name for name, value in state(network).items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"branches"}
    assert len([name for name in changed if name.endswith("running_var")]) == 2
