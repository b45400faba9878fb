"""Attributes in training: terms weighed one by one, thresholds and weights that follow validations, heads by branch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from polyface.data.store import open_source
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.schema import ATTRIBUTES
from polyface.training import recipe as recipes
from polyface.training import stages
from polyface.training.learner import Learner
from polyface.training.progress import plateaus
from polyface.training.start import network_config
from polyface.training.terms import LossTerms
from polyface.weighting import AdaptiveThresholds, ValidationTrend

KNOWN = {"Eyeglasses": ("glasses", "yes"), "Smiling": ("smile", "yes"), "Male": ("gender", "male")}
ASKED = ["Eyeglasses", "Male", "Smiling", "Young"]  # Young is labelled nowhere


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 synthetic faces with three attributes; every third face lacks the last."""
    faces = open_source("synthetic", None, {"n": 200, "size": 48, "seed": 1})
    words = {name: faces.words(column) for name, (column, _) in KNOWN.items() if column in faces.columns}
    points = faces.points("landmarks_5")
    splits = faces.words("split")

    def labels(row: int) -> dict[str, Any]:
        known = {n: 1 if words[n][row] == KNOWN[n][1] else -1 for n in words if n != "Smiling" or row % 3}
        attributes = [known.get(name) for name in ATTRIBUTES]
        return {"attributes": attributes, "landmarks_5": points[row], "split": splits[row]}

    path = tmp_path_factory.mktemp("table") / "faces.parquet"
    records = (
        Record(image=faces.image(row), where=f"row {row}", labels=labels(row), path=f"{row}.png")
        for row in range(len(faces))
    )
    write_table(records, path)
    return path


def changes(table: Path, **others: Any) -> dict[str, Any]:
    return {
        "data": {"tables": [{"name": str(table)}]},
        "tasks": {"smile": {"kind": "attributes", "attributes": ASKED}},
        "weighting": {"name": "dmm", "terms": ["smile"], "options": {"fixed": {"landmarks": 0.5}}},
        "thresholds": {"tasks": ["smile"], "rate": 0.1},
        "optimisation": {"optimiser": "adamw", "lr": 0.01, "epochs": 3, "validate_steps": 2},
    } | others


def loaded(toy: Any, given: dict[str, Any]) -> recipes.Recipe:
    given = dict(given)
    smile = given["tasks"].pop("smile")
    chosen = recipes.load(toy(given))
    stage = chosen.stages[0].model_dump()
    stage["tasks"]["smile"] = smile
    given["tasks"]["smile"] = smile
    return chosen.model_copy(update={"stages": [recipes.StageSpec.model_validate(stage)]})


def train(chosen: recipes.Recipe, out: Path, logger: str = "none") -> stages.StageResult:
    options = stages.RunOptions(accelerator="cpu", logger=logger)
    return stages.run(chosen, out, None, options)["one"]


def test_terms_are_weighed_one_by_one(toy, table, tmp_path) -> None:
    result = train(loaded(toy, changes(table)), tmp_path)
    for row in result.history:
        assert set(row["weights"]) == {"landmarks", "smile/Eyeglasses", "smile/Male", "smile/Smiling"}  # not Young
        assert row["weights"]["landmarks"] == 0.5
        assert set(row["train"]) == {"landmarks", "smile"}
    last = result.history[-1]["weights"]
    assert len({last[f"smile/{name}"] for name in ("Eyeglasses", "Male", "Smiling")}) == 3
    assert all(weight != 1 for weight in last.values())


