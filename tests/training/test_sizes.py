"""A network that is trained at several sizes in turn: which step has which, and that a killed run goes on alike."""

from __future__ import annotations

from typing import Any

import pytest

from polyface.models.bundle import load_bundle
from polyface.training.learner import Learner

from .recognition import STAGE, Gone, fit, recipe_of, stage_tree, stopping_at

SIZES = [32, 40, 48]


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(step, side of the picture) as training goes on."""
    seen: list[tuple[int, int]] = []
    original = Learner._losses

    def record(self: Learner, batch: Any, network: Any) -> Any:
        if network.training:
            seen.append((self.batches_done, batch.images.shape[-1]))
        else:
            assert batch.images.shape[-1] == 40  # validation
        return original(self, batch, network)

    monkeypatch.setattr(Learner, "_losses", record)
    return seen


def tree(**optimisation: Any) -> dict[str, Any]:
    data = STAGE["data"] | {"sizes": SIZES}
    return stage_tree({"data": data, "optimisation": STAGE["optimisation"] | optimisation})


def test_sizes_take_turns_step_by_step_and_the_bundle_keeps_its_crop(tmp_path, sides) -> None:
    result = fit(recipe_of(tmp_path, tree()), tmp_path / "runs")["one"]
    assert sides == [(step, SIZES[step % 3]) for step in range(10)]
    assert load_bundle(result.bundle, quiet=True).crop.size == 40


def test_micro_batches_of_a_step_have_one_size(tmp_path, sides) -> None:
    fit(recipe_of(tmp_path, tree(accumulate=2, epochs=1)), tmp_path / "runs")
    assert [side for _, side in sides] == [32, 32, 40, 40, 48]


def test_a_killed_run_ends_with_the_same_weights(tmp_path, monkeypatch) -> None:
    recipe = recipe_of(tmp_path, tree())
    whole = fit(recipe, tmp_path / "whole")["one"]
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stopping_at(4))
        with pytest.raises(Gone):
            fit(recipe, tmp_path / "killed", checkpoint_steps=1)
    resumed = fit(recipe, tmp_path / "killed", checkpoint_steps=1)["one"]
    assert resumed.history == whole.history
    weights = [(each.bundle / "model.safetensors").read_bytes() for each in (whole, resumed)]
    assert weights[0] == weights[1]
    other = fit(recipe_of(tmp_path, stage_tree()), tmp_path / "plain")["one"]
    assert (other.bundle / "model.safetensors").read_bytes() != weights[0]
