"""The two TCDCN trunks: the published sizes and parameter counts, gradients, normalisation, transfer to 68 points."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.networks.layers import LocallyConnected2d

from ..toys import copy_convolution

HEADS = {"landmarks": 10, "pose": 5, "gender": 2, "glasses": 2, "smile": 2}


def tcdcn(heads: dict[str, int] | None = None, **trunk: Any) -> FaceNetwork:
    torch.manual_seed(0)
    return networks.build({"trunk": {"name": "tcdcn"} | trunk, "heads": heads or HEADS})


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "trunk, heads, expected",
    [
        ({}, HEADS, 79_357),
        ({"filters": "unshared"}, HEADS, 3_412_141),
        ({"plan": "tcdcn68", "activation": "relu"}, {"landmarks": 136}, 537_360),
    ],
)
def test_published_parameter_counts(trunk, heads, expected) -> None:
    network = tcdcn(heads, **trunk)
    assert count(network) == expected
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == expected  # nothing else is stored


@pytest.mark.parametrize("filters", ["shared", "unshared"])
def test_maps_of_figure_3(filters: str) -> None:
    maps = tcdcn(filters=filters).features(torch.rand(2, 1, 40, 40) * 255)
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
        "conv1": (16, 18, 18),
        "conv2": (48, 8, 8),
        "conv3": (64, 3, 3),
        "conv4": (64, 2, 2),
        "shared": (100,),
    }
    assert maps["conv4"][0].numel() == 256
    assert all((value >= 0).all() and (value < 1).all() for value in maps.values())


def test_maps_of_the_68_point_network() -> None:
    maps = tcdcn({"landmarks": 136}, plan="tcdcn68").features(torch.rand(1, 1, 60, 60))
    assert [tuple(maps[f"conv{i}"].shape[1:]) for i in range(1, 5)] == [
        (20, 28, 28),
        (48, 12, 12),
        (64, 5, 5),
        (80, 3, 3),
    ]
    assert maps["shared"].shape == (1, 512)


@pytest.mark.parametrize("activation", ["abs_tanh", "relu"])
def test_unshared_network_with_identical_filters_is_the_shared_one(activation: str) -> None:
    """Filters copied to every place; the layout differs (location-first), so only the numbers can say."""
    shared, unshared = (tcdcn(filters=filters, activation=activation) for filters in ("shared", "unshared"))
    for local, convolution in zip(unshared.trunk.convolutions, shared.trunk.convolutions, strict=True):
        assert isinstance(local, LocallyConnected2d)
        nn.init.uniform_(convolution.bias, -0.5, 0.5)
        copy_convolution(local, convolution)
    unshared.trunk.fc.load_state_dict(shared.trunk.fc.state_dict())
    unshared.heads.load_state_dict(shared.heads.state_dict())
    images = torch.rand(3, 1, 40, 40) * 255
    ours, theirs = unshared(images), shared(images)
    torch.testing.assert_close(ours.shared, theirs.shared, rtol=1e-4, atol=1e-5)
    for name in HEADS:
        torch.testing.assert_close(ours.outputs[name], theirs.outputs[name], rtol=1e-4, atol=1e-5)


def by_hand(network: FaceNetwork, images: Tensor) -> Tensor:
    """Section 3 of the paper written down once more, with PyTorch's own layers."""
    x = (images - 127.5) / 128
    for index, layer in enumerate(network.trunk.convolutions):
        x = nn.functional.conv2d(x, layer.weight, layer.bias).tanh().abs()
        x = nn.functional.max_pool2d(x, 2) if index < 3 else x
    return nn.functional.linear(x.flatten(1), network.trunk.fc.weight, network.trunk.fc.bias).tanh().abs()


def test_forward_is_the_papers() -> None:
    network = tcdcn()
    images = torch.rand(2, 1, 40, 40) * 255
    shared = by_hand(network, images)
    output = network(images)
    torch.testing.assert_close(output.shared, shared)
    head = network.heads["pose"]
    torch.testing.assert_close(output.outputs["pose"], shared @ head.weight.T + head.bias)


@pytest.mark.parametrize("trunk", [{}, {"filters": "unshared"}, {"plan": "tcdcn68"}, {"activation": "relu"}])
def test_every_parameter_receives_a_gradient(trunk) -> None:
    network = tcdcn(**trunk)
    output = network(torch.rand(8, 1, network.size, network.size) * 255)
    torch.cat([*output.outputs.values()], dim=1).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_uint8_images_and_normalisation_live_in_the_network() -> None:
    network = tcdcn()
    pixels = torch.randint(0, 256, (2, 1, 40, 40), dtype=torch.uint8)
    assert torch.equal(network(pixels).shared, network(pixels.float()).shared)
    other = networks.build(network.config | {"normalise": {"mean": 0.0, "std": 1.0}})
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other((pixels.float() - 127.5) / 128).shared, network(pixels).shared)


