"""What needs processes of its own, for all methods in one go: a script, not a test.

`python processes.py resume FOLDER` goes on from FOLDER/saved.pt, in a process that knows nothing else of that training.
`python processes.py ddp FOLDER RANK` is one of two processes with half of every batch. It writes FOLDER/found<RANK>.pt:
method and stream → an error, which ends it, or (the first process) how what they learn differs from what one process
learns from the whole batches.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from toy import VARIANTS, Batch, Toy, Training, Variant, differences, hard, label, optimiser, stream

STEPS = 5
STREAMS: dict[str, Callable[[], Iterable[tuple[Batch, Batch]]]] = {"labels": lambda: stream(0, STEPS), "hard": hard}


def resume(folder: Path) -> None:
    saved = torch.load(folder / "saved.pt", weights_only=True)
    after = {}
    for variant in VARIANTS:
        training = adam(variant, seed=99)
        training.load(saved[label(variant)])
        for given, validation in stream(STEPS, 2 * STEPS):
            training.step(given, validation)
        after[label(variant)] = training.state()
    torch.save(after, folder / "resumed.pt")


def adam(variant: Variant, seed: int = 0) -> Training:
    toy = Toy(variant[0], seed=seed, **variant[1])
    return Training(toy, optimiser(toy, torch.optim.Adam))


def learn(variant: Variant, name: str, half: slice, wrap: Callable[[Toy], torch.nn.Module]) -> dict[str, Any]:
    toy = Toy(variant[0], **variant[1])
    training = Training(toy, optimiser(toy), wrap(toy), epoch=2)
    for given, validation in STREAMS[name]():
        training.step(given.part(half), validation.part(half))
    return {"toy": toy.state_dict(), "weights": training.history, "finite": training.finite}


def ddp(folder: Path, rank: int) -> None:
    whole = {}
    if rank == 0:
        for variant in VARIANTS:
            for name in STREAMS:
                whole[f"{label(variant)} {name}"] = learn(variant, name, slice(None), lambda toy: toy)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    found: dict[str, Any] = {}
    for variant in VARIANTS:
        for name in STREAMS:
            key = f"{label(variant)} {name}"
            try:
                half = learn(variant, name, slice(4 * rank, 4 * rank + 4), DistributedDataParallel)
            except Exception:  # the other process now waits in vain: no more can be tried
                found[key] = traceback.format_exc()
                torch.save(found, folder / f"found{rank}.pt")
                return
            found[key] = differences(half, whole[key]) if rank == 0 else {}
    torch.save(found, folder / f"found{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    match sys.argv[1:]:
        case ["resume", folder]:
            resume(Path(folder))
        case ["ddp", folder, rank]:
            ddp(Path(folder), int(rank))
