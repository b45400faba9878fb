"""CASIA-Net against the table of Yin & Liu 2018: shapes, numbers of parameters, and what follows each convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.shapes import Shape
from polyface.networks.trunks.casia_net import CasiaNet

TABLE = [(1, 32), (32, 64), (64, 64), (64, 128), (128, 96), (96, 192), (192, 128), (128, 256), (256, 160), (160, 320)]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_trunk_is_the_tables() -> None:
    """A 3×3 convolution with bias and a batch norm's scale and shift: 9·C·W + 3·W each."""
    trunk = CasiaNet()
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == TABLE
    assert all((m.kernel_size, m.stride, m.padding) == ((3, 3), (1, 1), (1, 1)) for m in convolutions)
    assert parameters(trunk) == sum(9 * c * w + 3 * w for c, w in TABLE) == 1_755_648


@pytest.mark.parametrize(
    "size, sides", [(100, [50, 25, 13, 7]), (64, [32, 16, 9, 5]), (32, [16, 8, 5, 3]), (37, [18, 9, 5, 3])]
)
def test_sides_of_the_maps(size: int, sides: list[int]) -> None:
    """100 → 50 → 25 → 13 → 7 → 1 as printed; the average makes 320 numbers of whatever is left, at any size."""
    trunk = CasiaNet(size=100).eval()
    with torch.inference_mode():
        maps = trunk(torch.zeros(1, 1, size, size))
    pools = [f"pool{n}" for n in (1, 2, 3, 4)]
    assert [tuple(maps[p].shape) for p in pools] == [
        (1, c, s, s) for c, s in zip((64, 128, 192, 256), sides, strict=True)
    ]
    assert maps["shared"].shape == (1, 320)
    assert trunk.maps == {p: Shape(maps[p].shape[1], 2 << n) for n, p in enumerate(pools)} | {"shared": Shape(320)}


def test_every_convolution_but_the_last_has_a_relu() -> None:
    """pool4 is never below 0, conv52 is; and x in evaluation is the average of conv52's whole map."""
    torch.manual_seed(0)
    trunk = CasiaNet(size=32, width=0.25).eval()
    conv52: list[torch.Tensor] = []
    hook = trunk.last[1].register_forward_hook(lambda *args: conv52.append(args[2]))  # type: ignore[index]
    with torch.inference_mode():
        maps = trunk(torch.randn(4, 1, 32, 32))
    hook.remove()
    assert all(float(maps[f"pool{n}"].min()) >= 0 for n in (1, 2, 3, 4))
    assert float(conv52[0].min()) < 0 < float(conv52[0].max())
    torch.testing.assert_close(maps["shared"], conv52[0].mean((2, 3)))
    assert len([m for m in trunk.modules() if isinstance(m, nn.ReLU)]) == 9


@pytest.mark.parametrize(
    "width, expected", [(0.5, [16, 32, 32, 64, 48, 96, 64, 128, 80, 160]), (0.01, [8] * 10), (1.5, None)]
)
def test_width_is_a_factor_on_all_channels(width: float, expected: list[int] | None) -> None:
    found = [m.out_channels for m in CasiaNet(width=width).modules() if isinstance(m, nn.Conv2d)]
    assert found == (expected or [int(1.5 * w) for _, w in TABLE])


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_it_starts_as_printed_and_batch_norm_makes_the_deviation_irrelevant(width: float) -> None:
    """A deviation of 0.01 at any width: with weights ten times as large the answers in training are the same."""
    torch.manual_seed(0)
    trunk, images = CasiaNet(size=32, width=width, dropout=0), torch.randn(8, 1, 32, 32)
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    for conv in convolutions:
        assert float(conv.weight.detach().std()) == pytest.approx(0.01, rel=0.15)
        assert not conv.bias.any()  # type: ignore[union-attr]
    before = trunk(images)["shared"]
    with torch.no_grad():
        for conv in convolutions:
            conv.weight.mul_(10)
    after = trunk(images)["shared"]
    assert float(before.detach().std()) > 0.1
    # the epsilon of the norms counts where variances are small, in the first layers: a part in a hundred
    assert float((after - before).norm() / before.norm()) < 0.1


def test_dropout_is_of_x() -> None:
    trunk = CasiaNet(size=16, width=0.1, dropout=0.4)
    x = trunk(torch.randn(500, 1, 16, 16))["shared"]
    assert float((x == 0).float().mean()) == pytest.approx(0.4, abs=0.03)
    assert float((trunk.eval()(torch.randn(50, 1, 16, 16))["shared"] == 0).float().mean()) == 0


def config(sides: dict[str, Any] | None = None, end: str = "pool5", width: float = 1.0) -> dict[str, Any]:
    """Two heads on parts from pool4, or on x."""
    parts = {"joint": {"kind": "casia", "width": width}} if end == "pool4" else {}
    parts |= {"sides": {"kind": "casia", "width": width, "reads": ["trunk.pool4"]}} if sides is None else sides
    heads = {"identity": {"reads": ["joint" if end == "pool4" else "trunk"], "outputs": 5}}
    heads["pose"] = {"reads": ["sides"], "outputs": 3}
    return {"trunk": {"name": "casia-net", "end": end, "width": width}, "parts": parts, "heads": heads}


def test_a_network_that_splits_at_pool4_holds_every_layer_once() -> None:
    """The trunk's own last block may be a part's as well: the same number of parameters, none of them twice."""
    whole, split = networks.build(config()), networks.build(config(end="pool4"))
    assert parameters(split.branches["sides"]) == 9 * 256 * 160 + 3 * 160 + 9 * 160 * 320 + 3 * 320 == 830_880
    assert parameters(split.trunk) == 1_755_648 - 830_880
    assert parameters(whole) == parameters(split)
    assert split.shared_shape() == [256, 7, 7]
    assert whole.shared_shape() == [320]


def test_a_split_network_takes_any_size_and_every_parameter_learns() -> None:
    network = networks.build(config(end="pool4", width=0.25))
    assert network.any_size
    for side in (100, 32):
        output = network(torch.rand(4, 1, side, side) * 255)
        sum(values.square().sum() for values in output.outputs.values()).backward()  # type: ignore[union-attr]
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 3}, "network.trunk .*: size 3"),
        ({"width": 0}, "network.trunk .*width 0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"end": "pool3"}, "end 'pool3'; expected .*pool4 or pool5"),
        ({"widht": 1}, "widht.*width"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        networks.build({"trunk": {"name": "casia-net"} | options, "heads": {}})


@pytest.mark.parametrize(
    "part, message", [({"width": -1}, "parts.sides.*width -1"), ({"reads": ["trunk"]}, "a map|vector")]
)
def test_wrong_parts_are_named(part: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        networks.build(config({"sides": {"kind": "casia", "reads": ["trunk.pool4"]} | part}))
