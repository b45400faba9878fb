"""The recipe of TCDCN: what its rows share and change, and its rows without the shift of the test labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from polyface.metrics.sections import Curves
from polyface.papers.tcdcn.page import rows, sections, without_shift
from polyface.reproduce import Runs
from polyface.training.recipe import Recipe, load


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load("tcdcn")


def test_a_common_shift_is_taken_off_and_what_faces_differ_by_is_not() -> None:
    """Faces of different sizes, whose points are all off by the same share of the distance between the eyes."""
    random = np.random.default_rng(0)
    sizes = random.uniform(10, 50, (40, 1, 1))
    truth = sizes * ([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.4, 0.7], [0.6, 0.7]] + random.normal(0, 0.01, (40, 5, 2)))
    apart = np.linalg.norm(truth[:, 1] - truth[:, 0], axis=-1)[:, None, None]
    shift = np.array([[0.05, 0.01], [0.05, 0.01], [0.04, 0], [0.02, 0], [0.02, 0]])
    own = np.where(np.arange(40)[:, None, None] % 4 < 2, 0.03, -0.03)  # of no half more than of the other
    np.testing.assert_allclose(without_shift(truth + apart * shift, truth), truth, atol=1e-9)
    np.testing.assert_allclose(without_shift(truth + apart * (shift + own), truth), truth + apart * own, atol=1e-9)


def test_a_face_has_no_part_in_what_is_taken_off_it() -> None:
    truth = np.tile([[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]], (4, 1, 1))
    points = truth.copy()
    points[0] += 4.0  # of the half of faces 0 and 2: 2 on average, taken off faces 1 and 3
    moved = without_shift(points, truth) - truth
    assert moved[:, 0, 0].tolist() == [4, -2, 0, -2]


def test_rows_say_when_a_task_stopped_and_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Glasses in both runs, smile in one, pose in none; landmarks never do."""
    each = dict.fromkeys(("glasses", "smile", "pose"), 0.5)
    looks = {
        seed: [{"step": step, "criterion": each, "stopped": stopped} for step, stopped in run.items()]
        for seed, run in {
            0: {25: [], 50: ["glasses"], 75: ["smile"]},
            1: {25: [], 50: [], 100: ["glasses"]},
        }.items()
    }
    monkeypatch.setattr("polyface.papers.tcdcn.page.trains", lambda variant: True)
    monkeypatch.setattr("polyface.papers.tcdcn.page._judged", lambda runs, name: False)
    made = SimpleNamespace(
        measured={"one": None},
        seeds=lambda name: list(looks),
        record=lambda name, seed: {"stopping": looks[seed]},
        stage=lambda name: load("tcdcn").variant("FLD+all+stopping (shared)").measured,
        title=lambda name: name,
    )
    found = {row.metric: (row.mean, row.seeds) for row in rows(cast("Runs", made))}
    assert found == {
        "stopped: glasses": (100, (0, 1)),
        "stopped at: glasses": (75, (0, 1)),
        "stopped: smile": (50, (0, 1)),
        "stopped at: smile": (75, (0,)),
        "stopped: pose": (0, (0, 1)),
    }


def test_fig_7_has_both_rows_that_looked_and_where_tasks_stopped(recipe: Recipe) -> None:
    """By iteration, as far as the paper's goes; a pair of which one row never looked has no figure."""

    def looks(loss: float, stop: int) -> list[dict[str, object]]:
        each = dict.fromkeys(("glasses", "smile"), 0.5)
        steps = range(100, 3001, 100)
        return [
            {"step": step, "validation": {"landmarks": loss / step}, "criterion": each}
            | {"stopped": ["glasses"] if step == stop else ["smile"] if step == 2900 else []}
            for step in steps
        ]

    kept = {"FLD+all, SGD": [looks(8, 0), looks(4, 0)], "FLD+all+stopping, SGD": [looks(3, 500), looks(3, 700)]}
    made = SimpleNamespace(
        recipe=recipe,
        measured=recipe.variants,
        seeds=lambda name: range(len(kept.get(name, [[]]))),
        record=lambda name, seed: {"stopping": kept[name][seed]} if name in kept else {"history": []},
        stage=lambda name: recipe.variant(name).measured,
        title=lambda name: name,
    )
    (section,) = sections(cast("Runs", made))
    assert section.title == "Task-wise stopping: FLD+all+stopping, SGD"
    (block,) = section.blocks
    assert isinstance(block, Curves)
    assert block.marks == {"glasses": 600}  # smile stops later than Fig. 7 goes
    steps, without = block.curves["FLD+all, SGD"]
    assert list(steps) == list(range(100, 2601, 100))
    np.testing.assert_allclose(without, 6 / np.asarray(steps))


def test_rows_as_printed_are_squared_errors_and_descent_at_a_constant_rate(recipe: Recipe) -> None:
    named = [name for name in recipe.variants if ", SGD" in name]
    assert len(named) == 9
    for name in named:
        stage = recipe.variant(name, 0).measured
        asked = stage.optimisation
        assert stage.tasks["landmarks"]["loss"] == "l2"
        assert (asked.optimiser, asked.momentum, asked.schedule, asked.precision) == ("sgd", 0.9, "constant", "32-true")


@pytest.mark.parametrize("faces", [300, 1000, 3000])
def test_few_points_are_learnt_in_as_many_steps_with_attributes_and_without(recipe: Recipe, faces: int) -> None:
    """Within a hundredth, and as many faces with points in a step: half of a batch that is twice as large."""
    for kind in ("shared", "unshared"):
        alone, helped = (recipe.variant(f"{row}, {faces} faces ({kind})", 0).measured for row in ("FLD", "FLD+all"))
        assert (alone.data.limit, helped.data.labelled, helped.data.limit) == (faces, {"landmarks": faces}, None)
        assert helped.data.batch == 2 * alone.data.batch
        assert (alone.data.balance, helped.data.balance) == ([], ["landmarks"])
        steps = [stage.optimisation.epochs * (of // stage.data.batch) for stage, of in ((alone, faces), (helped, 9000))]
        assert steps[0] == pytest.approx(steps[1], rel=0.01)
        assert alone.network.trunk["filters"] == helped.network.trunk["filters"] == kind


def test_rows_of_68_points_are_one_network_tested_on_other_faces(recipe: Recipe) -> None:
    for row in ("68 scratch", "68 transfer", "68 averaged", "68 transfer, FLD alone", "68 transfer, frozen trunk"):
        parts = {name.removeprefix(f"{row}, "): recipe.variant(name, 0).measured for name in recipe.variants
                 if recipe.variants[name].row == row}  # fmt: skip
        assert {part: stage.data.tables[0].where["source"] for part, stage in parts.items()} == {
            "common": ["Helen", "AFW", "LFPW"],
            "Helen": ["Helen"],
            "LFPW": ["LFPW"],
        }
        assert len({stage.network.model_dump_json() for stage in parts.values()}) == 1
