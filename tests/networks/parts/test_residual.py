"""The residual part of dlib's network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.networks.parts.residual import ResidualPart
from polyface.networks.shapes import Shape

SMALL = {"name": "timm", "model": "test_resnet", "size": 64, "channels": 3, "pool": "map"}


def test_a_residual_branch_is_a_block_and_the_average() -> None:
    """4×4 → 2×2, of which the last row and column are the average alone; dropout, then the layer without bias."""
    branch = ResidualPart([Shape(256, 32)], bottleneck=5).eval()
    maps = torch.randn(2, 256, 4, 4)
    with torch.no_grad():
        expected = branch.blocks(maps).mean((2, 3)) @ branch.bottleneck.weight.T  # type: ignore[union-attr, operator]
        torch.testing.assert_close(branch([maps]), expected)
    assert branch.maps == {"": Shape(5)}
    assert branch.bottleneck.bias is None
    plain = ResidualPart([Shape(256, 32)], dropout=0.5)
    assert plain.maps == {"": Shape(256)}
    pooled = plain.train()([maps])
    assert 0.3 < float((pooled == 0).float().mean()) < 0.7
    assert plain.eval()([maps]).shape == (2, 256)


def test_a_residual_branch_reads_the_map_of_its_trunk() -> None:
    config: dict[str, Any] = {"branches": {"a": {"kind": "residual"}}, "heads": {"x": {"a": [0, 1]}}}
    network = networks.build(config | {"trunk": {"name": "face-resnet", "size": 32}})
    network(torch.rand(2, 3, 32, 32) * 255).outputs["x"].sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    with pytest.raises(PolyfaceError, match="branches.a .*kind residual reads a map of 256 channels"):
        networks.build(config | {"trunk": SMALL | {"model": "resnet18"}})
