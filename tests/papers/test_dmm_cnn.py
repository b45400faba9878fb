"""The recipe of DMM-CNN: what its rows change; and the rows and pictures of its own page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from polyface.metrics.attributes import evaluate_attributes
from polyface.papers.dmm_cnn.page import rows
from polyface.reproduce import Runs

NAMES = ["Bald", "Young"]


def results(scores: np.ndarray, truth: np.ndarray, at: float = 0.0) -> dict[str, object]:
    return {"": evaluate_attributes(scores, scores > at, truth, NAMES)}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """One seed of Baseline. On validation faces Bald's outputs are 0.5 too high and Young's right; so on test faces."""
    validation = np.array([[2.0, 1], [0.4, 1], [0.3, -1], [-1, -1]]), np.array([[1.0, 1], [-1, 1], [-1, -1], [-1, -1]])
    tested = np.array([[1.5, 1], [0.2, -1], [0.45, 1], [-2, 1]]), np.array([[1.0, 1], [-1, -1], [1, 1], [-1, 1]])
    parts = {"val": validation, "test": tested}
    made = SimpleNamespace(
        recipe=None, out=None, faces=SimpleNamespace(data=None),
        measured={"Baseline": None},
        title=lambda name: name,
        stage=lambda name: SimpleNamespace(evaluation=SimpleNamespace(main="attributes")),
        main=lambda name, part="test": {0: results(*parts[part])[""]},
        answers=lambda name, seed, part="test": {"attributes": {"scores": parts[part][0]}},
        told=lambda rows, *names: rows,
    )  # fmt: skip
    monkeypatch.setattr("polyface.papers.dmm_cnn.page.Runs", lambda *given: made)
    return cast("Runs", made)


def test_thresholds_of_the_validation_faces_judge_the_test_faces(runs: Runs) -> None:
    """Bald rests at 0.4 and is best there or above, at 1.2 by the middle: of four test faces, at 0 three are right, at
    0.4 all four, at 1.2 three. Young is right at 0 by its outputs, wherever its threshold is."""
    found = {(row.row, row.metric): row for row in rows(runs)}
    assert found["Baseline, AT at rest", "mean accuracy"].mean == 100
    assert found["Baseline, τ best on validation", "mean accuracy"].mean == 87.5
    gain = found["Baseline, AT at rest minus Baseline", "mean accuracy"]
    assert gain.mean == 12.5
    assert gain.n == 4
    assert "τ from the validation faces" in found["Baseline, AT at rest", "mean AP"].note
    assert not any(":" in row for row, _ in found)
