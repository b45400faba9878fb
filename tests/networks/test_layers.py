"""Locally connected layers against convolutions, gradients against finite differences, |tanh|, cosines, freezing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from polyface.errors import PolyfaceError
from polyface.networks.layers import (
    AbsTanh,
    CosineLinear,
    LocallyConnected2d,
    MaxPoolAbsTanh,
    _Patches,
    freeze,
    from_locations,
    pool_locations,
    to_locations,
)

from ..toys import copy_convolution

sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4))


@given(arrays("float32", 12, elements=st.floats(-100, 100, width=32)))
def test_abs_tanh_lies_between_zero_and_one(values) -> None:
    x = torch.from_numpy(values)
    y = AbsTanh()(x)
    torch.testing.assert_close(y, x.abs().tanh())
    assert (y >= 0).all()
    assert (y <= 1).all()
    assert (y[x.abs() < 8] < 1).all()  # float32's tanh rounds to 1 from about 9 on
    assert AbsTanh()(torch.zeros(1)).item() == 0


@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(2, 9))
def test_pooling_before_tanh_is_pooling_after(seed: int, height: int, width: int) -> None:
    """tanh grows with its argument, so the largest stays the largest: values and gradients agree."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, height, width, generator=generator, dtype=torch.double) * 2
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    fast = MaxPoolAbsTanh()(ours)
    plain = nn.functional.max_pool2d(theirs.tanh().abs(), 2)
    torch.testing.assert_close(fast, plain)
    weights = torch.randn(fast.shape, generator=generator, dtype=torch.double)
    (fast * weights).sum().backward()
    (plain * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(2, 9))
def test_location_first_pooling_is_max_pooling(seed: int, height: int, width: int) -> None:
    """Values and gradients, with many ties: of whole numbers from 0 to 3 the first largest gets the gradient."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 4, (2, 3, height, width), generator=generator).float()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    pooled, expected = from_locations(pool_locations(to_locations(ours))), nn.functional.max_pool2d(theirs, 2)
    assert torch.equal(pooled, expected)
    weights = torch.randn(expected.shape, generator=generator)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_location_first_layout_round_trip() -> None:
    x = torch.randn(2, 3, 5, 7)
    assert to_locations(x).shape == (5, 7, 3, 2)
    assert torch.equal(from_locations(to_locations(x)), x)


@given(sizes, st.integers(0, 2**31))
def test_patches_are_what_unfold_cuts_out(size: tuple[int, ...], seed: int) -> None:
    batch, channels, kernel, _, more = size
    side = kernel + more
    x = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))
    patches = _Patches.apply(to_locations(x), kernel)
    expected = nn.functional.unfold(x, kernel).view(batch, channels, kernel * kernel, -1)
    assert torch.equal(patches, expected.permute(3, 2, 1, 0).reshape(patches.shape))


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_gradient_of_patches_against_finite_differences(kernel: int) -> None:
    maps = torch.randn(4, 5, 2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _Patches.apply(x, kernel), (maps,))


def test_gradient_of_the_layer_against_finite_differences() -> None:
    layer = LocallyConnected2d(2, 3, 2, 4).double()
    maps = torch.randn(4, 4, 2, 2, dtype=torch.double, requires_grad=True)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (maps, layer.weight, layer.bias))


@pytest.mark.parametrize("bias", [True, False])
@given(sizes, st.integers(0, 2**31))
def test_identical_filters_everywhere_are_a_convolution(bias: bool, size: tuple[int, ...], seed: int) -> None:
    """Values, and gradients: of the input the same, of the shared filter the sum over all places."""
    batch, channels, kernel, out, more = size
    side = kernel + more
    torch.manual_seed(seed)
    convolution = nn.Conv2d(channels, out, kernel, bias=bias).double()
    layer = LocallyConnected2d(channels, out, kernel, side).double()
    copy_convolution(layer, convolution)
    x = torch.randn(batch, channels, side, side, dtype=torch.double)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    local, shared = from_locations(layer(to_locations(ours))), convolution(theirs)
    torch.testing.assert_close(local, shared)
    weights = torch.randn_like(shared)
    (local * weights).sum().backward()
    (shared * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    summed = layer.weight.grad.sum(0).view(out, kernel, kernel, channels).permute(0, 3, 1, 2)
    torch.testing.assert_close(summed, convolution.weight.grad)
    if bias:
        torch.testing.assert_close(layer.bias.grad.sum((0, 2)), convolution.bias.grad)


def test_filters_are_not_shared() -> None:
    """A change of one location's filter changes that location alone."""
    layer = LocallyConnected2d(1, 1, 2, 4)
    maps = torch.rand(4, 4, 1, 1) + 0.1
    before = layer(maps)
    with torch.no_grad():
        layer.weight[4] += 1  # the middle of 3 × 3 places
    changed = (layer(maps) != before).squeeze()
    assert changed.nonzero().tolist() == [[1, 1]]


# ------------------------------------------------------------------------------------------------ cosines, frozen


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(0.01, 100))
def test_cosines_by_hand_whatever_the_lengths(seed: int, features: float, weights: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer, x = CosineLinear(5, 7), torch.randn(4, 5, generator=generator)
    found = layer(x)
    expected = nn.functional.cosine_similarity(x[:, None], layer.weight[None], dim=2)
    torch.testing.assert_close(found, expected)
    assert float(found.detach().abs().max()) <= 1 + 1e-6
    with torch.no_grad():
        layer.weight.mul_(weights)
    torch.testing.assert_close(layer(features * x), expected, rtol=1e-4, atol=1e-5)


def test_a_cosine_is_1_along_its_direction_and_minus_1_against_it() -> None:
    layer = CosineLinear(3, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 0, 0], [0, 0.5, 0], [-3, 0, 0]]))
    torch.testing.assert_close(layer(torch.tensor([[7.0, 0, 0]])), torch.tensor([[1.0, 0.0, -1.0]]))
    assert layer(torch.zeros(1, 3)).tolist() == [[0.0] * 3]  # no direction, and no NaN


def test_cosines_have_the_gradient_of_what_they_are() -> None:
    layer = CosineLinear(3, 2).double()
    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)

    def run(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(run, (x, layer.weight))


def test_frozen_modules_learn_nothing_and_the_rest_does() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Linear(2, 2))
    found = freeze(module, ["1"])
    assert found == [module[1]]
    assert [p.requires_grad for p in module.parameters()] == [True] * 2 + [False] * 4 + [True] * 2
    assert [m.training for m in module.modules()] == [True, True, False, False, False, True]
    assert freeze(module, []) == []
    with pytest.raises(PolyfaceError, match="frozen names '3'"):
        freeze(module, ["3"])
