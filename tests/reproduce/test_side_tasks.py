"""Tasks beside the main one are judged whatever the main one is judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyface.data.writing import Record, write_table
from polyface.reproduce.jobs import Job, _store, answers_path, folder
from polyface.reproduce.runs import OLDER, Runs
from polyface.reproduce.tables import rows_of
from polyface.training import stages
from polyface.training.recipe import ComparisonSpec, Recipe, load

PEOPLE = ["ann", "bob", "cid"]
RECIPE = """
name: people
stages:
  - name: five
    data:
      tables: [{{name: {table}}}]
      boxes: {{source: image}}
      crop: {{size: 40, channels: 3, scale: 1.0}}
    network: {{trunk: {{name: tcdcn, channels: 3}}}}
    tasks:
      who: {{kind: identity}}
      smile: {{kind: classification, column: smile}}
      gender: {{kind: classification, column: gender}}
      landmarks: {{kind: landmarks, points: 5}}
    optimisation: {{precision: {precision}}}
    evaluation: {{main: who, protocol: {{name: gallery-probe, draws: 2}}}}
variants:
  trained: {{stages: [five], seeds: 1}}
  views: {{stages: [five], seeds: 1, model: trained}}
  both: {{stages: [five], seeds: 1, average: [trained, views]}}
"""


@pytest.fixture(params=["auto", "bf16-mixed"])
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    """Twelve test faces, half of which smile; nobody's gender is known, and no landmarks."""
    records = [
        Record(
            np.full((20, 16, 3), row, np.uint8),
            "",
            f"{split}/{row}.png",
            {"identity": PEOPLE[row % 3], "smile": "yes" if row < 6 else "no", "split": split},
        )
        for split in ("test", "train")
        for row in range(12)
    ]
    write_table(records, tmp_path / "t.parquet")
    (tmp_path / "people.yaml").write_text(RECIPE.format(table=tmp_path / "t.parquet", precision=request.param))
    return load(tmp_path / "people.yaml")


def finished(recipe: Recipe, out: Path, **record: Any) -> Runs:
    """Runs whose networks know everybody and call nine of twelve faces smiling, among them all that smile."""
    smiles = np.eye(2)[[1] * 9 + [0] * 3]
    answers = {
        "who": {"embedding": np.eye(3)[np.arange(12) % 3], "probabilities": np.eye(3)[np.arange(12) % 3]},
        "smile": {"probabilities": smiles[:, ::-1] if _words(recipe)[0] == "yes" else smiles},
        "gender": {"probabilities": np.full((12, 2), 0.5)},
        "landmarks": {"points": np.zeros((12, 5, 2))},
    }
    stage = recipe.variant("trained", 0).stages[-1]
    place = folder(out, Job("trained", 0)) / stage.name
    place.mkdir(parents=True)
    settings = json.loads(stage.model_dump_json()) | {"seed": 0}
    (place / stages.HISTORY).write_text(json.dumps({"settings": settings, "history": [], "seconds": 1} | record))
    for name in recipe.variants:
        _store(answers_path(out, Job(name, 0), "test"), answers, 0)
    return Runs(recipe, None, out)


def _words(recipe: Recipe) -> tuple[str, ...]:
    from polyface.schema import VOCABULARIES

    return tuple(VOCABULARIES["smile"])


def test_a_side_task_has_rows_beside_a_protocol_that_asks_nothing_of_it(recipe: Recipe, tmp_path: Path) -> None:
    """Six of six that smile and three of six that do not are called right: 75 %, balanced the same."""
    runs = finished(recipe, tmp_path / "runs")
    assert list(runs.side("trained")) == ["smile "]
    rows = {row.key: row for row in rows_of(runs)}
    assert rows["trained", "rank-1"].mean == 100
    assert rows["trained", "smile balanced accuracy"].mean == 75
    assert rows["trained", "smile accuracy"].n == 12
    assert rows["trained", "smile majority class"].mean == 50
    assert not any("gender" in metric or "landmarks" in metric for _, metric in rows)  # no face is labelled for them


def test_rows_say_what_their_networks_were_trained_in(recipe: Recipe, tmp_path: Path) -> None:
    """What was chosen, where the recipe leaves that to the device; of a run from before, what its recipe says."""
    asked = recipe.variant("trained", 0).stages[-1].optimisation.precision
    for place, record, expected in (
        ("old", {}, "" if asked == "auto" else asked),
        ("new", {"precision": "32-true"}, "32-true"),
    ):
        rows = {row.key: row for row in rows_of(finished(recipe, tmp_path / place, **record))}
        for name in recipe.variants:
            assert rows[name, "smile balanced accuracy"].precision == expected
            assert rows[name, "smile majority class"].precision == ""  # depends on no network


def test_rows_say_that_a_network_is_of_an_older_polyface(recipe: Recipe, tmp_path: Path) -> None:
    """Keys that were added since count as their defaults, though the run was trained in another way. Its record does
    not say what data it was trained on, as those of today do."""
    recipe.comparisons.append(ComparisonSpec(better="both", than="views"))
    data = [{"table": "t", "faces": 24, "fingerprint": "1"}]
    for place, record, older in (("old", {}, True), ("new", {"data": data}, False)):
        runs = finished(recipe, tmp_path / place, **record)
        runs._finished = lambda job: job.seed == 0  # type: ignore[method-assign]  # whatever the data is now
        rows = {row.key: row for row in rows_of(runs)}
        for name in [*recipe.variants, "both minus views"]:
            assert (OLDER in rows[name, "rank-1"].notes) == older
        assert OLDER not in rows["trained", "smile majority class"].notes
