"""Task-wise early stopping (Zhang et al. 2014, Eq. 5): numbers by hand, invariances, guards, permanence, state."""

from __future__ import annotations

import io
from statistics import median

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from polyface.weighting import TaskStopping, criterion

losses = st.floats(0.01, 100)


def test_criterion_by_hand() -> None:
    """k = 2, last three training losses 4, 2, 3: median 3, first factor 6/(9 − 6) = 2. Lowest ever 1 (before the
    window), validation 3, λ = 0.5: second factor (3 − 1)/(0.5·1) = 4."""
    assert criterion([1, 9, 4, 2, 3], 3, 0.5, 2) == pytest.approx(8)


def test_nothing_is_said_before_the_window_is_full() -> None:
    assert criterion([1.0] * 10, 5, 1, 10) is None
    assert criterion([1.0] * 11, 5, 1, 10) is not None


@given(st.integers(1, 30), losses, st.floats(1.01, 50))
def test_flat_curve_gives_the_window_as_first_factor(window: int, level: float, ratio: float) -> None:
    """k + 1 equal losses: k·E / ((k + 1)·E − k·E) = k."""
    found = criterion([level] * (window + 1), ratio * level, 1.0, window)
    assert found == pytest.approx(window * (ratio - 1), rel=1e-6)


@given(st.lists(losses, min_size=4, max_size=12), losses, st.floats(1e-3, 1e3), st.floats(0.1, 10))
def test_scaling_both_losses_together_changes_nothing(
    train: list[float], validation: float, scale: float, weight: float
) -> None:
    recent = train[-4:]
    spread = sum(recent) - 3 * median(recent)
    assume(abs(spread) > 1e-6 * sum(recent))  # not where rounding decides on the sign
    plain = criterion(train, validation, weight, 3)
    scaled = criterion([scale * x for x in train], scale * validation, weight, 3)
    assert scaled == pytest.approx(plain, rel=1e-4, abs=1e-9)


@given(st.lists(losses, min_size=3, max_size=3), losses, losses, st.floats(1.1, 5))
def test_worse_validation_and_smaller_weight_raise_it(
    train: list[float], validation: float, weight: float, factor: float
) -> None:
    found = criterion(train, validation, weight, 2)
    assert found is not None
    worse = criterion(train, validation * factor, weight, 2)
    assert worse is not None
    assert worse >= found
    if validation > min(train):
        lighter = criterion(train, validation, weight / factor, 2)
        assert lighter is not None
        assert lighter >= found


def test_a_loss_that_still_falls_gives_less_than_one_that_rests() -> None:
    falling = criterion([8, 4, 2, 1, 0.5], 1, 1, 4)
    resting = criterion([0.5, 0.5, 0.5, 0.5, 0.5], 1, 1, 4)
    assert falling is not None
    assert resting is not None
    assert 0 < falling < resting


def test_a_denominator_that_is_not_positive_never_stops() -> None:
    """5, 5, 1 with k = 2: 11 − 10 = 1 > 0; 5, 5, 0 and below: 10 − 10 = 0 ≤ 0."""
    assert criterion([5, 5, 1], 9, 1, 2) == pytest.approx(10 * 8)
    assert criterion([5, 5, 0], 9, 1, 2) == 0
    assert criterion([6, 5, 5, 0], 9, 1, 3) == pytest.approx(15 / 1 * 9 / 1e-12)
    assert criterion([5, 5, 5, 0], 9, 1, 3) == 0


def test_losses_and_weights_of_zero_are_guarded() -> None:
    found = criterion([0.0, 0.0, 0.0], 1.0, 0.0, 2)
    assert found == 0  # a flat zero: no spread
    found = criterion([0.0, 1.0, 1.5], 1.0, 0.0, 2)
    assert found is not None
    assert 0 < found < float("inf")


