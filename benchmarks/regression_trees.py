"""A peer for 68 points: an ensemble of regression trees, trained on the faces and boxes that TCDCN's rows learn from.

    pip install dlib-bin
    python benchmarks/regression_trees.py --data DIR [--threads 2] [--quick]

The cascade of Kazemi & Sullivan 2014, of the same family as SDM and LBF, as dlib trains it: no network, and a
millisecond a face. It sees the crops of the stage `dense` of recipe `tcdcn`, grey and SIZE pixels a side, and their
mirror images; dlib's settings are chosen among TRIED on the validation faces. Rows go into tcdcn.json beside those of
`68 scratch` and `68 transfer`. --quick trains a few trees on few faces, and writes nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import dlib
import numpy as np
import torch
from numpy.typing import NDArray

from polyface.data.crops import invert, sample, transform
from polyface.data.loader import FacePool
from polyface.metrics.result import Row
from polyface.metrics.result import rows as rows_of
from polyface.report.results import write_results
from polyface.schema import mirror_landmarks
from polyface.training.recipe import load
from polyface.training.stages import pool_of, stage_tasks

ROW, SIZE = "68 regression trees", 160
TRIED = [{"tree_depth": 4, "nu": 0.1}, {"tree_depth": 5, "nu": 0.1}]
TESTED = {"common ": ["Helen", "LFPW"], "": ["Helen"], "LFPW ": ["LFPW"]}
"""Prefix of the metrics → sources of 300-W."""
FACE = dlib.rectangle(SIZE // 6, SIZE // 6, SIZE - SIZE // 6, SIZE - SIZE // 6)
"""Where the face is in every crop."""
Points = NDArray[np.float64]


def grey(pool: FacePool) -> list[NDArray[np.uint8]]:
    """The crops of a pool, [SIZE, SIZE] each."""
    view = torch.from_numpy(pool.crop.cut_to_input())[None]
    batches = np.array_split(np.arange(len(pool)), len(pool) // 256 + 1)
    parts = [sample(pool.cuts_of(rows), view.repeat(len(rows), 1, 1), SIZE) for rows in batches]
    return [face.round().to(torch.uint8).numpy() for face in torch.cat(parts)[:, 0]]


def truth(pool: FacePool) -> Points:
    """Labelled points [N, 68, 2] in pixels of the crops."""
    return transform(pool.crops, torch.from_numpy(pool.table.points("landmarks_68"))).double().numpy()


def in_images(points: Points, pool: FacePool) -> Points:
    """Points in pixels of the crops → of the images."""
    return transform(invert(pool.crops), torch.from_numpy(points).float()).double().numpy()


def trained(images: list[NDArray[np.uint8]], points: Points, settings: dict[str, Any]) -> Any:
    """dlib's predictor after its training."""
    options = dlib.shape_predictor_training_options()
    for name, value in settings.items():
        setattr(options, name, value)

    def shape(face: Points) -> Any:
        return dlib.full_object_detection(FACE, dlib.points([dlib.point(*map(round, xy)) for xy in face.tolist()]))

    return dlib.train_shape_predictor(images, [[shape(face)] for face in points], options)


def predicted(predictor: Any, images: list[NDArray[np.uint8]]) -> Points:
    return np.array([[(p.x, p.y) for p in predictor(image, FACE).parts()] for image in images], dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    changes = [f"dense.data.crop.size={SIZE}", "dense.data.crop.margin=1.0", "dense.data.crop.oversample=1.0"]
    stage = load("tcdcn", changes).stage("dense").with_tasks
    task = stage_tasks(stage)["landmarks"]

    def pool(part: str, sources: list[str] | None = None) -> FacePool:
        (table,) = stage.data.tables
        chosen = table.model_copy(update={"where": {"source": sources}} if sources else {})
        data = stage.data.model_copy(update={"tables": [chosen]})
        return pool_of(stage.model_copy(update={"data": data}), given.data, {"landmarks": task}, part)

    learnt, chosen_on = pool("train"), pool("val")
    images, points = grey(learnt), truth(learnt)
    images += [np.ascontiguousarray(image[:, ::-1]) for image in images]
    points = np.concatenate([points, [SIZE - 1, 0] + [-1, 1] * points[:, mirror_landmarks(68)]])
    whole = {"num_threads": given.threads, "random_seed": "0", "oversampling_amount": 5}
    if given.quick:
        images, points, whole = images[:100], points[:100], whole | {"num_trees_per_cascade_level": 20}
    best, error, told = None, np.inf, ""
    for settings in TRIED[: 1 if given.quick else None]:
        began = time.monotonic()
        predictor = trained(images, points, whole | settings)
        found = task.evaluate({"points": in_images(predicted(predictor, grey(chosen_on)), chosen_on)}, chosen_on.table)
        print(settings, f"{found.mean_error:.2f} % on validation faces, {time.monotonic() - began:.0f} s", flush=True)
        if found.mean_error < error:
            best, error, told = predictor, found.mean_error, ", ".join(f"{k} {v}" for k, v in settings.items())
    rows: list[Row] = []
    for prefix, sources in TESTED.items():
        tested = pool("test", sources)
        faces = grey(tested)
        began = time.monotonic()
        points = predicted(best, faces)
        each = 1000 * (time.monotonic() - began) / len(faces)
        result = task.evaluate({"points": in_images(points, tested)}, tested.table)
        note = f"dlib {dlib.__version__}, {told}, chosen on validation faces; {each:.1f} ms a face"
        rows += rows_of(ROW, {0: result}, prefix=prefix, note=note)
    for row in rows:
        print(f"{row.metric}: {row.mean:.2f}")
    if not given.quick:
        command = "python benchmarks/regression_trees.py --data DIR"
        write_results(Path("docs/results/tcdcn.json"), rows, command=command, data="300W")


if __name__ == "__main__":
    main()
