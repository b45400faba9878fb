"""Weights learned from shared features: Yin & Liu 2018, Ming et al. 2021 and the naive scheme between them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toy import FEATURES, TASKS, Toy, Training, batch, optimiser, patchy

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.weighting import Context, Weighting, build

distinct = st.lists(st.floats(0.05, 9), min_size=2, max_size=3, unique_by=lambda value: round(value, 1))


def one_step(name: str, values: list[float], shared: Tensor, rate: float, **options: Any) -> list[float]:
    """Weights after one gradient step of the weighting's parameters, with these losses and features [B, D]."""
    tasks = [f"task {i}" for i in range(len(values))]
    weighting = build(name, tasks, features=shared.shape[1], **options).double()
    losses = {task: torch.tensor(value, dtype=torch.float64) for task, value in zip(tasks, values, strict=True)}
    combined = weighting.combine(losses, Context(shared=shared))
    assert len(set(combined.weights.values())) == 1  # from zero, all are equal
    combined.total.backward()
    with torch.no_grad():
        for parameter in weighting.parameters():
            parameter -= rate * parameter.grad
    return list(weighting.combine(losses, Context(shared=shared)).weights.values())


def order(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=values.__getitem__)


FACE = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)


@given(distinct, st.floats(1e-3, 0.5))
def test_ming_weighs_like_the_losses(values: list[float], rate: float) -> None:
    """From zero, one step on L_4 gives the larger loss the larger weight."""
    found = one_step("ming", values, FACE, rate, logit_norm=None)
    assert order(found) == order(values)
    assert sum(found) == pytest.approx(1)


@given(distinct, st.floats(1e-3, 0.05))
def test_yin_and_the_naive_scheme_weigh_against_the_losses(values: list[float], rate: float) -> None:
    """Trained by Σ w_t L_t, weight goes to the task with the smallest loss."""
    found = one_step("naive-dynamic", values, FACE, rate, logit_norm=None)
    assert order(found) == order(values)[::-1]
    side = one_step("yin-liu", values, FACE, rate, groups=[{"tasks": [f"task {i}" for i in range(len(values))]}])
    assert order(side) == order(values)[::-1]


@given(st.floats(0.2, 9), st.floats(0.2, 9), st.floats(1e-3, 0.5))
def test_ming_ratio_of_two_tasks(first: float, second: float, rate: float) -> None:
    """w_1/w_2 = exp(2η (1/L_2 − 1/L_1) w_1 w_2 (|Z|² + 1)), with L + σ for L and ½ for the weights before the step."""
    found = one_step("ming", [first, second], FACE, rate, logit_norm=None, sigma=0.01)
    gap = 1 / (second + 0.01) - 1 / (first + 0.01)
    exponent = 2 * rate * gap / 4 * (float(FACE.square().sum()) + 1)
    assert math.log(found[0] / found[1]) == pytest.approx(exponent, rel=1e-6, abs=1e-9)


def logits(weighting: Weighting) -> Tensor:
    """Ψ of the first group, [tasks, features]."""
    return dict(weighting.named_parameters())["logits.0.weight"]


@pytest.mark.parametrize("norm, least, most", [(1.0, 0.1281, 0.6299), (2.0, 0.0414, 0.8528), (0.5, 0.2132, 0.4798)])
def test_ming_keeps_weights_from_the_corners(norm: float, least: float, most: float) -> None:
    """Logits of length `norm` bound the weights of three tasks, and the bounds are reached."""
    weighting = build("ming", TASKS, features=2, logit_norm=norm).double()
    losses = {task: torch.ones((), dtype=torch.float64) for task in TASKS}
    extremes = []
    for angle in torch.linspace(0, 2 * math.pi, 241, dtype=torch.float64):
        with torch.no_grad():  # two directions orthogonal to (1, 1, 1), turned through a circle
            a = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64) / 2**0.5
            b = torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64) / 6**0.5
            logits(weighting).copy_(50 * torch.stack([angle.cos() * a + angle.sin() * b, 0 * a], 1))
        shared = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        found = weighting.combine(losses, Context(shared=shared)).weights.values()
        assert sum(found) == pytest.approx(1)
        extremes += found
    assert min(extremes) == pytest.approx(least, abs=1e-4)
    assert max(extremes) == pytest.approx(most, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"logit_norm": None}, {"logit_norm": 2.0}, {"sigma": 1.0}], ids=str)
