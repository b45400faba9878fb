"""Small trainings on synthetic faces, in this process or in processes of their own."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("driver.py")

# 160 faces to train on, 20 to validate: five steps an epoch. "smile" is labelled on photos alone.
BASE: dict[str, Any] = {
    "name": "toy",
    "seed": 3,
    "stages": [
        {
            "name": "one",
            "data": {
                "tables": [{"name": "synthetic", "options": {"n": 200, "size": 48, "seed": 1}}],
                "boxes": {"source": "landmarks", "landmarks": "landmarks_5"},
                "crop": {"size": 40, "channels": 1},
                "augment": {"rotate": 10, "zoom": 0.1, "shift": 0.05, "mirror": 0.5},
                "batch": 32,
            },
            "network": {"trunk": {"name": "tcdcn"}},
            "tasks": {
                "landmarks": {"kind": "landmarks", "points": 5, "loss": "l2"},
                "smile": {"kind": "classification", "column": "smile", "where": {"modality": "photo"}},
            },
            "optimisation": {"optimiser": "sgd", "lr": 0.003, "epochs": 3},
        }
    ],
}


def _merged(base: Any, changes: Any) -> Any:
    if isinstance(base, dict) and isinstance(changes, dict):
        return {k: _merged(base.get(k), changes[k]) if k in changes else base[k] for k in base | changes}
    return changes


def toy_tree(changes: dict[str, Any] | None = None, seed: int = 3) -> dict[str, Any]:
    tree = copy.deepcopy(BASE) | {"seed": seed}
    tree["stages"][0] = _merged(tree["stages"][0], changes or {})
    return tree


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``toy({"optimisation": {"epochs": 2}})``: the file of a small recipe of one stage, "one", with these changes."""
    folder = tmp_path_factory.mktemp("recipes")

    def write(changes: dict[str, Any] | None = None, seed: int = 3) -> Path:
        text = json.dumps(toy_tree(changes, seed))
        path = folder / f"{hashlib.sha1(text.encode()).hexdigest()}.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs of driver.py: a list of dicts in, a list of {"exit", "history" or "error"} out."""

    def run(runs: list[dict[str, Any]], timeout: float = 240) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("driver")
        (folder / "runs.json").write_text(json.dumps(runs, default=str))
        done = subprocess.run(
            [sys.executable, str(DRIVER), str(folder / "runs.json"), str(folder / "results.json")],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
        for given, result in zip(runs, results, strict=True):
            expected = -9 if given.get("kill") and given["kill"].get("signal") != "INT" else 0
            assert result["exit"] == expected, (given, result, done.stderr[-4000:])
        return results

    return run
