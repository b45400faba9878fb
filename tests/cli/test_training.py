"""`polyface train` and `polyface evaluate`: a run that goes on, figures by hand, and what a model is called."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from polyface.data.boxes import BoxSpec
from polyface.data.synthetic import records
from polyface.models import zoo
from polyface.models.bundle import Bundle, load_bundle
from polyface.training import stages

from ..protocols.test_evaluation import SMILES, bundle_of, record, write_table

Command = Callable[..., Any]

SMALL = {
    "data": {"tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}}], "batch": 16},
    "optimisation": {"epochs": 2},
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "faces.parquet"
    write_table((record(split, number) for split in SMILES for number in range(len(SMILES[split]))), path)
    return path


# ------------------------------------------------------------------------------------------------------------- train


def test_train_writes_a_model_and_goes_on_where_it_was(
    polyface: Command, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", toy(SMALL), "--out", tmp_path, "--device", "cpu", "--logger", "none", "--threads", "1")
    told = polyface(*train)
    assert told.status == 0, told.err
    (name, folder), *more = re.findall(r"^(\w+): (\S+) \(\d+ s\)$", told.out, re.M)
    assert (name, more) == ("one", [])
    assert Path(folder).is_relative_to(tmp_path)
    assert set(load_bundle(folder, quiet=True).tasks) == {"landmarks", "smile"}
    kept = json.loads((Path(folder).parent / stages.HISTORY).read_text())
    assert (len(kept["history"]), kept["settings"]["seed"]) == (2, 3)
    with monkeypatch.context() as patch:
        patch.setattr("polyface.training.learner.Learner.training_step", lambda *_: pytest.fail("trained again"))
        assert re.findall(r"^one: (\S+)", polyface(*train).out, re.M) == [folder]
    assert "other settings" in polyface(*train, "--set", "one.optimisation.epochs=1").mistake
    shorter = polyface(*train, "--set", "one.optimisation.epochs=1", "--fresh", "--seed", "5")
    (again,) = re.findall(r"^one: (\S+)", shorter.out, re.M)
    kept = json.loads((Path(again).parent / stages.HISTORY).read_text())
    assert (len(kept["history"]), kept["settings"]["seed"]) == (1, 5)


def test_what_a_variant_starts_from_is_trained_first_and_once(
    polyface: Command, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = json.loads(toy(SMALL).read_text())
    (one,) = tree["stages"]
    two = one | {"name": "two", "init": {"source": "one", "parts": ["trunk"]}}
    two["network"] = one["network"] | {"trunk": one["network"]["trunk"] | {"frozen": True}}
    rows = {"first": {"stages": ["one"], "seeds": 1}, "second": {"stages": ["two"], "start": "first"}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(tree | {"stages": [one, two], "variants": rows}))
    train = ("train", recipe, "--variant", "second", "--out", tmp_path, "--device", "cpu", "--logger", "none")
    told = polyface(*train)
    assert told.status == 0, told.err
    (folder,) = re.findall(r"^two: (\S+) \(\d+ s\)$", told.out, re.M)
    before = tmp_path / tree["name"] / "first" / "seed0" / "one" / "model"
    trunks = [load_bundle(place, quiet=True).network.trunk.state_dict() for place in (before, folder)]
    assert all(torch.equal(trunks[0][key], trunks[1][key]) for key in trunks[0])
    monkeypatch.setattr("polyface.training.learner.Learner.training_step", lambda *_: pytest.fail("trained again"))
    assert polyface(*train).status == 0


# ------------------------------------------------------------------------------------------------------------ extend


def test_extend_adds_a_task_and_says_so(
    polyface: Command, five: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    five.boxes = BoxSpec(source="image")
    model, table = five.save(tmp_path / "model"), tmp_path / "faces.parquet"
    write_table(records(60, 48, seed=1), table)
    words = ("--table", table, "--out", tmp_path / "runs", "--device", "cpu", "--set", "*.optimisation.epochs=1")
    told = polyface("extend", model, "gender=classification", *words)
    assert told.status == 0, told.err
    (folder,) = re.findall(r"^gender: (\S+) \(\d+ s\)$", told.out, re.M)
    assert folder == str(tmp_path / "runs" / "toy+gender" / "gender" / "model")
    name, added = polyface("models", folder).out.splitlines()
    assert re.fullmatch(r"toy\+gender/gender +\d\.\d\d MB  landmarks, pose, smile, gender", name)
    assert re.fullmatch(r" +gender: added on \d{4}-\d\d-\d\d from \S+faces.parquet \(60 faces\)", added)
    assert polyface("models").out != polyface("models", folder).out
    monkeypatch.setattr("polyface.training.learner.Learner.training_step", lambda *_: pytest.fail("trained again"))
    assert polyface("extend", model, "gender=classification", *words).out == told.out
    refused = polyface("extend", model, "pose=classification", *words)
    assert refused.status == 1
    assert "network.heads.pose: it has a 'pose' already; take another name" in refused.mistake


# ---------------------------------------------------------------------------------------------------------- evaluate


def figures(printed: str) -> dict[str, tuple[float, int]]:
    """By metric: the figure of all faces, and of how many it is."""
    found = re.findall(r"^all +(\D+?) +(-?[\d.]+)(?: \(.*\))? \S+ +(\d+)$", printed, re.M)
    return {metric: (float(figure), int(n)) for metric, figure, n in found}


def test_evaluate_prints_every_tasks_figures(polyface: Command, faces: Path, tmp_path: Path) -> None:
    """Shifts of 1, 1, 3 and 3 pixels between eyes 20 pixels apart; three of four smile, as the model always says."""
    model = bundle_of().save(tmp_path / "constant")
    told = polyface("evaluate", model, faces, "--report", tmp_path / "page.html")
    assert told.status == 0, told.err
    assert figures(told.out) == figures(told.out) | {
        "points mean error": (10.0, 4),
        "points failure rate": (50.0, 4),
        "smile accuracy": (75.0, 4),
        "smile balanced accuracy": (50.0, 4),
        "some mean accuracy": (87.5, 4),
    }
    assert "glasses" not in told.out  # nobody is labelled for them
    page = (tmp_path / "page.html").read_text()
    assert f"{model} on {faces} (test)" in page
    assert "smile" in page
    found = figures(polyface("evaluate", model, faces, "--part", "val").out)
    assert (found["points mean error"], found["points failure rate"]) == ((20.0, 2), (100.0, 2))
    assert figures(polyface("evaluate", model, faces, "--average", "3", "--mirror").out)["smile accuracy"] == (75.0, 4)


def test_what_cannot_be_written_is_told_before_any_work(
    polyface: Command, toy: Any, faces: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thesis is no page of ours, notes are no results, and a face table is read."""
    monkeypatch.setattr("polyface.training.stages.run", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr("polyface.reproduce.run_jobs", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr("polyface.compare.weightings.Comparison.run", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(import_module("polyface.demo.demonstrate"), "people", lambda: pytest.fail("analysed"))
    monkeypatch.setattr("polyface.models.bundle.load_bundle", lambda *_, **__: pytest.fail("loaded"))
    tree, recipe, mine = json.loads(toy(SMALL).read_text()), tmp_path / "recipe.yaml", b"my thesis"
    recipe.write_text(json.dumps(tree | {"about": "polyface", "variants": {"row": {"stages": ["one"]}}}))
    page, notes = tmp_path / "report.html", tmp_path / "notes.json"
    places = [
        page,
        notes,
        tmp_path / tree["name"] / "report.html",
        tmp_path / f"{tree['name']}-weightings" / "weightings.html",
    ]
    for place in places:
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(mine)
    for told, expected in (
        (polyface("evaluate", saved, faces, "--report", page), "not made by Polyface"),
        (polyface("evaluate", saved, faces, "--report", faces), "is read by this command"),
        (polyface("evaluate", saved, faces, "--results", notes), "not a readable results file"),
        (polyface("evaluate", saved, faces, "--results", tmp_path / "a", "--report", tmp_path / "a"), "name two files"),
        (polyface("reproduce", recipe, "--out", tmp_path), "not made by Polyface"),
        (polyface("reproduce", recipe, "--out", tmp_path / "runs", "--results", notes), "not a readable results file"),
        (polyface("compare-weightings", recipe, "--out", tmp_path, "--weighting", "uniform"), "not made by Polyface"),
        (polyface("compare-weightings", recipe, "--out", tmp_path / "r", "--report", recipe), "is read by this"),
        (polyface("compare-weightings", recipe, "--out", tmp_path / "r", "--results", notes), "not a readable results"),
        (polyface("demo", "--out", tmp_path), "not made by Polyface"),
    ):
        assert expected in told.mistake
    assert all(place.read_bytes() == mine for place in places)


def test_evaluate_takes_a_shipped_models_name(
    polyface: Command, tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle_of().save(tmp_path / "face5")
    monkeypatch.setattr(zoo, "shipped_folder", lambda: tmp_path)
    told = polyface("evaluate", "face5", faces)
    assert figures(told.out)["points mean error"] == (10.0, 4), told.err
    assert "did you mean 'face5'" in polyface("evaluate", "fac5", faces).mistake


def test_evaluate_of_an_embedder_says_what_to_ask_for(polyface: Command, faces: Path) -> None:
    told = polyface("evaluate", "identity", faces)
    assert re.search("no task: name a protocol that compares faces .*listed-pairs", told.mistake)
    assert "faces" not in told.err.replace(told.mistake, "")  # before any is looked for


def test_evaluate_names_what_is_not_there(polyface: Command, faces: Path, saved: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in polyface("evaluate", tmp_path / "gone", faces).mistake
    assert "gone.parquet: no such face table" in polyface("evaluate", saved, "gone.parquet").mistake
    assert (
        "no face has split 'tset'; splits: test, train, val"
        in polyface("evaluate", saved, faces, "--part", "tset").mistake
    )
