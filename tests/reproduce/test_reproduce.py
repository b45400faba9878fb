"""Reproducing a table end to end, on synthetic faces: variants, seeds, resuming, differences, results and report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from polyface import reproduce
from polyface.errors import PolyfaceError
from polyface.report.results import read_results
from polyface.schema import landmark_groups
from polyface.tasks.landmarks import LandmarksTask
from polyface.training import stages
from polyface.training.learners.multitask import Multitask
from polyface.training.precision import precision
from polyface.training.recipe import Recipe, load

RECIPE = """
name: small
stages:
  - name: five
    data:
      tables: [{name: synthetic, options: {n: 260, size: 48}}]
      boxes: {source: table}
      crop: {size: 40, channels: 1, scale: 1.2}
      batch: 32
    network: {trunk: {name: tcdcn}}
    tasks:
      landmarks: {kind: landmarks, points: 5, loss: l1}
    optimisation: {epochs: 1, lr: 0.002}
variants:
  alone: {stages: [five], seeds: 2, minutes: 3}
  with pose:
    stages: [five]
    seeds: 2
    correlation: true
    set:
      five.tasks.pose: {kind: classification, column: pose}
      five.weighting.options.weights: {pose: 0.1}
  averaged: {stages: [five], seeds: 2, model: alone, set: {five.evaluation.translations: 4}}
  both: {stages: [five], seeds: 2, average: [averaged, with pose]}
  longer: {stages: [five], seeds: 1, start: alone, set: {five.init: {source: five}}}
comparisons:
  - {better: with pose, than: alone}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return load(path)


