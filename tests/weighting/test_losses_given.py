"""What is given as a loss: one real number a task, from which something learns; all else is told by its task."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from toy import AT_GRADIENTS, FEATURES, NAMES

from polyface import networks
from polyface.errors import PolyfaceError
from polyface.weighting import Context, build


def weighting(name: str, tasks: str = "ab") -> Any:
    return build(name, list(tasks), features=FEATURES)


def given(name: str) -> tuple[torch.Tensor, Context]:
    """Shared features, and the context that holds them."""
    shared = torch.randn(4, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shared = shared.requires_grad_()
    return shared, Context(shared, [shared])


def refused(name: str, losses: Any, context: Context | None = None) -> str:
    with pytest.raises(PolyfaceError) as caught:
        weighting(name).combine(losses, context).total.backward()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_of_shape_1_is_a_scalar(name: str) -> None:
    """Stacked as [T, 1] and multiplied with [T] weights, every loss would have been counted T times."""
    shared, context = given(name)
    scalars = {"a": shared[:, 0].square().mean(), "b": (shared[:, 1] - 1).square().mean()}
    expected = weighting(name)
    found = copy.deepcopy(expected)
    one = expected.combine(scalars, context)
    other = found.combine({key: loss[None] for key, loss in scalars.items()}, context)
    assert other.loss.shape == one.loss.shape == ()
    torch.testing.assert_close(other.loss, one.loss, rtol=0, atol=0)
    assert other.weights == one.weights


def test_the_sum_of_two_losses_of_shape_1() -> None:
    losses = {"a": torch.tensor([2.0], requires_grad=True), "b": torch.tensor([3.0], requires_grad=True)}
    combined = weighting("uniform").combine(losses)
    combined.total.backward()
    assert (combined.loss.item(), losses["a"].grad.item()) == (5, 1)


@pytest.mark.parametrize(
    "loss, said",
    [
        (torch.ones(4, requires_grad=True), "the loss of 'b' has shape [4]; expected one number: take the mean"),
        (torch.ones(0), "the loss of 'b' has shape [0]"),
        (2.0, "the loss of 'b' is a float; expected a tensor of one number"),
        (None, "the loss of 'b' is a NoneType"),
        ([torch.tensor(1.0)], "the loss of 'b' is a list"),
        (torch.tensor(2), "the loss of 'b' is of type int64; expected a real number"),
        (torch.tensor(True), "the loss of 'b' is of type bool"),
        (torch.tensor(2 + 1j), "the loss of 'b' is of type complex64"),
        (torch.ones((), device="meta"), "losses are on cpu ('a') and meta ('b'): bring them to one device"),
    ],
)
@pytest.mark.parametrize("name", ["uniform", "mgda", "famo"])
def test_what_is_no_loss_is_told_by_its_task(name: str, loss: Any, said: str) -> None:
    shared, context = given(name)
    assert said in refused(name, {"a": shared.square().mean(), "b": loss}, context)


def test_losses_of_two_precisions_are_added() -> None:
    losses = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(3.0, dtype=torch.float64)}
    losses["b"].requires_grad_()
    assert weighting("uniform").combine(losses).loss.item() == 5


def test_after_a_step_the_same_is_said() -> None:
    shared, context = given("famo")
    famo = weighting("famo")
    famo.combine({"a": shared.square().mean(), "b": shared.abs().mean()}, context)
    with pytest.raises(PolyfaceError, match=r"the loss of 'a' has shape \[4\]"):
        famo.after_step({"a": torch.ones(4), "b": torch.ones(())}, context)


# ------------------------------------------------------------------------------------------- what nothing learns from


LEARNT = [name for name in NAMES if any(p.requires_grad for p in weighting(name).parameters())]
"""Whose own parameters may learn from losses that are constants."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEARNT])
def test_losses_that_are_all_constants_are_named(name: str) -> None:
    _, context = given(name)
    said = refused(name, {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}, context)
    assert "nothing that learns has a part in the loss of a, b" in said


