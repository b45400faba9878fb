"""Weights from how losses move: DWA, DMM-CNN's Eq. 4, AW. Numbers by hand and the properties that the papers state."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.weighting import Weighting, build

TASKS = ["a", "b", "c"]
positive = st.floats(1e-3, 1e3)
three = st.tuples(positive, positive, positive)
EVERYONE = dict.fromkeys(TASKS, 9)


def named(values: tuple[float, ...] | list[float]) -> dict[str, float]:
    return dict(zip(TASKS, values, strict=True))


def weights(weighting: Weighting) -> list[float]:
    return list(weighting.combine({task: torch.ones(()) for task in TASKS}).weights.values())


def epochs(weighting: Weighting, *losses: tuple[float, ...]) -> list[float]:
    for values in losses:
        weighting.on_epoch_end(named(values))
    return weights(weighting)


def validations(weighting: Weighting, *losses: tuple[float, ...]) -> list[float]:
    for values in losses:
        weighting.on_validation(named(values), EVERYONE)
    return weights(weighting)


def windows(weighting: Weighting, *losses: tuple[float, ...]) -> list[float]:
    for values in losses:
        weighting.on_validation_batch(named(values), EVERYONE)
    return weights(weighting)


# --- DWA


def test_dwa_by_hand() -> None:
    """Rates 2/4, 3/3, 3/2 over T = 2: w = 3 softmax(¼, ½, ¾) = 3·(1, e^¼, e^½) / (1 + e^¼ + e^½)."""
    weighting = build("dwa", TASKS)
    assert weights(weighting) == [1, 1, 1]
    assert epochs(weighting, (4, 3, 2)) == [1, 1, 1]
    total = 1 + math.exp(0.25) + math.exp(0.5)
    expected = [3 / total, 3 * math.exp(0.25) / total, 3 * math.exp(0.5) / total]
    assert epochs(weighting, (2, 3, 3)) == pytest.approx(expected)
    # only the last two epochs count
    assert epochs(weighting, (2, 3, 3)) == pytest.approx([1, 1, 1])


@given(three, three, st.floats(0.1, 10))
def test_dwa_sums_to_the_number_of_tasks(before: tuple[float, ...], now: tuple[float, ...], temperature: float) -> None:
    found = epochs(build("dwa", TASKS, temperature=temperature), before, now)
    assert sum(found) == pytest.approx(3)
    rates = [y / x for x, y in zip(before, now, strict=True)]
    assert all(math.isfinite(weight) for weight in found)
    assert found[rates.index(max(rates))] == max(found)


@given(three, three, three)
def test_dwa_is_blind_to_units(before: tuple[float, ...], now: tuple[float, ...], units: tuple[float, ...]) -> None:
    scaled = [tuple(x * u for x, u in zip(values, units, strict=True)) for values in (before, now)]
    assert epochs(build("dwa", TASKS), *scaled) == pytest.approx(epochs(build("dwa", TASKS), before, now), abs=1e-9)


def test_dwa_with_an_epoch_without_labels() -> None:
    """b is not named in the third epoch: it keeps its weight; a and c share 2. Back in the fourth, its rate is to the
    last epoch that it had: 1/2."""
    weighting = build("dwa", TASKS)
    epochs(weighting, (4, 4, 4), (4, 2, 4))
    kept = weights(weighting)[1]
    weighting.on_epoch_end({"a": 4.0, "c": 4.0})
    assert weights(weighting) == pytest.approx([1, kept, 1])
    total = 2 * math.exp(0.5) + math.exp(0.25)
    expected = [3 * math.exp(0.5) / total, 3 * math.exp(0.25) / total, 3 * math.exp(0.5) / total]
    assert epochs(weighting, (4, 1, 4)) == pytest.approx(expected)


def test_dwa_after_a_loss_of_zero() -> None:
    assert epochs(build("dwa", TASKS), (0, 1, 1), (5, 1, 1)) == pytest.approx([1, 1, 1])
    assert all(map(math.isfinite, epochs(build("dwa", TASKS), (1e-300, 1, 1), (1e10, 1, 1))))


def test_dwa_takes_no_notice_of_what_is_not_a_number() -> None:
    weighting = build("dwa", TASKS)
    epochs(weighting, (4, 4, 4), (2, 4, math.nan))
    assert epochs(weighting, (2, 4, math.inf)) == pytest.approx([1, 1, 1])
    assert sum(epochs(weighting, (1, 4, 2))) == pytest.approx(3)


# --- DMM-CNN


def test_dmm_by_hand() -> None:
    """|3 − 4|/4, |3 − 2|/2, |5 − 5|/5."""
    weighting = build("dmm", TASKS)
    assert validations(weighting, (4, 2, 5)) == [1, 1, 1]
    assert validations(weighting, (3, 3, 5)) == pytest.approx([0.25, 0.5, 0])
    assert validations(weighting, (3, 6, 4)) == pytest.approx([0, 1, 0.2])


@given(three, three, three)
def test_dmm_is_blind_to_units(before: tuple[float, ...], now: tuple[float, ...], units: tuple[float, ...]) -> None:
    """Eq. 4 is a ratio."""
    scaled = [tuple(x * u for x, u in zip(values, units, strict=True)) for values in (before, now)]
    plain = validations(build("dmm", TASKS), before, now)
    assert validations(build("dmm", TASKS), *scaled) == pytest.approx(plain, rel=1e-6, abs=1e-12)


@given(three, st.floats(0, 0.9))
def test_dmm_is_zero_when_flat_and_blind_to_the_sign(level: tuple[float, ...], change: float) -> None:
    """Eq. 4 has no sign: a loss that rises gets what one that falls as far gets."""
    assert validations(build("dmm", TASKS), level, level) == [0, 0, 0]
    up, down = (validations(build("dmm", TASKS), level, tuple(x * (1 + s * change) for x in level)) for s in (1, -1))
    assert up == pytest.approx(down, abs=1e-9)
    assert up == pytest.approx([change] * 3, abs=1e-9)


@given(three, three)
def test_dmm_options(before: tuple[float, ...], now: tuple[float, ...]) -> None:
    plain = validations(build("dmm", TASKS), before, now)
    assert validations(build("dmm", TASKS, floor=0.2), before, now) == pytest.approx([max(0.2, w) for w in plain])
    mean = sum(plain) / 3
    expected = [w / mean for w in plain] if mean > 0 else [1, 1, 1]
    assert validations(build("dmm", TASKS, normalise=True), before, now) == pytest.approx(expected)


def test_dmm_never_vanishes_if_normalised() -> None:
    assert validations(build("dmm", TASKS, normalise=True), (1, 2, 3), (1, 2, 3)) == [1, 1, 1]


def test_dmm_without_labels_or_after_zero() -> None:
    """A task that was not measured keeps its weight and what it was last; one that was 0 gets the floor."""
    weighting = build("dmm", TASKS, floor=0.1)
    validations(weighting, (4, 4, 0), (2, 2, 1))
    assert weights(weighting) == pytest.approx([0.5, 0.5, 0.1])
    weighting.on_validation({"a": 3.0, "b": 77.0}, {"a": 5, "b": 0, "c": 0})
    assert weights(weighting) == pytest.approx([0.5, 0.5, 0.1])
    weighting.on_validation(named((6, 1, 1.5)), EVERYONE)
    assert weights(weighting) == pytest.approx([1, 0.5, 0.5])


def test_dmm_keeps_the_landmark_task_apart() -> None:
    """The paper's β = 0.5 for landmarks beside the attributes' λ."""
    weighting = build("dmm", TASKS, fixed={"c": 0.5}, normalise=True)
    assert weights(weighting) == [1, 1, 0.5]
    assert validations(weighting, (4, 4, 4), (3, 1, 0)) == pytest.approx([0.5, 1.5, 0.5])


# --- AW


def test_aw_by_hand() -> None:
    """Windows of two: means (4, 2, 1), then (3, 4, 1): moves (1, 2, 0), mean 1."""
    weighting = build("aw", TASKS, window=2)
    assert windows(weighting, (3, 2, 1), (5, 2, 1)) == [1, 1, 1]
    assert windows(weighting, (3, 5, 1)) == [1, 1, 1]  # the window is not full
    assert windows(weighting, (3, 3, 1)) == pytest.approx([1, 2, 0])
    assert weighting.validation_faces == 10
    assert build("aw", TASKS, faces=4).validation_faces == 4


@given(three, three)
def test_aw_is_what_the_authors_compute(before: tuple[float, ...], now: tuple[float, ...]) -> None:
    """trend = |cur − prev|/cur, n_trend = trend/mean, n_loss = cur/mean, w = n_trend·n_loss/mean: mean 1."""
    trend = [abs(y - x) / y for x, y in zip(before, now, strict=True)]
    found = windows(build("aw", TASKS, window=1), before, now)
    if sum(trend) == 0:
        assert found == [1, 1, 1]
        return
    product = [t / (sum(trend) / 3) * y / (sum(now) / 3) for t, y in zip(trend, now, strict=True)]
    assert found == pytest.approx([p / (sum(product) / 3) for p in product], rel=1e-6, abs=1e-9)
    assert sum(found) / 3 == pytest.approx(1)


def test_aw_without_labels_in_a_window() -> None:
    """A mean over the batches that had labels; a task without any keeps its weight, the others have mean 1."""
    weighting = build("aw", TASKS, window=2)
    windows(weighting, (1, 1, 1), (1, 1, 1), (2, 4, 3), (2, 4, 3))
    assert weights(weighting) == pytest.approx([0.5, 1.5, 1])
    for _ in range(2):
        weighting.on_validation_batch({"a": 3.0, "b": 7.0}, {"a": 9, "b": 9, "c": 0})
    assert weights(weighting) == pytest.approx([0.5, 1.5, 1])
    weighting.on_validation_batch(named((3, 7, 5)), {"a": 9, "b": 9, "c": 0})
    weighting.on_validation_batch(named((3, 7, 6)), EVERYONE)
    assert weights(weighting) == pytest.approx([0, 0, 3])


def test_aw_stays_where_nothing_moved() -> None:
    weighting = build("aw", TASKS, window=1)
    windows(weighting, (1, 1, 1), (2, 4, 3))
    assert windows(weighting, (2, 4, 3)) == pytest.approx([0.5, 1.5, 1])


# --- all three


@pytest.mark.parametrize("name", ["aw", "dmm", "dwa"])
def test_a_fixed_task_takes_no_part(name: str) -> None:
    weighting = build(name, TASKS, fixed={"b": 0.25}, **({"window": 1} if name == "aw" else {}))
    for values in ((4, 1, 1), (3, 9, 2.5)):
        weighting.on_epoch_end(named(values))
        weighting.on_validation(named(values), EVERYONE)
        weighting.on_validation_batch(named(values), EVERYONE)
    found = weights(weighting)
    assert found[1] == 0.25
    assert found[0] != 1
    other = build(name, TASKS, fixed={"b": 0.25}, **({"window": 1} if name == "aw" else {}))
    for values in ((4, 7, 1), (3, 7, 2.5)):
        other.on_epoch_end(named(values))
        other.on_validation(named(values), EVERYONE)
        other.on_validation_batch(named(values), EVERYONE)
    assert weights(other) == found


@pytest.mark.parametrize("name", ["aw", "dmm", "dwa"])
def test_no_threshold_decides(name: str) -> None:
    """The rule holds for the smallest changes as for the largest: weights are smooth in the losses."""
    options = {"window": 1} if name == "aw" else {}
    run = {"aw": windows, "dmm": validations, "dwa": epochs}[name]
    steps = [run(build(name, TASKS, **options), (1, 1, 1), (1 + x, 2, 3)) for x in (1e-12, 1e-9, 1e-6, 1e-3)]
    rates = [s[0] for s in steps]
    assert rates == sorted(rates)
    assert len(set(rates)) == 4


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("dwa", {"temperature": 0}, "temperature"),
        ("dwa", {"fixed": {"d": 1}}, "fixed"),
        ("dmm", {"floor": -0.1}, "floor"),
        ("dmm", {"fixed": {"a": -1}}, "fixed.a"),
        ("aw", {"window": 0}, "window"),
        ("aw", {"faces": 0}, "faces"),
    ],
)
def test_errors_name_the_mistake(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(PolyfaceError) as caught:
        build(name, TASKS, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_in_force_are_those_of_the_next_step() -> None:
    weighting = build("dmm", ["a", "b"])
    losses = {"a": torch.tensor(1.0, requires_grad=True), "b": torch.tensor(1.0, requires_grad=True)}
    for validation in ({"a": 4.0, "b": 2.0}, {"a": 3.0, "b": 1.0}):
        weighting.on_validation(validation, {"a": 5, "b": 5})
        assert weighting.combine(losses).weights == weighting.in_force()
    assert weighting.in_force() == {"a": 0.25, "b": 0.5}
    assert build("gls", ["a", "b"]).in_force() is None


def test_a_plain_sum_is_one_up_to_a_factor() -> None:
    assert build("uniform", ["a", "b"]).plain
    assert build("fixed", ["a", "b"], weights={"a": 3.0, "b": 3.0}).plain
    assert not build("fixed", ["a", "b"], weights={"a": 3.0}).plain
    assert not build("dmm", ["a", "b"]).plain
