"""What methods on gradients have in common: symmetry between tasks, units, degenerate gradients; and GradNorm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradients import SOLVED, jacobians, letters, solve, step
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import AT_GRADIENTS, TASKS, Toy, Training, batch, optimiser

from polyface.weighting import Context, GradNorm, build

IN_RANDOM_ORDER = {"gradvac", "pcgrad"}
# Weights of gradients that are all c times as long: c to this power. Nash-MTL without its limit of length.
POWER = {name: 0.0 for name in SOLVED} | {"nash": -1.0, "fairgrad": -4 / 3}
NO_LIMIT = {"nash": {"max_norm": None}}


@pytest.mark.parametrize("name", SOLVED)
@given(jacobian=jacobians(2, 5), data=st.data())
@settings(max_examples=15)
def test_the_order_of_tasks_does_not_matter(name: str, jacobian: np.ndarray, data: st.DataObject) -> None:
    if name in IN_RANDOM_ORDER:
        jacobian = jacobian[:2]
    order = data.draw(st.permutations(range(len(jacobian))))
    expected = solve(name, jacobian)[order]
    np.testing.assert_allclose(solve(name, jacobian[order]), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", SOLVED)
@given(jacobian=jacobians(2, 4), factor=st.floats(1e-6, 1e6))
@settings(max_examples=15)
def test_a_common_unit(name: str, jacobian: np.ndarray, factor: float) -> None:
    options = NO_LIMIT.get(name, {})
    expected = solve(name, jacobian, **options) * factor ** POWER[name]
    found = solve(name, jacobian * factor, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["nash", "imtl-g"])
@given(jacobian=jacobians(2, 4), data=st.data())
@settings(max_examples=25)
def test_blind_to_the_unit_of_one_loss(name: str, jacobian: np.ndarray, data: st.DataObject) -> None:
    """The direction of the update stays whatever the losses are measured in; with Nash-MTL its length does too."""
    units = np.array([[data.draw(st.floats(1e-3, 1e3))] for _ in jacobian])
    plain = solve(name, jacobian, **NO_LIMIT.get(name, {})) @ jacobian
    scaled = solve(name, jacobian * units, **NO_LIMIT.get(name, {})) @ (jacobian * units)
    if name == "imtl-g":
        plain, scaled = plain / np.linalg.norm(plain), scaled / np.linalg.norm(scaled)
        scaled *= np.sign(plain @ scaled)  # with Σ w = 1 the sign follows the units
    np.testing.assert_allclose(scaled, plain, atol=1e-6 * np.abs(plain).max())


@pytest.mark.parametrize("name", SOLVED)
@given(jacobian=jacobians(2, 4))
@settings(max_examples=10)
def test_losses_themselves_do_not_matter(name: str, jacobian: np.ndarray) -> None:
    values = np.arange(len(jacobian)) + 1e-3
    found = step(build(name, letters(len(jacobian))), jacobian, values)
    np.testing.assert_array_equal(found, solve(name, jacobian))


@pytest.mark.parametrize("name", SOLVED)
@given(jacobian=jacobians(2, 4), where=st.integers(0, 9))
@settings(max_examples=10)
def test_a_gradient_of_zero_is_left_out(name: str, jacobian: np.ndarray, where: int) -> None:
    place = where % (len(jacobian) + 1)
    found = solve(name, np.insert(jacobian, place, 0.0, axis=0))
    assert found[place] == 0
    np.testing.assert_allclose(np.delete(found, place), solve(name, jacobian), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SOLVED)
def test_no_gradient_at_all(name: str) -> None:
    assert solve(name, np.zeros((3, 4))).tolist() == [1, 1, 1]


# Two tasks with the same gradient, of length 1. MGDA: any share.
IDENTICAL = {"nash": 0.5, "fairgrad": 2 ** (-2 / 3), "cagrad": 0.5 + 0.4 / 2, "pcgrad": 1.0, "gradvac": 1.0}


@pytest.mark.parametrize("name", SOLVED)
def test_identical_gradients(name: str) -> None:
    found = solve(name, np.array([[0.6, 0.8], [0.6, 0.8]]))
    if name == "mgda":
        assert found.sum() == pytest.approx(1)
        assert found.min() >= 0
    elif name == "cagrad":  # so does the share of its second part
        assert found.sum() == pytest.approx(1.4)
        assert found.min() >= 0.5
    else:
        assert found == pytest.approx([IDENTICAL.get(name, 0.5)] * 2, rel=1e-6)


# Two opposite gradients, the second r times as long as the first; nan: 1/T, and a warning.
OPPOSITE: dict[str, Callable[[float], tuple[float, float]]] = {
    "mgda": lambda r: (r / (1 + r), 1 / (1 + r)),
    "pcgrad": lambda r: (1 + r, 1 + 1 / r),
    "gradvac": lambda r: (1 + r, 1 + 1 / r),
    "upgrad": lambda r: ((1 + r) / 2, (1 + 1 / r) / 2),
    "aligned": lambda r: ((1 - r) / (1 + r**2) / 2, (r - 1) * r / (1 + r**2) / 2),
} | dict.fromkeys(["nash", "fairgrad", "imtl", "imtl-g"], lambda r: (math.nan, math.nan))


@pytest.mark.parametrize("name", SOLVED)
@given(size=st.integers(1, 20), seed=st.integers(0, 999), ratio=st.floats(0.01, 100))
@settings(max_examples=40)
def test_opposite_gradients(name: str, size: int, seed: int, ratio: float) -> None:
    """No step helps both: methods stand still, or fall back to equal weights and say so. Rounding, which makes the
    angle a little less than 180°, does not decide."""
    gradient = np.random.default_rng(seed).normal(size=size)
    jacobian = np.stack([gradient, -ratio * gradient])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = solve(name, jacobian)
    expected = np.array(OPPOSITE.get(name, lambda r: found)(ratio))
    assert len(said) == np.isnan(expected).any()
    np.testing.assert_allclose(found, np.nan_to_num(expected, nan=0.5), rtol=1e-4, atol=1e-9)
    if name in ("mgda", "pcgrad", "gradvac", "upgrad"):
        scale = np.linalg.norm(jacobian, axis=1).min()
        assert np.linalg.norm(found @ jacobian) < 1e-4 * scale
    if name == "cagrad":  # within c|g_0| of the mean gradient, unless that is 0
        mean = jacobian.mean(0)
        rounding = 1e-9 * np.linalg.norm(jacobian)
        assert np.linalg.norm(found @ jacobian - mean) <= 0.4 * np.linalg.norm(mean) + rounding


@pytest.mark.parametrize("name", ["nash", "fairgrad"])
def test_an_unsolvable_step_is_said_once_and_leaves_nothing_behind(name: str) -> None:
    """Three gradients at 120° have a vanishing positive combination; the steps before and after are as ever."""
    angles = np.arange(3) * 2 * np.pi / 3
    star = np.stack([np.cos(angles), np.sin(angles)], 1)
    good = np.array([[1.0, 0.2], [0.3, 1.0], [1.0, 1.0]])
    weighting = build(name, letters(3))
    with pytest.warns(UserWarning, match="no solution") as said:
        found = [step(weighting, jacobian) for jacobian in (good, star, star, good)]
    assert len(said) == 1
    assert found[1].tolist() == found[2].tolist() == [1 / 3] * 3
    assert found[0].tolist() == found[3].tolist() == solve(name, good).tolist()


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("size", [2, 5, 12])
def test_dependent_gradients(name: str, size: int) -> None:
    """More tasks than directions: the Gramian is singular. Finite weights, and no more than they should be."""
    random = np.random.default_rng(size)
    jacobian = random.normal(size=(size, 3)) @ random.normal(size=(3, 9)) + 2 * random.normal(size=(1, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = solve(name, jacobian)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found @ jacobian) <= 2 * np.linalg.norm(jacobian, axis=1).sum()


@pytest.mark.parametrize("name", SOLVED)
def test_forty_tasks(name: str) -> None:
    """As many as there are attributes: a step takes milliseconds and gives finite weights."""
    jacobian = np.random.default_rng(0).normal(size=(40, 400)) + 0.1
    found = solve(name, jacobian)
    assert found.shape == (40,)
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0 or name in ("upgrad", "pcgrad")


@pytest.mark.parametrize("level", ["features", "shared"])
@pytest.mark.parametrize("name", AT_GRADIENTS)
def test_the_network_gets_the_weighted_gradient(name: str, level: str) -> None:
    """Trunk and heads: Σ w_t ∇L_t with the weights that are reported; the weighting's own loss adds nothing."""
    toy, given = Toy(name, level=level), batch(2)
    toy(given).backward()
    network = {n: p for n, p in toy.named_parameters() if not n.startswith("weighting.")}
    losses, _ = toy.losses(given)
    weighted = sum(toy.weights[task] * loss for task, loss in losses.items())
    expected = torch.autograd.grad(weighted, list(network.values()))
    for (parameter_name, parameter), gradient in zip(network.items(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14, msg=parameter_name)


@given(jacobian=jacobians(2, 4), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_imtl_balances_losses_first(jacobian: np.ndarray, seed: int) -> None:
    """w_t = α_t e^{s_t}, with Σ α = 1 and equal projections on all gradients; s_t is drawn to e^{s_t} L_t = 1."""
    weighting = build("imtl", letters(len(jacobian))).double()
    scales = np.random.default_rng(seed).normal(size=len(jacobian))
    with torch.no_grad():
        weighting.log_scale.copy_(torch.from_numpy(scales))
    weights = step(weighting, jacobian)
    assert (weights / np.exp(scales)).sum() == pytest.approx(1)
    unit = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    projections = unit @ (weights @ jacobian)
    np.testing.assert_allclose(projections, projections.mean(), atol=1e-6 * np.abs(weights @ jacobian).max())

    shared = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    losses = {task: (i + 2) * (1 + shared.sum() + i * shared[0, 0]) for i, task in enumerate(weighting.tasks)}
    weighting.combine(losses, Context(shared=shared)).total.backward()
    expected = np.exp(scales) * (np.arange(len(jacobian)) + 2) - 1
    np.testing.assert_allclose(weighting.log_scale.grad.numpy(), expected)


# --- GradNorm


def gradnorm(alpha: float = 1.5) -> GradNorm:
    weighting = build("gradnorm", letters(2), alpha=alpha).double()
    assert isinstance(weighting, GradNorm)
    return weighting


def gradnorm_step(weighting: GradNorm, values: list[float], lengths: list[float], lr: float) -> dict[str, float]:
    shared = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[n, 1.0, 0.0] for n in lengths], dtype=torch.float64)
    scale[:, 0] = (scale[:, 0] ** 2 - 1).sqrt()  # overlapping gradients of these lengths
    losses = {task: (row * shared).sum() + value for task, row, value in zip("ab", scale, values, strict=True)}
    combined = weighting.combine(losses, Context(shared=shared))
    (gradient,) = torch.autograd.grad(combined.total, weighting.raw)
    with torch.no_grad():
        weighting.raw -= lr * gradient
    return combined.weights


