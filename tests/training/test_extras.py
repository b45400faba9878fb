"""Extras of somebody else's: keys of a stage, moments of training, state that a killed run comes back to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from polyface.data.loader import FaceBatch
from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork, FaceOutput
from polyface.training.extras import EXTRAS
from polyface.training.extras.base import Extra, Setup
from polyface.training.learner import Learner
from polyface.training.specs import StageSpec, Strict

from .recognition import Gone, first_batch, fit, gradients, learner_of, recipe_of, snapshot, stage_tree, stopping_at


class CountSpec(Strict):
    first: int = Field(0, ge=0)


class Count(Extra):
    """Counts steps, and writes them into the history; what it counts up to the best epoch belongs to that."""

    Spec = CountSpec
    restored: ClassVar[list[int]] = []

    def __init__(self, spec: CountSpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.count = spec.first

    def after_step(self, network: FaceNetwork, step: int) -> None:
        self.count += 1
        assert self.count == step

    def end_epoch(self, row: dict[str, Any]) -> None:
        row["count"] = self.count

    def best(self) -> int:
        return self.count

    def restore(self, best: int) -> None:
        self.restored.append(best)

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state


class PenaltySpec(Strict):
    weight: float = Field(ge=0)


class Penalty(Extra):
    """A learnt scale keeps the embeddings of `verification` short: weight · scale² · mean ‖e‖²."""

    Spec = PenaltySpec

    def __init__(self, spec: PenaltySpec, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.weight = spec.weight
        self.scale = nn.Parameter(torch.ones(()))

    @classmethod
    def check(cls, spec: PenaltySpec, stage: StageSpec) -> None:
        if "verification" not in stage.tasks:
            raise PolyfaceError("penalty needs a task verification")

    def add_total(self, output: FaceOutput, batch: FaceBatch) -> Tensor:
        shared = output.shared.flatten(1).float()
        return self.weight * self.scale.square() * shared.square().mean()


@pytest.fixture
def extras() -> Any:
    EXTRAS.add("count", Count)
    EXTRAS.add("penalty", Penalty)
    yield
    EXTRAS.remove("count")
    EXTRAS.remove("penalty")


BOTH = {"count": {}, "penalty": {"weight": 0.5}}


def test_its_key_is_a_key_of_the_stage(extras, tmp_path) -> None:
    stage = recipe_of(tmp_path, stage_tree(BOTH)).measured
    assert stage.extras == {"count": CountSpec(), "penalty": PenaltySpec(weight=0.5)}
    again = StageSpec.model_validate_json(stage.model_dump_json())
    assert again == stage
    assert StageSpec.model_validate(stage.model_dump() | {"count": None, "stopping": None}).extras.keys() == {"penalty"}
    assert StageSpec.model_validate(stage.model_dump() | {"penalty": {"weight": 0.4}}) != stage


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cout": {}}, r"stages.0.cout: unknown key; did you mean 'count'\?"),
        ({"centers": {"tasks": []}}, r"stages.0.centers: unknown key; did you mean 'centres'\?"),
        ({"running-mean": 0.9}, "stages.0.running-mean: unknown key"),  # its key is optimisation.ema
        ({"count": {"frist": 1}}, r"stages.0.count.frist: unknown key; did you mean 'first'\?"),
        ({"count": {"first": -1}}, "stages.0.count.first: input should be greater than or equal to 0"),
        ({"penalty": {}}, "stages.0.penalty.weight: field required"),
    ],
)
def test_mistakes_are_placed_and_named(extras, tmp_path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        recipe_of(tmp_path, stage_tree(changes))
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_the_stage(extras, tmp_path) -> None:
    tree = stage_tree(BOTH | {"tasks": {"visual": {"kind": "identity"}}, "evaluation": {"main": "visual"}})
    with pytest.raises(PolyfaceError, match=r"recipe.yaml: penalty needs a task verification"):
        recipe_of(tmp_path, tree)


def test_what_is_added_to_the_total_is_unseen_by_the_weighting(extras, tmp_path) -> None:
    """The same weights, and the gradient of the trunk differs by that of the penalty alone."""
    plain, ours = (learner_of(recipe_of(tmp_path, stage_tree(chosen))) for chosen in ({}, BOTH))
    raw = first_batch(plain)
    found = []
    for learner in (plain, ours):
        torch.manual_seed(0)  # dropout
        found.append(gradients(learner, raw))
    assert plain.weight_sums == ours.weight_sums
    assert found[1].keys() - found[0].keys() == {"extras.penalty.scale"}
    heads = [name for name in found[0] if name.startswith(("network.heads", "network.branches", "weighting"))]
    assert all(torch.equal(found[0][name], found[1][name]) for name in heads)
    trunk = [name for name in found[0] if name.startswith("network.trunk")]
    assert any(not torch.equal(found[0][name], found[1][name]) for name in trunk)
    parameters = [p for group in ours.configure_optimizers()["optimizer"].param_groups for p in group["params"]]
    assert any(p is ours.extras["penalty"].scale for p in parameters)


def test_a_killed_run_ends_with_the_same_state(extras, tmp_path, monkeypatch) -> None:
    recipe = recipe_of(tmp_path, stage_tree(BOTH | {"evaluation": {"main": "verification", "select": "best"}}))
    whole = fit(recipe, tmp_path / "whole")["one"]
    assert [row["count"] for row in whole.history] == [5, 10]
    for step in (3, 7):
        with monkeypatch.context() as patch:
            patch.setattr(Learner, "training_step", stopping_at(step))
            with pytest.raises(Gone):
                fit(recipe, tmp_path / "killed", checkpoint_steps=1)
    state = torch.load(tmp_path / "killed/one/last.ckpt", weights_only=True)["state_dict"]
    assert state["extras.count._extra_state"] == 7
    assert float(state["extras.penalty.scale"]) < 1  # it learns
    Count.restored.clear()
    resumed = fit(recipe, tmp_path / "killed", checkpoint_steps=1)["one"]
    assert resumed.history == whole.history
    assert (resumed.bundle / "model.safetensors").read_bytes() == (whole.bundle / "model.safetensors").read_bytes()
    losses = [row["validation"]["verification"] for row in whole.history]
    assert Count.restored == [5 * (losses.index(min(losses)) + 1)]


def test_extras_act_in_the_order_of_their_names(tmp_path) -> None:
    changes = {"centres": {"tasks": ["visual"]}, "optimisation": {"ema": 0.9}, "stopping": {"main": ["visual"]}}
    stage = recipe_of(tmp_path, stage_tree(changes)).measured
    assert list(stage.extras) == ["centres", "running-mean", "stopping"]


def test_a_checkpoint_of_another_layout_is_one_line(toy, trainings, tmp_path) -> None:
    kill = {"where": "step", "at": 3}
    trainings([{"recipe": toy(), "out": tmp_path, "kill": kill, "options": {"checkpoint_steps": 1}}])
    path: Path = tmp_path / "one/last.ckpt"
    before = torch.load(path, weights_only=True)
    del before["polyface"]["layout"]  # as it was before extras had a place of their own
    torch.save(before, path)
    (result,) = trainings([{"recipe": toy(), "out": tmp_path}])
    assert "last.ckpt: made by another version of Polyface" in result["error"]
    assert "move the file away to start over" in result["error"]
    assert "\n" not in result["error"]
    assert path.exists()


def test_every_extra_of_its_own_can_be_told_about() -> None:
    assert EXTRAS.names() == ["accuracy", "centres", "distil", "running-mean", "stopping", "thresholds"]
    assert all(EXTRAS.about(name).endswith(".") or EXTRAS.about(name) for name in EXTRAS.names())
    assert all(issubclass(EXTRAS.get(name), Extra) for name in EXTRAS.names())


def test_the_weights_of_a_running_mean_are_in_the_checkpoint(tmp_path) -> None:
    learner = learner_of(recipe_of(tmp_path, stage_tree({"optimisation": {"ema": 0.9, "epochs": 1}})))
    mean = learner.evaluated
    assert mean is not learner.network
    assert snapshot(mean).keys() == snapshot(learner.network).keys()
    assert "extras.running-mean.network.heads.visual.parts.visual.weight" in learner.state_dict()
