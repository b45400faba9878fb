"""What it brings to compute once what a frozen trunk makes of faces: an epoch from pictures over one from these maps.

    python benchmarks/features.py dlib|columns [--out FILE] [--quick]

"dlib": dlib's network at 150 px, its last block and an identity head that learn (docs/results/features.json).
"columns": the column of Barros et al. 2019 on their encoder, at the size of `progressive:small`, 48 px, and at the
paper's, 128 px (docs/results/progressive.json); beside it, what it brings against an encoder that learns too.

Random weights, faces and their mirror images, one thread, float32, whole trainings of a few epochs in turns. The
speed-up is the median over the rounds of seconds an epoch from pictures over seconds an epoch from the cache. "share of
multiply-adds" is that over the ratio of multiply-adds, of which a step that learns needs three times as many as an
answer does. "computing them" is how many epochs from pictures a training that computes them takes longer than the next
one, which reads what it kept: of each face and its mirror image. --quick tries every part and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from counting import multiply_adds
from polyface import networks
from polyface.metrics.result import Row
from polyface.report.results import write_results
from polyface.training import recipe as recipes
from polyface.training import stages

EPOCHS = 2


@dataclass(frozen=True)
class Case:
    """A network of a trunk and one part, on so many synthetic faces. column: its share of multiply-adds is told, and a
    trunk that learns is timed too."""

    row: str
    size: int
    channels: int
    trunk: dict[str, Any]
    part: dict[str, Any]
    faces: int
    column: bool = False

    def network(self, frozen: bool) -> dict[str, Any]:
        trunk = {**self.trunk, "size": self.size} | ({"frozen": True} if frozen else {})
        return {"trunk": trunk, "parts": {"face": self.part}}

    def stage(self, faces: int, way: str) -> dict[str, Any]:
        table = {"n": faces, "size": self.size, "identities": 16}
        network = self.network(way != "retrained") | {"heads": {"identity": "face"}, "cached": way == "cached"}
        return {
            "name": "one",
            "data": {
                "tables": [{"name": "synthetic", "options": table}],
                "boxes": {"source": "table"},
                "crop": {"size": self.size, "channels": self.channels, "margin": 1.0, "oversample": 1.0},
                "augment": {"mirror": 0.5},
                "batch": 32,
            },
            "network": network,
            "tasks": {"identity": {"kind": "identity"}},
            "optimisation": {"epochs": EPOCHS, "precision": "32-true", "validate_every": EPOCHS},
            "evaluation": {"main": "identity"},
        }

    def saved(self) -> float:
        """The multiply-adds of an epoch from pictures over those of one from the cache."""
        network = networks.build(
            {**self.network(frozen=True), "heads": {"identity": {"reads": ["face"], "outputs": 2}}}
        )
        shape = (self.channels, self.size, self.size)
        whole, trunk = (multiply_adds(part, *shape) for part in (network, network.trunk))
        return (trunk + 3 * (whole - trunk)) / (3 * (whole - trunk))


CASES = {
    "dlib": [
        Case("cached features", 150, 3, {"name": "face-resnet"}, {"kind": "residual", "similarity": "cosine"}, 320)
    ],
    "columns": [
        Case(
            "cached features", 48, 1, {"name": "began", "widths": [32, 64, 64, 128]},
            {"kind": "column", "widths": [64, 128], "convs_per_group": 1}, 640, column=True,
        ),
        Case("cached features, 128 px", 128, 1, {"name": "began"}, {"kind": "column"}, 64, column=True),
    ],
}  # fmt: skip
FILES = {"dlib": "features", "columns": "progressive"}


def training(folder: Path, stage: dict[str, Any]) -> tuple[float, float]:
    """Seconds of an epoch, and of all that was done."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "features", "stages": [stage]}))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        options = stages.RunOptions(accelerator="cpu", logger="none")
        result = stages.run(recipes.load(path), Path(out), None, options)["one"]
    return result.seconds / EPOCHS, time.perf_counter() - began


def measured(case: Case, folder: Path, faces: int, rounds: int) -> list[Row]:
    ways = ["pictures", "cached", "cached", *["retrained"] * case.column]
    training(folder, case.stage(faces, "pictures"))  # draws the faces and cuts them out
    turns = []
    for _ in range(rounds):
        shutil.rmtree(folder / "cache" / "features", ignore_errors=True)
        turns.append([training(folder, case.stage(faces, way)) for way in ways])
    epoch, whole = np.array(turns).transpose(2, 1, 0)  # [from pictures, computing, reading, re-trained; rounds]
    speed_up = float(np.median(epoch[0] / epoch[2]))
    figures = {
        "epoch speed-up": (speed_up, "×"),
        "computing them": (float(np.median((whole[1] - whole[2]) / epoch[0])), "epochs"),
    }
    if case.column:
        figures["share of multiply-adds"] = 100 * speed_up / case.saved(), "%"
        figures["against re-training"] = float(np.median(epoch[3] / epoch[2])), "×"
    print(
        f"{case.row}: {np.median(epoch[0]):.2f} s an epoch from pictures, {np.median(epoch[2]):.2f} from what is kept"
    )
    return [Row(case.row, metric, value, unit=unit, n=rounds) for metric, (value, unit) in figures.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(CASES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["POLYFACE_CACHE"] = str(Path(place) / "cache")
        for case in CASES[given.what]:
            rows += measured(case, Path(place), *((32, 1) if given.quick else (case.faces, 3)))
    for row in rows:
        print(f"{row.row:26} {row.metric:24} {row.mean:7.2f} {row.unit}")
    if not given.quick:
        out = given.out or Path(f"docs/results/{FILES[given.what]}.json")
        write_results(
            out, rows, command=f"python benchmarks/features.py {given.what}", data="synthetic faces; 1 thread"
        )
        print(f"written: {out}")


if __name__ == "__main__":
    main()