@pytest.mark.parametrize("level", [0.0, 0.3, 20.0])
def test_equal_losses_teach_ming_nothing(options: dict[str, Any], level: float) -> None:
    weighting = build("ming", TASKS, features=FEATURES, **options).double()
    with torch.no_grad():
        logits(weighting).normal_()
    losses = {task: torch.tensor(level, dtype=torch.float64, requires_grad=True) for task in TASKS}
    combined = weighting.combine(losses, Context(shared=torch.randn(4, FEATURES, dtype=torch.float64)))
    combined.total.backward()
    assert all(parameter.grad.abs().max() < 1e-12 / (level + 0.01) for parameter in weighting.parameters())


def reached(loss: Tensor, toy: Toy) -> set[str]:
    """The parts of the toy whose parameters a loss has a gradient for that is not zero."""
    toy.zero_grad()
    loss.backward()
    return {n.partition(".")[0] for n, p in toy.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("name, options", [("ming", {}), ("ming", {"logit_norm": None}), ("ming", {"sigma": 5.0})])
def test_ming_trains_two_things_apart(name: str, options: dict[str, Any]) -> None:
    """L_4 has no gradient for the network and the network's loss none for Ψ, so a step on either leaves the other bit
    for bit as it was."""
    toy = Toy(name, **options)
    combined = toy.weighting.combine(*toy.losses(batch(1)))
    assert combined.own_loss is not None
    assert reached(combined.own_loss, toy) == {"weighting"}
    combined = toy.weighting.combine(*toy.losses(batch(1)))
    assert reached(combined.loss, toy) == {"trunk", "heads"}


def test_a_step_on_one_loss_leaves_the_rest_bit_for_bit() -> None:
    for which, stays in (("own_loss", "network"), ("loss", "own")):
        toy = Toy("ming")
        before = getattr(toy, stays)()
        for i in range(3):
            toy.zero_grad()
            getattr(toy.weighting.combine(*toy.losses(batch(i))), which).backward()
            torch.optim.SGD(toy.parameters(), lr=0.1).step()
        assert all(torch.equal(tensor, before[name]) for name, tensor in getattr(toy, stays)().items())
        other = toy.own() if stays == "network" else toy.network()
        start = Toy("ming").own() if stays == "network" else Toy("ming").network()
        assert not all(torch.equal(tensor, start[name]) for name, tensor in other.items())


def test_ming_with_gradient_through_the_weights() -> None:
    """The code's variant: the trunk minimises Σ w_t(x)·L_t with w open, Ψ still L_4 alone."""
    plain, open_ = Toy("ming"), Toy("ming", through_weights=True)
    given = batch(1)
    losses, context = open_.losses(given)
    (layer,) = open_.weighting.logits
    z = layer(context.shared)
    w = (z / z.norm(dim=1, keepdim=True)).softmax(1).mean(0)
    trunk = list(open_.trunk.parameters())
    expected = torch.autograd.grad(sum(w[i] * loss for i, loss in enumerate(losses.values())), trunk)
    for toy in (plain, open_):
        toy(given).backward()
    for parameter, gradient in zip(trunk, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-14)
    assert any(not torch.allclose(p.grad, q.grad) for p, q in zip(plain.trunk.parameters(), trunk, strict=True))
    for p, q in zip([*plain.heads.parameters(), *plain.weighting.parameters()],
                    [*open_.heads.parameters(), *open_.weighting.parameters()], strict=True):  # fmt: skip
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-15)
        assert q.requires_grad


