"""What it brings to compute once what a frozen trunk makes of faces: an epoch from pictures over one from these maps.

    python benchmarks/features.py [--out FILE] [--quick]

dlib's network (random weights, 150 px) frozen, its last block and an identity head that learn, faces and their mirror
images; one thread, float32, whole trainings of a few epochs in turns. The speed-up is the median over the rounds of
seconds an epoch from pictures over seconds an epoch from the cache. "computing them" is how many epochs from pictures
a training that computes them takes longer than the next one, which reads what it kept: of each face and its mirror
image.
--quick tries every part and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from polyface.metrics.result import Row
from polyface.report.results import write_results
from polyface.training import recipe as recipes
from polyface.training import stages

EPOCHS = 2


def stage(faces: int, cached: bool) -> dict[str, Any]:
    return {
        "name": "one",
        "data": {
            "tables": [{"name": "synthetic", "options": {"n": faces, "size": 150, "identities": 16}}],
            "boxes": {"source": "table"},
            "crop": {"size": 150, "margin": 1.0, "oversample": 1.0},
            "augment": {"mirror": 0.5},
            "batch": 32,
        },
        "network": {
            "trunk": {"name": "face-resnet", "size": 150, "frozen": True},
            "parts": {"face": {"kind": "residual", "similarity": "cosine"}},
            "heads": {"identity": "face"},
            "normalise": {"mean": 0, "std": 1},
            "cached": cached,
        },
        "tasks": {"identity": {"kind": "identity"}},
        "optimisation": {"epochs": EPOCHS, "precision": "32-true", "validate_every": EPOCHS},
        "evaluation": {"main": "identity"},
    }


def training(folder: Path, faces: int, cached: bool) -> tuple[float, float]:
    """Seconds of an epoch, and of all that was done."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "features", "stages": [stage(faces, cached)]}))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        options = stages.RunOptions(accelerator="cpu", logger="none")
        result = stages.run(recipes.load(path), Path(out), None, options)["one"]
    return result.seconds / EPOCHS, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/features.json"))
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    faces, rounds = (64, 1) if given.quick else (320, 3)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["POLYFACE_CACHE"] = str(folder / "cache")
        training(folder, faces, cached=False)  # draws the faces and cuts them out
        turns = []
        for _ in range(rounds):
            shutil.rmtree(folder / "cache" / "features", ignore_errors=True)
            turns.append([training(folder, faces, cached) for cached in (False, True, True)])
    epoch, whole = np.array(turns).transpose(2, 1, 0)  # [from pictures, computing, reading; rounds]
    speed_up, computing = np.median(epoch[0] / epoch[2]), np.median((whole[1] - whole[2]) / epoch[0])
    name, n = "cached features", rounds
    rows = [
        Row(name, "epoch speed-up", float(speed_up), unit="×", n=n),
        Row(name, "computing them", float(computing), unit="epochs", n=n),
    ]
    for row in rows:
        print(f"{row.row:20} {row.metric:20} {row.mean:7.2f} {row.unit}")
    print(f"seconds an epoch: {np.median(epoch[0]):.2f} from pictures, {np.median(epoch[2]):.2f} from what is kept")
    if not given.quick:
        data = f"{faces} synthetic faces, 150 px; 1 thread"
        write_results(given.out, rows, command="python benchmarks/features.py", data=data)
        print(f"written: {given.out}")


if __name__ == "__main__":
    main()
