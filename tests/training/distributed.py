"""Trains a recipe on two CPU processes: `python distributed.py recipe out [interrupt-at-step]`. Lightning runs it again
for the second process. With a third argument, the first process gets SIGINT in that training step."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from polyface.training import recipe, stages
from polyface.training.learner import Learner


def main() -> None:
    torch.set_num_threads(1)
    path, out = sys.argv[1:3]
    if len(sys.argv) > 3 and os.environ.get("LOCAL_RANK", "0") == "0":
        original, at = Learner.training_step, int(sys.argv[3])

        def training_step(self: Learner, raw: object, index: int) -> torch.Tensor:
            if self.batches_done == at:
                os.kill(os.getpid(), signal.SIGINT)
            return original(self, raw, index)  # type: ignore[arg-type]

        Learner.training_step = training_step  # type: ignore[method-assign, assignment]
    options = stages.RunOptions(accelerator="cpu", devices=2, strategy="ddp", logger="none")
    results = stages.run(recipe.load(path), Path(out), None, options)
    rank = int(os.environ["LOCAL_RANK"])
    (Path(out) / f"rank{rank}.json").write_text(json.dumps({name: r.history for name, r in results.items()}))


if __name__ == "__main__":
    main()