@pytest.fixture(scope="module")
def runs(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    options = stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    reproduce.run_jobs(recipe, reproduce.jobs(recipe), None, out, options)
    return out


def test_jobs_that_need_another_network_come_last(recipe: Recipe) -> None:
    names = [job.variant for job in reproduce.jobs(recipe)]
    assert len(names) == 9
    assert set(names[4:7]) == {"averaged", "longer"}
    assert names[7:] == ["both", "both"]  # after "averaged", which itself comes after "alone"
    assert {job.seed for job in reproduce.jobs(recipe, seeds=1)} == {0}
    assert reproduce.hours(recipe, reproduce.jobs(recipe)) == pytest.approx(6 / 60)


def test_an_average_is_the_mean_of_the_answers(recipe: Recipe, runs: Path) -> None:
    for seed in (0, 1):
        of = [
            reproduce.stored(runs, reproduce.Job(name, seed))["landmarks"]["points"]
            for name in ("averaged", "with pose")
        ]
        found = reproduce.stored(runs, reproduce.Job("both", seed))["landmarks"]["points"]
        np.testing.assert_allclose(found, (of[0] + of[1]) / 2, rtol=1e-6)
        assert np.abs(of[0] - of[1]).max() > 0.01


def test_an_average_is_no_longer_finished_once_its_parts_are_older_than_they(
    recipe: Recipe, runs: Path, tmp_path: Path
) -> None:
    own = tmp_path / "runs"
    shutil.copytree(runs, own)
    job, options = reproduce.Job("both", 0), stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    kept = reproduce.stored(own, job)["landmarks"]["points"]
    path = own / "averaged" / "seed0" / "test.npz"
    with np.load(path) as file:
        moved = dict(file)
    moved["landmarks/points"] += 1
    np.savez_compressed(path, **moved)
    assert not reproduce.finished(recipe, own, job)
    reproduce.run_jobs(recipe, [job], None, own, options)
    np.testing.assert_allclose(reproduce.stored(own, job)["landmarks"]["points"], kept + 0.5, rtol=1e-5)
    path.unlink()
    with pytest.raises(PolyfaceError, match="averages 'averaged': run that one first"):
        reproduce.run_jobs(recipe, [job], None, own, options)


def test_only_takes_wildcards_and_names_what_there_is(recipe: Recipe) -> None:
    assert {job.variant for job in reproduce.jobs(recipe, ["al*"])} == {"alone"}
    with pytest.raises(PolyfaceError, match="no variant matches nothing; there are: alone, with pose"):
        reproduce.jobs(recipe, ["nothing"])


def test_a_finished_reproduction_trains_nothing_again(
    recipe: Recipe, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Multitask, "run", refuse)
    reproduce.run_jobs(recipe, reproduce.jobs(recipe), None, runs, stages.RunOptions())
    assert all(reproduce.finished(recipe, runs, job) for job in reproduce.jobs(recipe))


def test_a_trained_run_without_answers_is_only_asked_again(
    recipe: Recipe, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = reproduce.Job("with pose", 1)
    shutil.copytree(reproduce.folder(runs, job), reproduce.folder(tmp_path, job))
    (reproduce.folder(tmp_path, job) / "test.npz").unlink()
    assert not reproduce.finished(recipe, tmp_path, job)
    monkeypatch.setattr(Multitask, "run", lambda *args, **kwargs: pytest.fail("trained again"))
    reproduce.run_job(recipe, job, None, tmp_path, stages.RunOptions(), ("test", "val"))
    assert reproduce.finished(recipe, tmp_path, job, ("test", "val"))
    for task, key in (("landmarks", "points"), ("pose", "probabilities")):
        before, again = (reproduce.stored(place, job)[task][key] for place in (runs, tmp_path))
        np.testing.assert_array_equal(before, again)
    validated = reproduce.stored(tmp_path, job, "val")
    assert set(validated) == {"landmarks", "pose"}
    assert len(validated["pose"]["probabilities"]) == len(validated["landmarks"]["points"])


def test_a_run_with_other_settings_is_not_finished_and_not_shown(recipe: Recipe, runs: Path) -> None:
    stage = recipe.stages[0]
    slower = stage.model_copy(update={"optimisation": stage.optimisation.model_copy(update={"lr": 0.001})})
    changed = recipe.model_copy(update={"stages": [slower]})
    assert not reproduce.finished(changed, runs, reproduce.Job("alone", 0))
    assert reproduce.Runs(changed, None, runs).results("alone") == {}


def test_what_a_run_with_other_settings_left_is_moved_aside_and_never_deleted(
    recipe: Recipe, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, stage = reproduce.Job("alone", 0), recipe.stages[0]
    place = reproduce.folder(tmp_path, job)
    shutil.copytree(reproduce.folder(runs, job), place)
    (place / ".five.lock").unlink(missing_ok=True)
    before = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    slower = stage.model_copy(update={"optimisation": stage.optimisation.model_copy(update={"lr": 0.001})})
    changed = recipe.model_copy(update={"stages": [slower]})

    def refuse(*args: object, **kwargs: object) -> None:
        assert not (place / "test.npz").exists()
        assert not (place / "five").exists()
        raise PolyfaceError("stopped")

    monkeypatch.setattr(stages, "run", refuse)
    for _ in range(2):  # the second time there is nothing left to move
        with pytest.raises(PolyfaceError, match="stopped"):
            reproduce.run_job(changed, job, None, tmp_path, stages.RunOptions())
    stale = place / "stale" / "1"
    assert {path.relative_to(stale): path.read_bytes() for path in stale.rglob("*") if path.is_file()} == before
    assert not (place / "stale" / "2").exists()


def test_an_unfinished_run_with_other_settings_is_moved_aside_and_trained_anew(recipe: Recipe, tmp_path: Path) -> None:
    """Its checkpoint would else stop the reproduction; with the settings it has, it is gone on from."""
    job, stage = reproduce.Job("alone", 0), recipe.stages[0]
    place = reproduce.folder(tmp_path, job)

    def stop(done: int, total: int, what: str) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    options = stages.RunOptions(progress=stop, checkpoint_steps=1)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            reproduce.run_job(recipe, job, None, tmp_path, options)
        assert (place / "five/last.ckpt").exists()
        assert not (place / "stale").exists()
    slower = stage.model_copy(update={"optimisation": stage.optimisation.model_copy(update={"lr": 0.001})})
    changed = recipe.model_copy(update={"stages": [slower]})
    reproduce.run_job(changed, job, None, tmp_path, stages.RunOptions())
    assert reproduce.finished(changed, tmp_path, job)
    assert (place / "stale/1/five/last.ckpt").exists()


def test_a_setting_added_since_with_its_default_changes_nothing(recipe: Recipe, runs: Path, tmp_path: Path) -> None:
    job = reproduce.Job("alone", 0)
    shutil.copytree(reproduce.folder(runs, job), reproduce.folder(tmp_path, job))
    path = reproduce.folder(tmp_path, job) / "five" / stages.HISTORY
    kept = json.loads(path.read_text())
    del kept["settings"]["optimisation"]["ema"]
    path.write_text(json.dumps(kept))
    assert reproduce.finished(recipe, tmp_path, job)


def test_a_failed_run_raises_or_is_told_while_the_others_go_on(recipe: Recipe, tmp_path: Path) -> None:
    todo = [reproduce.Job("averaged", 0), reproduce.Job("averaged", 1)]  # measured networks that are not there
    with pytest.raises(PolyfaceError, match="run that one first"):
        reproduce.run_jobs(recipe, todo, None, tmp_path, stages.RunOptions())
    failed: dict[reproduce.Job, Exception] = {}
    seen: list[tuple[int, int]] = []
    reproduce.run_jobs(
        recipe, todo, None, tmp_path, stages.RunOptions(), progress=lambda *at: seen.append(at[:2]), failed=failed
    )
    assert list(failed) == todo
    assert "run that one first" in str(failed[todo[0]])
    assert seen == [(1, 2), (2, 2)]


def test_seeds_differ_and_a_started_stage_begins_from_the_other_variant(recipe: Recipe, runs: Path) -> None:
    judged = reproduce.Runs(recipe, None, runs)
    found = judged.main("alone")
    error = found[0].metrics[0]
    assert found[0].figure(error) != found[1].figure(error)
    longer, alone = judged.history("longer"), judged.history("alone")
    assert longer[-1]["train"]["landmarks"] < 0.8 * alone[-1]["train"]["landmarks"]


def test_a_start_with_fewer_seeds_serves_in_turn(recipe: Recipe, runs: Path, tmp_path: Path) -> None:
    """Of "alone" the recipe has two seeds, so that a third of "longer" starts from its first."""
    own = tmp_path / "runs"
    shutil.copytree(runs / "alone" / "seed0", own / "alone" / "seed0")
    third, options = reproduce.Job("longer", 2), stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    reproduce.run_jobs(recipe, [third], None, own, options)
    assert reproduce.finished(recipe, own, third)


def test_faces_are_opened_once_for_all_variants_and_answers_judged_once(
    recipe: Recipe, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, judged = [], []
    monkeypatch.setattr("polyface.reproduce.runs.pool_of", lambda *args: opened.append(args) or stages.pool_of(*args))
    evaluate = LandmarksTask.evaluate
    monkeypatch.setattr(LandmarksTask, "evaluate", lambda *args: judged.append(args) or evaluate(*args))
    every = reproduce.Runs(recipe, None, runs)
    for _ in range(2):
        reproduce.rows_of(every)
    assert len(opened) == 1
    assert len(judged) == 9
    assert every.side("with pose")["pose "][0].metrics[0].n
    assert len(opened) == 1


def test_results_file_holds_every_row_and_paired_differences(recipe: Recipe, runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.json"
    reproduce.collect(reproduce.Runs(recipe, None, runs), file, "polyface reproduce small", "synthetic")
    results = read_results(file)
    rows = {row.key: row for row in results.rows}
    for name, seeds in (("alone", (0, 1)), ("with pose", (0, 1)), ("averaged", (0, 1)), ("longer", (0,))):
        assert rows[name, "mean error"].seeds == seeds
        assert 0 <= rows[name, "failure rate"].mean <= 100
    assert {rows["alone", point].precision for point in landmark_groups(5)} == {precision("auto", "cpu")}
    of_points = [rows["alone", point].mean for point in landmark_groups(5)]
    assert np.mean(of_points) == pytest.approx(rows["alone", "mean error"].mean, rel=0.05)
    assert rows["with pose", "pose balanced accuracy"].seeds == (0, 1)
    assert rows["with pose", "pose majority class"].precision == ""  # no training's figure
    assert not any(metric.startswith("pose") for name, metric in rows if name == "alone")
    difference = rows["with pose minus alone", "mean error"]
    subtracted = rows["with pose", "mean error"].mean - rows["alone", "mean error"].mean
    assert difference.mean == pytest.approx(subtracted, abs=2e-3)  # the file holds five digits
    low, high = difference.interval or (np.nan, np.nan)
    assert low <= difference.mean <= high
    turned, plain = (rows[f"{name}: pose left", "mean error"].mean for name in ("with pose", "alone"))
    assert rows["with pose minus alone: pose left", "mean error"].mean == pytest.approx(turned - plain, abs=2e-3)
    assert ("with pose minus alone: pose left", "nose") not in rows  # the main figure alone
    correlation, chance, p = (
        [row for (_, metric), row in rows.items() if metric == f"weight correlation{more}"]
        for more in ("", " by chance", " p")
    )
    assert [row.row.partition(": ")[2] for row in correlation] == [f"{point} ~ pose" for point in landmark_groups(5)]
    assert all(0 <= row.mean <= 1 for row in correlation)
    # |r| of x or y of random weights over 100 features with five classes is 0.18 on average
    assert [row.mean for row in chance] == pytest.approx([0.184] * 5, abs=0.03)
    larger = [(one.mean, other.mean) for one, other in zip(correlation, p, strict=True)]
    assert [small for _, small in sorted(larger)] == sorted((small for _, small in larger), reverse=True)
    assert json.loads(file.read_text())["command"] == "polyface reproduce small"


def test_only_the_rows_of_asked_variants_are_written_and_others_stay(
    recipe: Recipe, runs: Path, tmp_path: Path
) -> None:
    judged, whole, part = reproduce.Runs(recipe, None, runs), tmp_path / "whole.json", tmp_path / "part.json"
    reproduce.collect(judged, whole, "command", "synthetic")
    every = {row.key for row in read_results(whole).rows}
    reproduce.collect(judged, part, "command", "synthetic", only=["with *"])
    of_one = {row.key for row in read_results(part).rows}
    assert of_one == {key for key in every if key[0].startswith("with pose")}
    assert {"with pose", "with pose: pose frontal", "with pose minus alone"} <= {name for name, _ in of_one}
    reproduce.collect(judged, part, "command", "synthetic", only=["alone", "averaged", "both", "longer"])
    assert {row.key for row in read_results(part).rows} == every


def test_a_relative_failure_rate_is_of_the_second_ones_failures(recipe: Recipe, runs: Path, tmp_path: Path) -> None:
    """Eight faces fail without pose and two (seed 1: four) with it: 75 % and 50 % of the failures are gone."""
    out = tmp_path / "runs"
    shutil.copytree(runs, out)
    truth = reproduce.Runs(recipe, None, out).faces.of(recipe.variant("alone").stages[-1], "test").table
    points = truth.points("landmarks_5")
    for name, seed, failures in (("alone", 0, 8), ("alone", 1, 8), ("with pose", 0, 2), ("with pose", 1, 4)):
        path = reproduce.folder(out, reproduce.Job(name, seed)) / "test.npz"
        with np.load(path) as file:
            answers = dict(file)
        answers["landmarks/points"] = points + 0.0
        answers["landmarks/points"][:failures] += 40
        np.savez_compressed(path, **answers)
    rows = {row.key: row for row in reproduce.rows_of(reproduce.Runs(recipe, None, out))}
    assert rows["alone", "failure rate"].mean == pytest.approx(100 * 8 / len(truth))
    found = rows["with pose minus alone", "relative failure rate"]
    assert (found.mean, found.std) == (pytest.approx(-62.5), pytest.approx(12.5 * 2**0.5))
    assert found.seeds == (0, 1)


def test_report_shows_the_table_and_the_recipe(recipe: Recipe, runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.json"
    judged = reproduce.Runs(recipe, None, runs)
    reproduce.collect(judged, file, "command", "synthetic")
    page = reproduce.table_report(tmp_path / "report.html", judged, file).read_text()
    assert "with pose minus alone" in page
    assert "with pose: pose frontal" in page
    assert "Training: averaged" not in page
    assert "name: small" in page


def test_collecting_nothing_says_so(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="no finished run to collect"):
        reproduce.collect(reproduce.Runs(recipe, None, tmp_path), tmp_path / "x.json", "command", "data")
    assert not (tmp_path / "x.json").exists()