def test_gradnorm_by_hand() -> None:
    """n = (2, 6) and equal rates: goal 4 each, so |w n − 4| has the signs −, +, gradients −2, +6.
    After lr 0.05: w = (1.1, 0.7), scaled to Σ = 2: (11/9, 7/9).
    Then losses (2, 1) of first (4, 4): rates (½, ¼) over their mean ⅜: (4/3, 2/3). Mean of w n = 32/9·…"""
    weighting = gradnorm(alpha=1.0)
    assert gradnorm_step(weighting, [4, 4], [2, 6], lr=0.05) == {"a": 1, "b": 1}
    assert weighting.raw.tolist() == pytest.approx([1.1, 0.7])
    found = gradnorm_step(weighting, [2, 1], [2, 6], lr=0.05)
    assert found == pytest.approx({"a": 11 / 9, "b": 7 / 9})
    # w n = (22/9, 42/9), mean 32/9; goals 128/27 and 64/27: signs −, +, gradients −2, +6 again
    assert weighting.raw.tolist() == pytest.approx([11 / 9 + 0.1, 7 / 9 - 0.3])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5, 2.0])
def test_gradnorm_pulls_by_the_power_of_the_rates(alpha: float) -> None:
    """Rates ½ and ¼ over their mean: 4/3 and 2/3. L_grad = |3 − 3·(4/3)^α| + |3 − 3·(2/3)^α|."""
    weighting = gradnorm(alpha)
    gradnorm_step(weighting, [4, 4], [3, 3], lr=0)
    shared = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    losses = {"a": 2 + 3 * shared[0, 0], "b": 1 + (3 * shared).sum() / 2**0.5}
    found = weighting.combine(losses, Context(shared=shared)).own_loss
    assert found.item() == pytest.approx(abs(3 - 3 * (4 / 3) ** alpha) + abs(3 - 3 * (2 / 3) ** alpha))


