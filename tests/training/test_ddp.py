"""Two processes learn what one learns from the same global batches, whatever share of the labels each of them gets."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
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


@pytest.fixture
def together(trainings) -> Callable[..., list[Any]]:
    """``together(recipe, out)``: two processes of the driver learn; their histories, or how they ended."""

    def run(recipe: Path, out: Path, interrupt: int | None = None) -> list[Any]:
        kill = {} if interrupt is None else {"kill": {"where": "step", "at": interrupt, "signal": "INT"}}
        (found,) = trainings([{"recipe": recipe, "out": out, "processes": 2} | kill])
        return [rank.get("history", rank) for rank in found["ranks"]]

    return run


@pytest.fixture
def launched() -> Callable[..., list[Any]]:
    """The same, where Lightning starts the second process as it does for a user."""

    def run(recipe: Path, out: Path, interrupt: int | None = None) -> list[Any]:
        done = distributed(recipe, out, *([] if interrupt is None else [str(interrupt)]))
        if interrupt is None:
            assert done.returncode == 0, done.stderr
            return [json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1)]
        assert done.returncode != 0
        return [{"exit": 0, "interrupted": True}] * 2

    return run


@pytest.mark.slow
@pytest.mark.parametrize("started", ["together", pytest.param("launched", marks=pytest.mark.nightly)])
def test_two_processes_learn_what_one_does(toy, trainings, tmp_path, request, started: str) -> None:
    learn = request.getfixturevalue(started)
    stopping = {"main": ["landmarks"], "window": 1, "every": 2, "faces": 50}
    common = {"tasks": RARE, "optimisation": {"lr": 0.02, "ema": 0.9}, "stopping": stopping}
    trainings([{"recipe": toy(common | {"data": {"batch": 16}}), "out": tmp_path / "single"}])
    two = toy(common | {"data": {"batch": 8}})
    ranks = [history["one"] for history in learn(two, tmp_path / "double")]

    one, double = weights(tmp_path / "single"), weights(tmp_path / "double")
    assert one.keys() == double.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(double[name], tensor, rtol=0, atol=1e-5)
    history = json.loads((tmp_path / "single/one/history.json").read_text())["history"]
    assert ranks[0] == ranks[1]  # validation, stopping and epoch means are the same on both
    assert_close(ranks[0], history)

    # Stopped by Ctrl-C in the first process within the second epoch, and resumed: bit for bit the whole run.
    assert learn(two, tmp_path / "resumed", 13) == [{"exit": 0, "interrupted": True}] * 2
    saved = torch.load(tmp_path / "resumed/one/last.ckpt", weights_only=True)["polyface"]
    assert saved["batches_done"] == 14
    assert learn(two, tmp_path / "resumed")[1]["one"] == ranks[0]
    assert all(torch.equal(tensor, double[name]) for name, tensor in weights(tmp_path / "resumed").items())


@pytest.mark.slow
def test_two_processes_recognise_as_one_does(trainings, together, tmp_path) -> None:
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
    _, second = together(recipes["double"], tmp_path / "double")
    one, double = weights(tmp_path / "single"), weights(tmp_path / "double")
    for name, tensor in one.items():
        torch.testing.assert_close(double[name], tensor, rtol=0, atol=1e-4)
    history = json.loads((tmp_path / "single/one/history.json").read_text())["history"]
    assert_close(second["one"], history)


def test_a_process_without_a_validation_face(toy, launched, tmp_path) -> None:
    """Of 12 synthetic faces one is for validation: the second process, which Lightning starts, has none."""
    tree = {
        "data": {"tables": [{"name": "synthetic", "options": {"n": 12, "size": 48}}], "batch": 5},
        "optimisation": {"epochs": 1},
    }
    ranks = [history["one"] for history in launched(toy(tree), tmp_path)]
    assert ranks[0] == ranks[1]
    assert ranks[0][0]["validation"]["landmarks"] > 0
