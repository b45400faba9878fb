"""How far MTFL's labels lie from where a face detector sees the points, and what that costs on AFLW.

The detector is independent of MTFL. Its points are compared with the labels of the training lists and of AFLW, the test
list; then finished runs are judged once more with AFLW's labels moved by the difference between the two. These rows are
a diagnosis: every headline figure is against the labels as published.

    python benchmarks/aflw_labels.py --data DIR --runs runs/tcdcn
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from polyface.data.boxes import BoxSpec, boxes_of
from polyface.data.store import open_source
from polyface.metrics.landmarks import evaluate_landmarks
from polyface.metrics.result import Row
from polyface.metrics.result import rows as rows_of
from polyface.report.results import write_results
from polyface.reproduce import Job, finished, stored
from polyface.schema import eyes
from polyface.training.recipe import load

VARIANTS = ("FLD (shared)", "FLD+all (shared)", "FLD+all, 60 epochs (shared)", "modern trunk 112", "detector points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/tcdcn"))
    given = parser.parse_args()
    table = open_source("mtfl", given.data)
    labels = table.points("landmarks_5").astype(float)
    detected = boxes_of(table, BoxSpec()).points
    assert detected is not None
    test = table.words("split") == "test"
    rows, offsets = [], {}
    for name, chosen in (("training lists", ~test), ("AFLW", test)):
        away = np.nanmedian((labels - detected)[chosen], axis=(0, 1))
        offsets[name] = away
        for axis, value in zip("xy", away, strict=True):
            note = "median of label minus detector's point over all faces and points, in pixels of the images used here"
            rows.append(
                Row(
                    f"labels of {name}",
                    f"offset {axis}",
                    float(value),
                    None,
                    int(chosen.sum()),
                    (),
                    note=note,
                    unit="px",
                )
            )
    moved = labels[test] - (offsets["AFLW"] - offsets["training lists"])
    note = "diagnosis: AFLW's labels moved by the difference of the two offsets; not comparable with published figures"
    recipe = load("tcdcn")
    for variant in VARIANTS:
        jobs = [Job(variant, seed) for seed in range(10)]
        answers = {job.seed: stored(given.runs, job) for job in jobs if finished(recipe, given.runs, job)}
        points = {seed: found["landmarks"]["points"] for seed, found in answers.items()}
        results = {seed: evaluate_landmarks(one, moved, eyes=eyes(5)) for seed, one in points.items()}
        if results:
            rows += rows_of(f"{variant}, labels moved", results, note=note)
    command = "python benchmarks/aflw_labels.py --data DIR"
    write_results(Path("docs/results/tcdcn-labels.json"), rows, command=command, data="MTFL", merge=False)
    for row in rows:
        print(f"{row.row}: {row.metric} {row.mean:.2f} {row.unit}")


if __name__ == "__main__":
    main()
