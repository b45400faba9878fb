"""Weightings inside the learner: their hooks, their resume, their optimiser group, and two processes against one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from polyface.data.loader import FaceLoader
from polyface.errors import PolyfaceError
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner

from .conftest import toy_tree
from .test_ddp import assert_close

# One of each kind that asks something of the learner: a second forward, validation faces at every step, parameters of
# its own on features and on gradients, state that changes with every solution, hooks at validations and epochs.
CHOSEN: dict[str, dict[str, Any]] = {
    "famo": {"name": "famo", "options": {"lr": 0.3}},
    "aw": {"name": "aw", "options": {"window": 2, "faces": 6}},
    "ming": {"name": "ming", "options": {"lr": 0.3}},
    "gradnorm": {"name": "gradnorm", "options": {"lr": 0.1}},
    "gradvac": {"name": "gradvac", "options": {"beta": 0.3, "level": "shared"}},
    "imtl": {"name": "imtl"},
    "dmm": {"name": "dmm"},
    "dwa": {"name": "dwa"},
}


def all_in_one(folder: Path, changes: dict[str, Any]) -> Path:
    """A recipe with one stage a weighting, so that one start of Python trains them all."""
    tree = toy_tree(changes)
    tree["stages"] = [tree["stages"][0] | {"name": name, "weighting": chosen} for name, chosen in CHOSEN.items()]
    path = folder / "all.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def network_of(out: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(out / stage / "model" / "model.safetensors")


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(trainings, tmp_path) -> None:
    recipe = all_in_one(tmp_path, {"optimisation": {"optimiser": "adamw", "epochs": 3, "clip": 1.0}})
    common = {"recipe": recipe, "options": {"checkpoint_steps": 1}}
    killed = common | {"out": tmp_path / "killed"}
    # fifteen steps a stage: in the eighth of each, then once more (a run begins with the finished stages)
    kills = [killed | {"kill": {"where": "step", "at": 7}}, killed | {"kill": {"where": "optimiser", "at": 3}}]
    kills += [killed | {"kill": {"where": "step", "at": 12}} for _ in CHOSEN]
    results = trainings([common | {"out": tmp_path / "whole"}, *kills, killed])
    assert results[-1]["history"] == results[0]["history"]
    for name in CHOSEN:
        ours, whole = network_of(tmp_path / "killed", name), network_of(tmp_path / "whole", name)
        assert all(torch.equal(ours[key], whole[key]) for key in whole)
        weights = [row["weights"] for row in results[0]["history"][name]]
        assert weights[-1] != {"landmarks": 1.0, "smile": 1.0}, name  # the weights did move
        assert weights[-1] != weights[0], name


@pytest.mark.slow
def test_two_processes_learn_what_one_does(trainings, tmp_path) -> None:
    rare = {"smile": {"kind": "classification", "column": "smile", "where": {"pose": ["left", "right"]}}}
    common = {"tasks": rare, "optimisation": {"lr": 0.003, "epochs": 2}}
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one = all_in_one(tmp_path / "1", common | {"data": {"batch": 16}})
    two = all_in_one(tmp_path / "2", common | {"data": {"batch": 8}})
    pair = {"recipe": two, "out": tmp_path / "double", "processes": 2}
    ranks = [rank["history"] for rank in trainings([{"recipe": one, "out": tmp_path / "single"}, pair])[1]["ranks"]]
    assert ranks[0] == ranks[1]
    for name in CHOSEN:
        single, double = network_of(tmp_path / "single", name), network_of(tmp_path / "double", name)
        for key, tensor in single.items():
            torch.testing.assert_close(double[key], tensor, rtol=0, atol=1e-4, msg=f"{name}: {key}")
        history = json.loads((tmp_path / "single" / name / "history.json").read_text())["history"]
        if name not in ("dmm", "aw"):  # weights that divide small differences of losses
            assert_close(ranks[0][name], history)


# ------------------------------------------------------------------------------------------------ single steps


def learner_of(toy: Any, changes: dict[str, Any]) -> Learner:
    chosen = recipes.load(toy(changes))
    stage = chosen.stages[0]
    tasks = stages.stage_tasks(stage)
    loaders = {}
    for part in ("train", "val"):
        pool = stages.stage_pool(stage, part, None, tasks)
        assert pool is not None
        loaders[part] = FaceLoader(pool, stage.data.batch, seed=3, stage="one", shuffle=part == "train")
    network = stages.build_network(stage, tasks, 3, {})
    weighting = stages.build_weighting(stage, network.shared_dim)
    return Learner(stage, 3, network, tasks, weighting, loaders["train"], loaders["val"])


def test_own_parameters_have_a_group_with_their_own_rate(toy) -> None:
    learner = learner_of(toy, {"weighting": {"name": "ming", "options": {"lr": 0.5}}})
    groups = learner.configure_optimizers()["optimizer"].param_groups
    own = [p for p in learner.weighting.parameters()]
    assert [any(p is q for q in groups[-1]["params"]) for p in own] == [True, True]
    assert (groups[-1]["initial_lr"], groups[-1]["weight_decay"]) == (0.5, 0.0)
    assert groups[0]["initial_lr"] == 0.003


def test_clipping_does_not_mix_the_two_objectives(toy) -> None:
    learner = learner_of(toy, {"weighting": {"name": "ming"}})
    for parameter in learner.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 1e-6)
    for parameter in learner.weighting.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    learner.configure_gradient_clipping(torch.optim.SGD(learner.parameters()), 1.0)
    assert all((p.grad == 1e-6).all() for p in learner.network.parameters())  # short as they are: untouched
    norm = torch.stack([p.grad.norm() for p in learner.weighting.parameters()]).norm()
    assert norm == pytest.approx(1.0, rel=1e-4)


def test_a_stopped_task_is_absent_for_the_weighting(toy) -> None:
    learner = learner_of(
        toy, {"weighting": {"name": "gls"}, "stopping": {"main": ["landmarks"], "window": 1, "every": 5}}
    )
    learner.extras["stopping"].stopped["smile"] = 1
    learner.training_step(next(iter(learner.train_dataloader())), 0).backward()
    # the geometric mean of one loss is that loss
    assert learner.weight_sums == {"landmarks": (pytest.approx(1.0), 1)}
    assert all((p.grad == 0).all() for p in learner.network.heads["smile"].parameters())


def test_the_second_forward_leaves_batch_norm_alone(toy, tmp_path) -> None:
    trunk = {"trunk": {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "shared": 16}}
    optimisation = {"epochs": 1, "lr": 1e-9, "accumulate": 2}
    calls = []

    def train(name: str) -> dict[str, torch.Tensor]:
        tree = toy({"network": trunk, "optimisation": optimisation, "weighting": {"name": name}})
        options = stages.RunOptions(accelerator="cpu", logger="none")
        stages.run(recipes.load(tree), tmp_path / name, None, options)
        return network_of(tmp_path / name, "one")

    from polyface.weighting import FAMO

    original = FAMO.after_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FAMO, "after_step", lambda self, *given: (calls.append(1), original(self, *given))[1])
        famo = train("famo")
    plain = train("uniform")
    assert len(calls) == 3  # five batches: two whole steps of two, and the last
    for key, value in plain.items():
        if "running" in key or "tracked" in key:
            torch.testing.assert_close(famo[key], value, rtol=1e-5, atol=1e-6)


def test_validation_faces_come_in_turn(toy) -> None:
    learner = learner_of(toy, {"weighting": {"name": "aw"}})
    loader = learner._validation
    assert loader is not None
    rows = torch.cat([loader.some(step, 6).rows for step in range(10)])
    assert rows.bincount(minlength=len(loader.pool)).tolist() == [60 // len(loader.pool)] * len(loader.pool)
    shares = []
    for rank in (0, 1):
        loader.rank, loader.world = rank, 2
        shares.append(loader.some(4, 6).rows)
    assert torch.equal(torch.cat(shares), rows[24:30])


WITHOUT = [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}, "where": {"split": "train"}}]
"""A table of faces for training alone."""


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"weighting": {"name": "aw"}}, "weighting aw"),
        ({"weighting": {"name": "dmm"}}, "weighting dmm"),
        ({"stopping": {"main": ["landmarks"]}}, "stopping"),
        ({"optimisation": {"schedule": "plateau"}}, "optimisation.schedule plateau"),
        ({"evaluation": {"select": "best"}}, "evaluation.select best"),
    ],
)
def test_what_needs_validation_faces_says_so(toy, tmp_path, changes: dict[str, Any], what: str) -> None:
    chosen = recipes.load(toy({"data": {"tables": WITHOUT}} | changes))
    with pytest.raises(PolyfaceError, match=f"stage one: {what} needs validation faces, and no face has split 'val'"):
        stages.run(chosen, tmp_path, None, stages.RunOptions(accelerator="cpu", logger="none"))


def test_training_faces_can_stand_in_for_validation_faces(toy, tmp_path) -> None:
    """As on LFWA (Mao et al. 2020): what is validated is the training faces as they are, all of them."""
    data = {"tables": WITHOUT, "validate_on": "train", "augment": {"rotate": 0, "zoom": 0, "shift": 0, "mirror": 0}}
    optimisation = {"optimiser": "sgd", "lr": 1e-9, "epochs": 2}  # nothing moves: both losses are of the same network
    chosen = recipes.load(toy({"data": data, "weighting": {"name": "dmm"}, "optimisation": optimisation}))
    result = stages.run(chosen, tmp_path, None, stages.RunOptions(accelerator="cpu", logger="none"))["one"]
    for row in result.history:
        assert row["validation"]["landmarks"] == pytest.approx(row["train"]["landmarks"], rel=0.1)
    assert result.history[0]["weights"]["landmarks"] == 1.0  # of the epoch before the second validation
