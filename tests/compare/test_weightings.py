"""Comparing weightings: rows made from a recipe, what selects, what is trained again and what is not, rows and page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyface.compare import page as weighting_pages
from polyface.compare import weightings
from polyface.compare.weightings import ALONE, AS_IS, BASELINES, EARLIER, UNIFORM, Budget, Comparison
from polyface.errors import PolyfaceError
from polyface.report.results import read_results
from polyface.reproduce.jobs import Job, _store, answers_path, before, folder
from polyface.reproduce.runs import OLDER
from polyface.training import stages
from polyface.training.recipe import Recipe, load
from polyface.training.stages import pool_of

STAGE = """
  - name: {name}
    data:
      tables: [{{name: synthetic, options: {{n: 260, size: 48}}, where: {{pose: [left, frontal, right]}}}}]
      boxes: {{source: table}}
      crop: {{size: 40, channels: 1, scale: 1.2}}
      batch: 32
    network: {{trunk: {{name: tcdcn}}}}
    tasks:
      landmarks: {{kind: landmarks, points: 5, loss: l1}}
      smile: {{kind: classification, column: smile}}
    weighting: {{name: fixed, options: {{weights: {{smile: 0.1}}}}}}
    optimisation: {{epochs: 2, lr: 0.002}}
"""
VARIANTS = """
variants:
  two of them: {stages: [five], minutes: 3, set: {five.stopping: {main: [landmarks], window: 3, every: 1}}}
  started: {stages: [again], start: two of them, set: {again.init: {source: five}}}
  another's: {stages: [five], model: two of them}
  points alone: {stages: [five], set: {five.tasks.smile: null, five.weighting.options: {}}}
"""
SHORTER = {"five.optimisation.epochs": 1}
RUN = stages.RunOptions(accelerator="cpu", logger="none", threads=1)


def write(path: Path, *names: str, variants: str = "") -> Recipe:
    path.write_text("name: small\nstages:" + "".join(STAGE.format(name=name) for name in names) + variants)
    return load(path)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return write(tmp_path_factory.mktemp("recipe") / "small.yaml", "five", "again", variants=VARIANTS)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return write(tmp_path_factory.mktemp("recipe") / "single.yaml", "five")


# ---------------------------------------------------------------------------------------------------- rows of a recipe


def test_only_the_last_weighting_differs_between_rows(recipe: Recipe) -> None:
    rows = weightings.comparison(recipe, "two of them", ["mgda", "mgda:shared", "dwa"], {"dwa": {"temperature": 3.0}})
    assert list(rows.variants) == [AS_IS, ALONE, UNIFORM, "mgda", "mgda (shared)", "dwa"]
    own = recipe.variant("two of them").stages[-1]
    expected = {
        AS_IS: ("fixed", {"weights": {"smile": 0.1}}),
        UNIFORM: ("uniform", {}),
        "mgda": ("mgda", {}),
        "mgda (shared)": ("mgda", {"level": "shared"}),
        "dwa": ("dwa", {"temperature": 3.0}),
    }
    for row, (name, options) in expected.items():
        (stage,) = rows.variant(row).stages
        assert (stage.weighting.name, stage.weighting.options) == (name, options)
        assert stage.model_copy(update={"weighting": own.weighting}) == own
    (alone,) = rows.variant(ALONE).stages
    assert list(alone.tasks) == ["landmarks"]
    assert (alone.weighting.name, alone.weighting.options, alone.extras) == ("fixed", {}, {})
    assert rows.variants["dwa"].note == "temperature 3.0"
    assert rows.variants["mgda (shared)"].note == "level shared"
    assert rows.variants["dwa"].minutes == 3


def test_the_main_task_alone_leaves_heads_and_mentions_of_the_others_behind(recipe: Recipe) -> None:
    changed = recipe.model_copy(deep=True)
    stage = changed.stages[-1]
    pooled = {"kind": "pool", "levels": 1}
    trunk = {"name": "timm", "model": "test_resnet", "size": 40, "pool": "map"}
    heads = {"landmarks": "points", "smile": "words"}
    network = {"trunk": trunk, "branches": {"points": pooled, "words": pooled}, "heads": heads}
    given = stage.model_dump() | {"network": network, "thresholds": {"tasks": ["smile"]}}
    changed.stages[-1] = type(stage).model_validate(given)
    (alone,) = weightings.comparison(changed, None, ["dwa"]).variant(ALONE).stages
    assert list(alone.tasks) == list(alone.network.heads) == ["landmarks"]  # type: ignore[attr-defined]
    assert list(alone.network.branches) == ["points"]  # type: ignore[attr-defined]
    assert alone.extras == {}  # type: ignore[attr-defined]


def test_by_default_every_registered_weighting_is_a_row(recipe: Recipe) -> None:
    rows = weightings.comparison(recipe, "two of them").variants
    assert set(rows) == {AS_IS, ALONE, *weightings.WEIGHTINGS.names()} - {"fixed"}


def test_earlier_stages_are_trained_once_and_keep_their_weighting(recipe: Recipe) -> None:
    for variant, first in ((None, EARLIER), ("started", f"{EARLIER}: two of them")):
        rows = weightings.comparison(recipe, variant, ["dwa"])
        assert [stage.name for stage in rows.variant(first).stages] == ["five"]
        assert rows.variant(first).stages[0].weighting.name == "fixed"
        for row in (AS_IS, ALONE, UNIFORM, "dwa"):
            assert [stage.name for stage in rows.variant(row).stages] == ["again"]
            assert rows.variants[row].start == [first]
    rows = weightings.comparison(recipe, "two of them", ["dwa"])
    assert not any(name.startswith(EARLIER) for name in rows.variants)


def test_every_seed_starts_from_a_network_of_its_own_as_in_the_recipe(recipe: Recipe) -> None:
    assert before(weightings.comparison(recipe, None, ["dwa"]), Job("dwa", 4)) == [Job(EARLIER, 4)]
    rows = weightings.comparison(recipe, "started", ["dwa"])
    assert before(rows, Job("dwa", 4)) == [Job(f"{EARLIER}: two of them", 1)]  # three seeds there, in turn


def test_a_start_that_nothing_trains_and_starts_of_starts_are_as_in_the_recipe(recipe: Recipe, tmp_path: Path) -> None:
    variants = """
