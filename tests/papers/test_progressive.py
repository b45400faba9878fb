"""The recipe of progressive columns: which columns its rows read, and its rows of how soon a column learns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from polyface.metrics.sections import Curves
from polyface.papers.progressive.page import rows, sections
from polyface.reproduce import Runs
from polyface.training.recipe import Recipe, load

TASKS = ("emotion", "age", "gender", "identity")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load("progressive:small")


def test_every_cell_of_the_table_reads_the_columns_that_it_is_named_after(recipe: Recipe) -> None:
    cells = [name for name in recipe.variants if " -> " in name and not name.startswith(("random", "wide"))]
    assert len([name for name in cells if "faces" not in name]) == 28
    for name in cells:
        sources, _, rest = name.partition(" -> ")
        target, stage = rest.partition(",")[0], recipe.variant(name, 0).measured
        asked = sources.split("+")
        assert list(stage.tasks) == [target]
        assert stage.network.parts[target]["reads"] == ["trunk", *asked]
        assert all(stage.network.parts[one]["frozen"] for one in asked)
        assert [init.source for init in stage.init] == ["began", *asked]
        assert recipe.variants[name].start == ["encoder", *(f"encoder frozen: {one}" for one in asked)]


def test_rows_of_few_faces_learn_from_as_many_as_they_say_for_as_long(recipe: Recipe) -> None:
    for number in ("250", "1,000", "4,000"):
        names = [name for name in recipe.variants if name.endswith(f", {number} faces")]
        stages = [recipe.variant(name, 0).measured for name in names]
        assert len(stages) == 5
        assert {stage.data.limit for stage in stages} == {int(number.replace(",", ""))}
        assert len({stage.optimisation.epochs for stage in stages}) == 1


def test_the_joint_network_asks_each_set_its_own_questions(recipe: Recipe) -> None:
    """LFW's people are many, and the identities asked for are the fifty of one set."""
    stage = recipe.variant("four columns", 0).measured
    assert list(stage.tasks) == list(TASKS)
    assert stage.tasks["identity"]["where"] == {"source": ["lfw-identity"]}
    assert stage.tasks["gender"]["where"] == {"source": ["lfw-gender"]}


# ---------------------------------------------------------------------------------------------- how soon columns learn


def runs(curves: dict[str, dict[int, list[float]]], monkeypatch: pytest.MonkeyPatch, validate_every: int = 1) -> Runs:
    """Finished runs whose accuracy after each epoch is given, by variant and seed; a run takes 10 s an epoch."""
    monkeypatch.setattr("polyface.papers.progressive.page.trains", lambda variant: True)
    monkeypatch.setattr("polyface.papers.progressive.page._learning", lambda runs, name, seed: 7.0)
    stage = SimpleNamespace(
        evaluation=SimpleNamespace(main="emotion"), optimisation=SimpleNamespace(validate_every=validate_every)
    )

    def record(name: str, seed: int) -> dict[str, Any]:
        history = [{"accuracy": {"emotion": one}} for one in curves[name][seed]]
        return {"history": history, "seconds": 10 * len(history)}

    made = SimpleNamespace(
        measured=dict.fromkeys(curves),
        recipe=SimpleNamespace(comparisons=[SimpleNamespace(better="b", than="a")]),
        stage=lambda name: stage,
        seeds=lambda name: list(curves[name]),
        record=record,
        title=lambda name: name,
    )
    return cast("Runs", made)


CURVES = {"a": {0: [40, 60, 79, 80], 1: [42, 77, 80, 80]}, "b": {0: [50, 78, 80, 80], 1: [56, 70, 70, 90]}}


def test_a_curve_has_a_start_and_the_epoch_at_which_it_is_near_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """95 % of 80 is 76: the third epoch of one run and the second of the other."""
    found = {(row.row, row.metric): row for row in rows(runs(CURVES, monkeypatch))}
    assert found["a", "emotion after epoch 1"].mean == 41
    assert found["a", "emotion epochs to 95 %"].mean == 2.5
    assert found["a", "emotion seconds an epoch"].mean == 10
    assert found["a", "emotion parameters that learn"].mean == 7


def test_starts_are_compared_seed_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 and 14 apart: 12 in the mean, and by Student's t of one degree of freedom ± 12.7062 · (4/√2)/√2."""
    found = {(row.row, row.metric): row for row in rows(runs(CURVES, monkeypatch))}
    start = found["b minus a", "emotion after epoch 1"]
    assert (start.mean, start.seeds) == (12, (0, 1))
    assert start.interval == pytest.approx((12 - 25.4124, 12 + 25.4124), abs=1e-2)
    assert "includes 0" in start.note
    assert found["b minus a", "emotion epochs to 95 %"].mean == 0.5  # 2 − 3 and 4 − 2


def test_a_curve_that_begins_later_has_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {row.metric for row in rows(runs(CURVES, monkeypatch, validate_every=2))}
    assert found == {"emotion seconds an epoch", "emotion parameters that learn"}


def test_a_picture_of_each_task_has_the_column_alone_and_those_that_read_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Means over seeds, as long as the shortest; other rows of the task are not in it."""
    named = {
        "encoder frozen: emotion": CURVES["a"],
        "age+gender -> emotion": CURVES["b"],
        "imagenet: emotion": CURVES["a"],
    }
    named["encoder frozen: emotion"] = {0: [40, 60, 79], 1: [42, 77, 80, 80]}
    (section,) = sections(runs(named, monkeypatch))
    assert section.title == "How soon emotion is learnt"
    (block,) = section.blocks
    assert isinstance(block, Curves)
    assert {name: [list(x), list(y)] for name, (x, y) in block.curves.items()} == {
        "alone": [[1, 2, 3], [41, 68.5, 79.5]],
        "age+gender": [[1, 2, 3, 4], [53, 74, 75, 85]],
    }