@pytest.mark.parametrize("others", ["a", "ab"])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_a_constant_counts_as_absent(name: str, others: str) -> None:
    shared, context = given(name)
    losses = {task: shared[:, place].square().mean() for place, task in enumerate(others)}
    losses["c"] = torch.tensor(3.0, dtype=torch.float64)
    found = weighting(name, others + "c")
    expected = copy.deepcopy(found)
    with pytest.warns(UserWarning, match="in the loss of c: counted as absent"):
        one = found.combine(losses, context)
    other = expected.combine(losses, Context(shared, [shared], {"c": 0}))
    assert one.weights == other.weights
    assert one.weights["c"] == 0
    one.total.backward()
    assert shared.grad.abs().sum() > 0


def test_weights_of_constants_may_be_looked_at() -> None:
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(8.0)}
    assert weighting("gls").combine(losses).weights == pytest.approx({"a": 1, "b": 0.25})
    with torch.no_grad():
        assert weighting("uniform").combine(losses).loss.item() == 10


# ------------------------------------------------------------------------------------------- a frozen trunk


def network(parts: dict[str, Any], heads: dict[str, Any]) -> networks.FaceNetwork:
    torch.manual_seed(0)
    trunk = {"name": "timm", "model": "test_resnet", "size": 32, "pool": "map", "frozen": True}
    return networks.build({"trunk": trunk, "parts": parts, "heads": heads})


def losses_of(made: networks.FaceNetwork) -> tuple[dict[str, torch.Tensor], Context]:
    output = made(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255)
    losses = {name: (found - 1).square().mean() for name, found in output.outputs.items()}
    return losses, Context(output.shared, made.shared_parameters())


@pytest.mark.parametrize("name", AT_GRADIENTS)
def test_behind_a_frozen_trunk_tasks_share_a_part(name: str) -> None:
    pool = {"kind": "pool", "levels": 0, "hidden": [8]}
    heads = {task: {"reads": ["joint"], "outputs": 2} for task in "ab"}
    made = network({"joint": pool}, heads)
    losses, context = losses_of(made)
    found = weighting(name)
    shared = build(name, ["a", "b"], level="shared", features=FEATURES)
    expected = shared.combine(losses, context).weights
    with pytest.warns(UserWarning, match="the trunk is frozen: gradients are those of the parts that learn"):
        combined = found.combine(losses, context)
    assert combined.weights == pytest.approx(expected)
    combined.total.backward()
    assert all(p.grad is not None for p in made.branches.parameters())


@pytest.mark.parametrize("name", AT_GRADIENTS)
def test_tasks_that_share_nothing_that_learns(name: str) -> None:
    pool = {"kind": "pool", "levels": 0, "hidden": [8]}
    heads = {task: {"reads": [part], "outputs": 2} for task, part in (("a", "left"), ("b", "right"))}
    made = network({"left": pool, "right": pool}, heads)
    losses, context = losses_of(made)
    with pytest.warns(UserWarning, match="the trunk is frozen"):
        said = refused(name, losses, context)
    assert "the tasks share nothing that learns" in said


# ------------------------------------------------------------------------------------------- steps without a gradient


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_which_all_are_absent_has_a_gradient_of_0(name: str) -> None:
    """The mean of no face is NaN in most loops; the step goes through, and changes nothing."""
    shared, context = given(name)
    context = Context(shared, [shared], {"a": 0, "b": 0})
    losses = {"a": shared[:0].mean(), "b": shared[:0].mean()}
    combined = weighting(name).combine(losses, context)
    combined.total.backward()
    assert combined.loss.item() == 0
    assert shared.grad is None or not shared.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_the_same_under_no_grad(name: str) -> None:
    shared, context = given(name)
    losses = {"a": shared[:, 0].square().mean(), "b": (shared[:, 1] - 1).square().mean()}
    expected = weighting(name).eval()
    found = copy.deepcopy(expected)
    with torch.no_grad():
        looked = found.combine(losses, context)
    assert looked.weights == expected.combine(losses, context).weights
