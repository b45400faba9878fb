"""Training, resuming and answering on an accelerator agree with the CPU, and nothing is left on the wrong device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from polyface.data.store import open_source
from polyface.inference import Analyzer, BundleEmbedder
from polyface.models import find
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner
from polyface.weighting import WEIGHTINGS

from ..training.recognition import CENTRES, fit, recipe_of, stage_tree, stopping_at
from ..training.recognition import Gone as Stopped

GRADIENTS = {"mgda", "pcgrad", "cagrad", "gradvac", "nash", "aligned", "fairgrad", "upgrad", "imtl", "imtl-g"}


def trained(recipe: recipes.Recipe, out: Path, device: str, **options: Any) -> stages.StageResult:
    return fit(recipe, out, accelerator=device, **options)[recipe.stages[-1].name]


def losses(result: stages.StageResult) -> np.ndarray:
    return np.array([list(row["train"].values()) for row in result.history])


@pytest.mark.parametrize("name", [*WEIGHTINGS.names(), *(f"{name}:shared" for name in sorted(GRADIENTS))])
def test_every_weighting_trains_there_as_on_the_cpu(toy: Any, tmp_path: Path, device: str, name: str) -> None:
    method, _, level = name.partition(":")
    options = {"level": level} if level else {}
    recipe = recipes.load(
        toy({"weighting": {"name": method, "options": options}, "optimisation": {"epochs": 1, "lr": 0.001}})
    )
    there, here = (trained(recipe, tmp_path / where, where) for where in (device, "cpu"))
    np.testing.assert_allclose(losses(there), losses(here), rtol=2e-2)
    assert there.history[-1]["weights"].keys() == here.history[-1]["weights"].keys()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_all_extras_of_recognition(tmp_path: Path, device: str, precision: str) -> None:
    """Centres, distillation, a running mean, balanced batches, cosine margins."""
    margins = {name: task | {"loss": "cosface"} for name, task in stage_tree()["tasks"].items()}
    teacher = stage_tree({"name": "teacher", "tasks": {"verification": {"kind": "identity"}}, "weighting": None})
    face = teacher["network"]["branches"]["verification"]
    teacher["network"] |= {"branches": {"verification": face}, "heads": {"verification": "verification"}}
    optimisation = {"optimiser": "adamw", "lr": 0.003, "epochs": 2, "ema": 0.9, "precision": precision, "clip": 1.0}
    student = stage_tree(
        {
            "tasks": margins,
            "centres": CENTRES,
            "distil": {"teacher": "teacher", "tasks": ["verification"], "weight": 2.0},
            "optimisation": optimisation,
        }
    )
    result = trained(recipe_of(tmp_path, teacher, student), tmp_path / "run", device)
    assert np.isfinite(losses(result)).all()
    assert all(tensor.isfinite().all() for tensor in load_file(result.bundle / "model.safetensors").values())


def test_thresholds_and_stopping(toy: Any, tmp_path: Path, device: str) -> None:
    tree = yaml.safe_load(Path(toy()).read_text())
    (stage,) = tree["stages"]
    stage |= {
        "tasks": stage["tasks"] | {"glasses": {"kind": "classification", "column": "glasses"}},
        "stopping": {"main": ["landmarks"], "window": 1, "threshold": -1e9, "every": 2},
        "optimisation": {"optimiser": "adamw", "lr": 0.003, "epochs": 4},
        "evaluation": {"select": "best"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    result = trained(recipes.load(path), tmp_path / "run", device)
    assert set(result.history[-1]["stopped"]) == {"smile", "glasses"}


@pytest.mark.parametrize("weighting", ["famo", "gradnorm", "ming"])
def test_a_stopped_run_goes_on_there(toy: Any, tmp_path: Path, device: str, weighting: str) -> None:
    changes = {"weighting": {"name": weighting}, "optimisation": {"optimiser": "adamw", "epochs": 2, "ema": 0.9}}
    recipe = recipes.load(toy(changes))
    whole = trained(recipe, tmp_path / "whole", device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "training_step", stopping_at(7))
        with pytest.raises(Stopped):
            trained(recipe, tmp_path / "stopped", device, checkpoint_steps=1)
    resumed = trained(recipe, tmp_path / "stopped", device)
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-3)


def test_shipped_models_answer_as_on_the_cpu(device: str) -> None:
    faces = open_source("synthetic", None, {"n": 24, "size": 160, "seed": 5})
    pictures = [faces.image(row) for row in range(len(faces))]
    boxes = [np.array([[10.0, 10.0, 150.0, 150.0]], np.float32) for _ in pictures]
    there, here = (Analyzer("face5", "face68", device=where)(pictures, boxes=boxes) for where in (device, "cpu"))
    for one, other in zip(there, here, strict=True):
        for task, points in one.faces[0].points.items():
            assert np.abs(points - other.faces[0].points[task]).max() < 0.2
        for task, words in one.faces[0].probabilities.items():
            assert words == pytest.approx(other.faces[0].probabilities[task], abs=5e-3)
    ours, theirs = (
        np.stack([face.embedding for (face,) in BundleEmbedder(find("identity"), device=where).embed(pictures, boxes)])
        for where in (device, "cpu")
    )
    assert (ours * theirs).sum(1).min() > 0.999


def test_nothing_of_a_network_stays_behind(five: Any, device: str) -> None:
    network = five.network.to(device)
    output = network(torch.zeros(2, network.channels, network.size, network.size, device=device))
    assert {value.device.type for value in output.outputs.values()} == {torch.device(device).type}


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("pool", ["points", "avg"])
def test_trunks_of_timm_learn_there(toy: Any, tmp_path: Path, device: str, pool: str, optimiser: str) -> None:
    """1×1 convolutions in channels-last order: their strides are ambiguous, which fused optimisers do not forgive."""
    trunk = {"name": "timm", "model": "resnet10t", "size": 64, "channels": 1, "pool": pool}
    trunk["options"] = {"channels": [16, 16, 32, 32], "stem_width": 8}
    changes = {
        "data": {"crop": {"size": 64, "channels": 1}},
        "network": {"trunk": trunk},
        "optimisation": {"optimiser": optimiser, "lr": 0.001, "epochs": 1},
    }
    assert np.isfinite(losses(trained(recipes.load(toy(changes)), tmp_path, device))).all()