def test_ming_trains_the_hard_task_more_and_naive_the_easy_one() -> None:
    """Over a training: landmarks have the smallest loss of the toy, smile the largest."""
    found = {}
    for name in ("ming", "naive-dynamic"):
        toy = Toy(name, lr=0.2)
        training = Training(toy, optimiser(toy, lr=0.01))
        for i in range(30):
            training.step(batch(i), batch(0))
        found[name] = toy.weights
        assert sum(toy.weights.values()) == pytest.approx(1)
    assert found["ming"]["smile"] > found["ming"]["landmarks"]
    assert found["naive-dynamic"]["smile"] < found["naive-dynamic"]["landmarks"]


# --- Yin & Liu


def joint(toy: Toy, phi: float, detach: bool = False) -> Tensor:
    """L_d + φ Σ μ_s L_s as the paper writes it, with everything open."""
    losses, context = toy.losses(batch(1))
    (layer,) = toy.weighting.logits
    mu = layer(context.shared.detach() if detach else context.shared).softmax(1).mean(0)
    return losses["landmarks"] + phi * (mu[0] * losses["pose"] + mu[1] * losses["smile"])


@pytest.mark.parametrize("detach", [False, True])
def test_yin_is_the_gradient_of_one_joint_objective(detach: bool) -> None:
    toy = Toy("yin-liu", budget=0.3, detach=detach)
    with torch.no_grad():
        logits(toy.weighting).normal_()
    parameters = dict(toy.named_parameters())
    expected = torch.autograd.grad(joint(toy, 0.3, detach), list(parameters.values()))
    toy(batch(1)).backward()
    for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-14, msg=name)


@given(st.floats(0, 5), st.integers(0, 99))
def test_yin_side_weights_sum_to_their_budget(phi: float, seed: int) -> None:
    toy = Toy("yin-liu", main="smile", budget=phi)
    torch.manual_seed(seed)
    with torch.no_grad():
        logits(toy.weighting).normal_(std=3)
    toy(batch(seed))
    assert toy.weights["smile"] == 1
    assert toy.weights["landmarks"] + toy.weights["pose"] == pytest.approx(phi)
    assert min(toy.weights.values()) >= 0


def test_yin_without_budget_is_the_main_task_alone() -> None:
    """φ_s = 0 gives the gradients of the single-task network, on trunk and main head."""
    toy, single = Toy("yin-liu", budget=0), Toy("uniform", tasks=["landmarks"])
    with torch.no_grad():
        logits(toy.weighting).normal_()
    single.load_state_dict(
        {n: p for n, p in toy.network().items() if n in dict(single.named_parameters())}, strict=False
    )
    toy(batch(1)).backward()
    single(batch(1)).backward()
    for name, parameter in single.named_parameters():
        assert torch.equal(parameter.grad, dict(toy.named_parameters())[name].grad), name
    others = [*toy.heads["pose"].parameters(), *toy.heads["smile"].parameters(), *toy.weighting.parameters()]
    assert not any(parameter.grad.any() for parameter in others)


def test_naive_is_one_joint_objective_over_all_tasks() -> None:
    """Their code: features of length 1, logits of length ½, one loss over everything."""
    toy = Toy("naive-dynamic")
    losses, context = toy.losses(batch(1))
    (layer,) = toy.weighting.logits
    z = layer(context.shared / context.shared.norm(dim=1, keepdim=True))
    mu = (0.5 * z / z.norm(dim=1, keepdim=True)).softmax(1).mean(0)
    parameters = dict(toy.named_parameters())
    objective = sum(mu[i] * loss for i, loss in enumerate(losses.values()))
    expected = torch.autograd.grad(objective, list(parameters.values()))
    toy(batch(1)).backward()
    assert toy.weights == pytest.approx(dict(zip(TASKS, mu.tolist(), strict=True)))
    for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-14, msg=name)


# --- groups


def test_groups_share_their_own_budgets() -> None:
    """p-CNN's two groups; a task in no group has weight 1."""
    tasks = ["identity", "identity by pose", "pose", "light", "expression", "landmarks"]
    groups = [{"tasks": tasks[:2], "budget": 1.0}, {"tasks": tasks[2:5], "budget": 0.1}]
    for name in ("yin-liu", "ming"):
        weighting = build(name, tasks, features=FEATURES, groups=groups).double()
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in weighting.parameters():
                parameter.normal_()
        losses = {task: torch.tensor(1.0 + i, dtype=torch.float64) for i, task in enumerate(tasks)}
        found = list(
            weighting.combine(losses, Context(shared=torch.randn(3, FEATURES, dtype=torch.float64))).weights.values()
        )
        assert sum(found[:2]) == pytest.approx(1)
        assert sum(found[2:5]) == pytest.approx(0.1)
        assert found[5] == 1
        assert len({round(weight, 6) for weight in found}) == 6


