"""Runs trainings one after the other, each in a process of its own that may be killed on the way.

A script, not a test: `python driver.py runs.json results.json`. It imports everything once and forks for every run, so
that a killed and resumed training costs no second start of torch. A run is a dict:

recipe: path. out: folder. data: folder or None. options: of RunOptions. kill: {"where": …, "at": n} ends the process by
SIGKILL, and {"signal": "INT"} sends SIGINT instead, the n-th time (from 0) that it comes to `where`:
step (inside a training step, after the losses), optimiser (weights changed, position not), epoch (validated, nothing
saved yet), save (new checkpoint written aside, not renamed), saved (just renamed), bundle (trained, no bundle yet).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from polyface.errors import PolyfaceError
from polyface.training import callbacks, recipe, stages
from polyface.training.learner import Learner


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
    "step": (Learner, "training_step", True),
    "optimiser": (Learner, "on_train_batch_end", False),
    "epoch": (Learner, "_end_epoch", True),
    "save": (callbacks.os, "replace", False),
    "saved": (callbacks.Saver, "save", True),
    "bundle": (stages.Bundle, "save", False),
}


def train(run: dict[str, Any]) -> dict[str, Any]:
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


def forked(run: dict[str, Any], answer: Path) -> dict[str, Any]:
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            answer.write_text(json.dumps(train(run)))
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {}
    return {"exit": status} | found


def main() -> None:
    torch.set_num_threads(1)
    runs, results = Path(sys.argv[1]), Path(sys.argv[2])
    done = [forked(run, results.with_suffix(".one")) for run in json.loads(runs.read_text())]
    results.write_text(json.dumps(done))


if __name__ == "__main__":
    main()
