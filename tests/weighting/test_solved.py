"""Methods that solve for weights in the Gramian: the same weights as TorchJD gives, or what their problem demands."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradients import jacobians, letters, solve, step
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.weighting import build

CONFLICT = np.array([[1.0, 0.0], [-1.0, 1.0]])
THREE = np.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-0.5, -1.0, 1.0]])


def torchjd(name: str) -> Any:
    return getattr(pytest.importorskip("torchjd.aggregation"), name)


def oracle(weighting: Callable[[torch.Tensor], torch.Tensor], jacobian: np.ndarray) -> np.ndarray:
    matrix = torch.from_numpy(jacobian)
    return weighting(matrix @ matrix.T).numpy()


def close(found: np.ndarray, expected: np.ndarray, rtol: float = 1e-7) -> None:
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def length(weights: np.ndarray, jacobian: np.ndarray) -> float:
    return float(np.linalg.norm(weights @ jacobian))


def simplex(size: int, parts: int) -> np.ndarray:
    """All points of the simplex whose coordinates are multiples of 1 / parts."""
    axes = itertools.product(range(parts + 1), repeat=size - 1)
    return np.array([(*point, parts - sum(point)) for point in axes if sum(point) <= parts]) / parts


# --- MGDA


@given(jacobians())
def test_mgda_is_the_shortest_combination(jacobian: np.ndarray) -> None:
    """Optimal on the simplex: all gradients project at least as far onto the answer as it is long, used ones as far."""
    weights = solve("mgda", jacobian)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    answer = weights @ jacobian
    slack = jacobian @ answer - answer @ answer
    scale = np.linalg.norm(jacobian, axis=1) * np.linalg.norm(answer)
    assert (slack > -1e-7 * scale).all()
    assert (slack[weights > 1e-6] < 1e-7 * scale[weights > 1e-6] + 1e-9 * scale.max()).all()


@given(jacobians(2, 2))
def test_mgda_of_two_tasks_by_formula(jacobian: np.ndarray) -> None:
    a, b = jacobian
    first = float(np.clip(b @ (b - a) / ((a - b) @ (a - b)), 0, 1))
    np.testing.assert_allclose(solve("mgda", jacobian), [first, 1 - first], atol=1e-7)


@given(jacobians())
@settings(max_examples=20)
def test_mgda_is_where_frank_wolfe_goes(jacobian: np.ndarray) -> None:
    """Never above the authors' iteration, and below it by no more than its known error, 16 max |g|² / k."""
    expected = oracle(torchjd("MGDAWeighting")(epsilon=1e-12, max_iters=3000), jacobian)
    ours, theirs = length(solve("mgda", jacobian), jacobian) ** 2, length(expected, jacobian) ** 2
    assert theirs - 16 * (jacobian**2).sum(1).max() / 3000 <= ours <= theirs * (1 + 1e-9)


# --- PCGrad and GradVac


@given(jacobians(2, 2))
def test_pcgrad_of_two_tasks(jacobian: np.ndarray) -> None:
    close(solve("pcgrad", jacobian), oracle(torchjd("PCGradWeighting")(), jacobian))


def test_pcgrad_by_hand() -> None:
    """g_1 = (1, 0) loses its part along g_2 = (−1, 1): + ½ g_2; g_2 loses its along g_1: + g_1."""
    assert solve("pcgrad", CONFLICT) == pytest.approx([2, 1.5])
    assert solve("pcgrad", -CONFLICT) == pytest.approx([2, 1.5])
    assert solve("pcgrad", np.abs(CONFLICT)) == pytest.approx([1, 1])


def surgeries(jacobian: np.ndarray) -> list[np.ndarray]:
    """Weights for every order that PCGrad can draw, operating on the vectors themselves (Algorithm 1)."""
    tasks = range(len(jacobian))
    orders = [list(itertools.permutations([j for j in tasks if j != i])) for i in tasks]
    found = []
    for chosen in itertools.product(*orders):
        total = np.zeros(jacobian.shape[1])
        for i in tasks:
            g = jacobian[i].copy()
            for j in chosen[i]:
                inner = g @ jacobian[j]
                if inner < 0:
                    g -= inner / (jacobian[j] @ jacobian[j]) * jacobian[j]
            total += g
        found.append(np.linalg.lstsq(jacobian.T, total, rcond=None)[0])
    return found


@given(jacobians(3, 3))
def test_pcgrad_of_three_tasks_is_one_of_the_orders(jacobian: np.ndarray) -> None:
    found = solve("pcgrad", jacobian)
    assert min(np.abs(found - other).max() for other in surgeries(jacobian)) < 1e-7 * np.abs(found).max()


def test_pcgrad_draws_a_new_order_at_every_step() -> None:
    """From (seed, call): all orders come, another seed has others, and the same seed the same ones."""

    def run(seed: int) -> list[tuple[float, ...]]:
        weighting = build("pcgrad", letters(3), seed=seed)
        return [tuple(step(weighting, THREE).round(9)) for _ in range(40)]

    assert set(run(0)) == {tuple(weights.round(9)) for weights in surgeries(THREE)}
    assert len(set(run(0))) > 1
    assert run(0) == run(0)
    assert run(0) != run(1)


