"""Weights from losses alone: constant, learned scalars, random, geometric mean, smooth maximum, FAMO. Numbers by hand,
and the gradients of TorchJD's scalars over several steps of training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toy import TASKS, Toy, Training, batch, optimiser, patchy

from polyface.weighting import WEIGHTINGS, build

losses_of_three = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


def weights(name: str, values: list[float], **options: Any) -> list[float]:
    """Of a fresh weighting's first call, with these losses."""
    tasks = [f"task {i}" for i in range(len(values))]
    losses = {task: torch.tensor(value, dtype=torch.float64) for task, value in zip(tasks, values, strict=True)}
    return list(build(name, tasks, **options).double().combine(losses).weights.values())


def by_task(values: list[float]) -> dict[str, float]:
    return {f"task {i}": value for i, value in enumerate(values)}


# --- constant


def test_fixed_by_hand_and_its_gradient() -> None:
    losses = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(5.0, requires_grad=True)}
    combined = build("fixed", ["a", "b"], weights={"b": 0.1}).combine(losses)
    assert combined.loss.item() == pytest.approx(2.5)
    assert combined.weights == {"a": 1.0, "b": 0.1}
    assert combined.own_loss is None
    assert combined.total is combined.loss
    combined.total.backward()
    assert losses["a"].grad is not None
    assert losses["b"].grad is not None
    assert (losses["a"].grad.item(), losses["b"].grad.item()) == pytest.approx((1.0, 0.1))


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1))
def test_the_order_of_losses_does_not_matter(given_: dict[str, tuple[float, float]]) -> None:
    weighting = build("fixed", list(given_), weights={task: weight for task, (weight, _) in given_.items()})
    losses = {task: torch.tensor(loss, dtype=torch.double) for task, (_, loss) in given_.items()}
    forth, back = (weighting.combine(x).loss.item() for x in (losses, dict(reversed(losses.items()))))
    assert forth == back == pytest.approx(sum(weight * loss for weight, loss in given_.values()))


def test_a_weight_of_zero_leaves_no_gradient() -> None:
    loss = torch.tensor(3.0, requires_grad=True)
    build("fixed", ["a"], weights={"a": 0.0}).combine({"a": loss}).total.backward()
    assert loss.grad is not None
    assert loss.grad.item() == 0


@given(losses_of_three)
def test_uniform_is_the_sum(values: list[float]) -> None:
    assert weights("uniform", values) == [1, 1, 1]


# --- against TorchJD


class Theirs:
    """The same toy, trained through one of TorchJD's scalars of the losses."""

    def __init__(self, scalar: torch.nn.Module, lr: float) -> None:
        self.toy, self.scalar = Toy("uniform"), scalar.double()
        self.optimiser = torch.optim.SGD([*self.toy.parameters(), *scalar.parameters()], lr=lr)

    def values(self, i: int) -> Tensor:
        return torch.stack(list(self.toy.losses(batch(i))[0].values()))

    def step(self, i: int) -> None:
        self.optimiser.zero_grad()
        self.scalar(self.values(i)).backward()
        self.optimiser.step()
        if hasattr(self.scalar, "update"):
            with torch.no_grad():
                self.scalar.update(self.values(i))
        if hasattr(self.scalar, "step") and i % 3 == 2:
            self.scalar.step()


SCALARS: list[tuple[str, dict[str, Any], str, dict[str, Any], float]] = [
    ("uncertainty", {}, "UW", {"shape": 3}, 1e-9),
    ("imtl-l", {}, "IMTLL", {"shape": 3}, 1e-9),
    ("gls", {}, "GeometricMean", {}, 1e-9),
    ("stch", {"mu": 0.5}, "STCH", {"mu": 0.5}, 1e-9),
    (
        "stch",
        {"mu": 2.0, "preferences": {"pose": 0.2, "smile": 0.1, "landmarks": 0.7}, "ideal": {"smile": 4.0}},
        "STCH",
        {"mu": 2.0, "weights": [0.7, 0.2, 0.1], "reference": [0.0, 0.0, 4.0]},
        1e-9,
    ),
    ("famo", {}, "FAMO", {"shape": 3}, 1e-5),  # they add 1e-8 to every loss, and keep it in single precision
    (
        "famo",
        {"lr": 0.1, "weight_decay": 0.1, "minimum": {"landmarks": 0.1, "smile": 2.0}},
        "FAMO",
        {"shape": 3, "lr": 0.1, "weight_decay": 0.1, "min_losses": [0.1, 0.0, 2.0]},
        1e-5,
    ),
    ("dwa", {}, "DWA", {}, 1e-9),
    ("dwa", {"temperature": 0.5}, "DWA", {"temperature": 0.5}, 1e-9),
]


