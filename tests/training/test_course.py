"""The course of a training: means over its spans, and how often the largest weight is that of the largest loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.training.course import Course, in_tenth, shares
from polyface.training.learner import Learner
from polyface.training.records import read_record

from .recognition import Gone, fit, learner_of, recipe_of, stage_tree, stopping_at


def test_means_and_counts_of_a_span_by_hand() -> None:
    """200 iterations: two a span. In the first span the largest weight lies once on the largest loss; in the second a
    task is absent, and its loss alone is nothing to compare; in the third nothing is the largest."""
    course = Course(200)
    course.add(0, {"a": 3.0, "b": 1.0}, {"a": 0.75, "b": 0.25})
    course.add(1, {"a": 1.0, "b": 2.0}, {"a": 0.5, "b": 0.5})
    course.add(2, {"b": 4.0}, {"b": 0.5})
    course.add(4, {"a": 2.0, "b": 2.0}, {"a": 0.5, "b": 0.5})
    assert course.record() == {
        "iterations": 200,
        "step": [2, 3, 5],
        "compared": [2, 0, 0],
        "agreed": [1, 0, 0],
        "hardest": {"a": [1, 0, 0], "b": [1, 0, 0]},
        "loss": {"a": [2.0, None, 2.0], "b": [1.5, 4.0, 2.0]},
        "weight": {"a": [0.625, None, 0.5], "b": [0.375, 0.5, 0.5]},
    }


@given(iterations=st.integers(10, 450))
def test_tenths_share_nothing_and_hold_everything(iterations: int) -> None:
    """The largest weight lies on the largest loss in the first tenth of the iterations, and then never."""
    course, first = Course(iterations), -(-iterations // 10)  # those before a tenth of them is over
    for done in range(iterations):
        losses = {"a": 2.0, "b": 1.0}
        course.add(done, losses, losses if done < first else {"a": 1.0, "b": 2.0})
    told = course.record()
    assert told is not None
    assert len(told["step"]) == min(100, iterations)
    tenths = [in_tenth(told, tenth) for tenth in range(10)]
    assert [at for tenth in tenths for at in tenth] == list(range(len(told["step"])))
    assert sum(told["compared"][at] for at in tenths[0]) == first
    assert [shares(told, tenth)[""] for tenth in tenths] == [1] + [0] * 9
    assert shares(told) == {"a": 1, "b": 0, "": pytest.approx(first / iterations)}


def test_a_short_run_lacks_tenths() -> None:
    course = Course(3)
    for done in range(3):
        course.add(done, {"a": 1.0, "b": 2.0}, {"a": 0.5, "b": 0.5})
    told = course.record()
    assert told is not None
    assert shares(told, in_tenth(told, 9)) == {}
    assert shares(told) == {"a": 0, "b": 1, "": 0}


def course_of(folder: Path) -> object:
    return json.loads((folder / "one" / "history.json").read_text())["course"]


def test_a_run_keeps_its_course_and_a_resumed_one_has_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps. What the epochs keep are means of the same losses and weights."""
    chosen = recipe_of(tmp_path, stage_tree())
    history = fit(chosen, tmp_path / "whole")["one"].history
    for step in (3, 7):
        with monkeypatch.context() as patch:
            patch.setattr(Learner, "training_step", stopping_at(step))
            with pytest.raises(Gone):
                fit(chosen, tmp_path / "killed", checkpoint_steps=1)
    fit(chosen, tmp_path / "killed", checkpoint_steps=1)
    told = course_of(tmp_path / "whole")
    assert course_of(tmp_path / "killed") == told
    assert isinstance(told, dict)
    assert told["step"] == list(range(1, 11))
    assert sum(told["compared"]) == 10
    for task, weights in told["weight"].items():
        assert sum(weights[:5]) / 5 == pytest.approx(history[0]["weights"][task], rel=1e-4)
    # a record whose course is damaged is told; one of an older version has none
    file = tmp_path / "whole/one/history.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"course": told | {"step": "ten"}}))
    with pytest.raises(PolyfaceError, match=r"history\.json: .*course\.step"):
        read_record(file.parent)
    del kept["course"]
    file.write_text(json.dumps(kept))
    assert read_record(file.parent) is not None


def test_a_run_that_an_older_version_began_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = recipe_of(tmp_path, stage_tree())
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stopping_at(4))
        with pytest.raises(Gone):
            fit(chosen, tmp_path, checkpoint_steps=1)
    checkpoint = tmp_path / "one/last.ckpt"
    kept = torch.load(checkpoint, weights_only=True)
    del kept["polyface"]["course"]
    torch.save(kept, checkpoint)
    fit(chosen, tmp_path)
    assert "course" not in json.loads((tmp_path / "one/history.json").read_text())


def test_a_task_that_is_absent_from_a_batch_has_no_part(tmp_path: Path) -> None:
    learner = learner_of(recipe_of(tmp_path, stage_tree()))
    raw = next(iter(learner.train_dataloader()))
    photos = torch.from_numpy(learner._train.pool.table.words("modality")[raw.rows.numpy()] == "photo")
    labelled = {name: each & photos[:, None] for name, each in raw.labelled.items()}
    learner.training_step(type(raw)(**{**vars(raw), "labelled": labelled}), 0)
    (span,) = learner.course.spans or []
    assert span["loss"].keys() == {"verification", "visual"}
    assert span["compared"] == 1