def test_gradnorm_brings_the_lengths_together() -> None:
    """α = 0: weighted lengths go to one value, whatever the gradients are; weights keep their sum."""
    weighting = gradnorm(alpha=0.0)
    for _ in range(400):
        found = gradnorm_step(weighting, [1, 1], [2, 6], lr=0.005)
    assert found["a"] * 2 == pytest.approx(found["b"] * 6, rel=0.05)
    assert sum(found.values()) == pytest.approx(2)


def test_gradnorm_favours_the_task_that_learns_slowly() -> None:
    weighting = gradnorm()
    gradnorm_step(weighting, [1, 1], [3, 3], lr=0.025)
    for _ in range(3):
        found = gradnorm_step(weighting, [0.9, 0.2], [3, 3], lr=0.025)
    assert found["a"] > 1 > found["b"]


def test_gradnorm_never_weighs_below_zero() -> None:
    weighting = gradnorm()
    with torch.no_grad():
        weighting.raw.copy_(torch.tensor([-0.5, 1.0]))
    assert gradnorm_step(weighting, [1, 1], [3, 3], lr=0) == {"a": 0, "b": 2}
    with torch.no_grad():
        weighting.raw.copy_(torch.tensor([-0.5, -1.0]))
    assert gradnorm_step(weighting, [1, 1], [3, 3], lr=0) == {"a": 1, "b": 1}


def test_gradnorm_has_a_rate_of_its_own() -> None:
    assert build("gradnorm", TASKS).lr == 0.025
    assert build("gradnorm", TASKS, lr=None).lr is None
    toy = Toy("gradnorm")
    training = Training(toy, optimiser(toy, lr=0.3))
    before = toy.own()["raw"]
    training.step(batch(0), batch(1))
    gradient = toy.gradients()["weighting.raw"]
    torch.testing.assert_close(toy.own()["raw"], before - 0.025 * gradient)
