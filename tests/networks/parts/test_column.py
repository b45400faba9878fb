"""Columns: their size, what they give, and what laterals from earlier columns change and do not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.networks.parts.column import ColumnPart, Lateral
from polyface.networks.shapes import Shape

TRUNK = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 1, "pool": "map", "frozen": True}
SMALL = {"kind": "column", "reads": ["trunk.stage2"], "blocks": 3, "widths": [4, 6], "convs_per_group": 1, "width": 5}
ENCODED = Shape(256, 8, 16)
"""What the encoder of Barros et al. 2019 ends in: 256×16×16."""
OUTPUTS = {2: 9_081_946, 7: 9_082_951, 8: 9_083_152, 50: 9_091_594}
"""Outputs of a head on the column of Table III, and the parameters of both (spec 5.5)."""


def built(parts: dict[str, Any], seed: int = 0, **changes: Any) -> FaceNetwork:
    """Columns over a frozen trunk, a head on each that learns."""
    torch.manual_seed(seed)
    heads = {name: {name: [0, 1]} for name, part in parts.items() if not part.get("frozen")}
    return networks.build({"trunk": TRUNK, "parts": parts, "heads": heads} | changes)


def chain(**last: Any) -> dict[str, Any]:
    """Three columns, each of which reads all earlier ones."""
    return {
        "emotion": SMALL | {"frozen": True},
        "age": SMALL | {"reads": ["trunk.stage2", "emotion"], "frozen": True},
        "gender": SMALL | {"reads": ["trunk.stage2", "emotion", "age"]} | last,
    }


def parallel(**last: Any) -> dict[str, Any]:
    """One that reads two plain columns."""
    return chain(**last) | {"age": SMALL | {"frozen": True}}


def pixels(network: FaceNetwork, count: int = 3) -> Tensor:
    return torch.rand(count, network.channels, network.size, network.size, generator=torch.Generator().manual_seed(0))


def sizes(column: ColumnPart) -> list[tuple[int, int]]:
    return [(shape.channels, shape.side) for name, shape in column.maps.items() if name]


def test_the_column_of_table_3_has_its_parameters() -> None:
    column = ColumnPart([ENCODED])
    count = sum(p.numel() for p in column.parameters())
    with_heads = {outputs: count + sum(p.numel() for p in nn.Linear(200, outputs).parameters()) for outputs in OUTPUTS}
    assert with_heads == OUTPUTS
    assert sizes(column) == [(256, 16), (256, 16), (256, 8), (256, 4)]
    assert column.fc.in_features == 4096
    assert sum(isinstance(module, nn.Conv2d) for module in column.modules()) == 24


def test_laterals_are_65_536_parameters_a_source_and_block_and_one_alpha() -> None:
    for sources in (1, 2, 3):
        lateral = Lateral([256] * sources, 256, nonlinear=True)
        assert sum(p.numel() for p in lateral.parameters()) == sources * (65_536 + 1)
    column = ColumnPart([ENCODED, *(Shape(256, 8, side) for side in (16, 16, 8, 4))], width=1)
    assert len(column.laterals) == 4  # three block boundaries and the fully connected layer


def test_the_small_columns_and_that_of_figure_1() -> None:
    small = ColumnPart([Shape(128, 8, 6)], widths=[64, 128], convs_per_group=1)
    assert sizes(small) == [(128, 6), (128, 6), (128, 3), (128, 2)]
    light = {"widths": [4, 6], "convs_per_group": 1}
    assert sizes(ColumnPart([ENCODED], blocks=1, **light)) == [(6, 8)]
    assert sizes(ColumnPart([ENCODED], blocks=2, pool=[], **light)) == [(6, 16), (6, 16)]
    assert sizes(ColumnPart([ENCODED], blocks=2, pool=[1], **light)) == [(6, 8), (6, 8)]


def test_what_it_declares_is_what_it_gives() -> None:
    network = built(chain())
    maps = network.features(pixels(network))
    given = network.branches["emotion"]([maps["stage2"]])
    declared: dict[str, Shape] = network.branches["emotion"].maps  # type: ignore[assignment]
    assert list(declared) == ["", "block1", "block2", "block3"]
    assert {name: tuple(values.shape[1:]) for name, values in given.items()} == {
        name: (shape.channels, shape.side, shape.side)[: 3 if shape.stride else 1] for name, shape in declared.items()
    }


@pytest.mark.parametrize("adapter", ["linear", "nonlinear"])
def test_a_lateral_by_hand(adapter: str) -> None:
    """Two sources of one and two channels at one place: V = [[1, 2, 3], [−1, 0, 1]], α = (2, ½)."""
    lateral = Lateral([1, 2], 2, adapter == "nonlinear")
    assert ((lateral.alpha >= 0) & (lateral.alpha <= 0.1)).all()
    with torch.no_grad():
        lateral.alpha.copy_(torch.tensor([2.0, 0.5]))
        lateral.project.weight.copy_(torch.tensor([[1.0, 2, 3], [-1, 0, 1]])[:, :, None, None])
        found = lateral([torch.full((1, 1, 1, 1), 3.0), torch.tensor([4.0, 2]).view(1, 2, 1, 1)])
    expected = [1 * 6 + 2 * 2 + 3 * 1, -6 + 1]  # of 2·3, ½·4 and ½·2
    assert found.flatten().tolist() == (expected if adapter == "linear" else [13, 0])


def test_laterals_enter_at_the_ends_of_blocks() -> None:
    """Written out: hᵢ = blockᵢ(hᵢ₋₁ + Vᵢ₋₁·αᵢ₋₁h'ᵢ₋₁), none before the first, one before the connected layer."""
    network = built({"emotion": SMALL | {"frozen": True}, "age": SMALL | {"reads": ["trunk.stage2", "emotion"]}}).eval()
    first = network.features(pixels(network))["stage2"]
    given = network.branches["emotion"]([first])
    age = network.branches["age"]
    h = first
    for number, block in enumerate(age.blocks, 1):  # type: ignore[arg-type]
        source, lateral = given[f"block{number}"], age.laterals[number - 1]  # type: ignore[index]
        h = block(h) + nn.functional.conv2d(lateral.alpha * source, lateral.project.weight)
    expected = network.heads["age"].parts["age"](age.fc(h.flatten(1)).relu())  # type: ignore[union-attr, index, operator]
    torch.testing.assert_close(network(pixels(network)).outputs["age"], expected)


@pytest.mark.parametrize("wiring", [chain, parallel])
@pytest.mark.parametrize("adapter", ["linear", "nonlinear"])
def test_with_alpha_0_it_is_a_plain_column_bit_for_bit(wiring, adapter: str) -> None:
    network = built(wiring(adapter=adapter))
    column: ColumnPart = network.branches["gender"]  # type: ignore[assignment]
    maps = network.features(pixels(network))
    plain = ColumnPart([Shape(maps["stage2"].shape[1], 4, maps["stage2"].shape[2])], 3, (4, 6), 1, width=5)
    shared = {name: tensor for name, tensor in column.state_dict().items() if not name.startswith("laterals.")}
    plain.load_state_dict(shared)
    earlier = [network.branches["emotion"]([maps["stage2"]])]
    earlier.append(network.branches["age"]([maps["stage2"], *list(earlier[0].values())[:-1] * (wiring is chain)]))
    reads = [maps["stage2"], *(one[f"block{number}"] for number in (1, 2, 3) for one in earlier)]
    assert not torch.equal(column.eval()(reads)[""], plain.eval()([maps["stage2"]])[""])
    with torch.no_grad():
        for lateral in column.laterals:
            lateral.alpha.zero_()  # type: ignore[union-attr, operator]
    for mode in (False, True):  # dropout too
        column.train(mode), plain.train(mode)
        found = [(torch.manual_seed(1), module(given))[1] for module, given in ((column, reads), (plain, reads[:1]))]
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])


