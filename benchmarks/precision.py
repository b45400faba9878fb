"""A training step of the shipped networks in float32 and in bfloat16, and which of them `precision: auto` takes here.

Steps of both alternate, so that a busy machine slows both; the figure is the ratio of the medians, float32 / bfloat16:
above 1 bfloat16 is quicker. Faces are random; labels do not matter here.

    python benchmarks/precision.py [--threads 1] [--steps 7] [--out docs/results/precision.json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from polyface.metrics.result import Row
from polyface.networks import build
from polyface.report.results import write_results
from polyface.training.precision import precision
from polyface.training.recipe import load
from polyface.training.specs import StageSpec
from polyface.training.stages import stage_tasks
from polyface.training.start import network_config

STAGES = [("tcdcn", "mtfl", 32), ("tcdcn", "modern", 16), ("dmm-cnn:small", "celeba", 16)]


def stepper(stage: StageSpec, batch: int, half: bool) -> Callable[[], float]:
    """One forward and backward pass and its seconds."""
    network = build(network_config(stage, stage_tasks(stage))).train()
    images = torch.rand(batch, network.channels, network.size, network.size) * 255

    def step() -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = network(images).outputs
        torch.stack([output.square().mean() for output in outputs.values()]).sum().backward()
        return time.perf_counter() - begin

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chosen, rows = precision("auto", "cpu"), []
    for recipe, name, batch in STAGES:
        stage = next(stage for stage in load(recipe).stages if stage.name == name).with_tasks
        single, half = (stepper(stage, batch, one) for one in (False, True))
        single(), half()
        pairs = [(single(), half()) for _ in range(given.steps)]
        ratio = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
        spread = statistics.stdev(a / b for a, b in pairs)
        note = f"batch {batch}, {given.threads} thread(s); precision auto is {chosen} here"
        rows.append(
            Row(f"{recipe}, {name}", "float32 / bfloat16", ratio, spread, given.steps, (0,), unit="×", note=note)
        )
        print(f"{recipe}, {name}: float32 / bfloat16 {ratio:.2f} ± {spread:.2f}; auto takes {chosen}", flush=True)
    if given.out:
        command = f"python benchmarks/precision.py --threads {given.threads} --steps {given.steps}"
        write_results(given.out, rows, command=command, data="random images", merge=False)


if __name__ == "__main__":
    main()
