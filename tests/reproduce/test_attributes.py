"""Reproducing a table of attributes: thresholds taken from a trained network, sets that are not whole, the page."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from polyface import reproduce
from polyface.data.store import open_source
from polyface.data.writing import Record, write_table
from polyface.errors import NoDataError
from polyface.metrics.attributes import AttributesResult
from polyface.metrics.sections import Table
from polyface.papers import paper
from polyface.papers.dmm_cnn import page
from polyface.report.published import Published
from polyface.report.results import read_results
from polyface.schema import ATTRIBUTES
from polyface.training import stages
from polyface.training.recipe import Recipe, load
from polyface.weighting.thresholds import at_rest

RECIPE = """
name: dmm-cnn
stages:
  - name: some
    data:
      tables: [{{name: {table}}}]
      boxes: {{source: image}}
      crop: {{size: 40, channels: 1, scale: 1.0}}
      batch: 32
    network: {{trunk: {{name: tcdcn}}}}
    tasks:
      attributes: {{kind: attributes, attributes: [Male, Smiling, Eyeglasses]}}
    weighting: {{name: dmm, terms: [attributes]}}
    thresholds: {{tasks: [attributes], rate: 0.5}}
    optimisation: {{epochs: 2, lr: 0.002, validate_steps: 2}}
    evaluation: {{main: attributes}}
variants:
  AT: {{stages: [some], seeds: 2, minutes: 1}}
  FIX: {{stages: [some], seeds: 2, model: AT, set: {{some.thresholds: null}}}}
  whole set: {{stages: [some], seeds: 1, set: {{some.data.tables: [{{name: {table}, faces: 5000}}]}}}}