def test_only_a_columns_own_learns() -> None:
    """Column, adapters and head; every one of them is reached by the loss."""
    network = built(chain())
    network(pixels(network)).outputs["gender"].square().sum().backward()
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in network.named_parameters() if ".gender." in name}
    assert {name.split(".")[2] for name in learning} == {"blocks", "laterals", "fc", "parts"}
    assert all(p.grad is not None and p.grad.any() for p in network.parameters() if p.requires_grad)


def test_deep_columns_let_something_through() -> None:
    """24 convolutions without a norm: faces still differ at the end (with PyTorch's own start by less than 1e-7)."""
    torch.manual_seed(0)
    column = ColumnPart([Shape(32, 8, 6)], widths=[32, 32]).eval()
    with torch.no_grad():
        found = column([torch.randn(8, 32, 6, 6).relu()])
    assert 1e-3 < found["block4"].std(0).mean() < 10


@pytest.mark.parametrize(
    "age, message",
    [
        ({"reads": ["trunk.stage2", "emotions"]}, "parts.age names 'emotions.block1'.*did you mean 'emotion'"),
        ({"reads": ["trunk.stage2", "emotion"], "blocks": 4}, "parts.age names 'emotion.block4'.*'emotion.block"),
        ({"reads": ["trunk.stage3", "emotion"]}, r"age \(column\): its block 1 ends in a map of .* let both read"),
        ({"reads": ["emotion"]}, r"age \(column\): it reads a vector"),
        ({"blocks": 0}, r"age \(column\): blocks is 1 to 64"),
        ({"blocks": 10**12}, r"age \(column\): blocks is 1 to 64"),
        ({"dropout": 1.0}, r"age \(column\): .* dropout is from 0 to below 1"),
        ({"pool": [4]}, r"age \(column\): pool is \[4\]; expected numbers of blocks, 1 … 3"),
        ({"adapter": "lineer"}, r"age \(column\): adapter is 'lineer'; input should be 'linear' or 'nonlinear'"),
        ({"blocks": "two"}, r"age \(column\): blocks is 'two'"),
        ({"kind": "colunm"}, "network.parts.age.kind is 'colunm'.*'column'"),
    ],
)
def test_a_column_that_cannot_be_is_refused_in_one_line(age: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        built({"emotion": SMALL | {"frozen": True}, "age": SMALL | age})
    assert "\n" not in str(caught.value)