def test_thresholds_move_and_travel_in_the_bundle(toy, table, tmp_path) -> None:
    result = train(loaded(toy, changes(table)), tmp_path)
    curves = [row["thresholds"]["smile"] for row in result.history]
    assert curves[0] != curves[-1]
    assert [curve[3] for curve in curves] == [0.0] * 3  # Young
    task = load_bundle(result.bundle, quiet=True).tasks["smile"]
    assert task.thresholds == curves[-1]  # type: ignore[attr-defined]
    before = [0.0] * 4
    for epoch, curve in enumerate(curves, 1):  # fifteen steps, validated before them and at every second: up to three
        assert all(abs(a - b) <= 0.1 * epoch * 3 + 1e-12 for a, b in zip(curve, before, strict=True))
        before = curve


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_loggers_are_told_weights_and_not_lists_of_thresholds(toy, table, tmp_path, logger: str) -> None:
    """A logger that takes numbers alone must not end a run whose thresholds move."""
    if logger == "tensorboard":
        pytest.importorskip("tensorboard")
    result = train(loaded(toy, changes(table)), tmp_path, logger)
    if logger == "csv":
        told = list(csv.DictReader(next(tmp_path.rglob("metrics.csv")).read_text().splitlines()))
        for row, line in zip(result.history, told, strict=True):
            weight = row["weights"]["smile/Male"]
            assert float(line["weights/smile/Male"]) == pytest.approx(weight, rel=1e-5)
            assert not any(name.startswith("thresholds") for name in line)


def test_weights_and_thresholds_follow_every_so_many_steps(toy, table, tmp_path, monkeypatch) -> None:
    seen: dict[str, list[Any]] = {"losses": [], "epochs": [], "order": []}
    on_validation, update = ValidationTrend.on_validation, AdaptiveThresholds.update

    def watch_losses(self: Any, losses: Any, counts: Any) -> None:
        seen["losses"].append(set(losses))
        seen["order"].append("weights")
        on_validation(self, losses, counts)

    def watch_thresholds(self: Any, above: Any, below: Any, faces: Any, epoch: int) -> Any:
        seen["epochs"].append(epoch)
        seen["order"].append("thresholds")
        return update(self, above, below, faces, epoch)

    monkeypatch.setattr(ValidationTrend, "on_validation", watch_losses)
    monkeypatch.setattr(AdaptiveThresholds, "update", watch_thresholds)
    train(loaded(toy, changes(table)), tmp_path)
    assert seen["epochs"] == [1, 1, 1, 2, 2, 2, 3, 3]  # before step 1, after 2, 4, 6, 8, 10, 12, 14 of 5 an epoch
    assert seen["order"] == ["thresholds", "weights"] * 8  # Algorithm 1
    assert seen["losses"] == [{"landmarks", "smile/Eyeglasses", "smile/Male", "smile/Smiling"}] * 8


def test_mistakes_are_counted_with_the_thresholds_of_before(toy, table, tmp_path, monkeypatch) -> None:
    """The counts that move τ, from the saved network and the thresholds before the last update."""
    given: list[tuple[list[float], list[float], list[float]]] = []
    update = AdaptiveThresholds.update

    def watch(self: Any, above: Any, below: Any, faces: Any, epoch: int) -> Any:
        given.append((list(self.thresholds), list(above), list(below)))
        return update(self, above, below, faces, epoch)

    monkeypatch.setattr(AdaptiveThresholds, "update", watch)
    optimisation = {"optimiser": "adamw", "lr": 0.01, "epochs": 2}
    chosen = loaded(toy, changes(table, optimisation=optimisation))  # at the ends of epochs
    result = train(chosen, tmp_path)
    bundle = load_bundle(result.bundle, quiet=True)
    task = stages.stage_tasks(chosen.stages[0])["smile"]
    task.thresholds = given[-1][0]  # type: ignore[attr-defined]
    pool = stages.stage_pool(chosen.stages[0], "val", None, {"smile": task})
    assert pool is not None
    from polyface.data.loader import FaceLoader, assemble

    above, below = torch.zeros(4), torch.zeros(4)
    for raw in FaceLoader(pool, 1, shuffle=False):
        batch = assemble(raw, pool.crop, {"smile": task}, None)
        with torch.inference_mode():
            output = bundle.network(batch.images).outputs["smile"]
        positive = output > torch.tensor(given[-1][0])
        known, truth = batch.labelled["smile"], batch.targets["smile"] > 0
        above += (known & positive & ~truth).sum(0)
        below += (known & ~positive & truth).sum(0)
    assert (above.tolist(), below.tolist()) == (given[-1][1], given[-1][2])
    assert len(given) == 3


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(trainings, toy, table, tmp_path) -> None:
    import yaml

    tree = loaded(toy, changes(table)).model_dump()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    common = {"recipe": recipe, "options": {"checkpoint_steps": 1}}
    killed = common | {"out": tmp_path / "killed"}
    results = trainings(
        [
            common | {"out": tmp_path / "whole"},
            killed | {"kill": {"where": "step", "at": 5}},
            killed | {"kill": {"where": "optimiser", "at": 4}},
            killed,
        ]
    )
    assert results[-1]["history"] == results[0]["history"]
    manifests = [(tmp_path / name / "one/model/polyface.json").read_text() for name in ("whole", "killed")]
    assert manifests[0] == manifests[1]  # hash of the weights, and thresholds