variants:
  given: {stages: [five], predictor: start, seeds: 1}
  two: {stages: [again], start: given, set: {again.init: {source: five}}}
  three: {stages: [third], start: two, set: {third.init: {source: again}}}
  twice: {stages: [five], start: given}
"""
    own = write(tmp_path / "nested.yaml", "five", "again", "third", variants=variants)
    rows = weightings.comparison(own, "three", ["dwa"]).variants
    given, two = f"{EARLIER}: given", f"{EARLIER}: two"
    assert {name: (spec.predictor, spec.start) for name, spec in rows.items() if name.startswith(EARLIER)} == {
        given: ("start", []),
        two: ("network", [given]),
    }
    assert rows["dwa"].start == [given, two]
    with pytest.raises(PolyfaceError, match="'twice' starts from two networks of a stage 'five'"):
        weightings.comparison(own, "twice", ["dwa"])


@pytest.mark.parametrize(
    ("variant", "asked", "options", "line"),
    [
        ("two of them", ["mdga"], {}, "weighting.name is 'mdga'; did you mean 'mgda'?"),
        ("two of them", ["mgda:shard"], {}, "unknown level 'shard'; did you mean 'shared'?"),
        ("two of them", ["uniform:shared"], {}, "unknown option 'level'"),
        ("two of them", ["dwa"], {"dwa": {"temprature": 1}}, "did you mean 'temperature'?"),
        ("two of them", ["dwa"], {"dmm": {}}, "'dmm' is not compared; known: dwa"),
        ("too of them", ["dwa"], {}, "did you mean 'two of them'?"),
        ("another's", ["dwa"], {}, "trains no network of its own"),
        ("points alone", ["dwa"], {}, "stage five trains one task, nothing to weigh"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(
    recipe: Recipe, variant: str, asked: list[str], options: dict[str, Any], line: str
) -> None:
    with pytest.raises(PolyfaceError) as told:
        weightings.comparison(recipe, variant, asked, options)
    assert line in str(told.value)
    assert "\n" not in str(told.value)


def test_a_wrong_key_of_the_screening_is_told_too(recipe: Recipe) -> None:
    with pytest.raises(PolyfaceError, match="no stage or key 'fife' in 'fife.optimisation.epochs'"):
        weightings.comparison(recipe, "two of them", ["dwa"], changes={"fife.optimisation.epochs": 1})


def test_options_file(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("dwa: {temperature: 3}\nmgda:shared: {normalise: true}\n")
    assert weightings.read_options(path) == {"dwa": {"temperature": 3}, "mgda:shared": {"normalise": True}}
    path.write_text("dwa: 3")
    with pytest.raises(PolyfaceError, match="expected {weighting: {option: value}}"):
        weightings.read_options(path)
    with pytest.raises(PolyfaceError, match="none.yaml: no such file"):
        weightings.read_options(tmp_path / "none.yaml")


# ------------------------------------------------------------------------------------------------ what selects


def pretend(compared: Comparison, final: bool, row: str, seed: int, val: float, test: float, seconds: float) -> None:
    """A finished run whose landmarks are `val` and `test` percent off on those faces, and whose smiles are all true."""
    runs = compared.full if final else compared.short
    stage, job = runs.stage(row), Job(row, seed)
    for part, error in (("val", val), ("test", test)):
        table = pool_of(stage, None, {}, part).table
        points = table.points("landmarks_5")
        side = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)
        answers: dict[str, Any] = {"landmarks": {"points": points + (error / 100 * side)[:, None, None] * [0.6, 0.8]}}
        if "smile" in stage.tasks:
            task = stages.stage_tasks(stage)["smile"]
            answers["smile"] = {"probabilities": np.eye(2, dtype=np.float32)[task.targets(table).values.numpy()]}
        _store(answers_path(runs.out, job, part), answers, 0)
    history = [{"epoch": e, "train": {}, "weights": {t: e * 0.5 for t in stage.tasks}} for e in (1, 2)]
    settings = json.loads(stage.model_dump_json()) | {"seed": seed}
    place = folder(runs.out, job) / stage.name
    place.mkdir(parents=True)
    (place / stages.HISTORY).write_text(json.dumps({"settings": settings, "history": history, "seconds": seconds}))


def test_finalists_are_chosen_by_validation_and_never_by_test(single: Recipe, tmp_path: Path) -> None:
    budget = Budget(seeds=2, finals=2, final_seeds=3, always=("rlw",))
    compared = Comparison(single, None, tmp_path, budget, weightings=["dwa", "gls", "dmm", "rlw"])
    assert compared.rows == [AS_IS, ALONE, UNIFORM, "dwa", "gls", "dmm", "rlw"]
    figures = {"dwa": 4, "gls": 2, "dmm": 3, "rlw": 5, UNIFORM: 1, AS_IS: 6, ALONE: 7}
    for row, val in figures.items():  # the test faces say the opposite
        pretend(compared, True, row, 0, val - 0.5, 10 - val, 60)
        pretend(compared, True, row, 1, val + 0.5, 10 - val, 60)
    assert compared.finalists() == ["gls", "dmm", "rlw", *BASELINES]
    assert [job.seed for job in compared.left(final=True)] == [2] * 6  # seeds of the screening count
    assert compared.left(final=False) == []
    # What the finals add must not change who they are.
    for seed in (2, 3):
        pretend(compared, True, "gls", seed, 50, 0, 60)
    assert compared.finalists()[:2] == ["gls", "dmm"]
    assert weightings.ranked(compared.full, ["gls", "dmm"], range(4)) == ["gls"]  # dmm has two seeds only


def test_accuracy_selects_the_highest(single: Recipe, tmp_path: Path) -> None:
    stage = single.stages[0]
    main = stage.model_copy(update={"evaluation": stage.evaluation.model_copy(update={"main": "smile"})})
    compared = Comparison(
        single.model_copy(update={"stages": [main]}), None, tmp_path, Budget(finals=1), weightings=["dwa", "gls"]
    )
    for row in compared.rows:
        pretend(compared, True, row, 0, 1, 1, 60)
    path = answers_path(compared.full.out, Job("dwa", 0), "val")
    with np.load(path) as kept:
        wrong = {"smile": {"probabilities": kept["smile/probabilities"][:, ::-1]}}
    _store(path, wrong, 0)
    assert weightings.ranked(compared.full, ["dwa", "gls"], [0]) == ["gls", "dwa"]
    rows = {row.key: row.mean for row in weighting_pages.rows_of(compared)}
    assert rows["dwa", "validation accuracy"] == 0
    assert rows["gls", "accuracy"] == 100


def test_rows_differences_and_time(single: Recipe, tmp_path: Path) -> None:
    compared = Comparison(single, None, tmp_path, Budget(seeds=1, finals=1, final_seeds=2), weightings=["dwa", "gls"])
    for row, error, seconds in ((UNIFORM, 8, 50), (AS_IS, 6, 60), (ALONE, 7, 40), ("dwa", 5, 75)):
        for seed in (0, 1):
            pretend(compared, True, row, seed, error, error + seed, seconds)
    pretend(compared, True, "gls", 0, 9, 9, 50)
    rows = {row.key: row for row in weighting_pages.rows_of(compared)}
    assert rows["dwa", "mean error"].mean == pytest.approx(5.5, abs=1e-4)
    assert rows["dwa", "mean error"].std == pytest.approx(0.5**0.5, abs=1e-4)
    assert rows["dwa", "mean error"].notes == ["final, 2 epochs", OLDER]
    assert rows["gls", "mean error"].notes == ["screening, 2 epochs", OLDER, "interval over faces only"]
    assert OLDER in rows[f"dwa minus {UNIFORM}", "mean error"].notes
    assert rows["dwa", "validation mean error"].mean == pytest.approx(5, abs=1e-4)
    assert rows["dwa", "smile balanced accuracy"].mean == 100
    assert (ALONE, "smile accuracy") not in rows
    assert rows["dwa", "time ratio"].mean == 1.5
    assert rows[ALONE, "time ratio"].mean == 0.8
    assert rows[f"dwa minus {UNIFORM}", "mean error"].mean == pytest.approx(-3, abs=1e-4)
    assert rows[f"dwa minus {AS_IS}", "mean error"].seeds == (0, 1)
    assert (f"dwa minus {ALONE}", "failure rate") in rows
    assert (f"{AS_IS} minus {ALONE}", "mean error") in rows
    assert not any(row.startswith("gls minus") for row, _ in rows)  # no finalist
    assert compared.minutes(compared.full) == pytest.approx((2 * (50 + 60 + 40 + 75) + 50) / 9 / 60)


def test_hours_are_the_recipe_s_until_a_run_is_measured(recipe: Recipe, single: Recipe, tmp_path: Path) -> None:
    budget = Budget(seeds=1, finals=1, final_seeds=2, changes=SHORTER)
    compared = Comparison(recipe, None, tmp_path, budget, variant="two of them", weightings=["dwa", "gls"])
    assert compared.minutes(compared.short) == 1.5  # half the epochs
    assert compared.hours() == pytest.approx((5 * 1.5 + 2 * 4 * 3) / 60)
    assert "about 0.3 hours here (1.5 min a screening run, 3.0 min a final run" in compared.estimate(2)
    for row in compared.rows:
        pretend(compared, False, row, 0, 5, 5, 600)
    assert compared.hours() == pytest.approx(2 * 4 * 20 / 60)
    unknown = Comparison(single, None, tmp_path, Budget(), weightings=["dwa"])
    assert unknown.hours() is None
    assert "told after the first run" in unknown.estimate(1)


# --------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def compared(single: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    budget = Budget(finals=1, final_seeds=1, changes=SHORTER)
    found = Comparison(single, None, tmp_path_factory.mktemp("runs"), budget, weightings=["dwa", "gls"])
    told: list[str] = []
    found.run(RUN, tell=told.append)
    assert found.failed == {}
    assert len(told) == 2
    return found


def test_screening_and_finals_have_folders_of_their_own(compared: Comparison) -> None:
    best = weightings.ranked(compared.short, ["dwa", "gls"], [0])[0]
    kept = {
        phase: {path.parent.parent.name for path in (compared.place / phase).glob("*/*/test.npz")}
        for phase in ("screening", "finals")
    }
    names = {"as-in-the-recipe", "main-task-alone", "uniform"}
    assert kept == {"screening": {*names, "dwa", "gls"}, "finals": {*names, best}}
    assert len(compared.short.history(best)) == 1
    assert len(compared.full.history(best)) == 2
    assert compared.left(final=False) == compared.left(final=True) == []


def test_what_is_finished_is_not_trained_again(compared: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run", lambda *args, **kwargs: pytest.fail("trained again"))
    compared.run(RUN)
    assert compared.failed == {}


def test_a_run_that_breaks_is_told_and_left_out(
    single: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(own: Recipe, *args: Any) -> Any:
        if own.stages[-1].weighting.name == "gls":
            raise PolyfaceError("the loss of smile is not finite")
        return real(own, *args)

    real = stages.run
    monkeypatch.setattr(stages, "run", run)
    changes = ["five.optimisation.epochs=1", "five.data.limit=40"]
    recipe = load(write_again(tmp_path, single), changes)
    found = Comparison(recipe, None, tmp_path, Budget(), weightings=["gls"])
    found.run(RUN)
    assert {job: str(why) for job, why in found.failed.items()} == {Job("gls", 0): "the loss of smile is not finite"}
    rows = weighting_pages.collect(found, tmp_path / "results.json", "command")
    assert {row.row for row in rows if row.metric == "mean error" and "minus" not in row.row} == set(BASELINES)
    page = weighting_pages.report(tmp_path / "page.html", found, rows, "command").read_text()
    assert "screening: gls, seed 0: the loss of smile is not finite" in page


def test_a_stage_before_is_trained_once_for_all_rows(recipe: Recipe, tmp_path: Path) -> None:
    shorter = {"*.optimisation.epochs": 1, "five.data.limit": 32, "again.data.limit": 64}
    found = Comparison(recipe, None, tmp_path, Budget(changes=shorter), variant="started", weightings=["stch"])
    found.run(RUN)
    assert found.failed == {}
    trained = sorted(path.parent.relative_to(found.short.out) for path in found.short.out.glob("*/*/*/history.json"))
    rows = ("as-in-the-recipe", "main-task-alone", "stch", "uniform")
    assert [str(path) for path in trained] == sorted(
        ["earlier-stages-two-of-them/seed0/five", *(f"{row}/seed0/again" for row in rows)]
    )
    assert not any(row.row.startswith(EARLIER) for row in weighting_pages.rows_of(found))
    assert found.left(final=False) == []


def write_again(folder_: Path, recipe: Recipe) -> Path:
    write(folder_ / "recipe.yaml", *(stage.name for stage in recipe.stages))
    return folder_ / "recipe.yaml"


def test_results_hold_both_phases_and_the_page_shows_them(compared: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    rows = weighting_pages.collect(compared, file, "polyface compare-weightings small")
    found = {row.key: row for row in read_results(file).rows}
    assert found["short: dwa", "mean error"].note == "screening, 1 epochs"
    assert found[UNIFORM, "mean error"].note == "final, 2 epochs"
    assert found["short: gls", "validation mean error"].n != found["short: gls", "mean error"].n
    assert (f"{UNIFORM} minus {AS_IS}", "failure rate") in found
    text = weighting_pages.printed(compared, file)
    assert text.index("| uniform |") < text.index("| short: gls |")
    page = weighting_pages.report(tmp_path / "page.html", compared, rows, "the command line").read_text()
    for words in ("Screening (shorter training)", "Weights over training", "Validation losses", "the command line"):
        assert words in page
    assert "Not finished" not in page


def test_collecting_nothing_says_so(single: Recipe, tmp_path: Path) -> None:
    nothing = Comparison(single, None, tmp_path, Budget(), weightings=["dwa"])
    with pytest.raises(PolyfaceError, match="no finished run to collect"):
        weighting_pages.collect(nothing, tmp_path / "x.json", "command")
