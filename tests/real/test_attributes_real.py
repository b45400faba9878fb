"""DMM-CNN on a slice of CelebA: what is learnt is better than the majority, and weights and thresholds have moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polyface.data.readers import reader
from polyface.data.writing import Record, write_table
from polyface.metrics.attributes import AttributesResult
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.training import stages
from polyface.training.recipe import load

FACES = {"train": 768, "val": 256}


@pytest.mark.slow
def test_a_slice_of_dmm_cnn_beats_the_majority_and_moves_weights_and_thresholds(
    real_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's own row on few faces for four epochs; the trunk's features, and face68's points, are made here."""
    monkeypatch.setenv("POLYFACE_CACHE", str(tmp_path / "cache"))
    found = [face for face in reader("celeba").records(real_data("celeba")) if isinstance(face, Record)]
    chosen = []
    for split, count in FACES.items():
        faces = [face for face in found if face.labels["split"] == split]
        chosen += faces[:: len(faces) // count][:count]
    write_table(chosen, table := tmp_path / "slice.parquet")
    given = ["celeba.data.tables.0.name=" + str(table), "celeba.data.tables.0.faces=0", "celeba.optimisation.epochs=4"]
    recipe = load("dmm-cnn:small", given).variant("DMM-CNN")

    result = stages.run(recipe, tmp_path / "out", None, stages.RunOptions(accelerator="cpu", logger="none"))["celeba"]

    bundle = load_bundle(result.bundle, quiet=True)
    pool = stages.pool_of(recipe.stages[0], None, bundle.tasks, "val")
    told = evaluate(bundle, pool).results["attributes "]
    assert isinstance(told, AttributesResult)
    assert len(pool) == FACES["val"]
    assert told.accuracy > told.floor + 1  # percent
    assert told.balanced_accuracy > 55
    last = result.history[-1]
    weights = np.array([weight for name, weight in last["weights"].items() if "/" in name])
    assert len(weights) == 40
    assert weights.std() > 0.01
    assert last["weights"]["landmarks"] == 0.5
    assert np.abs(last["thresholds"]["attributes"]).max() > 0