@pytest.mark.parametrize("name", ["ming", "naive-dynamic", "yin-liu"])
def test_a_missing_label_does_not_move_the_weights(name: str) -> None:
    """They depend on the features of all faces, labelled or not; the losses decide what is learned."""
    toy = Toy(name)
    with torch.no_grad():
        for parameter in toy.weighting.parameters():
            parameter.normal_()
    full = toy.weighting.combine(*toy.losses(batch(1))).weights
    some = batch(1)
    some.labelled = patchy(1).labelled
    assert toy.weighting.combine(*toy.losses(some)).weights == full


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("ming", {"groups": [{"tasks": ["poes"]}]}, "did you mean 'pose'"),
        ("ming", {"groups": [{"tasks": ["pose"]}, {"tasks": ["pose", "smile"]}]}, "two groups"),
        ("ming", {"groups": [{"tasks": []}]}, "needs tasks"),
        ("ming", {"groups": [{"tasks": ["pose"], "budgte": 1}]}, "did you mean 'budget'"),
        ("ming", {"groups": [{"tasks": ["pose"], "budget": -1}]}, "budget"),
        ("ming", {"sigma": 0}, "sigma"),
        ("ming", {"budget": -0.5}, "budget"),
        ("yin-liu", {"main": "landmark"}, "did you mean 'landmarks'"),
        ("yin-liu", {"budget": -1}, "budget"),
    ],
)
def test_errors_name_the_mistake(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PolyfaceError) as caught:
        build(name, TASKS, features=FEATURES, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ming", "naive-dynamic", "yin-liu"])
def test_features_are_asked_for(name: str) -> None:
    with pytest.raises(PolyfaceError, match="features"):
        build(name, TASKS)
    with pytest.raises(PolyfaceError, match="shared="):
        build(name, TASKS, features=3).combine({task: torch.ones(()) for task in TASKS})


@pytest.mark.parametrize("name, options", [("ming", {}), ("naive-dynamic", {}), ("yin-liu", {"main": "c"})])
def test_a_map_may_be_read_whole(name: str, options: dict[str, Any]) -> None:
    """Flattened, Ψ sees where a number stands; averaged, two maps with the same numbers elsewhere are one."""
    maps = torch.rand(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    turned = maps.flip(3)
    for pool, width, same in (("average", 4, True), ("flatten", 16, False)):
        weighting = build(name, list("abc"), features=[4, 2, 2], pool=pool, **options).double()
        assert [layer.in_features for layer in weighting.logits] == [width]
        with torch.no_grad():
            for place, layer in enumerate(weighting.logits[0].weight):
                layer.copy_(torch.linspace(-1, 1, width) * (place + 1))
        found = [
            list(weighting.combine(dict.fromkeys("abc", torch.ones(())), Context(shared=each)).weights.values())
            for each in (maps, turned)
        ]
        assert (found[0] == pytest.approx(found[1], abs=1e-12)) is same
    with pytest.raises(PolyfaceError, match="made for 16 shared features, found 36; with pool: flatten"):
        weighting.combine(dict.fromkeys("abc", torch.ones(())), Context(shared=torch.ones(1, 4, 3, 3)))


def test_the_width_of_the_paper() -> None:
    """Ming et al. 2021: the map of 160 pixels is 1792 × 3 × 3."""
    from polyface.training import recipe, stages

    stage = next(stage for stage in recipe.load("caricature").stages if stage.name == "cavi")
    trunk = networks.build({"trunk": stage.network.trunk, "heads": {}})
    (layer,) = stages.build_weighting(stage, trunk.shared_shape()).logits
    assert layer.in_features == 16_128
    assert all(module.training for module in trunk.modules())