def test_a_task_stops_once_and_for_good() -> None:
    stopping = TaskStopping(["main", "a", "b"], ["main"], window=1, threshold=1.0)
    ones = {"main": 1.0, "a": 1.0, "b": 1.0}
    weights = dict.fromkeys(ones, 1.0)
    assert stopping.update(ones, {"main": 99, "a": 3, "b": 1}, weights) == []  # the window is not full
    assert stopping.update(ones, {"main": 99, "a": 3, "b": 1}, weights) == ["a"]  # a: 1·(3 − 1)/1 = 2 > 1; b: 0
    assert stopping.stopped == {"a": 2}
    assert stopping.values == pytest.approx({"a": 2, "b": 0})
    assert stopping.update(ones, {"main": 1, "a": 0, "b": 5}, weights) == ["b"]
    assert stopping.update(ones, {"main": 1, "a": 0, "b": 0}, weights) == []
    assert stopping.stopped == {"a": 2, "b": 3}
    assert len(stopping.history["a"]) == 2  # nothing is recorded of a stopped task
    assert "main" not in stopping.history


def test_the_threshold_itself_does_not_stop() -> None:
    stopping = TaskStopping(["a"], [], window=1, threshold=2.0)
    for _ in range(2):
        assert stopping.update({"a": 1.0}, {"a": 3.0}, {"a": 1.0}) == []
    assert stopping.update({"a": 1.0}, {"a": 3.01}, {"a": 1.0}) == ["a"]


def test_weights_take_part() -> None:
    stopping = TaskStopping(["a"], [], window=1, threshold=1.0)
    for _ in range(2):
        stopping.update({"a": 1.0}, {"a": 3.0}, {"a": 4.0})
    assert stopping.values == pytest.approx({"a": 0.5})


def test_a_task_without_a_loss_is_passed_over() -> None:
    stopping = TaskStopping(["a", "b"], [], window=1, threshold=0.0)
    for _ in range(3):
        stopping.update({"b": 1.0}, {"b": 1.0}, {})
    assert stopping.history == {"a": [], "b": [1.0] * 3}
    assert stopping.stopped == {}


def test_state_survives_a_checkpoint() -> None:
    """Through a file, read with weights_only: after it both go on alike."""
    torch.manual_seed(0)
    first = TaskStopping(["a", "b", "c"], ["c"], window=2, threshold=0.5)
    curve = torch.rand(8, 2, 2).tolist()

    def step(stopping: TaskStopping, t: int) -> list[str]:
        (a, b), (x, y) = curve[t]
        return stopping.update({"a": a, "b": b}, {"a": x + a, "b": y}, {"a": 1.0, "b": 0.5})

    for t in range(4):
        step(first, t)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = TaskStopping(["a", "b", "c"], ["c"], window=2, threshold=0.5)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.get_extra_state() == first.get_extra_state()
    for t in range(4, 8):
        assert step(first, t) == step(second, t)
    assert second.get_extra_state() == first.get_extra_state()
    assert first.stopped
    assert first.evaluations == 8
    assert not list(first.parameters())


def test_a_loss_that_has_just_fallen_steeply() -> None:
    """1, 1, 1, 0.1 with k = 3: median 1, sum 3.1, so the printed first factor is 3 / (3.1 − 3) = 30, ten times that of
    a loss that rests; bounded it is 3 / (1 + 4·0.225). The second factor: (1 − 0.1) / 0.1 = 9."""
    train = [1.0, 1.0, 1.0, 0.1]
    assert criterion(train, 1.0, 1.0, 3) == pytest.approx(30 * 9)
    assert criterion(train, 1.0, 1.0, 3, bounded=True) == pytest.approx(3 / 1.9 * 9)
    assert TaskStopping(["a"], [], 3).bounded is False  # as printed, unless asked


@given(st.lists(losses, min_size=4, max_size=12))
def test_bounded_a_moving_loss_never_has_more_than_one_that_rests(train: list[float]) -> None:
    best = min(train)
    found = criterion(train, 2 * best, 1.0, 3, bounded=True)  # the second factor is 1
    assert found is not None
    assert 0 < found <= 3 * (1 + 1e-9)
    recent = train[-4:]
    if sum(recent) / 4 > median(recent) * (1 + 1e-6):  # as printed where the loss falls ever more slowly
        assert found == pytest.approx(criterion(train, 2 * best, 1.0, 3), rel=1e-6)


def test_bounded_a_resting_loss_has_the_window() -> None:
    assert criterion([2.0] * 8, 4.0, 1.0, 7, bounded=True) == pytest.approx(7)