comparisons:
  - {{better: AT, than: FIX}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("recipe")
    faces = open_source("synthetic", None, {"n": 260, "size": 48})
    words = {name: faces.words(name) for name in ("gender", "smile", "glasses")}
    splits = faces.words("split")

    def record(row: int) -> Record:
        has = {
            "Male": words["gender"][row] == "male",
            "Smiling": words["smile"][row] == "yes",
            "Eyeglasses": words["glasses"][row] == "yes",
        }
        values = [None if name not in has else 1 if has[name] else -1 for name in ATTRIBUTES]
        return Record(faces.image(row), f"row {row}", f"{row}.png", {"attributes": values, "split": splits[row]})

    write_table(map(record, range(len(faces))), folder / "faces.parquet")
    path = folder / "small.yaml"
    path.write_text(RECIPE.format(table=folder / "faces.parquet"))
    return load(path)


@pytest.fixture(scope="module")
def ran(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[reproduce.Job, Exception]]:
    out, failed = tmp_path_factory.mktemp("runs"), dict[reproduce.Job, Exception]()
    options = stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    reproduce.run_jobs(recipe, reproduce.jobs(recipe), None, out, options, failed=failed)
    return out, failed


def test_a_set_that_is_not_whole_is_no_data_and_the_other_rows_go_on(recipe: Recipe, ran) -> None:
    out, failed = ran
    assert list(failed) == [reproduce.Job("whole set", 0)]
    (why,) = failed.values()
    assert isinstance(why, NoDataError)
    assert "has 260 faces here, and 5,000 where it is whole" in str(why)
    judged = reproduce.Runs(recipe, None, out)
    assert [judged.seeds(name) for name in recipe.variants] == [[0, 1], [0, 1], []]


def test_fixed_thresholds_judge_the_same_scores_at_zero(recipe: Recipe, ran) -> None:
    out, _ = ran
    moved = 0
    for seed in (0, 1):
        adaptive, fixed = (reproduce.stored(out, reproduce.Job(name, seed))["attributes"] for name in ("AT", "FIX"))
        np.testing.assert_array_equal(adaptive["scores"], fixed["scores"])
        np.testing.assert_array_equal(fixed["positive"], fixed["scores"] > 0)
        history = reproduce.Runs(recipe, None, out).history("AT", seed)
        thresholds = np.array(history[-1]["thresholds"]["attributes"])
        np.testing.assert_array_equal(adaptive["positive"], adaptive["scores"] > thresholds.astype(np.float32))
        moved += int((thresholds != 0).sum())
    assert moved


def test_answers_older_than_the_network_they_are_of_are_asked_again(recipe: Recipe, ran) -> None:
    out, _ = ran
    job = reproduce.Job("FIX", 0)
    assert reproduce.finished(recipe, out, job)
    history = reproduce.folder(out, reproduce.Job("AT", 0)) / "some" / stages.HISTORY
    history.touch()
    assert not reproduce.finished(recipe, out, job)
    reproduce.run_jobs(recipe, [job], None, out, stages.RunOptions(accelerator="cpu", logger="none"))
    assert reproduce.finished(recipe, out, job)


def test_rows_have_their_published_figures_and_the_time_of_validations(recipe: Recipe, ran, tmp_path: Path) -> None:
    printed = Published("AT", "mean accuracy", 91.7, "the paper")
    file = tmp_path / "rows.json"
    reproduce.collect(reproduce.Runs(recipe, None, ran[0]), file, "command", "synthetic", [printed])
    rows = {row.key: row for row in read_results(file).rows}
    assert rows["AT", "mean accuracy"].published == 91.7
    assert rows["FIX", "mean accuracy"].published is None
    assert rows["AT minus FIX", "mean accuracy"].interval is not None
    assert 0 < rows["AT", "time in validation"].mean < 100
    assert ("FIX", "time in validation") not in rows  # not trained by itself
    assert rows["AT: Male", "accuracy"].seeds == (0, 1)


def test_the_page_shows_every_attribute_beside_the_published_systems(recipe: Recipe, ran, tmp_path: Path) -> None:
    judged = reproduce.Runs(recipe, None, ran[0])
    reproduce.collect(judged, tmp_path / "rows.json", "command", "synthetic")
    of = paper("dmm-cnn")
    page = reproduce.table_report(
        tmp_path / "report.html", judged, tmp_path / "rows.json", of.figures, of.statements, of.sections(judged)
    ).read_text()
    assert "Each attribute: AT" in page
    assert "MCNN-AUX (published)" in page
    assert "98.17" in page  # MCNN-AUX, Male
    assert "Weights and thresholds: AT" in page
    assert "Training: AT" in page
    assert "attributes/Male" not in page  # forty curves in one plot tell nothing


def test_the_accuracy_of_every_attribute_is_a_mean_over_seeds(recipe: Recipe, ran) -> None:
    judged = reproduce.Runs(recipe, None, ran[0])
    (section,) = paper("dmm-cnn").sections(judged)
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert table.header[:2] == ["attribute", ">AT"]  # FIX has no network of its own
    assert not any(name.startswith(">LFWA") for name in table.header)
    lines = {line[0]: line for line in table.rows}
    results = [cast(AttributesResult, one) for one in judged.main("AT").values()]
    for attribute in ("Male", "Smiling"):
        each = [one.per_attribute[attribute].accuracy for one in results]
        assert lines[attribute][1] == f"{np.mean(each):.2f}"
    assert lines["Male"][table.header.index(">MCNN-AUX (published)")] == "98.17"


def test_stored_answers_are_judged_by_thresholds_at_rest(recipe: Recipe, ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers on the validation faces are added to finished runs, which are not trained again; those at rest call as
    many of these positive as are, or as near to that as outputs let them."""
    out, _ = ran
    monkeypatch.setattr(page, "VALIDATED", ("AT",))
    judged = reproduce.Runs(recipe, None, out)
    assert [row.key for row in page.rows(judged)] == [("AT", "steps to within 1 %"), ("AT", "median weight")]
    records = {path: path.read_bytes() for path in out.rglob("history.json")}
    todo = [job for job in reproduce.jobs(recipe) if job.variant == "AT"]
    options = stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    reproduce.run_jobs(recipe, todo, None, out, options, parts=("val",))
    assert records == {path: path.read_bytes() for path in out.rglob("history.json")}
    found = {row.key: row for row in page.rows(judged)}
    assert found["AT, AT at rest", "mean accuracy"].seeds == (0, 1)
    assert found["AT, AT at rest minus AT", "mean accuracy"].seeds == (0, 1)
    assert found["AT, τ best on validation", "mean accuracy"].n == found["AT, AT at rest", "mean accuracy"].n
    for seed in (0, 1):
        scores = judged.answers("AT", seed, "val")["attributes"]["scores"]
        truth = cast(AttributesResult, judged.main("AT", "val")[seed]).truth
        at = at_rest(scores, truth)
        known = ~np.isnan(truth)
        called, have = ((one & known).sum(0) for one in (scores > at, truth > 0))
        assert (np.abs(called - have) <= 1).all()


def test_what_weights_come_to_is_the_median_after_the_last_validation(recipe: Recipe, monkeypatch) -> None:
    first = {"weights": {"attributes/Male": 1.0, "attributes/Smiling": 1.0, "landmarks": 0.5}}
    last = {"weights": {"attributes/Male": 0.002, "attributes/Smiling": 0.004, "landmarks": 0.5}}
    told = {"AT": {0: [first, last], 1: [first, {"weights": {"attributes/Male": 0.005, "attributes/Smiling": 0.005}}]}}
    monkeypatch.setattr(page, "_followed", lambda runs, name: told.get(name, {}))
    (row,) = page._last_weights(reproduce.Runs(recipe, None, Path()))
    assert row.key == ("AT", "median weight")
    assert row.mean == pytest.approx(0.4)  # percent: medians of 0.003 and 0.005
    assert row.seeds == (0, 1)


def test_papers_name_the_rows_that_are_judged_on_validation_faces() -> None:
    assert paper("dmm-cnn").validated == page.VALIDATED
    assert set(page.VALIDATED) <= load("dmm-cnn").variants.keys()
    assert paper("tcdcn").validated == paper("nobody").validated == ()
