"""Adaptive thresholds (Mao et al. 2020, Eq. 6): numbers by hand, bounds, where they rest, guards, state."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.weighting.thresholds import AdaptiveThresholds, at_rest, most_accurate

starts = st.floats(-2, 2)
rates = st.floats(1e-4, 1)
epochs = st.integers(1, 30)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    """False positives, false negatives, and at least as many faces."""
    above, below = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    return above, below, above + below + draw(st.integers(0, 500))


def test_three_passes_by_hand() -> None:
    """γ = 0.01. Epoch 1: +0.01·(30 − 10)/100 = 0.002 and 0.01·(0 − 40)/100 = −0.004. Epoch 3: three times as far."""
    thresholds = AdaptiveThresholds([0.0, 0.0])
    assert thresholds.update([30, 0], [10, 40], 100, 1) == pytest.approx([0.002, -0.004])
    assert thresholds.update([30, 0], [10, 40], 100, 3) == pytest.approx([0.008, -0.016])
    assert thresholds.update([0, 7], [100, 7], [200, 14], 2) == pytest.approx([0.008 - 0.01, -0.016])
    assert thresholds.thresholds == pytest.approx([-0.002, -0.016])


@given(counts(), starts, rates, epochs)
def test_a_step_is_bounded_and_goes_where_the_mistakes_are(
    given: tuple[int, int, int], start: float, rate: float, epoch: int
) -> None:
    above, below, faces = given
    (after,) = AdaptiveThresholds([start], rate).update([above], [below], [faces], epoch)
    assert abs(after - start) <= rate * epoch * (1 + 1e-9) + 1e-12
    if above == below:
        assert after == start
    else:
        assert after != start
        assert (after > start) == (above > below)


def test_the_largest_step_is_reached_when_every_face_is_a_false_positive() -> None:
    assert AdaptiveThresholds([0.0], 0.01).update([50], [0], 50, 7) == pytest.approx([0.07])


@given(st.lists(counts(), min_size=4, max_size=4), st.permutations(range(4)), epochs)
def test_attributes_do_not_depend_on_each_other(
    given: list[tuple[int, int, int]], order: list[int], epoch: int
) -> None:
    start = [0.1, -0.2, 0.3, 0.0]
    whole = AdaptiveThresholds(start).update(*np.array(given).T, epoch)
    moved = AdaptiveThresholds([start[i] for i in order]).update(*np.array([given[i] for i in order]).T, epoch)
    assert moved == [whole[i] for i in order]
    alone = [AdaptiveThresholds([tau]).update(*one, epoch)[0] for tau, one in zip(start, given, strict=True)]
    assert alone == whole


def test_an_attribute_without_labels_keeps_its_threshold() -> None:
    thresholds = AdaptiveThresholds([0.25, 0.0])
    assert thresholds.update([0, 3], [0, 1], [0, 10], 5) == pytest.approx([0.25, 0.01])


def test_counts_are_defined_without_a_positive_face() -> None:
    """Nobody has it: there are no false negatives, and whoever is called so raises the threshold."""
    assert AdaptiveThresholds([0.0]).update([4], [0], 100, 1) == pytest.approx([0.0004])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_it_comes_to_rest_where_as_many_are_called_positive_as_are(share: float) -> None:
    """Scores of a classifier with a bias of 0.7; every count is made with the threshold as it stands (t − 1)."""
    generator = np.random.default_rng(0)
    has = generator.random(4000) < share
    scores = np.where(has, 1.0, -1.0) + 0.7 + generator.normal(size=4000)
    thresholds = AdaptiveThresholds([0.0], 0.2)
    assert abs(int((scores > 0).sum()) - int(has.sum())) > 100
    for _ in range(400):
        said = scores > thresholds.thresholds[0]
        thresholds.update([(said & ~has).sum()], [(~said & has).sum()], len(has), 2)
    said = scores > thresholds.thresholds[0]
    assert abs((said & ~has).sum() - (~said & has).sum()) <= 1
    assert abs(int(said.sum()) - int(has.sum())) <= 1


def test_rate_zero_is_fixed_thresholds() -> None:
    assert AdaptiveThresholds([0.1, 0.2], 0.0).update([9, 0], [0, 9], 9, 4) == [0.1, 0.2]


def test_tensors_and_arrays_count_alike() -> None:
    by_tensor = AdaptiveThresholds([0.0] * 3).update(torch.tensor([1, 2, 3]), torch.tensor([3, 2, 1]), 10, 1)
    assert by_tensor == AdaptiveThresholds([0.0] * 3).update(np.array([1, 2, 3]), [3, 2, 1], np.int64(10), 1)


def test_state_survives_a_checkpoint() -> None:
    """Through a file, read with weights_only: after it both go on alike, to the last bit."""
    first = AdaptiveThresholds([0.0, 1 / 3], 0.01)
    first.update([3, 1], [1, 7], 17, 1)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = AdaptiveThresholds([0.0, 0.0], 0.01)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.thresholds == first.thresholds != [0.0, 1 / 3]
    assert first.update([3, 1], [1, 7], 17, 2) == second.update([3, 1], [1, 7], 17, 2)
    assert not list(first.parameters())
    first.half()
    assert first.thresholds == second.thresholds  # no precision or device touches them


def test_what_is_returned_is_a_copy() -> None:
    thresholds = AdaptiveThresholds([0.0])
    thresholds.update([0], [0], 1, 1).append(9.0)
    state = thresholds.get_extra_state()
    state["thresholds"].append(9.0)
    assert thresholds.thresholds == [0.0]


@pytest.mark.parametrize(
    "given, message",
    [
        (([1], [1, 1], 10, 1), "false positives must be 2 counts"),
        (([1, 1], [1, 1, 1], 10, 1), "false negatives must be 2 counts"),
        (([1, -1], [1, 1], 10, 1), "false positives"),
        (([1, 1], [1, math.nan], 10, 1), "false negatives"),
        (([1, 6], [1, 5], 10, 1), "attribute 1 has 6 false positives and 5 false negatives among 10 faces"),
        (([1, 1], [1, 1], [10], 1), "faces must be 2 counts"),
        (([1, 1], [1, 1], 10, 0), "epochs count from 1"),
    ],
)
def test_wrong_counts_are_refused_and_change_nothing(given: tuple[object, object, object, int], message: str) -> None:
    thresholds = AdaptiveThresholds([0.5, 0.5])
    with pytest.raises(PolyfaceError, match=message):
        thresholds.update(*given)  # type: ignore[arg-type]
    assert thresholds.thresholds == [0.5, 0.5]


@pytest.mark.parametrize(
    "given, message",
    [
        (([],), "start at"),
        (([math.nan],), "start at"),
        (([0.0], -0.1), "rate is -0.1"),
        (([0.0], math.inf), "rate is inf"),
    ],
)
def test_wrong_settings_are_refused(given: tuple[object, ...], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        AdaptiveThresholds(*given)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------- thresholds for outputs that stay


def column(values: list[float]) -> np.ndarray:
    return np.array(values)[:, None]


FOUR = column([0.9, 0.6, 0.4, 0.1])
"""Of which two faces are positive, whichever they are: as many are called so from 0.4 to just below 0.6."""


@pytest.mark.parametrize("labels", [[1, 1, -1, -1], [-1, 1, -1, 1]])
@pytest.mark.parametrize(
    "start, rest", [(-3, 0.4), (0.4, 0.4), (0.5, 0.5), (0.7, np.nextafter(0.6, 0)), (3, np.nextafter(0.6, 0))]
)
def test_rest_is_the_nearest_end_of_the_range_by_hand(labels: list[float], start: float, rest: float) -> None:
    assert at_rest(FOUR, column(labels), start).tolist() == [rest]


@pytest.mark.parametrize(
    "scores, labels, start, rest",
    [
        ([0.9, 0.5, 0.5, 0.1], [1, 1, -1, -1], 0, 0.5),  # one or three are called positive, never two
        ([0.9, 0.5, 0.5, 0.1], [1, 1, -1, -1], 2, 0.5),
        ([0.3, 0.2], [-1, -1], 0, 0.3),  # nobody has it
        ([0.3, 0.2], [-1, -1], 1, 1),
        ([0.3, 0.2], [1, 1], 0, 0),  # everybody has it
        ([0.3, 0.2], [1, 1], 1, np.nextafter(0.2, 0)),
        ([0.9, 0.6, 9.0], [1, -1, np.nan], 0, 0.6),
        ([0.9, 0.6], [np.nan, np.nan], 0.25, 0.25),
    ],
)
def test_rest_where_mistakes_never_balance_or_one_class_is_there(
    scores: list[float], labels: list[float], start: float, rest: float
) -> None:
    assert at_rest(column(scores), column(labels), start).tolist() == [rest]


@pytest.mark.parametrize("start", [-1.0, 0.0, 1.0])
def test_eq_6_step_by_step_ends_there_and_stays(start: float) -> None:
    """Four classifiers, the last one of outputs in halves, so that its mistakes never balance: within a step of it."""
    random = np.random.default_rng(0)
    has = random.random((300, 4)) < [0.05, 0.5, 0.8, 0.3]
    scores = np.where(has, 0.6, -0.6) + [0.4, 0.4, -0.2, 0.3] + random.normal(0, 0.5, (300, 4))
    scores[:, 3] = np.round(2 * scores[:, 3]) / 2
    moving = AdaptiveThresholds([start] * 4, rate=0.05)

    def step() -> list[float]:
        said = scores > moving.thresholds
        return moving.update((said & ~has).sum(0), (~said & has).sum(0), 300, 1)

    for _ in range(4000):
        step()
    found = at_rest(scores, np.where(has, 1.0, -1.0), start)
    np.testing.assert_allclose(moving.thresholds, found, atol=0.005)
    assert moving.thresholds[:3] == step()[:3]  # at rest
    said = scores > found
    assert ((said & ~has).sum(0) == (~said & has).sum(0)).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "scores, labels, start, best",
    [
        ([0.9, 0.6, 0.4, 0.1], [1, 1, -1, -1], 0, 0.5),
        ([0.9, 0.6, 0.4, 0.1], [1, 1, -1, -1], 0.45, 0.45),  # is as good
        ([0.9, 0.6, 0.4, 0.1], [-1, 1, -1, -1], 1.5, 1.5),  # nobody is called positive there already
        ([0.9, 0.6, 0.4, 0.1], [-1, -1, -1, -1], 0, 0.9),
        ([0.9, 0.6, 0.4, 0.1], [1, 1, 1, 1], 2, np.nextafter(0.1, 0)),
        ([0.9, 0.5, 0.5, 0.1], [1, 1, -1, -1], 0, 0.3),  # 3 of 4 on both sides of the equal outputs; nearer to 0
        ([0.9, 0.6], [np.nan, np.nan], 0.25, 0.25),
    ],
)
def test_the_most_accurate_threshold_by_hand(
    scores: list[float], labels: list[float], start: float, best: float
) -> None:
    assert most_accurate(column(scores), column(labels), start).tolist() == pytest.approx([best])


@given(st.integers(0, 2**32 - 1), starts)
def test_no_other_threshold_is_more_accurate(seed: int, start: float) -> None:
    random = np.random.default_rng(seed)
    scores, has = random.integers(-3, 4, (12, 3)) / 2, random.random((12, 3)) < 0.4
    at = most_accurate(scores, np.where(has, 1.0, -1.0), start)
    reached = ((scores > at) == has).sum(0)
    for other in np.append(np.arange(-2, 2.1, 0.25), start):
        assert (reached >= ((scores > other) == has).sum(0)).all()


def test_outputs_and_labels_of_other_faces_are_refused() -> None:
    with pytest.raises(PolyfaceError, match=r"outputs \[4, 1\] and labels \[3, 1\] must both be"):
        at_rest(FOUR, FOUR[:3])
