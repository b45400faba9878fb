"""Partial labels: with any weighting, a task without a labelled face gets nothing, loses nothing and harms no other."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import (
    FEATURES,
    NAMES,
    TASKS,
    VARIANTS,
    Batch,
    Toy,
    Training,
    Variant,
    batch,
    label,
    leaves,
    optimiser,
    patchy,
    stream,
)

from polyface.weighting import WEIGHTINGS, Context, build
from polyface.weighting.gramian import SolvedWeighting

Losses = dict[str, Tensor]

# Weights of these may be 0 or negative by their definition.
MAY_VANISH = {"aligned", "aw", "dmm", "gradnorm", "imtl", "imtl-g", "mgda"}
# The present tasks share what there is anew; those of all others keep the value that they had with all tasks present.
RENORMALISE = {"famo", "gls", "stch", *(n for n in NAMES if issubclass(WEIGHTINGS.get(n), SolvedWeighting))}  # type: ignore[arg-type]
# Their weight of a task does not depend on how many there are, once this is given.
OF_ONE_TASK: dict[str, dict[str, Any]] = {"stch": {"preferences": dict.fromkeys(TASKS, 0.5)}}


def zero(losses: Losses, context: Context, absent: list[str]) -> tuple[Losses, Context]:
    """As the learner has it: Σ (loss · mask) / max(1, count)."""
    return losses, context


def nan(losses: Losses, context: Context, absent: list[str]) -> tuple[Losses, Context]:
    """As a loop that takes the mean over no faces has it."""
    return {t: loss / 0.0 if t in absent else loss for t, loss in losses.items()}, context


def left_out(losses: Losses, context: Context, absent: list[str]) -> tuple[Losses, Context]:
    """As a loop has it that computes only the losses it has labels for, and counts nothing."""
    return {t: v for t, v in losses.items() if t not in absent}, Context(context.shared, context.parameters)


WAYS = [
    pytest.param(way, absent, id=f"{way.__name__}-{'+'.join(absent)}")
    for way, absents in (
        (zero, (["pose"], ["landmarks", "pose"])),
        (nan, (["landmarks"], ["pose", "smile"])),
        (left_out, (["landmarks", "smile"], ["smile"])),
    )
    for absent in absents
]


def trained(variant: Variant, steps: int = 4) -> Toy:
    """A toy whose weighting has been through all it can go through, so that it has a state to lose."""
    name, options = variant
    toy = Toy(name, **options)
    training = Training(toy, optimiser(toy), epoch=2)
    for i in range(steps):
        training.step(batch(i), batch(100 + i))
    toy(batch(steps))  # GradNorm scales all weights at the next step, whoever is present
    return toy


def of_task(toy: Toy, task: str) -> dict[str, Any]:
    """What the weighting keeps about one task: its place in lists over tasks or pairs, its row of every parameter."""
    place, size = TASKS.index(task), len(TASKS)
    kept: dict[str, Any] = {}
    for key, value in toy.weighting.get_extra_state().items():
        if key == "before":  # FAMO's, from one forward pass to the next
            continue
        if isinstance(value, list) and len(value) == size:
            kept[key] = value[place]
        elif isinstance(value, list) and len(value) == size**2:
            kept[key] = [v for i, v in enumerate(value) if place in divmod(i, size)]
        else:
            assert not isinstance(value, list | dict), f"{key}: which of it is of which task?"
    for name, parameter in toy.weighting.named_parameters():
        rows = TASKS[-len(parameter) :]  # Yin & Liu: of the side tasks alone
        if task in rows:
            kept[name] = parameter.detach()[rows.index(task)].tolist()
    return copy.deepcopy(kept)


@pytest.mark.parametrize("way, absent", WAYS)
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_absent_tasks_get_nothing_and_lose_nothing(
    variant: Variant, way: Callable[..., tuple[Losses, Context]], absent: list[str]
) -> None:
    toy = trained(variant)
    kept = {task: of_task(toy, task) for task in absent}
    partial = batch(7).without(*absent)

    combined = toy.weighting.combine(*way(*toy.losses(partial), absent))
    assert set(combined.weights) == set(TASKS)
    assert all(combined.weights[task] == 0 for task in absent)
    present = {task: weight for task, weight in combined.weights.items() if task not in absent}
    assert all(math.isfinite(weight) for weight in present.values())
    if variant[0] not in MAY_VANISH:
        assert all(weight > 0 for weight in present.values())
    assert combined.total.isfinite()

    toy.zero_grad()
    combined.total.backward()
    found = toy.gradients()
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert not any(found[f"heads.{task}.{of}"].any() for task in absent for of in ("weight", "bias"))
    for name, parameter in toy.weighting.named_parameters():
        rows = TASKS[-len(parameter) :]
        assert not any(found[f"weighting.{name}"][rows.index(task)].any() for task in absent if task in rows)
    if any(present.values()):
        assert any(found[f"trunk.0.{of}"].any() for of in ("weight", "bias"))

    optimiser(toy).step()
    with torch.no_grad():
        toy.weighting.after_step(*way(*toy.losses(partial), absent))
    for task in absent:
        for key, value in of_task(toy, task).items():
            assert value == pytest.approx(kept[task][key], rel=1e-12, nan_ok=True), key


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_present_tasks_keep_their_weight_or_share_anew(variant: Variant) -> None:
    name, options = variant
    options = options | OF_ONE_TASK.get(name, {})
    toy, whole = Toy(name, **options), batch(3)
    if name not in RENORMALISE:  # weights that are not all alike yet would prove nothing
        training = Training(toy, optimiser(toy, lr=0.3), epoch=1)
        for i in range(4):
            training.step(batch(i), batch(100 + i))
        toy.weighting.eval()
        expected = toy.weighting.combine(*toy.losses(whole)).weights
        if name not in ("fixed", "uniform"):
            assert len({round(weight, 6) for weight in expected.values()}) > 1
    else:
        present = ["landmarks", "smile"]
        options = {k: {t: v[t] for t in present} if isinstance(v, dict) else v for k, v in options.items()}
        alone = build(name, present, features=FEATURES, **options).double()
        losses, context = toy.losses(whole)
        expected = alone.combine({task: losses[task] for task in present}, context).weights
    found = toy.weighting.combine(*toy.losses(whole.without("pose"))).weights
    assert found == pytest.approx(expected | {"pose": 0.0}, rel=1e-9)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_nothing_labelled_at_all(variant: Variant) -> None:
    toy = trained(variant)
    before = repr(toy.weighting.get_extra_state())
    nothing = batch(7).without(*TASKS)
    toy.zero_grad()
    total = toy(nothing)
    assert total.item() == 0
    assert toy.weights == dict.fromkeys(TASKS, 0.0)
    total.backward()
    assert not any(gradient.any() for gradient in toy.gradients().values())
    losses, context = nan(*toy.losses(nothing), TASKS)
    assert toy.weighting.combine(losses, context).total.item() == 0
    with torch.no_grad():
        toy.weighting.after_step(*toy.losses(nothing))
    assert repr(toy.weighting.get_extra_state()) == before


def finite(toy: Toy) -> bool:
    """All of it, but for `previous`, where NaN says that there is none yet."""
    numbers = [value for path, value in leaves(toy.weighting.get_extra_state()) if not path.startswith(".previous")]
    tensors = [*toy.parameters(), *(p.grad for p in toy.parameters() if p.grad is not None)]
    return all(math.isfinite(value) for value in numbers) and all(bool(t.isfinite().all()) for t in tensors)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_training_under_changing_masks_stays_finite(variant: Variant) -> None:
    """Every face lacks a label, some batches lack a task or all tasks but one, one epoch has no pose at all."""
    toy = Toy(variant[0], **variant[1])
    training = Training(toy, optimiser(toy, torch.optim.Adam), epoch=3)
    for i, (given, validation) in enumerate(stream(0, 15)):
        missing = {4: ["pose", "smile"], 5: TASKS}.get(i, ["pose"] if 6 <= i < 9 else [])
        training.step(given.without(*missing), validation.without(*missing))
        assert finite(toy), i
        assert all(math.isfinite(weight) for weight in toy.weights.values()), i
    assert all(math.isfinite(weight) for weights in training.history for weight in weights.values())


def perfect(given: Batch, toy: Toy, task: str) -> Batch:
    """The same batch with targets of one task that the network meets exactly: a labelled task with loss 0."""
    with torch.no_grad():
        answer = toy.heads[task](toy.trunk(given.faces))
    return Batch(given.faces, given.targets | {task: answer}, given.labelled)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_loss_of_zero_breaks_nothing(variant: Variant) -> None:
    """At the first step, later, at the end of an epoch and in validation, for one task and for all."""
    toy = Toy(variant[0], **variant[1])
    training = Training(toy, optimiser(toy), epoch=2)
    for i in range(10):
        given = batch(i)
        for task in [["pose"], [], TASKS, ["landmarks", "smile"], []][i % 5]:
            given = perfect(given, toy, task)
        training.step(given, batch(100 + i))
        zeros = dict.fromkeys(TASKS, 0.0) if i % 4 == 3 else {"landmarks": 0.0, "pose": 1.0, "smile": 2.0}
        toy.weighting.on_epoch_end(zeros)
        toy.weighting.on_validation(zeros, dict.fromkeys(TASKS, 4))
        toy.weighting.on_validation_batch(zeros, dict.fromkeys(TASKS, 4))
        assert finite(toy), i
        assert all(math.isfinite(weight) for weight in toy.weights.values()), (i, toy.weights)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_hooks_without_any_task_change_nothing(variant: Variant) -> None:
    toy = trained(variant)
    before = repr([of_task(toy, task) for task in TASKS])
    toy.weighting.on_epoch_end({})
    toy.weighting.on_validation({}, {})
    toy.weighting.on_validation({"pose": 7.0}, {"pose": 0})
    for _ in range(2):
        toy.weighting.on_validation_batch({"pose": 7.0}, {"pose": 0})
    assert repr([of_task(toy, task) for task in TASKS]) == before


def test_gradnorm_leaves_an_absent_task_its_share() -> None:
    toy = Toy("gradnorm")
    sums = [sum(toy.weighting.combine(*toy.losses(patchy(i))).weights.values()) for i in range(4)]
    assert sums == pytest.approx([3, 3, 3, 2])