@given(st.lists(jacobians(2, 2), min_size=4, max_size=4), st.floats(0.01, 1))
def test_gradvac_of_two_tasks_step_by_step(steps: list[np.ndarray], beta: float) -> None:
    theirs = torchjd("GradVacWeighting")(beta=beta, eps=0.0)
    ours = build("gradvac", letters(2), beta=beta)
    for jacobian in steps:
        close(step(ours, jacobian), oracle(theirs, jacobian), rtol=1e-6)


@given(jacobians(3, 4))
def test_gradvac_starts_as_pcgrad(jacobian: np.ndarray) -> None:
    close(solve("gradvac", jacobian), solve("pcgrad", jacobian))


@pytest.mark.filterwarnings("ignore:.*cannot conflict.*")  # the right angle is meant
@given(jacobians(2, 2))
def test_gradvac_moves_the_angle_to_its_target(jacobian: np.ndarray) -> None:
    """With β = 1 the target is the last cosine: after steps at 60°, gradients at 90° are brought to 60° again."""
    size = np.linalg.norm(jacobian, axis=1)
    weighting = build("gradvac", letters(2), beta=1.0)
    step(weighting, np.diag(size) @ np.array([[1.0, 0.0], [0.5, 0.75**0.5]]))
    weights = step(weighting, np.diag(size) @ np.eye(2))
    # g_1 + x g_2 has cosine ½ with g_2 where x |g_2| = |g_1| / √3
    assert weights == pytest.approx([1 + size[1] / size[0] / 3**0.5, 1 + size[0] / size[1] / 3**0.5])


# --- CAGrad


@pytest.mark.parametrize("c", [0.2, 0.4, 0.9])
@given(jacobian=jacobians(2, 3))
@settings(max_examples=20)
def test_cagrad_solves_its_problem(c: float, jacobian: np.ndarray) -> None:
    """w = 1/T + c |g_0| / |g_w| · w*, and no point of a fine grid has a smaller objective (Eq. 4) than w*."""
    size = len(jacobian)
    weights = solve("cagrad", jacobian, c=c)
    mean = jacobian.mean(0)
    best = (weights - 1 / size) / (weights - 1 / size).sum()
    assert best.min() > -1e-9
    radius = c * np.linalg.norm(mean)
    close(weights, 1 / size + radius / length(best, jacobian) * best, rtol=1e-6)

    grid = simplex(size, 400 if size == 2 else 60) @ jacobian
    least = (grid @ mean + radius * np.linalg.norm(grid, axis=1)).min()
    ours = best @ jacobian
    assert ours @ mean + radius * np.linalg.norm(ours) <= least + 1e-6 * abs(least)


@given(jacobians(2, 3))
def test_cagrad_has_the_largest_worst_improvement(jacobian: np.ndarray) -> None:
    """Primal optimality, in the units of Eq. 1: min_t g_t·d within c|g_0| of g_0 is no smaller than at the mean."""
    c = 0.5
    mean = jacobian.mean(0)
    d = solve("cagrad", jacobian, c=c) @ jacobian
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(d - mean) == pytest.approx(radius, rel=1e-6)
    around = np.random.default_rng(0).normal(size=(500, len(mean)))
    others = mean + radius * around / np.linalg.norm(around, axis=1, keepdims=True)
    worst = (jacobian @ d).min()
    assert worst >= (others @ jacobian.T).min(1).max() - 1e-6 * np.abs(jacobian @ d).max()


@given(jacobians())
def test_cagrad_options(jacobian: np.ndarray) -> None:
    close(solve("cagrad", jacobian, c=0.0), np.full(len(jacobian), 1 / len(jacobian)))
    close(solve("cagrad", jacobian, c=0.5, rescale=True), solve("cagrad", jacobian, c=0.5) / 1.25)


# --- Nash-MTL and FairGrad


@given(jacobians())
def test_nash_is_the_bargain(jacobian: np.ndarray) -> None:
    """G α = 1/α: every task's share of the squared step is 1."""
    weights = solve("nash", jacobian, max_norm=None)
    assert weights.min() > 0
    np.testing.assert_allclose(weights * (jacobian @ (weights @ jacobian)), 1, rtol=1e-6)
    assert length(weights, jacobian) == pytest.approx(len(jacobian) ** 0.5)
    capped = solve("nash", jacobian)
    assert length(capped, jacobian) == pytest.approx(1)
    close(capped * len(jacobian) ** 0.5, weights)


