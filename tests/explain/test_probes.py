"""Linear probes: what can be read, what cannot, and that no probe sees the people that it is asked about."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from columns import IDENTITY, POSE, POSES, bundle, faces

from polyface.errors import PolyfaceError
from polyface.explain import probes
from polyface.explain.probes import chance, probe, probe_tasks

needs_sklearn = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
WHO = np.repeat([f"p{number:02}" for number in range(40)], 12).astype(object)


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x [480, 8] and classes: 4–7 hold the class and noise, 0–3 noise alone."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 3, len(WHO))
    x = generator.standard_normal((len(WHO), 8))
    x[:, 4:7] += 8 * np.eye(3)[classes]
    return x, classes


@needs_sklearn
def test_what_is_there_is_read_and_what_was_taken_out_is_not() -> None:
    x, classes = drawn()
    there, gone = (probe(x[:, list(dims)], classes, WHO, POSES) for dims in (POSE, IDENTITY))
    assert there.balanced_accuracy > 99
    assert gone.balanced_accuracy == pytest.approx(chance(gone), abs=7)  # three standard deviations of 480 faces
    assert (chance(gone), gone.n) == (pytest.approx(100 / 3), 480)


@needs_sklearn
def test_a_probe_has_not_seen_the_people_that_it_is_asked_about() -> None:
    """x says who it is, and each person has a class of his own: on the same people it would be read without a fault."""
    names = sorted(set(WHO.tolist()))
    person = np.array([names.index(name) for name in WHO])
    x, classes = np.eye(40)[person], np.random.default_rng(1).integers(0, 2, 40)[person]
    found = probe(x, classes, WHO, ("no", "yes"))
    assert found.balanced_accuracy == pytest.approx(50, abs=1e-9)  # nothing of a stranger is in what it learnt


@needs_sklearn
def test_chance_counts_the_classes_that_occur() -> None:
    x, classes = drawn()
    assert chance(probe(x, np.where(classes == 2, -1, classes), WHO, POSES)) == 50


@needs_sklearn
def test_faces_without_label_or_person_are_left_out() -> None:
    x, classes = drawn()
    people = WHO.copy()
    people[:24] = None
    classes[24:36] = -1
    assert probe(x, classes, people, POSES).n == 480 - 36


@needs_sklearn
def test_too_few_people_or_classes_are_one_line() -> None:
    x, classes = drawn()
    with pytest.raises(PolyfaceError, match="1 people have labels, and a probe needs 2 parts of them"):
        probe(x[:12], classes[:12], WHO[:12], POSES)
    with pytest.raises(PolyfaceError, match="only one of the classes left, frontal, right is among the faces"):
        probe(x, np.zeros(480, int), WHO, POSES)


def test_without_scikit_learn_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not probes.can_probe()
    with pytest.raises(PolyfaceError, match=r"linear probes need scikit-learn, `pip install polyface\[explain\]`"):
        probe(np.eye(3), [0, 1, 2], ["a", "b", "c"], POSES)


@needs_sklearn
@pytest.mark.usefixtures("columns")
def test_tasks_of_classes_are_probed_and_others_said(tmp_path: Path) -> None:
    table = faces(tmp_path / "faces.parquet")
    tasks = bundle().tasks
    x = np.tile(np.eye(8)[[4, 5, 6, 4, 5, 6]], (8, 1))
    found, left = probe_tasks(x, {"all": np.arange(8), "first": np.arange(4)}, tasks, table)
    assert left == {}
    assert list(found) == ["pose"]  # who it is cannot be asked of strangers
    assert [found["pose"][kind].balanced_accuracy for kind in ("all", "first")] == [100, pytest.approx(100 / 3)]
    found, left = probe_tasks(x[:6], {"all": np.arange(8)}, tasks, table.take(np.arange(6)))
    assert (found, left) == ({}, {"pose": "1 people have labels, and a probe needs 2 parts of them"})
