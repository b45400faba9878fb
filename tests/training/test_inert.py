"""What could not act in a run says so: weights that never change, and weights that the optimiser divides out again."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from polyface.training import recipe as recipes
from polyface.training.inert import warn
from polyface.training.learner import Learner

from .recognition import first_batch, learner_of
from .test_attribute_training import changes, loaded, table

__all__ = ["table"]

DATA = {"tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}}], "batch": 16}
APART = "no parameter that learns is shared by two losses, and adamw divides each gradient by its own size"


def said(learner: Learner) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):  # once
            warn(learner.spec, learner.period, learner.weighting, learner.network, learner.terms)
    return [str(one.message) for one in found]


def weighed(toy: Any, frozen: bool, weights: dict[str, float], **optimisation: Any) -> Learner:
    network = {"trunk": {"name": "tcdcn", "frozen": frozen}}
    weighting = {"name": "fixed", "options": {"weights": weights}}
    given = {"data": DATA, "network": network, "weighting": weighting, "optimisation": {"epochs": 2} | optimisation}
    return learner_of(recipes.load(toy(given)))


def test_weights_that_an_adaptive_optimiser_divides_out(toy) -> None:
    (message,) = said(weighed(toy, True, {"smile": 0.1}, optimiser="adamw"))
    assert message.startswith("weighting Fixed: " + APART)
    (message,) = said(weighed(toy, True, {"smile": 0.1}, optimiser="rmsprop"))
    assert "rmsprop" in message


@pytest.mark.parametrize(
    "frozen, weights, optimisation",
    [
        (False, {"smile": 0.1}, {"optimiser": "adamw"}),  # the trunk learns
        (True, {"smile": 0.1}, {"optimiser": "sgd"}),
        (True, {"smile": 0.1}, {"optimiser": "rmsprop", "epsilon": 1.0}),  # as in Ming et al. 2021
        (True, {"smile": 2.0, "landmarks": 2.0}, {"optimiser": "adamw"}),  # a plain sum but for a factor
    ],
)
def test_nothing_is_said_where_weights_act(toy, frozen: bool, weights: Any, optimisation: Any) -> None:
    assert said(weighed(toy, frozen, weights, **optimisation)) == []


@pytest.mark.parametrize("optimiser, least, most", [("adamw", 0.0, 0.02), ("sgd", 0.4, 10.0)])
def test_what_is_said_is_so(toy, optimiser: str, least: float, most: float) -> None:
    """A tenth of the weight moves a head as far with AdamW, and a tenth as far with SGD, after one step."""
    moved = []
    for weight in (1.0, 0.1):
        learner = weighed(toy, True, {"smile": weight}, optimiser=optimiser, weight_decay=0.0, schedule="constant")
        step = learner.configure_optimizers()["optimizer"]
        before = learner.network.heads["smile"].weight.detach().clone()  # type: ignore[union-attr, operator]
        learner.training_step(first_batch(learner), 0).backward()
        step.step()
        after = learner.network.heads["smile"].weight.detach()  # type: ignore[union-attr, operator]
        moved.append(float((after - before).norm()))
    assert least <= abs(moved[0] / moved[1] - 1) <= most


def test_a_branch_that_terms_share_is_shared(toy, table) -> None:
    """One task of several weighed terms, on a part of its own that learns; alone on the frozen trunk it is not."""
    trunk = {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map", "frozen": True}
    parts = {"face": {"levels": 1, "hidden": [8]}, "points": {"levels": 1}}
    for read, silent in (("face", True), ("points", False)):
        network = {"trunk": trunk, "branches": {read: parts[read]}, "heads": {"smile": read, "landmarks": read}}
        if read == "face":  # a part for each task
            network["branches"] = parts
            network["heads"] = {"smile": "face", "landmarks": "points"}
        found = said(learner_of(loaded(toy, changes(table, network=network))))
        assert (found == []) is silent, read


@pytest.mark.parametrize(
    "weighting, epochs, first",
    [
        ({"name": "dwa"}, 2, 10),
        ({"name": "dwa"}, 3, None),
        ({"name": "aw", "options": {"window": 6}}, 2, 11),
        ({"name": "aw", "options": {"window": 5}}, 2, None),
    ],
)
def test_weights_that_change_after_the_run_has_ended(toy, weighting: Any, epochs: int, first: int | None) -> None:
    chosen = recipes.load(toy({"data": DATA, "weighting": weighting, "optimisation": {"epochs": epochs}}))
    found = said(learner_of(chosen))
    expected = f"its weights can change after {first} steps, and the run has {5 * epochs}: they stay as they begin"
    assert [message.partition(": ")[2] for message in found] == ([] if first is None else [expected])


@pytest.mark.parametrize(
    "period, first",
    [
        ({"epochs": 1}, 5),  # validations before the run and when it has ended: the first trend weighs no step
        ({"epochs": 2, "validate_every": 5}, 10),
        ({"epochs": 2, "validate_steps": 10}, 10),
        ({"epochs": 1, "validate_times": 1}, 5),
        ({"epochs": 2}, None),
        ({"epochs": 2, "validate_steps": 9}, None),
        ({"epochs": 1, "validate_times": 2}, None),
    ],
)
def test_weights_that_follow_a_validation_after_the_last_step(toy, period: Any, first: int | None) -> None:
    chosen = recipes.load(toy({"data": DATA, "weighting": {"name": "dmm"}, "optimisation": period}))
    found = said(learner_of(chosen))
    expected = f"its weights can change after {first} steps, and the run has {first}: they stay as they begin"
    assert [message.partition(": ")[2] for message in found] == ([] if first is None else [expected])


def test_the_first_change_of_weights_is_where_it_is_said_to_be(toy) -> None:
    """AW with a window of 3: the sixth step is the first with other weights."""
    learner = learner_of(recipes.load(toy({"data": DATA, "weighting": {"name": "aw", "options": {"window": 3}}})))
    optimiser = torch.optim.SGD(learner.network.parameters(), 0.05)
    changed = []
    for raw in [first_batch(learner)] * 7:
        optimiser.zero_grad()
        learner.training_step(raw, 0).backward()
        optimiser.step()
        learner.batches_done += 1
        changed.append(learner.weights["landmarks"] != 1)
    assert changed == [False] * 5 + [True] * 2
    assert learner.weighting.steps_needed == 5
