"""What a training loop does around a weighting: mixed precision, loss scaling, accumulation, clipping, compilation,
steps to be skipped. One backward of one scalar does it all, so nothing may depend on the method."""

from __future__ import annotations

import copy
import math
import shutil
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from toy import NAMES, VARIANTS, Toy, Training, Variant, batch, label, optimiser, patchy

from polyface.weighting import gramian

SCALE = 2.0**16  # where torch.amp.GradScaler starts


def make(variant: Variant, steps: int = 3) -> Toy:
    """A toy that has trained a little, so that weights are not all at their start."""
    toy = Toy(variant[0], **variant[1])
    training = Training(toy, optimiser(toy), epoch=1)
    for i in range(steps):
        training.step(batch(i), batch(100 + i))
    toy.zero_grad()
    return toy


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 0, atol: float = 0) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_scaling_the_total_scales_every_gradient(variant: Variant) -> None:
    toy, scaled = make(variant), make(variant)
    toy(patchy(1)).backward()
    (scaled(patchy(1)) * SCALE).backward()
    assert scaled.weights == toy.weights
    assert_equal({n: g / SCALE for n, g in scaled.gradients().items()}, toy.gradients(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_bfloat16_gives_nearly_the_same(variant: Variant) -> None:
    """Autocast on the CPU: finite, weights close to those of single precision, gradients in the same direction."""
    toys = [make(variant).float() for _ in range(2)]
    given = patchy(1)
    given.faces, given.targets = given.faces.float(), {task: t.float() for task, t in given.targets.items()}
    toys[0](given).backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert toys[1].trunk(given.faces).dtype == torch.bfloat16
        total = toys[1](given)
    total.backward()
    assert total.isfinite()
    assert total.dtype == torch.float32
    largest = max(map(abs, toys[0].weights.values()))
    assert toys[1].weights == pytest.approx(toys[0].weights, rel=0.05, abs=0.05 * largest)
    full, half = (torch.cat([g.flatten() for g in toy.gradients().values()]) for toy in toys)
    assert half.isfinite().all()
    assert torch.cosine_similarity(full, half, dim=0) > 0.99


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_micro_batches_add_up(variant: Variant) -> None:
    """Gradients of two micro-batches are summed; state goes on with each of them, as if they were steps."""
    toy = make(variant)
    first = copy.deepcopy(toy)
    calls = toy.weighting.state["calls"]
    parts = [patchy(1), patchy(2)]
    for part in parts:
        toy(part).backward()
    assert toy.weighting.state["calls"] == calls + 2
    first(parts[0]).backward()
    one = first.gradients()
    first.zero_grad()
    first(parts[1]).backward()
    two = first.gradients()
    assert_equal(toy.gradients(), {name: one[name] + two[name] for name in one}, rtol=1e-12, atol=1e-15)
    assert repr(toy.weighting.get_extra_state()) == repr(first.weighting.get_extra_state())


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_clipping_holds(variant: Variant) -> None:
    """One call clips network and weighting together; the direction stays."""
    toy = make(variant)
    toy(patchy(1)).backward()
    before = toy.gradients()
    norm = torch.nn.utils.clip_grad_norm_(toy.parameters(), 1e-3)
    assert norm > 1e-3
    after = toy.gradients()
    assert torch.cat([g.flatten() for g in after.values()]).norm() <= 1e-3 * (1 + 1e-6)
    assert_equal(after, {name: g * (1e-3 / (norm + 1e-6)) for name, g in before.items()}, rtol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_loss_that_is_not_finite(variant: Variant, bad: float) -> None:
    """The total says so, no state changes, and the next step is as if nothing had happened."""
    toy = make(variant)
    twin = copy.deepcopy(toy)
    given = batch(5).without("landmarks")
    given.targets["smile"][3] = bad
    combined = toy.weighting.combine(*toy.losses(given))
    assert not combined.loss.isfinite()
    assert not combined.total.isfinite()
    combined.total.backward()
    assert not all(g.isfinite().all() for g in toy.gradients().values())
    with torch.no_grad():
        toy.weighting.after_step(*toy.losses(given))
        toy.weighting.after_step(*toy.losses(batch(5)))
    assert repr(toy.weighting.get_extra_state()) == repr(twin.weighting.get_extra_state())
    assert_equal(toy.own(), twin.own())
    toy.zero_grad()
    assert toy(batch(6)).item() == twin(batch(6)).item()
    assert toy.weights == twin.weights


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_scaler_skips_what_overflows(name: str) -> None:
    """With torch.amp.GradScaler: a step that overflows changes neither network nor weighting, the next one does."""
    toy = make((name, {})).float()
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    steps = optimiser(toy)
    for factor, moves in ((math.inf, False), (1.0, True)):
        before = {n: p.detach().clone() for n, p in toy.named_parameters()}
        given = batch(5)
        given.faces = given.faces.float()
        given.targets = {task: (target * factor).float() for task, target in given.targets.items()}
        steps.zero_grad()
        scaler.scale(toy(given)).backward()
        scaler.step(steps)
        scaler.update()
        after = dict(toy.named_parameters())
        assert {n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])} >= (
            {"trunk", "heads"} if moves else set()
        )
        assert moves or all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_combining_leaves_no_gradient_behind(variant: Variant) -> None:
    """Methods that look at gradients leave none; the backward pass gives one to every parameter."""
    toy, given = make(variant), batch(4)
    combined = toy.weighting.combine(*toy.losses(given))
    assert all(parameter.grad is None for parameter in toy.parameters())
    combined.total.backward()
    assert all(parameter.grad is not None for parameter in toy.parameters())


compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile on the CPU needs a C++ compiler")


@compiler
@pytest.mark.slow
def test_a_compiled_trunk_changes_nothing() -> None:
    """The trunk compiled, heads and weighting not: gradients at the features are those of the network as written."""
    toys = [make((name, {})) for name in ("mgda", "gradnorm", "ming") for _ in range(2)]
    for plain, compiled in list(pairwise(toys))[::2]:
        compiled.trunk.compile()
        found = [gramian(list(losses.values()), context, "features") for losses, context in
                 (toy.losses(patchy(1)) for toy in (plain, compiled))]  # fmt: skip
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=0)
        for toy in (plain, compiled):
            toy(patchy(2)).backward()
        assert compiled.weights == pytest.approx(plain.weights, rel=1e-9)
        assert_equal(compiled.gradients(), plain.gradients(), rtol=1e-8, atol=1e-12)
