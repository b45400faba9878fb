"""Depthwise convolutions against PyTorch's and timm's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from polyface.networks.depthwise import DepthwiseConv2d, _Depthwise


@given(st.sampled_from([3, 5, 7]), st.integers(1, 2), st.integers(0, 3), st.integers(5, 9), st.integers(0, 2**31))
def test_depthwise_gradients_are_those_of_convolution(side: int, stride: int, padding: int, size: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    padding = min(padding, side - 1)
    size = max(size, side)
    plain = nn.Conv2d(3, 3, side, stride, padding, groups=3, bias=False).double()
    network = nn.Sequential(plain)
    DepthwiseConv2d.replace(network)
    assert isinstance(network[0], DepthwiseConv2d)
    assert network[0].weight is plain.weight
    x = torch.randn(2, 3, size, size + 1, generator=generator, dtype=torch.double, requires_grad=True)
    expected, found = plain(x), _Depthwise.apply(x, plain.weight, stride, padding)
    grad = torch.randn(expected.shape, generator=generator, dtype=torch.double)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, plain.weight), grad), torch.autograd.grad(expected, (x, plain.weight), grad),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("size", [7, 8])
def test_depthwise_pads_as_tensorflow_does(size: int, half: bool) -> None:
    torch.manual_seed(size)
    same = Conv2dSame(4, 4, 5, stride=2, groups=4, bias=False)
    network = nn.Sequential(same)
    DepthwiseConv2d.replace(network)
    x = torch.randn(2, 4, size, size, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        ours, theirs = network(x), same(x)
    assert ours.dtype == theirs.dtype
    assert ("_Depthwise" in str(ours.grad_fn)) == half
    torch.testing.assert_close(ours, theirs)
    for found, expected in zip(
        torch.autograd.grad(ours.sum(), (x, same.weight)), torch.autograd.grad(theirs.sum(), (x, same.weight)),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, expected, atol=0.05 if half else 1e-5, rtol=0.02)
    with torch.no_grad():
        torch.testing.assert_close(network(x), same(x))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, bias=False, dilation=2),
        nn.Conv2d(4, 8, 3, groups=4, bias=False),
        nn.Conv2d(4, 4, (3, 5), groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, bias=False, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, groups=4, bias=False, padding="same"),
    ],
)
def test_other_convolutions_are_left_alone(conv: nn.Conv2d) -> None:
    network = nn.Sequential(conv)
    DepthwiseConv2d.replace(network)
    assert network[0] is conv
