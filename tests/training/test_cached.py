"""Networks that learn over a frozen trunk of which the maps are cached: as if they were not, but for the time."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from polyface import reproduce
from polyface.data.synthetic import records
from polyface.data.writing import write_table
from polyface.errors import PolyfaceError
from polyface.models.bundle import load_bundle
from polyface.models.predict import TTA, predict
from polyface.networks import FaceNetwork
from polyface.networks.pretrained.dlib import PACKAGE, dlib_tensors
from polyface.training import recipe as recipes
from polyface.training import stages

TRUNK = {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map", "frozen": True}
PART = {"kind": "pool", "levels": 0, "hidden": [8], "norm": True, "dropout": 0.5}
CHANGES: dict[str, Any] = {
    "data": {
        "tables": [{"name": "synthetic", "options": {"n": 100, "size": 48, "seed": 1}}],
        "augment": {"rotate": 0, "zoom": 0, "shift": 0, "mirror": 0.5},
        "batch": 16,
    },
    "network": {
        "trunk": TRUNK,
        "parts": {"inner": PART | {"reads": ["trunk.stage2"]}, "last": PART},
        "heads": {"landmarks": "inner", "smile": {"reads": ["inner", "last"]}},
        "cached": True,
    },
    "weighting": {"name": "ming"},  # reads the trunk's last map
    "optimisation": {"epochs": 2, "ema": 0.9},
}


def plain(changes: dict[str, Any]) -> dict[str, Any]:
    return changes | {"network": changes["network"] | {"cached": False}}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "one" / "model" / "model.safetensors")


def assert_alike(have: Any, want: Any) -> None:
    """Histories to float32's accuracy: convolutions of other batches differ in the last bits."""
    if isinstance(want, dict):
        assert have.keys() == want.keys()
        for key in want:
            assert_alike(have[key], want[key])
    else:
        assert have == pytest.approx(want, rel=1e-5)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many faces the trunk is shown, call by call; empty ones, which try a network's shape, are not counted."""
    counts: list[int] = []
    original = FaceNetwork.features

    def features(self: FaceNetwork, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if images.any():
            counts.append(len(images))
        return original(self, images)

    monkeypatch.setattr(FaceNetwork, "features", features)
    return counts


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYFACE_CACHE", str(tmp_path / "cache"))


def test_it_learns_what_it_learns_from_pictures(toy, tmp_path: Path, seen: list[int]) -> None:
    options = stages.RunOptions(accelerator="cpu", logger="none")
    results = []
    for name, changes in (("cached", CHANGES), ("again", CHANGES), ("plain", plain(CHANGES))):
        results.append(stages.run(recipes.load(toy(changes)), tmp_path / name, None, options)["one"])
        if name != "plain":
            assert seen == [64, 16, 64, 16, 10]  # 80 faces to train on and their mirror images; 10 to validate on
    assert len(seen) > 5
    cached, again, uncached = results
    for have, want in zip(cached.history, uncached.history, strict=True):
        assert_alike(have, want)
    given = weights(tmp_path / "plain")
    for name, tensor in weights(tmp_path / "cached").items():
        torch.testing.assert_close(tensor, given[name], rtol=1e-5, atol=1e-5)
        if name.startswith("trunk."):
            assert torch.equal(tensor, given[name])
    assert again.history == cached.history
    model = (tmp_path / "cached" / "one" / "model" / "model.safetensors").stat().st_mtime_ns
    stages.run(recipes.load(toy(plain(CHANGES))), tmp_path / "cached", None, options)  # is finished: the same run
    assert (tmp_path / "cached" / "one" / "model" / "model.safetensors").stat().st_mtime_ns == model
    assert "cached" not in load_bundle(cached.bundle).network.config


def test_killed_and_resumed_is_bit_identical(toy, trainings, tmp_path: Path) -> None:
    """Also where what is cached was half written."""
    run = {"recipe": toy(CHANGES), "options": {"checkpoint_steps": 1}}
    kills = [{"where": "features", "at": 5}, {"where": "step", "at": 7}]
    runs = [run | {"out": tmp_path / "whole"}]
    for number, kill in enumerate(kills):
        environment = {"POLYFACE_CACHE": str(tmp_path / f"cache{number}")}
        broken = run | {"out": tmp_path / str(number), "environment": environment}
        runs += [broken | {"kill": kill}, broken]
    results = trainings(runs)
    for number in range(len(kills)):
        assert results[2 * number + 2]["history"] == results[0]["history"]
        assert weights(tmp_path / str(number)).keys() == weights(tmp_path / "whole").keys()
        for name, tensor in weights(tmp_path / str(number)).items():
            assert torch.equal(tensor, weights(tmp_path / "whole")[name]), name


def test_two_processes_learn_what_they_learn_from_pictures(toy, trainings, tmp_path: Path) -> None:
    runs = [{"recipe": toy(changes), "out": tmp_path / str(number), "processes": 2}
            for number, changes in enumerate((CHANGES, plain(CHANGES)))]  # fmt: skip
    (_, cached), (_, uncached) = (found["ranks"] for found in trainings(runs))
    for have, want in zip(cached["history"]["one"], uncached["history"]["one"], strict=True):
        assert_alike(have, want)
    given = weights(tmp_path / "1")
    for name, tensor in weights(tmp_path / "0").items():
        torch.testing.assert_close(tensor, given[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tta", [TTA(), TTA(mirror=True), TTA(average=3)], ids=repr)
def test_answers_are_those_from_pictures(toy, seen: list[int], tta: TTA) -> None:
    spec = recipes.load(toy(CHANGES)).stages[0]
    tasks = stages.stage_tasks(spec)
    network, pool = stages.build_network(spec, tasks, 0, {}), stages.pool_of(spec, None, tasks, "train")
    want = predict(network, tasks, pool, tta=tta, batch=32)
    del seen[:]
    for turn in range(2):
        have = predict(network, tasks, pool, tta=tta, batch=32, cached=True)
        for task, answer in want.items():
            for key, value in answer.items():
                if isinstance(value, np.ndarray):
                    np.testing.assert_allclose(have[task][key], value, rtol=1e-4, atol=1e-4)
                else:
                    assert have[task][key] == value
        shown = 80 * len(tta) * (turn + 1 if tta.average > 1 else 1)  # other pictures than those that are kept
        assert sum(seen) == shown


def test_rows_of_a_table_share_what_one_trunk_makes(tmp_path: Path, seen: list[int]) -> None:
    """Training, validation and test faces: each once, and its mirror image, whichever variant comes first."""
    (tmp_path / "recipe.yaml").write_text("""
name: shared
stages:
  - name: one
    data:
      tables: [{name: faces}]
      boxes: {source: table}
      crop: {size: 40, channels: 1, scale: 1.2}
      augment: {mirror: 0.5}
      batch: 16
    network:
      trunk: {name: timm, model: test_resnet, size: 40, channels: 1, pool: map, frozen: true}
      parts: {last: {kind: pool, levels: 0}}
      heads: {landmarks: last, smile: last}
      cached: true
    tasks: {landmarks: {kind: landmarks, points: 5, loss: l1}, smile: {kind: classification, column: smile}}
    optimisation: {epochs: 1}
    evaluation: {mirror: true}
variants:
  both: {stages: [one], seeds: 1}
  alone: {stages: [one], seeds: 1, keep: [landmarks]}
""")
    write_table(records(60, 48), tmp_path / "faces.parquet")
    recipe, options = recipes.load(tmp_path / "recipe.yaml"), stages.RunOptions(accelerator="cpu", logger="none")
    reproduce.run_jobs(recipe, reproduce.jobs(recipe, ["both"]), tmp_path, tmp_path / "runs", options)
    shown = sum(seen)
    assert 2 * 60 - 12 <= shown <= 2 * 60  # validation faces are not mirrored
    reproduce.run_jobs(recipe, reproduce.jobs(recipe), tmp_path, tmp_path / "runs", options)
    assert sum(seen) == shown


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed")
def test_parts_learn_over_dlibs_network_of_which_all_seeds_read_the_same(toy, tmp_path: Path, seen: list[int]) -> None:
    """The last block unfolded by each run's own training faces, all before it as published."""
    part = {"kind": "residual", "bottleneck": 128, "similarity": "cosine"}
    changes = {
        "data": {
            "tables": [{"name": "synthetic", "options": {"n": 16, "size": 48, "seed": 1}}],
            "crop": {"size": 32, "channels": 3},
            "augment": CHANGES["data"]["augment"],
            "batch": 4,
        },
        "network": {
            "trunk": {"name": "face-resnet", "size": 32, "frozen": True},
            "parts": {"face": part},
            "heads": {"landmarks": "face", "smile": "face"},
            "normalise": {"mean": 0, "std": 1},
            "cached": True,
        },
        "init": {"source": "dlib", "parts": ["trunk", "branches"]},
        "optimisation": {"epochs": 1},
    }
    trunk, branch = dlib_tensors()
    for seed, shown in ((1, [14, 14, 14, 1]), (2, [14])):
        del seen[:]
        recipe = recipes.load(toy(changes, seed))
        stages.run(recipe, tmp_path / str(seed), None, stages.RunOptions(accelerator="cpu", logger="none"))
        assert seen == shown  # unfolding; then what is cached
        found = weights(tmp_path / str(seed))
        assert all(torch.equal(found[f"trunk.{name}"], value) for name, value in trunk.items())
        assert not torch.equal(
            found["branches.face.blocks.0.first.norm.running_var"], branch["blocks.0.first.norm.running_var"]
        )
        assert (found["branches.face.blocks.0.first.norm.running_mean"].abs() > 1e-3).any()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"network": {"trunk": {"frozen": False}}}, "stages.one.network.cached: the trunk learns.*frozen to true"),
        ({"network": {"trunk": {"frozen": ["conv1"]}}}, "stages.one.network.cached: the trunk learns"),
        ({"data": {"augment": {"rotate": 5}}}, "stages.one.network.cached: data.augment.rotate gives a face other"),
        ({"data": {"augment": {"erase": 0.1}}}, "data.augment.erase gives"),
        ({"data": {"sizes": [32, 40]}}, "stages.one.network.cached: data.sizes gives"),
    ],
)
def test_what_shows_the_trunk_other_pictures_is_refused(toy, changes: dict[str, Any], message: str) -> None:
    merged = {
        key: value | {k: value.get(k, {}) | v if isinstance(v, dict) else v for k, v in changes.get(key, {}).items()}
        for key, value in CHANGES.items()
    }
    with pytest.raises(PolyfaceError, match=message):
        recipes.load(toy(merged))
