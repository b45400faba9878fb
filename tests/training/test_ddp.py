"""Two processes learn what one learns from the same global batches, whatever share of the labels each of them gets."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from .recognition import CENTRES, FACE, TASKS, recipe_of, stage_tree

SCRIPT = Path(__file__).with_name("distributed.py")
# Few smiles: of a batch of 16 two or three are labelled for it, rarely as many on either process.
RARE = {"smile": {"kind": "classification", "column": "smile", "where": {"pose": ["left", "right"]}}}


def distributed(recipe: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(recipe), str(out), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
        | {"MASTER_PORT": str(port)},
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "one" / "model" / "model.safetensors")


def assert_close(a: Any, b: Any) -> None:
    """Two histories with the same keys and, to float32's accuracy, the same numbers."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    else:
        assert a == pytest.approx(b, rel=1e-4), (a, b)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(toy, trainings, tmp_path) -> None:
    common = {"tasks": RARE, "optimisation": {"lr": 0.02, "ema": 0.9}, "stopping": {"main": ["landmarks"], "window": 1}}
    trainings([{"recipe": toy(common | {"data": {"batch": 16}}), "out": tmp_path / "single"}])
    two = toy(common | {"data": {"batch": 8}})
    done = distributed(two, tmp_path / "double")
    assert done.returncode == 0, done.stderr

    one, double = weights(tmp_path / "single"), weights(tmp_path / "double")
    assert one.keys() == double.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(double[name], tensor, rtol=0, atol=1e-5)
    history = json.loads((tmp_path / "single/one/history.json").read_text())["history"]
    ranks = [json.loads((tmp_path / "double" / f"rank{rank}.json").read_text())["one"] for rank in (0, 1)]
    assert ranks[0] == ranks[1]  # validation, stopping and epoch means are the same on both
    assert_close(ranks[0], history)

    # Stopped by Ctrl-C in the first process within the second epoch, and resumed: bit for bit the whole run.
    assert distributed(two, tmp_path / "resumed", "13").returncode != 0
    saved = torch.load(tmp_path / "resumed/one/last.ckpt", weights_only=True)["polyface"]
    assert saved["batches_done"] == 14
    done = distributed(two, tmp_path / "resumed")
    assert done.returncode == 0, done.stderr
    assert all(torch.equal(tensor, double[name]) for name, tensor in weights(tmp_path / "resumed").items())
    assert json.loads((tmp_path / "resumed/rank1.json").read_text())["one"] == ranks[0]


@pytest.mark.slow
def test_two_processes_recognise_as_one_does(trainings, tmp_path) -> None:
    """Balanced batches, centres that follow both processes' faces, distillation from an earlier stage."""
    face = FACE | {"dropout": 0.0}
    # no batch norm, whose statistics are each process's own
    trunk = {"name": "timm", "model": "test_convnext", "size": 40, "channels": 1, "pool": "map"}
    network = {"trunk": trunk, "branches": dict.fromkeys(TASKS, face), "heads": {name: name for name in TASKS}}
    distil = {"teacher": "teacher", "tasks": ["verification"], "weight": 5.0, "people": True}
    alone = {"trunk": trunk, "branches": {"verification": face}, "heads": {"verification": "verification"}}
    teacher = stage_tree({"name": "teacher", "network": alone, "tasks": {"verification": {"kind": "identity"}}})
    teacher["weighting"] = {"name": "uniform"}
    recipes = {}
    for name, batch in (("single", 16), ("double", 8)):
        taught = stage_tree({"network": network, "centres": CENTRES, "distil": distil})
        stages = [copy.deepcopy(stage) for stage in (teacher, taught)]
        for stage in stages:
            stage["data"]["batch"] = batch
        (tmp_path / name).mkdir()
        recipe_of(tmp_path / name, *stages)
        recipes[name] = tmp_path / name / "recipe.yaml"
    trainings([{"recipe": recipes["single"], "out": tmp_path / "single"}])
    done = distributed(recipes["double"], tmp_path / "double")
    assert done.returncode == 0, done.stderr

    one, double = weights(tmp_path / "single"), weights(tmp_path / "double")
    for name, tensor in one.items():
        torch.testing.assert_close(double[name], tensor, rtol=0, atol=1e-4)
    history = json.loads((tmp_path / "single/one/history.json").read_text())["history"]
    assert_close(json.loads((tmp_path / "double/rank1.json").read_text())["one"], history)


def test_a_process_without_a_validation_face(toy, trainings, tmp_path) -> None:
    """Of 12 synthetic faces one is for validation: the second process has none."""
    tree = {
        "data": {"tables": [{"name": "synthetic", "options": {"n": 12, "size": 48}}], "batch": 5},
        "optimisation": {"epochs": 1},
    }
    done = distributed(toy(tree), tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text())["one"] for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert ranks[0][0]["validation"]["landmarks"] > 0
