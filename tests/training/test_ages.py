"""Ages in a training: faces with years and faces with groups in one table, down to the model that is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.schema import Column
from polyface.training import stages
from polyface.training.recipe import Recipe

from .recognition import fit, of_pictures

GROUPS = ("0-19", "20-39", "50+")


def faces(path: Path, count: int = 128) -> Path:
    """Grey pictures, the brighter the older, up to 79 years: of every second one the group alone is known."""
    ages = np.random.default_rng(0).integers(0, 80, count)
    records = []
    for place, age in enumerate(map(int, ages)):
        word = GROUPS[0] if age < 20 else GROUPS[1] if age < 40 else GROUPS[2] if age >= 50 else None
        labels: dict[str, Any] = {"split": ("train", "train", "val", "test")[place // 2 % 4]}
        labels |= {"age": age} if place % 2 else {"age_group": word}
        picture = np.full((40, 40, 3), 20 + 2.7 * age, np.uint8)
        records.append(Record(picture, str(place), f"{place}.png", labels))
    write_table(records, path, columns={"age_group": Column("words", GROUPS)})
    return path


def recipe(folder: Path, table: Path, epochs: int) -> Recipe:
    return of_pictures(folder, table, "age", {"kind": "age"}, epochs)


def test_years_and_groups_are_learnt_evaluated_and_saved(tmp_path: Path) -> None:
    table = faces(tmp_path / "faces.parquet")
    made = recipe(tmp_path, table, epochs=10)
    bundle = load_bundle(fit(made, tmp_path / "out")["one"].bundle)
    task = bundle.tasks["age"]
    assert task.config()["vocabulary"] == list(GROUPS)
    result = evaluate(bundle, stages.pool_of(made.stages[0], None, bundle.tasks)).results["age "]
    figures = {metric.name: result.figure(metric) for metric in result.metrics}
    tested = FaceTable.open(table).where(split="test")
    ages, words = tested.numbers("age"), tested.words("age_group")
    told = sum(not np.isnan(age) and not 40 <= age < 50 for age in ages) + sum(word is not None for word in words)
    counts = [metric.n for metric in result.metrics[:3]]
    assert counts == [told, told, np.count_nonzero(~np.isnan(ages))]
    assert figures["years error"] < np.nanmean(np.abs(ages - np.nanmean(ages))) / 2
    assert figures["1-off"] >= figures["accuracy"] > 1.2 * figures["majority class"]


def test_the_head_begins_at_the_prior(tmp_path: Path) -> None:
    table = faces(tmp_path / "faces.parquet")
    stage = recipe(tmp_path, table, epochs=1).stages[0]
    tasks = stages.stage_tasks(stage, every=True)  # type: ignore[arg-type]
    network = stages.build_network(stage, tasks, 0, {})  # type: ignore[arg-type]
    shares = network.heads["age"].bias.softmax(0)  # type: ignore[union-attr, operator]
    training = FaceTable.open(table).where(split="train")
    groups = [word for word in training.words("age_group") if word]
    old = sum(word == "50+" for word in groups) + sum(training.numbers("age") >= 50)
    known = len(groups) + int((~np.isnan(training.numbers("age"))).sum())
    assert shares[50:].sum().item() == pytest.approx(old / known, abs=0.03)
    assert torch.isfinite(network.heads["age"].bias).all()  # type: ignore[union-attr, arg-type]
