"""Stored answers are those of the network and the faces that there are: otherwise they are made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from polyface import reproduce
from polyface.data.synthetic import records
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.reproduce.jobs import answered, answers_path, trained
from polyface.schema import Column
from polyface.training import stages
from polyface.training.recipe import Recipe, load

RECIPE = """
name: small
stages:
  - name: five
    data:
      tables: [{name: faces}]
      boxes: {source: table}
      crop: {size: 40, channels: 1, scale: 1.2}
      batch: 16
    network: {trunk: {name: tcdcn}}
    tasks: {landmarks: {kind: landmarks, points: 5, loss: l1}}
    optimisation: {epochs: 1}
variants:
  plain: {stages: [five], seeds: 1}
  averaged: {stages: [five], seeds: 1, model: plain, set: {five.evaluation.translations: 2}}
  both: {stages: [five], seeds: 1, average: [plain, averaged]}
"""
NAMES = ("plain", "averaged", "both")
OPTIONS = stages.RunOptions(accelerator="cpu", logger="none", threads=1)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return load(path)


@pytest.fixture(scope="module")
def finished_once(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    write_table(records(60, 48), out / "faces.parquet")
    reproduce.run_jobs(recipe, reproduce.jobs(recipe), out, out / "runs", OPTIONS)
    return out


@pytest.fixture
def out(finished_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_once, tmp_path, dirs_exist_ok=True))


def finished(recipe: Recipe, out: Path) -> list[str]:
    return [name for name in NAMES if reproduce.finished(recipe, out / "runs", reproduce.Job(name, 0), data=out)]


def test_nothing_changed_nothing_is_left(recipe: Recipe, out: Path) -> None:
    assert finished(recipe, out) == list(NAMES)
    assert reproduce.finished(recipe, out / "runs", reproduce.Job("both", 0))  # nor where the data is not here


def test_other_faces_make_training_and_answers_anew(recipe: Recipe, out: Path) -> None:
    write_table(records(60, 48, seed=1), out / "faces.parquet")
    assert finished(recipe, out) == []
    before = reproduce.stored(out / "runs", reproduce.Job("plain", 0))["landmarks"]["points"]
    reproduce.run_jobs(recipe, reproduce.jobs(recipe), out, out / "runs", OPTIONS)
    assert finished(recipe, out) == list(NAMES)
    assert np.abs(reproduce.stored(out / "runs", reproduce.Job("plain", 0))["landmarks"]["points"] - before).max() > 1
    with np.load(out / "runs/plain/seed0/stale/1/test.npz") as kept:  # moved aside, not deleted
        np.testing.assert_array_equal(kept["landmarks/points"], before)


def test_answers_of_other_weights_are_made_anew(recipe: Recipe, out: Path) -> None:
    manifest = out / "runs/plain/seed0/five/model/polyface.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": "0" * 64}))
    assert not any(answered(recipe, out / "runs", reproduce.Job(name, 0), "test", out) for name in NAMES)
    assert trained(recipe, out / "runs", reproduce.Job("plain", 0), out)  # its settings and data are what they were


@pytest.mark.parametrize("key, value", [("translations", 3), ("covered", 0.3), ("pixels", 20)])
def test_answers_given_otherwise_are_made_anew(recipe: Recipe, out: Path, key: str, value: float) -> None:
    kept = dict(recipe.variants["averaged"].set)
    recipe.variants["averaged"].set[f"five.evaluation.{key}"] = value
    try:
        assert finished(recipe, out) == ["plain"]
    finally:
        recipe.variants["averaged"].set.clear()
        recipe.variants["averaged"].set.update(kept)


def test_answers_of_older_versions_do_not_say_what_they_are_of(recipe: Recipe, out: Path) -> None:
    for name in NAMES:
        path = answers_path(out / "runs", reproduce.Job(name, 0))
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files if key != "source"}
        np.savez_compressed(path, **arrays)
    assert finished(recipe, out) == list(NAMES)


@pytest.mark.parametrize("damage", [lambda whole: whole[:100], lambda whole: b"", lambda whole: b"x" * 100])
def test_damaged_answers_are_named(recipe: Recipe, out: Path, damage) -> None:
    path = answers_path(out / "runs", reproduce.Job("plain", 0))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PolyfaceError, match="plain/seed0/test.npz: not readable answers .*; delete it"):
        finished(recipe, out)


def test_answers_of_another_number_of_faces_are_not_scored(recipe: Recipe, out: Path) -> None:
    """As those of older versions may be, which do not say what they are of."""
    path = answers_path(out / "runs", reproduce.Job("plain", 0))
    with np.load(path) as file:
        arrays = {key: file[key][:-1] if "/" in key else file[key] for key in file.files if key != "source"}
    np.savez_compressed(path, **arrays)
    with pytest.raises(PolyfaceError, match="plain/seed0/test.npz: answers on 5 faces, and there are 6"):
        reproduce.Runs(recipe, out, out / "runs").results("plain")


OWN_WORDS = """
name: own
stages:
  - name: one
    data:
      tables: [{name: faces}]
      boxes: {source: image}
      crop: {size: 40, channels: 1}
      batch: 4
    network: {trunk: {name: tcdcn}}
    tasks: {expression: {kind: classification, column: expression}}
    optimisation: {epochs: 1}
    evaluation: {main: expression}
variants:
  plain: {stages: [one], seeds: 1}
"""


def test_answers_are_read_in_the_words_that_the_training_table_declares(tmp_path: Path) -> None:
    """Not in those that the schema has for such a column, of which these are more, and others."""
    words = ["neutral", *(f"look {number}" for number in range(11))]
    faces = [
        Record(np.full((50, 50, 3), 20 * number, np.uint8), f"face {part} {number}", f"{part}/{number}.png",
               {"expression": word, "split": part})
        for part in ("train", "val", "test")
        for number, word in enumerate(words)
    ]  # fmt: skip
    write_table(faces, tmp_path / "faces.parquet", columns={"expression": Column("words", tuple(words))})
    (tmp_path / "own.yaml").write_text(OWN_WORDS)
    chosen = load(tmp_path / "own.yaml")
    reproduce.run_jobs(chosen, reproduce.jobs(chosen), tmp_path, tmp_path / "runs", OPTIONS)
    (found,) = reproduce.Runs(chosen, tmp_path, tmp_path / "runs").results("plain").values()
    assert found[""].metrics[0].n == len(words)


def test_a_wrong_number_of_seeds_and_a_wrong_variant_are_told_before_anything_is_trained(recipe: Recipe) -> None:
    for seeds in (0, -1, 101):
        with pytest.raises(PolyfaceError, match=f"--seeds is {seeds}; expected 1 … 100"):
            reproduce.jobs(recipe, seeds=seeds)
    wrong = recipe.model_copy(deep=True)
    wrong.variants["averaged"].set["five.evaluation.translatoins"] = 2
    with pytest.raises(PolyfaceError, match="averaged: .*translatoins: unknown key.*'translations'"):
        reproduce.jobs(wrong)
    assert [job.variant for job in reproduce.jobs(wrong, ["plain"])] == ["plain"]
