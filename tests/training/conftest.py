"""Small trainings on synthetic faces, in this process or in processes of their own."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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
            "optimisation": {"optimiser": "sgd", "lr": 0.003, "epochs": 3, "precision": "32-true"},
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
def driver(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """driver.py, waiting for runs; what it says on stderr is in the file of its `args[-1]`."""
    log = tmp_path_factory.mktemp("driver") / "stderr.txt"
    with log.open("w") as told:
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        yield process
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def trainings(
    tmp_path_factory: pytest.TempPathFactory, driver: subprocess.Popen[str]
) -> Callable[..., list[dict[str, Any]]]:
    """Runs of driver.py: a list of dicts in, a list of {"exit", "history" or "error"} out, with "ranks", a list of the
    same, where several processes learn together."""

    def run(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("runs")
        (folder / "runs.json").write_text(json.dumps(runs, default=str))
        assert driver.stdin
        assert driver.stdout
        print(json.dumps([str(folder / name) for name in ("runs.json", "results.json")]), file=driver.stdin, flush=True)
        answered = driver.stdout.readline()
        told = Path(driver.args[-1]).read_text()[-4000:]  # type: ignore[index, arg-type]
        assert answered == "\n", told
        results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
        for given, result in zip(runs, results, strict=True):
            expected = -9 if given.get("kill") and given["kill"].get("signal") != "INT" else 0
            assert all(each["exit"] == expected for each in result.get("ranks", [result])), (given, result, told)
        return results

    return run
