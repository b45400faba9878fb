"""timm models as trunks: every parameter learns, the shared vector has its size, wrong settings are named."""

from __future__ import annotations

import pytest
import torch

from polyface import networks
from polyface.errors import PolyfaceError


def build(model: str, **trunk: object) -> networks.FaceNetwork:
    torch.manual_seed(0)
    options = {"name": "timm", "model": model, "size": 64, "shared": 24} | trunk
    return networks.build({"trunk": options, "heads": {"landmarks": 10, "smile": 2}})


# timm starts the last scale of a residual block at 0, through which no gradient passes at first.
STARTED = {"options": {"zero_init_last": False}}


@pytest.mark.parametrize(
    "model, more",
    [("test_resnet", STARTED), ("resnet10t", STARTED), ("test_efficientnet", {}), ("mobilenetv3_small_050", {})],
)
@pytest.mark.parametrize("pool", ["flatten", "avg", "points"])
def test_every_parameter_receives_a_gradient(model: str, more: dict[str, object], pool: str) -> None:
    network = build(model, pool=pool, channels=1, dropout=0.1, **more)
    output = network(torch.rand(6, 1, 64, 64) * 255)
    assert output.shared.shape == (6, 24 if pool != "points" else 24 + 2 * 64)
    assert {name: tuple(value.shape) for name, value in output.outputs.items()} == {
        "landmarks": (6, 10),
        "smile": (6, 2),
    }
    torch.cat([*output.outputs.values()], dim=1).square().sum().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not without - {"trunk.parts.score.1.bias"}  # a softmax over places does not see what is added everywhere


def test_maps_are_named_in_order_and_probing_leaves_no_trace() -> None:
    network = build("test_resnet", channels=3)
    assert all(module.training for module in network.modules())
    assert all(int(b) == 0 for n, b in network.named_buffers() if n.endswith("num_batches_tracked"))
    maps = network.eval().features(torch.rand(2, 3, 64, 64) * 255)
    sides = [value.shape[-1] for name, value in maps.items() if name != "shared"]
    assert list(maps) == [*(f"stage{i + 1}" for i in range(len(sides))), "shared"]
    assert sides == sorted(sides, reverse=True)


def test_flatten_knows_where_things_are_and_avg_does_not() -> None:
    """The same last map with its places exchanged: only "flatten" can tell."""
    for pool, same in (("avg", True), ("flatten", False)):
        trunk = build("test_resnet", pool=pool).eval().trunk
        last = torch.rand(1, trunk.body.feature_info.channels()[-1], 2, 2)
        trunk.body.forward = lambda images, last=last: [last if images.sum() > 0 else last.flip(3)]
        one, other = (trunk(torch.full((1, 3, 64, 64), value))["shared"] for value in (1.0, -1.0))
        assert torch.allclose(one, other) is same


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"model": "resnet10tt"}, "unknown model 'resnet10tt'.*'resnet10t'"),
        ({"model": "test_resnet", "pool": "max"}, "pool is 'max'.*flatten, avg"),
        ({"model": "test_resnet", "sise": 3}, "sise"),
        ({"model": "test_resnet", "options": {"no_such_option": 1}}, "no_such_option"),
    ],
)
def test_wrong_settings_are_named(options, expected) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        networks.build({"trunk": {"name": "timm"} | options, "heads": {"a": 1}})


def test_positions_of_parts_are_where_the_map_responds() -> None:
    """One score map with a single high place: its expected position, in −1 … 1 across the map."""
    from polyface.networks.trunks.timm_trunk import SpatialPoints

    parts = SpatialPoints(1, 1, 1)
    with torch.no_grad():
        for layer in (parts.last, parts.finer, parts.score[1]):
            layer.weight.zero_()
            layer.bias.zero_()
        parts.finer.weight.fill_(1)
        parts.score[1].weight[0, 0, 1, 1] = 1
    finer = torch.zeros(2, 1, 5, 9)
    finer[0, 0, 1, 6] = finer[1, 0, 4, 0] = 50
    found = parts(torch.zeros(2, 1, 2, 2), finer)
    torch.testing.assert_close(found, torch.tensor([[0.5, -0.5], [-1.0, 1.0]]))
    even = parts(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 5, 9))
    torch.testing.assert_close(even, torch.zeros(1, 2), atol=1e-6, rtol=0)
