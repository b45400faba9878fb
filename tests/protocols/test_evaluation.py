"""A model on labelled faces: figures by hand, of the part that was asked for, of the tasks that have labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyface import networks
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.models.bundle import Bundle
from polyface.protocols.evaluation import evaluate_tables
from polyface.schema import ATTRIBUTES

from ..toys import make_bundle

POINTS = np.array([[20.0, 20], [40, 20], [30, 30], [24, 40], [36, 40]])  # 20 pixels between the eyes
SMILES = {"train": ["yes"] * 2 + ["no"] * 3, "val": ["no"] * 2, "test": ["yes"] * 3 + ["no"]}
SHIFTS = {"train": [0, 0, 0, 0, 0], "val": [4, 4], "test": [1, 1, 3, 3]}  # pixels to the right of the model's points
ASKED: dict[str, dict[str, Any]] = {
    "points": {"kind": "landmarks", "points": 5},
    "smile": {"kind": "classification", "column": "smile"},
    "glasses": {"kind": "classification", "column": "glasses"},
    "some": {"kind": "attributes", "attributes": ["Bald", "Young"]},
}


def bundle_of(asked: dict[str, dict[str, Any]] | None = None) -> Bundle:
    """A model that always says POINTS, that everybody smiles, wears no glasses, is young, and is not bald."""
    bundle = make_bundle(asked or ASKED, name="constant", scale=1.0)
    bundle.boxes = bundle.boxes.model_copy(update={"source": "table"})
    matrix = bundle.crop.crops(np.array([[10, 10, 50, 50]], np.float32))[0]
    said = {
        "points": (POINTS @ matrix[:, :2].T + matrix[:, 2] + 0.5).ravel() / bundle.crop.size,
        "smile": np.array([-1.0, 1.0]),
        "glasses": np.array([1.0, -1.0]),
        "some": np.array([-1.0, 1.0]),
    }
    with torch.no_grad():
        for name, head in bundle.network.heads.items():
            head.weight.zero_()
            head.bias.copy_(torch.from_numpy(said[name]))
    return bundle


def record(split: str, number: int) -> Record:
    attributes: list[int | None] = [None] * len(ATTRIBUTES)
    attributes[ATTRIBUTES.index("Young")] = -1 if number == 3 else 1
    attributes[ATTRIBUTES.index("Bald")] = None if number else -1
    labels: dict[str, Any] = {
        "split": split,
        "box": [10, 10, 50, 50],
        "smile": SMILES[split][number],
        "landmarks_5": POINTS + [SHIFTS[split][number], 0],
        "attributes": attributes,
    }
    return Record(np.full((60, 60, 3), 100, np.uint8), f"{split} {number}", f"{split}{number}.png", labels)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "faces.parquet"
    write_table((record(split, number) for split in SMILES for number in range(len(SMILES[split]))), path)
    return path


# What the model's answers are worth: the mean error is the shift over 20 pixels, a failure is above 10 %.
@pytest.mark.parametrize(
    "part, n, error, failures, accuracy", [("test", 4, 10, 50, 75), ("val", 2, 20, 100, 0), ("train", 5, 0, 0, 40)]
)
def test_the_faces_of_a_part_by_hand(
    faces: Path, part: str, n: int, error: float, failures: float, accuracy: float
) -> None:
    found = evaluate_tables(bundle_of(), [str(faces)], None, part)
    assert len(found.results) == 3  # nobody is labelled for glasses
    points, smile, some = found.results.values()
    assert (points.n, smile.n) == (n, n)
    assert points.mean_error == pytest.approx(error, abs=1e-3)
    assert points.failure_rate == failures
    assert smile.accuracy == accuracy
    # of the attributes Young is right but for the fourth face, Bald is labelled on the first alone, and right
    assert some.accuracy == pytest.approx((100 * (n - (n > 3)) / n + 100) / 2)
    assert len(found.answers["smile"]["label"]) == n


def test_the_faces_of_several_tables_are_taken_together(faces: Path, tmp_path: Path) -> None:
    write_table([record("test", 3), record("test", 2), record("val", 0)], tmp_path / "more.parquet")
    found = evaluate_tables(bundle_of(), [str(faces), str(tmp_path / "more.parquet")], None)
    points, smile, _ = found.results.values()
    assert (smile.n, smile.accuracy) == (6, pytest.approx(100 * 4 / 6))
    assert points.mean_error == pytest.approx(100 * (1 + 1 + 4 * 3) / 6 / 20, abs=1e-3)


def test_what_cannot_be_evaluated_is_said(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="none of the 4 faces is labelled for glasses"):
        evaluate_tables(bundle_of({"glasses": ASKED["glasses"]}), [str(faces)], None)
    with pytest.raises(PolyfaceError, match="no face has split 'tset'; splits: test, train, val, or all"):
        evaluate_tables(bundle_of(), [str(faces)], None, "tset")
    with pytest.raises(PolyfaceError, match="gone.parquet: no such face table"):
        evaluate_tables(bundle_of(), ["gone.parquet"], None)


def test_an_embedder_answers_no_task_and_is_told_what_to_ask_for(faces: Path) -> None:
    toy = bundle_of()
    embedder = Bundle(networks.build({**toy.network.config, "heads": {}}), {}, toy.crop, toy.boxes, {"name": "emb"})
    with pytest.raises(PolyfaceError, match="an embedding and no task: name a protocol .*listed-pairs") as caught:
        evaluate_tables(embedder, [str(faces)], None)
    assert "\n" not in str(caught.value)
