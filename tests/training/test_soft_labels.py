"""Soft labels from a table to answers: learnt as shares, judged by the majority's word, and what is wrong with them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyface import tasks
from polyface.data.store import open_source
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.metrics.result import Metric
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.schema import Column
from polyface.training.recipe import Recipe
from polyface.training.stages import pool_of

from .recognition import fit, of_pictures

WORDS = ("sad", "calm", "happy")
COLUMNS = {"mood": Column("words", WORDS), "mood_shares": Column("distribution", WORDS)}
SOFT = {"kind": "classification", "column": "mood_shares", "judged_by": "mood"}


def votes(level: float) -> list[float]:
    """How a face of that brightness, 0 … 1, is voted for: the darker, the sadder."""
    return [max(1 - 2 * level, 0), 1 - abs(2 * level - 1), max(2 * level - 1, 0)]


def faces(path: Path, count: int = 96, only: Any = None) -> Path:
    """Grey pictures of random brightness; where no word has more than six tenths, the majority has none."""
    levels = np.random.default_rng(0).random(count)
    records = []
    for place, level in enumerate(levels):
        shares = votes(level) if only is None else only
        word = WORDS[int(np.argmax(shares))] if max(shares) > 0.6 else None
        labels = {"mood_shares": shares, "mood": word, "split": ("train", "train", "val", "test")[place % 4]}
        picture = np.full((40, 40, 3), int(30 + 190 * level), np.uint8)
        records.append(Record(picture, str(place), f"{place}.png", labels))
    write_table(records, path, columns=COLUMNS)
    return path


def recipe(folder: Path, table: Path, task: dict[str, Any], epochs: int = 16, **data: Any) -> Recipe:
    return of_pictures(folder, table, "mood", task, epochs, **{"batch": 8} | data)


def test_shares_are_learnt_and_the_majority_judges(tmp_path: Path) -> None:
    table = faces(tmp_path / "faces.parquet")
    made = recipe(tmp_path, table, SOFT)
    bundle = load_bundle(fit(made, tmp_path / "out")["one"].bundle)
    found = evaluate(bundle, pool_of(made.stages[0], None, bundle.tasks))
    result, tested = found.results["mood "], FaceTable.open(table).where(split="test")
    assert result.units == len(tested) == 24
    assert next(iter(result.metrics)).n == sum(word is not None for word in tested.words("mood"))
    assert result.figure(Metric("accuracy")) > 80
    answers = found.answers["mood"]["probabilities"]
    assert np.abs(answers - tested.numbers("mood_shares")).mean() < 0.12  # shares, not only the largest
    assert tasks.build("mood", bundle.tasks["mood"].config()).config()["judged_by"] == "mood"


def test_without_another_column_the_largest_share_judges(tmp_path: Path) -> None:
    table = FaceTable.open(faces(tmp_path / "faces.parquet"))
    soft, hard = (tasks.build("mood", SOFT | {"judged_by": by}) for by in ("", "mood"))
    for task in (soft, hard):
        task.learn(table)
    largest = np.argmax([votes(level) for level in np.random.default_rng(0).random(96)], axis=1)
    assert soft.classes(table).tolist() == largest.tolist()  # type: ignore[attr-defined]
    words = [-1 if word is None else WORDS.index(word) for word in table.words("mood")]
    assert hard.classes(table).tolist() == words  # type: ignore[attr-defined]
    assert -1 in words


def test_a_column_that_cannot_judge(tmp_path: Path) -> None:
    table = FaceTable.open(faces(tmp_path / "faces.parquet"))
    for column, message in (
        ("moood", "unknown column 'moood': did you mean 'mood'"),
        ("gender", r"tasks.mood.judged_by: column 'gender' is words \(male, female\), not words of sad, calm, happy"),
        ("mood_shares", "tasks.mood.judged_by: column 'mood_shares' is distribution"),
    ):
        with pytest.raises(PolyfaceError, match=message):
            tasks.build("mood", SOFT | {"judged_by": column}).learn(table)


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("bad", [[0, 0, 0], [1.5, -0.5, 0], [float("nan"), 1, 0]])
def test_shares_that_are_none_are_refused_when_they_are_brought_in(tmp_path: Path, bad: list[float]) -> None:
    record = Record(np.zeros((9, 9, 3), np.uint8), "votes.csv:7", "7.png", {"mood_shares": bad})
    with pytest.raises(PolyfaceError) as caught:
        write_table([record], tmp_path / "t.parquet", columns=COLUMNS)
    assert str(caught.value).startswith("votes.csv:7: mood_shares is [")
    assert str(caught.value).endswith("expected shares of 0 or more that are not all 0")


@pytest.mark.parametrize("bad", [[0, 0, 0], [1.5, -0.5, 0], [0.5, 0.2, 0.2], [None, 0.5, 0.5]])
def test_shares_that_are_none_in_another_programs_table(tmp_path: Path, bad: list[float]) -> None:
    file = faces(tmp_path / "faces.parquet", 8)
    plain = pq.read_table(file)
    place = plain.column_names.index("mood_shares")
    shares = plain.column("mood_shares").to_pylist()
    shares[2], shares[5] = None, bad
    pq.write_table(
        plain.set_column(place, plain.schema.field(place), pa.array(shares, plain.schema.types[place])), file
    )
    with pytest.raises(PolyfaceError) as caught:
        open_source(str(file), None)
    told = f"mood_shares is {[one if one is None else float(one) for one in bad]}"
    assert "row 5" in str(caught.value)
    if bad != [0.5, 0.2, 0.2]:  # float32 writes it longer
        assert told in str(caught.value)
    assert "shares are 0 or more, and together 1; mend it" in str(caught.value)


@pytest.mark.parametrize("task", [SOFT, {"kind": "classification", "column": "mood"}])
def test_a_class_that_nobody_has(tmp_path: Path, caplog: pytest.LogCaptureFixture, task: dict[str, Any]) -> None:
    table = faces(tmp_path / "faces.parquet", 16, only=[0.9, 0, 0.1] if task is SOFT else [1, 0, 0])
    with caplog.at_level(logging.WARNING):
        fit(recipe(tmp_path, table, task, epochs=1), tmp_path / "out")
    told = [line for line in caplog.messages if "no training face is labelled" in line]
    words = "calm" if task is SOFT else "calm or happy"
    end = "so no answer will be; leave it out of vocabulary, or add faces"
    assert told == [f"stage one: tasks.mood: no training face is labelled {words}, {end}"]


def test_a_class_that_only_mirrored_faces_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "faces.parquet"
    picture = np.zeros((40, 40, 3), np.uint8)
    labels = [{"pose": word, "split": "train"} for word in ("left", "frontal")] * 4
    write_table([Record(picture, str(i), f"{i}.png", one) for i, one in enumerate(labels)], file)
    task = {"kind": "classification", "column": "pose", "vocabulary": ["left", "frontal", "right"]}
    for mirror, told in ((0.5, False), (0.0, True)):
        made = recipe(tmp_path, file, task, epochs=1, augment={"mirror": mirror}, validate_on="train")
        fit(made, tmp_path / f"{mirror}")
        assert ("no training face is labelled right" in caplog.text) is told
