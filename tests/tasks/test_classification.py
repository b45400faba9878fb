"""Classification task: cross-entropy by hand, masks, mirrored poses, and answers in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polyface import tasks
from polyface.data.crops import around_centre
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.schema import POSES, VOCABULARIES
from polyface.tasks import Task, masked_sums, mean_of_terms

PLAIN = torch.eye(2, 3)[None]
MIRROR = around_centre(40, torch.tensor([20.0]), torch.ones(1), torch.zeros(1, 2), torch.tensor([True]))


def classify(column: str, **settings: object) -> Task:
    return tasks.build(column, {"kind": "classification", "column": column} | settings)


@pytest.fixture
def faces(tmp_path) -> FaceTable:
    picture = np.zeros((8, 8, 3), np.uint8)
    labels = [
        {"pose": "left", "modality": "photo"},
        {"pose": "right profile", "modality": "caricature"},
        {"modality": "photo"},
        {"pose": "frontal"},
    ]
    write_table([Record(picture, str(i), str(i), given) for i, given in enumerate(labels)], tmp_path / "t.parquet")
    return FaceTable.open(tmp_path / "t.parquet")


def test_cross_entropy_by_hand() -> None:
    """Logits ln 3 and 0: probabilities 3/4 and 1/4."""
    loss = classify("gender").loss(torch.tensor([[math.log(3), 0.0]] * 2), torch.tensor([0, 1]))
    assert loss.shape == (2, 1)
    assert loss[:, 0].tolist() == pytest.approx([math.log(4 / 3), math.log(4)])


def test_unlabelled_faces_have_exactly_no_gradient(faces) -> None:
    task = classify("pose")
    found = task.targets(faces)
    assert found.labelled[:, 0].tolist() == [True, True, False, True]
    assert found.values[found.labelled[:, 0]].tolist() == [1, 4, 2]
    logits = torch.randn(4, 5, requires_grad=True)
    mean_of_terms(*masked_sums(task.loss(logits, found.values), found.labelled)).backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    assert (logits.grad[[0, 1, 3]].abs().sum(1) > 0).all()


def test_where_and_own_vocabulary_restrict_the_mask(faces) -> None:
    photos = classify("pose", where={"modality": "photo"}).targets(faces)
    assert photos.labelled[:, 0].tolist() == [True, False, False, False]
    sides = classify("pose", vocabulary=["left", "right profile"]).targets(faces)
    assert sides.labelled[:, 0].tolist() == [True, True, False, False]
    assert sides.values[:2].tolist() == [0, 1]


def test_where_on_an_unknown_column_names_its_neighbour(faces) -> None:
    with pytest.raises(PolyfaceError, match="'modalty'.*'modality'"):
        classify("pose", where={"modalty": "photo"}).targets(faces)


def test_where_on_a_column_of_numbers_is_an_error_in_one_line(faces) -> None:
    with pytest.raises(PolyfaceError, match="'age'.*words"):
        classify("pose", where={"age": "3"}).targets(faces)


def test_mirrored_pose_is_the_opposite_one() -> None:
    classes = torch.arange(5)
    task = classify("pose")
    assert task.prepare(classes, PLAIN.expand(5, 2, 3), 40).tolist() == [0, 1, 2, 3, 4]
    mirrored = task.prepare(classes, MIRROR.expand(5, 2, 3), 40)
    assert mirrored.tolist() == [4, 3, 2, 1, 0]  # counted from 1, as MTFL does: c → 6 − c
    assert POSES[mirrored[0]] == "right profile"
    mixed = task.prepare(torch.tensor([0, 0]), torch.cat([PLAIN, MIRROR]), 40)
    assert mixed.tolist() == [0, 4]


@pytest.mark.parametrize("column", sorted(set(VOCABULARIES) - {"pose"}))
def test_a_mirror_changes_no_other_label(column: str) -> None:
    task = classify(column)
    classes = torch.arange(task.output_dim)
    assert torch.equal(task.prepare(classes, MIRROR.expand(len(classes), 2, 3), 40), classes)


def test_answers_are_the_vocabulary_words() -> None:
    task = classify("smile")
    answer = task.decode(torch.tensor([[0.0, 3.0], [math.log(9), 0.0]]), PLAIN.expand(2, 2, 3), 40)
    assert answer["label"] == ["yes", "no"]
    np.testing.assert_allclose(answer["probabilities"][1], [0.9, 0.1], rtol=1e-6)
    np.testing.assert_allclose(answer["probabilities"].sum(1), 1, rtol=1e-6)


def test_configuration_carries_the_vocabulary() -> None:
    task = classify("pose")
    assert task.config()["vocabulary"] == list(POSES)
    again = tasks.build("pose", task.config())
    assert again.config() == task.config()
    assert again.prepare(torch.tensor([0]), MIRROR, 40).tolist() == [4]


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"kind": "clasification", "column": "pose"}, "tasks.x.kind.*'classification'"),
        ({"column": "pose"}, "tasks.x.kind"),
        ({"kind": "classification", "column": "pose", "vocabular": []}, "tasks.x.vocabular.*'vocabulary'"),
        ({"kind": "classification", "column": "identity"}, "'identity' has no vocabulary"),
        ({"kind": "landmarks", "points": "many"}, "tasks.x.points"),
    ],
)
def test_wrong_settings_are_named(config: dict[str, object], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        tasks.build("x", config)
    assert "\n" not in str(caught.value)


def test_a_column_that_the_training_table_lacks_is_named(faces) -> None:
    with pytest.raises(PolyfaceError, match="unknown column 'poze'.*'pose'"):
        classify("poze").learn(faces)