def test_the_best_epoch_keeps_its_thresholds(toy, table, tmp_path) -> None:
    chosen = loaded(toy, changes(table, evaluation={"main": "smile", "select": "best"}))
    result = train(chosen, tmp_path)
    best = min(result.history, key=lambda row: row["validation"]["smile"])
    task = load_bundle(result.bundle, quiet=True).tasks["smile"]
    assert task.thresholds == best["thresholds"]["smile"]  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ parts


def test_terms_put_a_row_together(toy, table) -> None:
    tasks = stages.stage_tasks(loaded(toy, changes(table)).stages[0])
    terms = LossTerms(tasks, ["smile"])
    assert terms.count == 9
    means = torch.arange(9.0)
    losses = terms.losses(means)
    assert losses["landmarks"] == 0 + 1 + 2 + 3 + 4
    assert [float(losses[f"smile/{name}"]) for name in ASKED] == [5.0, 6.0, 7.0, 8.0]
    assert terms.counts(torch.tensor([3.0, 9, 9, 9, 9, 4, 5, 6, 0])) == {
        "landmarks": 9, "smile/Eyeglasses": 4, "smile/Male": 5, "smile/Smiling": 6, "smile/Young": 0,
    }  # fmt: skip
    totals = torch.stack([torch.full((9,), 6.0), torch.tensor([2.0] * 5 + [3.0, 0.0, 0.0, 0.0])])
    assert LossTerms.means(totals, terms.tasks) == {"landmarks": 15.0, "smile": 2.0}
    with pytest.raises(PolyfaceError, match=r"weighting.terms names 'smiles'.*smile"):
        LossTerms(tasks, ["smiles"])


@pytest.mark.parametrize(
    "losses, expected", [([3, 2, 1], 0), ([1, 2, 3], 1), ([1, 1, 1, 1, 1], 2), ([3, 4, 2, 3, 1], 0), ([], 0)]
)
def test_plateaus_by_hand(losses: list[float], expected: int) -> None:
    assert plateaus(losses, patience=2) == expected


@pytest.mark.parametrize("factor", [None, 0.5])
def test_learning_rate_falls_on_a_plateau(toy, table, tmp_path, monkeypatch, factor: float | None) -> None:
    optimisation: dict[str, Any] = {"optimiser": "sgd", "lr": 1e-12, "epochs": 5, "schedule": "plateau", "patience": 2}
    optimisation |= {"factor": factor} if factor else {}
    original = Learner.validation_totals
    monkeypatch.setattr(Learner, "validation_totals", lambda *given: torch.ones_like(original(*given)))
    given = changes(table, optimisation=optimisation, weighting={"name": "fixed"}, thresholds=None)
    result = train(loaded(toy, given), tmp_path)
    assert [row["lr"] / 1e-12 for row in result.history] == pytest.approx([1, 1, 1, *[factor or 0.1] * 2], rel=1e-6)


