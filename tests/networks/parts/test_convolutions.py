"""Convolutions on a map that several parts read."""

from __future__ import annotations

import pytest
import torch

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.parts.convolutions import ConvolutionsPart
from polyface.networks.shapes import Shape


def test_a_map_keeps_its_size_by_hand() -> None:
    """One channel, the sum of 3×3 places: at a corner of ones four of them; minus a mean of 6, over a spread of 2."""
    part = ConvolutionsPart([Shape(1, 16, 4)], [1]).eval()
    assert part.maps == {"": Shape(1, 16, 4)}
    with torch.no_grad():
        part.layers[0].weight.fill_(1.0)
        part.layers[1].running_mean.fill_(6.0)
        part.layers[1].running_var.fill_(4.0)
    found = part([torch.ones(1, 1, 4, 4)])[0, 0]
    torch.testing.assert_close(found[0], torch.tensor([0, 0, 0, 0.0]))  # sums 4 and 6
    torch.testing.assert_close(found[1], torch.tensor([0, 1.5, 1.5, 0]), atol=1e-4, rtol=0)  # sums 6 and 9


def test_parts_above_it_share_it() -> None:
    torch.manual_seed(0)
    config = {
        "trunk": {"name": "casia-net", "size": 16, "width": 0.1, "end": "pool4"},
        "parts": {
            "top": {"kind": "convolutions", "widths": [6, 5]},
            "a": {"kind": "pool", "reads": ["top"], "levels": 2},
            "b": {"kind": "pool", "reads": ["top"], "levels": 0},
        },
        "heads": {"x": {"reads": ["a"], "outputs": 1}, "y": {"reads": ["b"], "outputs": 1}},
    }
    network = networks.build(config)
    assert network.heads["x"].weight.shape == (1, 25)
    for task in "xy":
        network.zero_grad()
        network(torch.rand(2, 1, 16, 16)).outputs[task].sum().backward()
        assert all(one.grad is not None and one.grad.any() for one in network.branches["top"].parameters())


@pytest.mark.parametrize("widths", [[], [4, 0]])
def test_widths_are_told(widths: list[int]) -> None:
    with pytest.raises(PolyfaceError, match="expected one number of channels or more"):
        ConvolutionsPart([Shape(3, 8)], widths)
