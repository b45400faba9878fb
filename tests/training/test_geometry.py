"""Matrices, points, targets and losses are float32, whatever precision the network is run in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polyface.data.loader import assemble
from polyface.networks.trunks.timm_trunk import SpatialPoints
from polyface.tasks.landmarks import LandmarksTask
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.weighting import Context, build

from .recognition import first_batch, learner_of

DATA = {"tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}}], "batch": 16}


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def test_a_batch_is_the_same_to_the_bit_under_autocast(toy) -> None:
    learner = learner_of(recipes.load(toy({"data": DATA})))
    raw = first_batch(learner)
    plain = assemble(raw, learner.crop, learner.tasks, learner.spec.data.augment)
    with bfloat16():
        half = assemble(raw, learner.crop, learner.tasks, learner.spec.data.augment)
    assert torch.equal(half.crops, plain.crops)
    assert torch.equal(half.images, plain.images)
    assert torch.equal(half.targets["landmarks"], plain.targets["landmarks"])
    assert half.targets["landmarks"].dtype == torch.float32


def test_targets_and_losses_of_a_bf16_run_are_those_of_a_float32_run(toy, tmp_path, monkeypatch) -> None:
    """In the first step, the few validation faces that come with it, and validation. Losses are those of the outputs,
    computed again outside of any autocast."""
    seen: list[tuple[Tensor, Tensor]] = []
    plain = LandmarksTask.loss

    def watch(self: LandmarksTask, output: Tensor, target: Tensor) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        found = plain(self, output, target)
        assert found.dtype == torch.float32
        seen.append((target.detach().clone(), output.detach().clone()))
        return found

    monkeypatch.setattr(LandmarksTask, "loss", watch)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for precision in ("32-true", "bf16-mixed"):
        changes = {
            "data": DATA,
            "weighting": {"name": "aw", "options": {"window": 2}},
            "optimisation": {"epochs": 1, "precision": precision},
        }
        seen.clear()
        options = stages.RunOptions(accelerator="cpu", logger="none")
        stages.run(recipes.load(toy(changes)), tmp_path / precision, None, options)
        found[precision] = list(seen)
    assert len(found["32-true"]) == len(found["bf16-mixed"]) == 11  # five steps, each with a few faces, and validation
    for (single, _), (half, _) in zip(found["32-true"], found["bf16-mixed"], strict=True):
        torch.testing.assert_close(half, single, rtol=0, atol=1e-6)
    assert not torch.equal(found["32-true"][0][1], found["bf16-mixed"][0][1])  # the network did run in bfloat16


def test_positions_of_parts_are_float32() -> None:
    """A score map with one sharp peak at column 5 of 28: x = −1 + 2·5/27, which bfloat16 cannot say."""
    torch.manual_seed(0)
    points = SpatialPoints(4, 4, 2)
    scores = torch.zeros(1, 2, 28, 28)
    scores[:, :, 9, 5] = 10.0
    points.score = torch.nn.Sequential(torch.nn.Identity())
    points.last.forward = lambda maps: torch.zeros(1, 2, 7, 7)  # type: ignore[method-assign]
    points.finer.forward = lambda maps: scores  # type: ignore[method-assign]
    with bfloat16():
        found = points(torch.zeros(1, 4, 7, 7), torch.zeros(1, 4, 28, 28))
    expected = torch.tensor([[-1 + 10 / 27, -1 + 10 / 27, -1 + 18 / 27, -1 + 18 / 27]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_weights_learned_from_a_bfloat16_map_average_it_in_float32() -> None:
    weighting = build("yin-liu", ["a", "b"], features=8)
    torch.manual_seed(0)
    shared = torch.randn(4, 8, 5, 5).bfloat16()
    losses: dict[str, Any] = {"a": torch.tensor(1.0, requires_grad=True), "b": torch.tensor(2.0, requires_grad=True)}
    weighting.eval()
    half = weighting.combine(losses, Context(shared=shared)).weights
    single = weighting.combine(losses, Context(shared=shared.float())).weights
    assert half == pytest.approx(single, abs=1e-7)


def test_a_run_carried_on_in_another_precision_says_both(toy, tmp_path, monkeypatch) -> None:
    from polyface.training.learner import Learner

    from .recognition import Gone, stopping_at

    def chosen(named: str) -> recipes.Recipe:
        return recipes.load(toy({"data": DATA, "optimisation": {"epochs": 1, "precision": named}}))

    monkeypatch.setattr("polyface.training.trainer.precision", lambda asked, accelerator: asked.replace("auto", here))
    options = stages.RunOptions(accelerator="cpu", logger="none", checkpoint_steps=1)
    here = "bf16-mixed"
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stopping_at(2))
        with pytest.raises(Gone):
            stages.run(chosen("auto"), tmp_path, None, options)
    here = "32-true"
    result = stages.run(chosen("auto"), tmp_path, None, options)["one"]
    assert precision_of(tmp_path) == "bf16-mixed, 32-true"
    again = stages.run(chosen("auto"), tmp_path, None, options)["one"]
    assert again.history == result.history


def precision_of(out: Path) -> str:
    import json

    return str(json.loads((out / "one/history.json").read_text())["precision"])