def test_thresholds_need_a_task_that_has_some(toy, table) -> None:
    chosen = loaded(toy, changes(table, thresholds={"tasks": ["landmarks"]}))
    with pytest.raises(PolyfaceError, match=r"names 'landmarks', which is no task with thresholds.*smile"):
        train(chosen, Path("/nonexistent"))


def test_heads_by_branch(toy, table) -> None:
    trunk = {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map"}
    network = {
        "trunk": trunk,
        "branches": {"face": {"levels": 2, "hidden": [8]}, "points": {"levels": 1}},
        "heads": {"smile": {"face": ["Smiling", "Male"], "points": ["Young", "Eyeglasses"]}, "landmarks": "points"},
    }
    chosen = loaded(toy, changes(table, network=network))
    stage = chosen.stages[0]
    tasks = stages.stage_tasks(stage)
    config = network_config(stage, tasks)
    assert config["heads"]["smile"] == {"face": [2, 1], "points": [3, 0]}
    assert config["heads"]["landmarks"] == {"points": list(range(10))}
    built = stages.build_network(stage, tasks, 0, {})
    assert built(torch.rand(2, 1, 40, 40)).outputs["smile"].shape == (2, 4)


def test_groups_of_so_many_terms_are_drawn_by_the_seed(toy, table) -> None:
    """Each term once, in other groups by another seed; and the network begins with the same numbers as if the groups
    had been named."""
    trunk = {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map"}
    branches = {"face": {"levels": 2, "hidden": [8]}, "points": {"levels": 1}}

    def stage(groups: dict[str, Any]) -> Any:
        network = {"trunk": trunk, "branches": branches, "heads": {"smile": groups, "landmarks": "points"}}
        return loaded(toy, changes(table, network=network)).stages[0]

    sizes = stage({"face": 3, "points": 1})
    tasks = stages.stage_tasks(sizes)
    drawn = [network_config(sizes, tasks, seed=seed)["heads"]["smile"] for seed in range(20)]
    assert all([len(one["face"]), len(one["points"])] == [3, 1] for one in drawn)
    assert all(sorted(one["face"] + one["points"]) == [0, 1, 2, 3] for one in drawn)
    assert {one["points"][0] for one in drawn} == {0, 1, 2, 3}
    words = [term.partition("/")[2] for term in tasks["smile"].terms]
    named = stage({part: [words[place] for place in places] for part, places in drawn[7].items()})
    built = [stages.build_network(one, tasks, 7, {}).state_dict() for one in (sizes, named)]
    assert built[0].keys() == built[1].keys()
    assert all(torch.equal(one, built[1][key]) for key, one in built[0].items())


@pytest.mark.parametrize(
    "heads, message",
    [
        ({"smile": {"face": 3}}, r"network.heads.smile.face is 3; expected .*how many of its 4"),
        ({"smile": {"face": 3, "points": ["Young"]}}, r"network.heads.smile.face is 3"),
        ({"smiles": "face"}, r"network.heads names 'smiles'.*smile"),
        ({"smile": {"face": ["Smiling", "Male", "Young"]}}, r"each of the task's 4 terms once; 'Eyeglasses'"),
        ({"smile": {"face": ["Smiling", "Male", "Young", "Eyeglases"]}}, r"'Eyeglases'.*Eyeglasses"),
        ({"smile": "points"}, r"network.heads.smile names 'points'.*face"),
    ],
)
def test_wrong_heads(toy, table, heads: dict[str, Any], message: str) -> None:
    trunk = {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map"}
    network = {"trunk": trunk, "branches": {"face": {}}, "heads": {"landmarks": "face"} | heads}
    stage = loaded(toy, changes(table, network=network)).stages[0]
    with pytest.raises(PolyfaceError, match=message):
        stages.build_network(stage, stages.stage_tasks(stage), 0, {})
