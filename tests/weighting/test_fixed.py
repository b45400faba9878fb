"""Constant weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface.weighting import WEIGHTINGS, Context, Fixed


def test_weighted_sum_by_hand_and_its_gradient() -> None:
    losses = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(5.0, requires_grad=True)}
    combined = Fixed(["a", "b"], {"b": 0.1}).combine(losses, Context())
    assert combined.loss.item() == pytest.approx(2.5)
    assert combined.weights == {"a": 1.0, "b": 0.1}
    assert combined.own_loss is None
    combined.loss.backward()
    assert losses["a"].grad is not None
    assert losses["b"].grad is not None
    assert (losses["a"].grad.item(), losses["b"].grad.item()) == pytest.approx((1.0, 0.1))


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1))
def test_order_of_tasks_does_not_matter(given_: dict[str, tuple[float, float]]) -> None:
    weighting = Fixed(list(given_), {task: weight for task, (weight, _) in given_.items()})
    losses = {task: torch.tensor(loss, dtype=torch.double) for task, (_, loss) in given_.items()}
    backwards = dict(reversed(losses.items()))
    forth, back = (weighting.combine(x, Context()).loss.item() for x in (losses, backwards))
    assert forth == pytest.approx(back)
    assert forth == pytest.approx(sum(weight * loss for weight, loss in given_.values()))


def test_absent_tasks_are_known_by_their_count() -> None:
    context = Context(counts={"a": 0, "b": 3})
    assert [context.present(task) for task in ("a", "b", "unheard of")] == [False, True, True]


def test_weights_of_zero_leave_no_gradient() -> None:
    loss = torch.tensor(3.0, requires_grad=True)
    Fixed(["a"], {"a": 0.0}).combine({"a": loss}, Context()).loss.backward()
    assert loss.grad is not None
    assert loss.grad.item() == 0


def test_registry_builds_by_name() -> None:
    built = WEIGHTINGS["fixed"](["a"], weights={"a": 2})
    assert isinstance(built, Fixed)
    assert built.weights == {"a": 2.0}
