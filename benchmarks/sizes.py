"""What the networks of a recipe's rows weigh and cost, side by side, built as the recipe says, with random weights.

    python benchmarks/sizes.py dmm-cnn:small Baseline DMM-CNN [--data DIR] [--threads 1] [--out FILE]

`a face`: milliseconds of PyTorch as it is written (eager, inference mode), 32 faces at once; `cost`: how many times
that of the first row, turn by turn, the median. --data is needed where a task learns its outputs from faces.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from counting import multiply_adds
from polyface.metrics.result import Row
from polyface.models.bundle import WEIGHTS, Bundle
from polyface.report.results import write_results
from polyface.training.recipe import load
from polyface.training.stages import stage_tasks
from polyface.training.start import build_network
from speed import turns

BATCH, ROUNDS = 32, 40


def bundle_of(recipe: str, row: str, data: Path | None) -> Bundle:
    """What the row trains, untrained."""
    stage = load(recipe).variant(row).measured
    stage = stage.model_copy(update={"init": []})
    tasks = stage_tasks(stage, data)
    return Bundle(build_network(stage, tasks, 0, {}).eval(), tasks, stage.data.crop, stage.data.boxes)


def megabytes(bundle: Bundle) -> float:
    """Of the file of weights."""
    with tempfile.TemporaryDirectory() as folder:
        return (bundle.save(Path(folder) / "model") / WEIGHTS).stat().st_size / 1e6


@torch.inference_mode()
def answer(bundle: Bundle, images: torch.Tensor) -> None:
    bundle.network(images)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("recipe")
    asked.add_argument("rows", nargs="+")
    asked.add_argument("--data", type=Path)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--out", type=Path, help="the results file to write")
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    bundles = {row: bundle_of(given.recipe, row, given.data) for row in given.rows}
    works = [
        partial(answer, one, torch.rand(BATCH, one.crop.channels, one.crop.size, one.crop.size) * 255)
        for one in bundles.values()
    ]
    times = turns(ROUNDS, *works) * 1e3 / BATCH
    rows = []
    for (name, bundle), own in zip(bundles.items(), times, strict=True):
        size = bundle.crop.size
        figures = {
            ("parameters", "million"): sum(one.numel() for one in bundle.network.parameters()) / 1e6,
            ("file", "MB"): megabytes(bundle),
            ("multiply-adds", "million"): multiply_adds(bundle.network, bundle.crop.channels, size, size) / 1e6,
            ("a face", "ms"): float(np.median(own)),
            ("cost", "×"): float(np.median(own / times[0])),
        }
        note = f"{size} px; eager PyTorch, {BATCH} faces at once, threads: {given.threads}"
        rows += [Row(name, metric, value, unit=unit, note=note) for (metric, unit), value in figures.items()]
        print(name, {f"{metric} ({unit})": round(value, 3) for (metric, unit), value in figures.items()}, flush=True)
    if given.out:
        command = f"python benchmarks/sizes.py {given.recipe} {' '.join(map(repr, given.rows))}"
        write_results(given.out, rows, command=command, data="random weights and pictures")


if __name__ == "__main__":
    main()