@given(jacobians(), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_fairgrad_is_the_fixed_point(jacobian: np.ndarray, alpha: float) -> None:
    weights = solve("fairgrad", jacobian, alpha=alpha)
    assert weights.min() > 0
    np.testing.assert_allclose(jacobian @ (weights @ jacobian) * weights ** (1 / alpha), 1, rtol=1e-6)


@given(jacobians())
@settings(max_examples=20)
def test_fairgrad_is_where_least_squares_goes(jacobian: np.ndarray) -> None:
    jacobian = jacobian / np.linalg.norm(jacobian)  # their solver stops at absolute tolerances
    expected = oracle(torchjd("FairGradWeighting")(alpha=2.0), jacobian)
    residual = jacobian @ (expected @ jacobian) - expected**-0.5
    if np.abs(residual).max() < 1e-5:
        close(solve("fairgrad", jacobian), expected, rtol=1e-3)


@given(jacobians())
def test_fairgrad_at_its_ends(jacobian: np.ndarray) -> None:
    close(solve("fairgrad", jacobian, alpha=0), np.full(len(jacobian), 1 / len(jacobian)))
    close(solve("fairgrad", jacobian, alpha=1), solve("nash", jacobian, max_norm=None), rtol=1e-6)


# --- Aligned-MTL, IMTL-G, UPGrad


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@given(jacobian=jacobians(2, 5))
@settings(max_examples=20)
def test_aligned(scale: str, jacobian: np.ndarray) -> None:
    if scale == "median" and len(jacobian) % 2 == 0:
        jacobian = jacobian[1:]  # of an even number, torch's median is the lower one
    close(solve("aligned", jacobian, scale=scale), oracle(torchjd("AlignedMTLWeighting")(scale_mode=scale), jacobian))


@given(jacobians(), st.data())
def test_aligned_with_preferences(jacobian: np.ndarray, data: st.DataObject) -> None:
    given_ = [data.draw(st.floats(0.1, 9)) for _ in jacobian]
    share = torch.tensor(given_, dtype=torch.float64) / sum(given_)
    found = solve("aligned", jacobian, preferences=dict(zip(letters(len(jacobian)), given_, strict=True)))
    close(found, oracle(torchjd("AlignedMTLWeighting")(pref_vector=share), jacobian))


@given(jacobians(2, 4))
def test_aligned_makes_the_gradients_orthogonal_and_equally_long(jacobian: np.ndarray) -> None:
    """Its matrix B, column by column, from preferences for one task each: B G Bᵀ is a multiple of the identity."""
    names = letters(len(jacobian))
    one = [dict.fromkeys(names, 0.0) | {task: 1.0} for task in names]
    matrix = np.array([solve("aligned", jacobian, preferences=preferences) for preferences in one])
    aligned = matrix @ jacobian @ jacobian.T @ matrix.T
    close(aligned, np.eye(len(jacobian)) * np.linalg.eigvalsh(jacobian @ jacobian.T)[0], rtol=1e-5)


@given(jacobians())
def test_imtl_g_projects_equally_on_all_gradients(jacobian: np.ndarray) -> None:
    weights = solve("imtl-g", jacobian)
    unit = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    assert weights.sum() == pytest.approx(1)
    projections = unit @ (weights @ jacobian)
    close(projections, np.full(len(unit), projections.mean()), rtol=1e-6)
    close(weights, oracle(torchjd("IMTLGWeighting")(), jacobian), rtol=1e-5)


@given(jacobians())
def test_imtl_starts_as_imtl_g(jacobian: np.ndarray) -> None:
    close(solve("imtl", jacobian), solve("imtl-g", jacobian))


def enumerated(start: np.ndarray, gramian: np.ndarray) -> np.ndarray:
    """argmin vᵀGv over v ≥ start, by trying every set of bounds that could hold."""
    size = len(gramian)
    best, least = start, np.inf
    for bits in itertools.product([False, True], repeat=size):
        free = np.array(bits)
        v = start.copy()
        if free.any():
            v[free] = -np.linalg.solve(gramian[np.ix_(free, free)], gramian[np.ix_(free, ~free)] @ start[~free])
        if (v >= start - 1e-9).all() and v @ gramian @ v < least:
            best, least = v, v @ gramian @ v
    return best


@given(jacobians())
def test_upgrad(jacobian: np.ndarray) -> None:
    """TorchJD's own algorithm around a projection by enumeration (its quadratic programs need another package)."""
    linear = pytest.importorskip("torchjd.linalg")

    class Projector(linear.DualConeProjector):  # type: ignore[misc, name-defined]
        def __call__(self, U: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.array([enumerated(row, G.numpy()) for row in U.numpy()]))

    close(solve("upgrad", jacobian), oracle(torchjd("UPGradWeighting")(projector=Projector()), jacobian), rtol=1e-6)


@given(jacobians())
def test_upgrad_makes_no_task_worse(jacobian: np.ndarray) -> None:
    weights = solve("upgrad", jacobian)
    update = weights @ jacobian
    improvement = jacobian @ update
    assert (improvement > -1e-7 * np.linalg.norm(jacobian, axis=1) * np.linalg.norm(update)).all()
    if (jacobian @ jacobian.T >= 0).all():
        close(weights, np.full(len(jacobian), 1 / len(jacobian)))
