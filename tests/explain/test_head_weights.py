"""Weights of heads on the trunk's features; others cannot be compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.explain.weights import head_weights


def test_only_heads_on_the_trunk_have_comparable_weights() -> None:
    part = {"kind": "pool", "reads": ["trunk.conv4"]}
    heads = {"smile": 2, "pose": {"reads": ["trunk"], "outputs": 5}, "gender": {"a": [0, 1]}}
    network = networks.build({"trunk": {"name": "tcdcn"}, "parts": {"a": part}, "heads": heads})
    layer = network.heads["smile"]
    assert isinstance(layer, nn.Linear)
    assert torch.equal(torch.from_numpy(head_weights(network, "smile")), layer.weight.detach().double())
    assert head_weights(network, "pose").shape == (5, 100)
    with pytest.raises(PolyfaceError, match="the outputs of 'gender' come from a, not from one linear"):
        head_weights(network, "gender")
    with pytest.raises(PolyfaceError, match="no task 'age'"):
        head_weights(network, "age")