@pytest.mark.parametrize("name, options, theirs, arguments, rtol", SCALARS)
def test_trains_as_torchjd_does(
    name: str, options: dict[str, Any], theirs: str, arguments: dict[str, Any], rtol: float
) -> None:
    """Twelve steps: the same gradients of the network, which end in the same parameters; learned scalars too."""
    scalarization = pytest.importorskip("torchjd.scalarization")
    arguments = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in arguments.items()}
    other = Theirs(getattr(scalarization, theirs)(**arguments), lr=0.02)
    toy = Toy(name, **options)
    training = Training(toy, optimiser(toy, lr=0.02), epoch=3)
    # DWA's epoch mean is of the losses before each step; the toy's loop gives the hook those after it
    if name == "dwa":
        sums: list[dict[str, float]] = []
        training.epoch = 10**9
    for i in range(12):
        if name == "dwa":
            sums.append({task: loss.item() for task, loss in toy.losses(batch(i))[0].items()})
        training.step(batch(i), batch(0))
        other.step(i)
        if name == "dwa" and i % 3 == 2:
            toy.weighting.on_epoch_end({task: sum(s[task] for s in sums) / 3 for task in TASKS})
            sums = []
        for (path, p), (_, q) in zip(toy.network().items(), other.toy.network().items(), strict=True):
            torch.testing.assert_close(p, q, rtol=rtol, atol=rtol, msg=lambda text, at=(i, path): f"{at}: {text}")
    own = [p for p in toy.weighting.parameters()]
    if own:
        torch.testing.assert_close(own[0], next(other.scalar.parameters()), rtol=1e-9, atol=0)
    assert len({round(weight, 6) for weight in toy.weights.values()}) == 3


# --- uncertainty and IMTL-L


@pytest.mark.parametrize("name, factor", [("uncertainty", 0.5), ("imtl-l", 1.0)])
def test_learned_scalars_end_where_they_should(name: str, factor: float) -> None:
    """Constant losses: weights go to 1/(2L), or 1/L."""
    weighting = build(name, TASKS).double()
    losses = {task: torch.tensor(value, dtype=torch.float64) for task, value in zip(TASKS, (0.2, 1, 5), strict=True)}
    for _ in range(600):
        weighting.zero_grad()
        combined = weighting.combine(losses)
        combined.total.backward()
        with torch.no_grad():
            for parameter in weighting.parameters():
                parameter -= 0.2 * parameter.grad
    assert combined.weights == pytest.approx({task: factor / loss.item() for task, loss in losses.items()}, rel=1e-3)


# --- random


def test_rlw_is_a_softmax_of_what_seed_and_step_give() -> None:
    def run(**options: Any) -> list[tuple[float, ...]]:
        weighting = build("rlw", TASKS, **options)
        losses = {task: torch.ones(()) for task in TASKS}
        return [tuple(weighting.combine(losses).weights.values()) for _ in range(200)]

    plain = run()
    assert len(set(plain)) == 200
    assert all(sum(drawn) == pytest.approx(1) and min(drawn) > 0 for drawn in plain)
    torch.manual_seed(7)  # not torch's own generator
    assert run() == plain
    assert run(seed=1) != plain
    assert run(scale=3.0) == [pytest.approx([3 * weight for weight in drawn]) for drawn in plain]
    # the softmax of standard normal numbers: log w_1/w_2 has variance 2
    ratios = torch.tensor([math.log(a / b) for a, b, _ in plain])
    assert ratios.mean().item() == pytest.approx(0, abs=0.35)
    assert ratios.var().item() == pytest.approx(2, rel=0.35)


# --- geometric mean and smooth maximum


@given(losses_of_three)
def test_gls_by_formula(values: list[float]) -> None:
    """All w_t L_t are the geometric mean over T."""
    mean = math.exp(sum(map(math.log, values)) / 3)
    assert [w * v for w, v in zip(weights("gls", values), values, strict=True)] == pytest.approx([mean / 3] * 3)


@given(losses_of_three, st.floats(1e-3, 1e3))
def test_gls_is_blind_to_the_unit_of_one_loss(values: list[float], unit: float) -> None:
    """The gradient of L does not turn: w_t × unit, for the scaled loss too, up to the common factor unit^{1/3}."""
    plain, scaled = weights("gls", values), weights("gls", [values[0] * unit, *values[1:]])
    factor = unit ** (1 / 3)
    assert [scaled[0] * unit, *scaled[1:]] == pytest.approx([factor * weight for weight in plain])


def test_gls_leaves_out_what_is_reached() -> None:
    assert weights("gls", [4, 0, 1]) == pytest.approx([1 / 4, 0, 1])
    assert weights("gls", [0, 0, 0]) == [0, 0, 0]