def test_config_rebuilds_the_network() -> None:
    network = tcdcn(filters="unshared")
    again = networks.build(network.config)
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, 1, 40, 40) * 255
    assert torch.equal(again(images).shared, network(images).shared)
    assert list(again.heads) == list(HEADS)


def test_68_points_at_the_start_have_the_same_shared_features(tmp_path) -> None:
    """Section 3.4: the trunk is copied, only the head is new. Through the stage's own `init`."""
    from polyface import tasks
    from polyface.data.boxes import BoxSpec
    from polyface.data.crops import CropSpec
    from polyface.models.bundle import Bundle
    from polyface.training.specs import StageSpec
    from polyface.training.stages import build_network

    five = tcdcn({"landmarks": 10, "smile": 2})
    kinds = {name: {"kind": "landmarks", "points": n} for name, n in (("landmarks", 5), ("smile", 1))}
    built = {name: tasks.build(name, config) for name, config in kinds.items()}
    crop = CropSpec(size=40, channels=1)
    Bundle(five, built, crop, BoxSpec(), {}).save(tmp_path / "five")
    stage = StageSpec.model_validate(
        {
            "name": "dense",
            "data": {"tables": [], "crop": {"size": 40, "channels": 1}},
            "network": {"trunk": {"name": "tcdcn"}},
            "tasks": {"landmarks": {"kind": "landmarks", "points": 68}},
            "init": {"source": "earlier", "parts": ["trunk"]},
        }
    )
    dense_tasks = {name: tasks.build(name, config) for name, config in stage.tasks.items()}
    dense = build_network(stage, dense_tasks, 7, {"earlier": tmp_path / "five"})
    images = torch.rand(4, 1, 40, 40) * 255
    assert torch.equal(dense(images).shared, five(images).shared)
    assert dense(images).outputs["landmarks"].shape == (4, 136)
    fresh = build_network(stage.model_copy(update={"init": []}), dense_tasks, 7, {})
    assert not torch.equal(fresh(images).shared, five(images).shared)

    other = stage.model_copy(
        update={"network": stage.network.model_copy(update={"trunk": {"name": "tcdcn", "filters": "unshared"}})}
    )
    with pytest.raises(PolyfaceError, match="stage dense: init.source earlier fits .* same network.trunk"):
        build_network(other, dense_tasks, 7, {"earlier": tmp_path / "five"})


@pytest.mark.parametrize(
    "trunk, expected",
    [
        ({"name": "tcdnc"}, "network.trunk.name is 'tcdnc'.*'tcdcn'"),
        ({}, "network.trunk.name"),
        ({"name": "tcdcn", "plan": "tcdcn99"}, "plan 'tcdcn99'"),
        ({"name": "tcdcn", "filter": "shared"}, "network.trunk .tcdcn.*filter"),
        ({"name": "tcdcn", "gain": 0}, "gain is 0"),
    ],
)
def test_wrong_trunks_are_named(trunk, expected) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        networks.build({"trunk": trunk, "heads": HEADS})


@pytest.mark.parametrize("filters", ["shared", "unshared"])
def test_both_kinds_of_filters_start_alike(filters: str) -> None:
    """Uniform within 1/√fan-in, PyTorch's default for convolutions, whatever the layout of the weights."""
    trunk = tcdcn(filters=filters).trunk
    for layer, fan_in in zip([*trunk.convolutions, trunk.fc], [25, 9 * 16, 9 * 48, 4 * 64, 256], strict=True):
        assert layer.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1)
        assert max(layer.weight.abs().max().item(), layer.bias.abs().max().item()) <= fan_in**-0.5


@pytest.mark.parametrize("filters", ["shared", "unshared"])
def test_a_gain_is_what_weights_start_with(filters: str) -> None:
    trunk = tcdcn(filters=filters, gain=1.5).trunk
    for layer, fan_in in zip([*trunk.convolutions, trunk.fc], [25, 9 * 16, 9 * 48, 4 * 64, 256], strict=True):
        assert layer.weight.std().item() == pytest.approx(1.5 * fan_in**-0.5, rel=0.1)
        assert not layer.bias.any()
