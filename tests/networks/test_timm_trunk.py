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
@pytest.mark.parametrize("pool", ["flatten", "avg"])
def test_every_parameter_receives_a_gradient(model: str, more: dict[str, object], pool: str) -> None:
    network = build(model, pool=pool, channels=1, dropout=0.1, **more)
    output = network(torch.rand(6, 1, 64, 64) * 255)
    assert output.shared.shape == (6, 24)
    assert {name: tuple(value.shape) for name, value in output.outputs.items()} == {
        "landmarks": (6, 10),
        "smile": (6, 2),
    }
    torch.cat([*output.outputs.values()], dim=1).square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


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
        ({"model": "test_resnet", "pool": "max"}, "pool is 'max'.*flatten or avg"),
        ({"model": "test_resnet", "sise": 3}, "sise"),
        ({"model": "test_resnet", "options": {"no_such_option": 1}}, "no_such_option"),
    ],
)
def test_wrong_settings_are_named(options, expected) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        networks.build({"trunk": {"name": "timm"} | options, "heads": {"a": 1}})
