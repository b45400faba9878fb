"""Small trainings of recognition on synthetic people, for the tests of what is peculiar to it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from polyface.data.loader import FaceLoader, RawBatch
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner
from polyface.training.recipe import Recipe

TASKS = ("verification", "visual", "caricature")

# 80 faces of four people to train on, 10 to validate; five steps an epoch. Dropout and mirrors: what a resumed run
# could get wrong.
FACE: dict[str, Any] = {"levels": 0, "hidden": [8], "dropout": 0.2, "similarity": "cosine"}
STAGE: dict[str, Any] = {
    "name": "one",
    "data": {
        "tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1, "identities": 4}}],
        "boxes": {"source": "landmarks", "landmarks": "landmarks_5"},
        "crop": {"size": 40, "channels": 1},
        "augment": {"mirror": 0.5},
        "batch": 16,
        "balance": ["modality", "identity"],
    },
    "network": {
        "trunk": {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map"},
        "branches": {name: FACE for name in TASKS},
        "heads": {name: name for name in TASKS},
    },
    "tasks": {
        "verification": {"kind": "identity"},
        "visual": {"kind": "identity", "where": {"modality": "photo"}},
        "caricature": {"kind": "identity", "where": {"modality": "caricature"}},
    },
    "weighting": {"name": "ming"},
    "optimisation": {"optimiser": "adamw", "lr": 0.003, "epochs": 2},
    "evaluation": {"main": "verification"},
}
CENTRES = {"tasks": ["verification", "visual"], "weight": 0.1, "rate": 0.5}


def stage_tree(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The stage with other values of its keys; `None` takes one away."""
    tree = copy.deepcopy(STAGE) | copy.deepcopy(changes or {})
    tree["optimisation"] = {"precision": "32-true"} | tree["optimisation"]
    return {key: value for key, value in tree.items() if value is not None}


def recipe_of(folder: Path, *trees: dict[str, Any], **others: Any) -> Recipe:
    """A recipe of these stages, read from its file `folder/recipe.yaml`."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "toy", "seed": 3, "stages": list(trees)} | others, sort_keys=False))
    return recipes.load(path)


def of_pictures(folder: Path, table: Path, name: str, task: dict[str, Any], epochs: int, **data: Any) -> Recipe:
    """A recipe of one task on a table of grey pictures of 40×40, each of them the face."""
    stage = {
        "name": "one",
        "data": {
            "tables": [{"name": str(table)}],
            "boxes": {"source": "image"},
            "crop": {"size": 40, "channels": 1},
            "augment": {"mirror": 0.5},
            "batch": 16,
            **data,
        },
        "network": {"trunk": {"name": "tcdcn"}},
        "tasks": {name: task},
        "optimisation": {"optimiser": "adamw", "lr": 0.003, "epochs": epochs, "precision": "32-true"},
        "evaluation": {"main": name},
    }
    return recipe_of(folder, stage)


def learner_of(recipe: Recipe, **others: Any) -> Learner:
    """Ready to take steps, without a trainer."""
    stage = recipe.stages[0]
    tasks = stages.stage_tasks(stage, every=True)
    loaders = {}
    for part in ("train", "val"):
        pool = stages.stage_pool(stage, part, None, tasks)
        assert pool is not None
        loaders[part] = FaceLoader(pool, stage.data.batch, seed=3, stage="one", shuffle=part == "train")
    network = stages.build_network(stage, tasks, 3, {})
    weighting = stages.build_weighting(stage, network.shared_dim, tasks)
    return Learner(stage, 3, network, tasks, weighting, loaders["train"], loaders["val"], **others)


def first_batch(learner: Learner) -> RawBatch:
    return next(iter(learner.train_dataloader()))


def of_rows(learner: Learner, rows: Any) -> RawBatch:
    """The batch of these training faces, as they are."""
    return learner._train._raw(np.asarray(rows), None)


def faces_of(learner: Learner, modality: str) -> np.ndarray:
    """The training faces of a modality."""
    return np.flatnonzero(learner._train.pool.table.words("modality") == modality)


def unlabelled(raw: RawBatch, task: str, rows: slice) -> RawBatch:
    labelled = raw.labelled[task].clone()
    labelled[rows] = False
    return replace(raw, labelled=raw.labelled | {task: labelled})


def gradients(learner: Learner, raw: RawBatch) -> dict[str, Tensor]:
    learner.zero_grad()
    learner.training_step(raw, 0).backward()
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def fit(recipe: Recipe, out: Path, **options: Any) -> dict[str, stages.StageResult]:
    defaults = {"accelerator": "cpu", "logger": "none"}
    return stages.run(recipe, out, None, stages.RunOptions(**defaults | options))


class Gone(Exception):
    """Stands for whatever ends a process."""


def stopping_at(step: int) -> Any:
    """`Learner.training_step` that ends the run before that step."""
    original = Learner.training_step

    def training_step(self: Learner, *args: Any) -> Any:
        if self.batches_done == step:
            raise Gone
        return original(self, *args)

    return training_step