def test_stch_by_hand() -> None:
    """λ = ⅓: w = ⅓ softmax((1, 2, 3)·⅓/⅓)."""
    total = math.e + math.e**2 + math.e**3
    expected = [math.e**power / total / 3 for power in (1, 2, 3)]
    assert weights("stch", [1, 2, 3], mu=1 / 3) == pytest.approx(expected)


@given(losses_of_three)
def test_stch_is_the_maximum_in_the_limit(values: list[float]) -> None:
    if sorted(values)[2] - sorted(values)[1] < 0.1:
        return
    expected = [1 / 3 if value == max(values) else 0.0 for value in values]
    assert weights("stch", values, mu=1e-4) == pytest.approx(expected, abs=1e-9)
    assert weights("stch", values, mu=1e7) == pytest.approx([1 / 9] * 3, rel=1e-3)


def test_stch_relative_is_the_gradient_of_its_scalar() -> None:
    """μ log Σ exp(λ_t log(L_t / L_t at first) / μ) over a training, and blind to the unit of a loss."""
    toy = Toy("stch", mu=0.3, relative=True)
    training = Training(toy, optimiser(toy))
    first = torch.stack(list(toy.losses(batch(0))[0].values())).detach()
    for i in range(4):
        values = torch.stack(list(toy.losses(batch(i))[0].values())).detach().requires_grad_()
        scalar = 0.3 * torch.logsumexp((values / first).log() / 3 / 0.3, 0)
        expected = torch.autograd.grad(scalar, values)[0].tolist()
        training.step(batch(i), batch(0))
        assert list(toy.weights.values()) == pytest.approx(expected)


def test_stch_relative_at_zero() -> None:
    weighting = build("stch", ["a", "b"], relative=True, preferences={"a": 0.0})
    for a, b in ((0.0, 2.0), (1.0, 0.0), (0.0, 0.0), (3.0, 1.0)):
        found = weighting.combine({"a": torch.tensor(a), "b": torch.tensor(b)}).weights
        assert all(math.isfinite(weight) and weight >= 0 for weight in found.values()), (a, b, found)


# --- FAMO


def test_famo_by_hand() -> None:
    """z = ⅓: w_t = c/(3 L_t), c = 3 / Σ 1/L: weights (1, ½, ¼)·4/7; Σ w_t = 1."""
    assert weights("famo", [1, 2, 4]) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert weights("famo", [1, 2, 4], minimum=by_task([0.5, 0, 3.5])) == pytest.approx([4 / 9, 1 / 9, 4 / 9])


def test_famo_favours_what_improved_less() -> None:
    toy = Toy("famo")
    for _ in range(5):
        toy.weighting.combine({task: torch.tensor(1.0) for task in TASKS})
        after = {"landmarks": torch.tensor(0.5), "pose": torch.tensor(0.9), "smile": torch.tensor(1.2)}
        toy.weighting.after_step(after)
    found = toy.weighting.combine({task: torch.tensor(1.0) for task in TASKS}).weights
    assert found["smile"] > found["pose"] > found["landmarks"]
    assert sum(found.values()) == pytest.approx(1)


def test_famo_stays_where_all_improve_alike() -> None:
    """The rate of improvement counts, not its size."""
    toy = Toy("famo", weight_decay=0.0)
    for scale in (1.0, 0.7, 0.3):
        losses = {
            task: torch.tensor(scale * size, dtype=torch.float64) for task, size in zip(TASKS, (1, 5, 9), strict=True)
        }
        toy.weighting.combine(losses)
        toy.weighting.after_step({task: 0.8 * loss for task, loss in losses.items()})
    assert toy.weighting.state["logits"] == pytest.approx([0, 0, 0], abs=1e-4)


def test_famo_without_its_second_forward_is_constant() -> None:
    toy = Toy("famo")
    found = [toy.weighting.combine(*toy.losses(batch(0))).weights for _ in range(3)]
    assert found[0] == found[1] == found[2]
    before = repr(toy.weighting.get_extra_state()["logits"])
    with torch.no_grad():
        toy.weighting.after_step(*toy.losses(patchy(1)))
        changed = repr(toy.weighting.get_extra_state()["logits"])
        toy.weighting.after_step(*toy.losses(patchy(2)))  # twice for one step: the second has nothing to compare with
    assert changed != before
    assert repr(toy.weighting.get_extra_state()["logits"]) == changed


def test_only_famo_asks_for_a_second_forward() -> None:
    assert [
        name for name, method in ((name, WEIGHTINGS.get(name)) for name in WEIGHTINGS.names()) if method.second_forward
    ] == ["famo"]  # type: ignore[attr-defined]
