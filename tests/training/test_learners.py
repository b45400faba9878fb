"""Learners: a stage of another kind, with settings of its own, beside one that trains tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field

from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.networks import build
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learners import LEARNERS
from polyface.training.specs import BaseStage, NetworkSpec, StageSpec, same_settings

from .conftest import toy_tree
from .recognition import fit


class NoiseStage(BaseStage):
    """Neither tasks nor evaluation."""

    network: NetworkSpec
    scale: float = Field(1.0, gt=0)


class Noise:
    """A network of random weights."""

    Spec = NoiseStage

    @staticmethod
    def run(stage: NoiseStage, context: stages.RunContext) -> stages.StageResult:
        pool = stages.stage_pool(stage, "train", context.data, {})
        assert pool is not None
        torch.manual_seed(context.recipe.seed)
        network = build({"trunk": stage.network.trunk, "heads": {}})
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(stage.scale)
        history = [{"epoch": 1, "faces": len(pool)}]
        context.finish(stage, network, {}, {"history": history, "seconds": 0.5})
        return stages.StageResult(context.folder / "model", history, 0.5)


@pytest.fixture
def noise() -> Any:
    LEARNERS.add("noise", Noise)
    yield
    LEARNERS.remove("noise")


def tree(**changes: Any) -> dict[str, Any]:
    """A stage of noise, then one that trains tasks from it."""
    made = toy_tree({"init": {"source": "before"}, "optimisation": {"epochs": 1, "lr": 1e-9, "weight_decay": 0.0}})
    (last,) = made["stages"]
    before = {
        "name": "before",
        "learner": "noise",
        "data": last["data"],
        "network": {"trunk": last["network"]["trunk"]},
    }
    made["stages"] = [before | {"scale": 2.0} | changes, last]
    return made


def written(folder: Path, made: dict[str, Any]) -> recipes.Recipe:
    path = folder / "toy.yaml"
    path.write_text(json.dumps(made))
    return recipes.load(path)


def test_a_stage_of_another_learner_trains_before_one_of_tasks(noise, tmp_path) -> None:
    recipe = written(tmp_path, tree())
    first, last = recipe.stages
    assert isinstance(first, NoiseStage)
    assert isinstance(last, StageSpec)
    results = fit(recipe, tmp_path / "runs")
    assert results["before"].history == [{"epoch": 1, "faces": 160}]
    began, ended = (load_bundle(results[name].bundle, quiet=True).network.trunk for name in ("before", "one"))
    for name, value in began.named_parameters():
        torch.testing.assert_close(dict(ended.named_parameters())[name], value, rtol=0, atol=1e-5)
    files = [results[name].bundle / "model.safetensors" for name in ("before", "one")]
    times = [file.stat().st_mtime_ns for file in files]
    again = fit(recipe, tmp_path / "runs")  # both are finished
    assert [again[name].history for name in again] == [results[name].history for name in results]
    assert [file.stat().st_mtime_ns for file in files] == times


def test_its_settings_survive_being_written(noise, tmp_path) -> None:
    recipe = written(tmp_path, tree())
    assert recipes.Recipe.model_validate(recipe.model_dump()) == recipe
    assert recipes.Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    kept = json.loads(recipe.stages[0].model_dump_json()) | {"seed": 3}
    assert kept["scale"] == 2.0
    assert same_settings(recipe.stages[0], 3, kept)
    assert not same_settings(recipe.stages[0], 3, kept | {"scale": 1.0})
    assert not same_settings(recipe.stages[0], 3, kept | {"learner": "multitask"})


def test_changes_and_variants_reach_its_keys(noise, tmp_path) -> None:
    made = tree() | {"variants": {"row": {"stages": ["before", "one"], "set": {"before.scale": 4.0}}}}
    recipe = written(tmp_path, made)
    assert recipe.variant("row").stages[0].scale == 4.0  # type: ignore[attr-defined]
    assert recipe.variant("row").measured.name == "one"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"learner": "nois"}, r"stages.before.learner is 'nois'; did you mean 'noise'\?"),
        ({"scal": 1.0}, r"stages.0.scal: unknown key; did you mean 'scale'\?"),
        ({"scale": 0.0}, "stages.0.scale: input should be greater than 0"),
        ({"stopping": {"main": []}}, "stages.0.stopping: unknown key"),  # extras are of stages that train tasks
        ({"data": {"tables": [], "bach": 1}}, r"stages.0.data.bach: unknown key; did you mean 'batch'\?"),
    ],
)
def test_mistakes_are_placed_and_named(noise, tmp_path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        written(tmp_path, tree(**changes))
    assert "\n" not in str(caught.value)


def test_nothing_can_be_measured_on_a_stage_without_tasks(noise, tmp_path) -> None:
    made = tree()
    made["stages"] = made["stages"][:1]
    with pytest.raises(PolyfaceError, match="stage before: learner noise trains no tasks"):
        _ = written(tmp_path, made).measured
