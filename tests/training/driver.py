"""Runs trainings one after the other, each in a process of its own that may be killed on the way.

A script, not a test: it reads a line `runs.json results.json` from its input, trains, answers with an empty line, and
waits for the next. It imports everything once and forks for every run, so that a killed and resumed training costs no
start of torch. A run is a dict:

recipe: path. out: folder. data: folder or None. options: of RunOptions. environment: of the process. processes: so many
that learn together, each its own fork (1). kill: {"where": …, "at": n} ends the process (the first of several) by
SIGKILL, and {"signal": "INT"} sends SIGINT instead, the n-th time (from 0) that it comes to `where`: features (the
trunk has seen some faces), step (inside a training step, after the losses), optimiser (weights changed, position not),
epoch (validated, nothing saved yet), save (new checkpoint written aside, not renamed), saved (just renamed), bundle
(trained, no bundle yet).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm  # noqa: F401  # what a run imports later is imported once
import torch

from polyface.errors import PolyfaceError
from polyface.networks import FaceNetwork
from polyface.training import callbacks, recipe, stages
from polyface.training.module import StageModule


def strike(owner: Any, name: str, at: int, number: signal.Signals, *, after: bool) -> None:
    """Replace owner.name by a function that sends the signal at its n-th call, before or after the original's work."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        hit = calls[0] == at
        calls[0] += 1
        if hit and not after:
            os.kill(os.getpid(), number)
        result = original(*args, **kwargs)
        if hit and after:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, wrapped)


PLACES: dict[str, tuple[Any, str, bool]] = {
    "step": (StageModule, "training_step", True),
    "optimiser": (StageModule, "on_train_batch_end", False),
    "features": (FaceNetwork, "features", True),
    "epoch": (StageModule, "add_epoch", True),
    "save": (callbacks.os, "replace", False),
    "saved": (callbacks.Saver, "save", True),
    "bundle": (stages.Bundle, "save", False),
}


def train(run: dict[str, Any]) -> dict[str, Any]:
    os.environ.update(run.get("environment", {}))
    if kill := run.get("kill"):
        owner, name, after = PLACES[kill["where"]]
        number = signal.SIGINT if kill.get("signal") == "INT" else signal.SIGKILL
        strike(owner, name, kill["at"], number, after=after)
    data = Path(run["data"]) if run.get("data") else None
    try:
        options = stages.RunOptions(**{"accelerator": "cpu", "logger": "none"} | run.get("options", {}))
        results = stages.run(recipe.load(run["recipe"], run.get("set", [])), Path(run["out"]), data, options)
    except PolyfaceError as error:
        return {"error": str(error)}
    except KeyboardInterrupt:
        return {"interrupted": True}
    return {"history": {name: result.history for name, result in results.items()}}


def start(run: dict[str, Any], answer: Path, environment: dict[str, str]) -> int:
    """Train in a fork, which leaves its answer in a file."""
    answer.unlink(missing_ok=True)
    if child := os.fork():
        return child
    code = 1
    try:
        os.environ.update(environment)
        answer.write_text(json.dumps(train(run)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def together(run: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What each process of a run answered, with its exit status."""
    world = run.get("processes", 1)
    if world == 1:
        ranks = [run]
    else:
        options = run.get("options", {}) | {"devices": world, "strategy": "ddp"}
        ranks = [run | {"options": options, "kill": None if rank else run.get("kill")} for rank in range(world)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}
    answers = [folder / f"answer{rank}.json" for rank in range(world)]
    children = [
        start(each, answer, shared | {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)} if world > 1 else {})
        for rank, (each, answer) in enumerate(zip(ranks, answers, strict=True))
    ]
    found = []
    for child, answer in zip(children, answers, strict=True):
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found.append({"exit": status} | (json.loads(answer.read_text()) if answer.exists() else {}))
    return found


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        runs, results = map(Path, json.loads(line))
        done = [together(run, results.parent) for run in json.loads(runs.read_text())]
        results.write_text(json.dumps([each[0] | ({"ranks": each} if len(each) > 1 else {}) for each in done]))
        print(flush=True)


if __name__ == "__main__":
    main()
