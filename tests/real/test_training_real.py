"""A few seconds of training on real faces: what is learnt must be far better than knowing the average face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from polyface.data.crops import invert, transform
from polyface.data.loader import FacePool
from polyface.data.readers import reader
from polyface.data.writing import Record, write_table
from polyface.metrics.landmarks import face_errors, point_errors
from polyface.models.bundle import load_bundle
from polyface.models.predict import predict
from polyface.schema import eyes
from polyface.training import recipe as recipes
from polyface.training import stages

TRAIN, VALIDATION = 1500, 300


@pytest.fixture(scope="module")
def slice_of_mtfl(real_data, tmp_path_factory) -> Path:
    """Every sixth training face and every third validation face of MTFL. Their boxes stand in for a detector's (which
    would take longer than the training): the points' bounding box, moved and scaled at random."""
    random = np.random.default_rng(0)
    found = [face for face in reader("mtfl").records(real_data("mtfl")) if isinstance(face, Record)]
    chosen = []
    for split, count in (("train", TRAIN), ("val", VALIDATION)):
        faces = [face for face in found if face.labels["split"] == split]
        chosen += faces[:: len(faces) // count][:count]
    for face in chosen:
        points = face.labels["landmarks_5"]
        side = (points.max(0) - points.min(0)).max() * 1.8 * random.uniform(0.9, 1.1)
        centre = (points.max(0) + points.min(0)) / 2 + side * random.uniform(-0.06, 0.06, 2)
        face.labels["box"] = [*(centre - side / 2), *(centre + side / 2)]
    path = tmp_path_factory.mktemp("mtfl") / "slice.parquet"
    report = write_table(chosen, path)
    assert report.rows == TRAIN + VALIDATION
    return path


def mean_error(points: np.ndarray, pool: FacePool) -> float:
    return float(face_errors(point_errors(points, pool.table.points("landmarks_5"), eyes=eyes(5))).mean())


def test_a_network_beats_the_mean_shape_by_a_quarter(slice_of_mtfl, tmp_path) -> None:
    stage = {
        "name": "one",
        "data": {
            "tables": [{"name": str(slice_of_mtfl)}],
            "boxes": {"source": "table"},
            "crop": {"size": 40, "channels": 1, "scale": 1.2},
            "augment": {"rotate": 10, "zoom": 0.1, "shift": 0.05, "mirror": 0.5},
        },
        "network": {"trunk": {"name": "tcdcn"}},
        "tasks": {"landmarks": {"kind": "landmarks", "points": 5, "loss": "l1"}},
        "optimisation": {"optimiser": "adamw", "lr": 0.002, "epochs": 15},
    }
    (tmp_path / "real.yaml").write_text(yaml.safe_dump({"name": "real", "stages": [stage]}))
    recipe = recipes.load(tmp_path / "real.yaml")
    options = stages.RunOptions(accelerator="cpu", logger="none")
    result = stages.run(recipe, tmp_path / "out", None, options)["one"]

    bundle = load_bundle(result.bundle, quiet=True)
    pools = {part: stages.stage_pool(recipe.stages[0], part, None, bundle.tasks) for part in ("train", "val")}
    train, validation = pools["train"], pools["val"]
    assert train is not None
    assert validation is not None
    assert (len(train), len(validation)) == (TRAIN, VALIDATION)

    shape = transform(train.crops, torch.from_numpy(train.table.points("landmarks_5"))).mean(0)
    average = transform(invert(validation.crops), shape.expand(VALIDATION, 5, 2)).numpy()
    baseline = mean_error(average, validation)
    learnt = mean_error(predict(bundle.network, bundle.tasks, validation)["landmarks"]["points"], validation)
    assert 8 < baseline < 30  # percent of the distance between the eyes: the comparison is with something sensible
    assert learnt <= 0.75 * baseline, f"{learnt:.2f} % against {baseline:.2f} % of the mean shape"
    losses = [row["validation"]["landmarks"] for row in result.history]
    assert losses[-1] < 0.7 * losses[0]
