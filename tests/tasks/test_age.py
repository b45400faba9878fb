"""Ages: the loss by hand, years and groups as labels of one output, answers, groups of one's own, and all the way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyface import tasks
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.inference import Analyzer
from polyface.inference.drawing import draw
from polyface.inference.results import to_json_lines, to_parquet
from polyface.metrics.result import Metric
from polyface.models.bundle import load_bundle
from polyface.schema import VOCABULARIES, Column
from polyface.tasks.age import AgeTask

from ..toys import make_bundle

PLAIN = torch.eye(2, 3)[None]
MIRROR = torch.tensor([[[-1.0, 0.0, 39.0], [0.0, 1.0, 0.0]]])
ADIENCE = ("0-2", "4-6", "8-13", "60+")


def made(**settings: Any) -> AgeTask:
    built = tasks.build("x", {"kind": "age", **settings})
    assert isinstance(built, AgeTask)
    return built


def table(path: Path, rows: list[dict[str, Any]], **columns: Column) -> FaceTable:
    picture = np.full((8, 8, 3), 128, np.uint8)
    records = [Record(picture, str(i), f"{i}.png", row) for i, row in enumerate(rows)]
    write_table(records, path / "t.parquet", columns=columns)
    return FaceTable.open(path / "t.parquet")


def span(first: float, last: float | None = None) -> Tensor:
    return torch.tensor([[first, first if last is None else last]])


def logits(*p: float) -> Tensor:
    return torch.tensor([p]).log()


# ------------------------------------------------------------------------------------------------------- the loss


def test_the_loss_of_an_age_by_hand() -> None:
    """σ = 1, years 0, 1, 2: q of age 1 is (e^-½, 1, e^-½) / (1 + 2e^-½), p is (¼, ½, ¼), and the mean is 1."""
    q = np.array([math.exp(-0.5), 1, math.exp(-0.5)]) / (1 + 2 * math.exp(-0.5))
    expected = float((q * np.log(q / [0.25, 0.5, 0.25])).sum())
    task, output = made(oldest=2, spread=1, vocabulary=["0", "1+"]), logits(0.25, 0.5, 0.25)
    found = task.loss(output, span(1))
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    skew = logits(0.5, 0.25, 0.25)  # its mean is 0.75
    apart = float((q * np.log(q / [0.5, 0.25, 0.25])).sum())
    assert task.loss(skew, span(1)).item() == pytest.approx(apart + 0.25, abs=1e-6)
    double = made(oldest=2, spread=1, weight=2, vocabulary=["0", "1+"])
    assert double.loss(skew, span(1)).item() == pytest.approx(apart + 0.5, abs=1e-6)


def test_the_loss_of_a_group_by_hand() -> None:
    """The probability of the years 1 and 2 is 0.3, and the mean of 0.4 is 0.6 below them."""
    task = made(oldest=3, vocabulary=["0", "1+"])
    output = logits(0.7, 0.2, 0.1, 1e-30)
    assert task.loss(output, span(1, 2)).item() == pytest.approx(-math.log(0.3) + 0.6, abs=1e-5)
    assert task.loss(output, span(0, 3)).item() == pytest.approx(0, abs=1e-5)  # all years: nothing to learn
    assert task.loss(logits(0.1, 0.2, 0.6, 0.1), span(0, 1)).item() == pytest.approx(-math.log(0.3) + 0.7, abs=1e-5)


@given(st.lists(st.floats(-20, 20), min_size=6, max_size=6), st.integers(0, 5), st.integers(0, 5))
def test_what_is_known_less_exactly_costs_no_more(given: list[float], a: int, b: int) -> None:
    task, output = made(oldest=5, vocabulary=["0-2", "3+"]), torch.tensor([given])
    first, last = min(a, b), max(a, b)
    inner, outer = (task.loss(output, span(*ends)).item() for ends in ((first, last), (max(first - 1, 0), last + 1)))
    assert outer + 1e-4 >= 0
    if first < last:
        assert outer <= inner + 1e-4


@given(st.floats(0, 120), st.integers(0, 90), st.integers(1, 60), st.floats(1, 1e4))
def test_gradients_are_finite_whatever_the_network_says(age: float, first: int, length: int, size: float) -> None:
    task = made()
    target = torch.cat([span(age), span(first, first + length), span(0)]).clamp(max=100)
    output = (size * torch.randn(3, task.output_dim)).requires_grad_()
    found = task.loss(output, target)
    found.sum().backward()
    assert found.isfinite().all()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_the_distribution_of_an_age_has_the_least_loss() -> None:
    task = made()
    best = task._around(torch.tensor([[40.0]]))
    assert task.loss(best, span(40)).item() == pytest.approx(0, abs=1e-4)
    for other in (best.roll(1, 1), 0.5 * best, 2 * best):
        assert task.loss(other, span(40)).item() > 0.05


def test_years_and_groups_train_one_output() -> None:
    """Half of the faces have years, half only a group; what a face shows is its age."""
    task, generator = made(oldest=60, vocabulary=["0-19", "20-39", "40+"]), torch.Generator().manual_seed(0)
    ages = torch.randint(0, 61, (256,), generator=generator).float()
    starts = (ages / 20).floor().clamp(max=2) * 20
    groups = torch.stack([starts, torch.where(starts == 40, 60, starts + 19)], 1)
    target = torch.where((torch.arange(256) % 2 == 0)[:, None], ages[:, None].expand(-1, 2), groups)
    basis = torch.exp(-((ages[:, None] - torch.arange(0, 61, 5)) ** 2) / 50)
    layer = torch.nn.Linear(basis.shape[1], task.output_dim)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        task.loss(layer(basis), target).mean().backward()
        optimiser.step()
    answer = task.decode(layer(basis).detach(), PLAIN.expand(256, 2, 3), 40)
    assert np.abs(answer["years"] - ages.numpy())[1::2].mean() < 3  # of those whose years it never saw
    told = [task.vocabulary.index(word) for word in answer["label"]]
    assert np.mean(np.array(told) == (starts / 20).numpy()) > 0.93


# ---------------------------------------------------------------------------------------------- labels and answers


def test_labels_are_years_or_the_years_of_a_group(tmp_path: Path) -> None:
    rows = [
        {"age": 31.5, "age_group": "8-13"}, {"age_group": "4-6"}, {"age_group": "60+"}, {"gender": "male"},
        {"age": 116, "gender": "male"}, {"age": 35, "gender": "female"},
    ]  # fmt: skip
    faces = table(tmp_path, rows, age_group=Column("words", ADIENCE))
    task = made()
    task.learn(faces)
    assert task.vocabulary == list(ADIENCE)
    found = task.targets(faces)
    assert found.values.tolist() == [[31.5, 31.5], [4, 6], [60, 100], [0, 0], [100, 100], [35, 35]]
    assert found.labelled[:, 0].tolist() == [True, True, True, False, True, True]
    assert task.classes(faces).tolist() == [-1, 1, 3, -1, 3, -1]  # 31.5 and 35 lie between two groups
    men = made(where={"gender": "male"})
    men.learn(faces)
    assert men.targets(faces).labelled[:, 0].tolist() == [False] * 4 + [True, False]
    assert men.classes(faces).tolist() == [-1] * 4 + [3, -1]
    result = task.evaluate(answers(task, [31, 5, 70, 1, 100, 20]), faces)
    assert result.figure(Metric("years error")) == pytest.approx((0.5 + 16 + 15) / 3)
    assert result.figure(Metric("accuracy")) == 100
    assert result.groups.n == 3


def answers(task: AgeTask, years: list[float]) -> dict[str, Any]:
    """Those of a network that is sure of these years."""
    output = torch.full((len(years), task.output_dim), -50.0)
    output[range(len(years)), [int(year) for year in years]] = 50
    return task.decode(output, PLAIN.expand(len(years), 2, 3), 40)


def test_groups_of_ones_own_over_a_tables_words(tmp_path: Path) -> None:
    """A table's group counts where all of its years are in one of the groups that are asked for."""
    faces = table(tmp_path, [{"age_group": "0-2"}, {"age_group": "3-7"}, {"age_group": "57+"}, {"age": 5}])
    task = made(vocabulary=["0-4", "5-20", "50+"])
    task.learn(faces)
    assert task.vocabulary == ["0-4", "5-20", "50+"]
    assert task.classes(faces).tolist() == [0, -1, 2, 1]  # 3 to 7 are in two of them
    assert task.targets(faces).values.tolist() == [[0, 2], [3, 7], [57, 100], [5, 5]]


def test_columns_of_ones_own(tmp_path: Path) -> None:
    rows = [{"looks": 20.0}, {"decade": "30-39"}, {"gender": "male"}]
    faces = table(tmp_path, rows, looks=Column("number"), decade=Column("words", ("20-29", "30-39")))
    task = made(column="looks", groups="decade")
    task.learn(faces)
    assert task.targets(faces).values.tolist() == [[20, 20], [30, 39], [0, 0]]
    assert task.declares() == Column("number", unit="years")
    again = tasks.build("x", task.config())
    assert again.config() == task.config()
    other = table(tmp_path, [{"gender": "male"}])  # a table that lacks both
    assert not task.targets(other).labelled.any()


def test_answers_are_the_mean_and_the_largest_group() -> None:
    task = made(oldest=9, vocabulary=["0-2", "4-6", "8+"])
    p = [0.1, 0.1, 0.0, 0.3, 0.1, 0.1, 0.0, 0.0, 0.2, 0.1]
    answer = task.decode(logits(*[max(one, 1e-30) for one in p]), PLAIN, 40)
    assert answer.keys() == {"label", "probabilities", "years"}
    np.testing.assert_allclose(answer["years"], [0.1 + 0.9 + 0.4 + 0.5 + 1.6 + 0.9], rtol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], [[2 / 7, 2 / 7, 3 / 7]], rtol=1e-5)  # year 3 is in none
    assert answer["label"] == ["8+"]
    assert task.labels(answer) == pytest.approx([4.4])


def test_views_of_a_face_are_averaged_as_distributions() -> None:
    task = made(oldest=2, vocabulary=["0", "1", "2"])
    numbers = task.read(torch.cat([logits(1, 1e-30, 1e-30), logits(1e-30, 1e-30, 1)]), PLAIN, 40)
    mean = {key: value.mean(0, keepdims=True) for key, value in numbers.items()}
    assert task.conclude(mean)["years"] == pytest.approx([1])


def test_a_mirror_changes_nothing() -> None:
    task, values, output = made(), span(3, 7), torch.randn(1, 101)
    assert task.prepare(values, MIRROR, 40) is values
    for key, value in task.decode(output, MIRROR, 40).items():
        assert np.array_equal(value, task.decode(output, PLAIN, 40)[key])


def test_the_prior_is_how_old_the_training_faces_are(tmp_path: Path) -> None:
    faces = table(
        tmp_path, [{"age": 2}, {"age_group": "4-6"}, {"age_group": "4-6"}], age_group=Column("words", ADIENCE)
    )
    task = made(spread=0.1)
    task.learn(faces)
    assert task.prior is not None
    shares = torch.tensor(task.prior).exp()
    half = 0.5 / 101  # of a face is of any age
    assert shares[[2, 4, 5, 6]].tolist() == pytest.approx([(1 + half) / 3.5, *[(2 / 3 + half) / 3.5] * 3], rel=1e-4)
    ages = table(tmp_path, [{"age": age} for age in range(0, 101, 2)])  # of years alone it is all but the best answer
    wide = made(spread=2, weight=0)
    wide.learn(ages)
    best, target = torch.tensor([wide.prior]), wide.targets(ages).values

    def loss(output: Tensor) -> float:
        return float(wide.loss(output.expand(len(target), -1), target).mean())

    assert all(loss(best) < loss(best + 0.3 * torch.randn_like(best)) for _ in range(5))


# ------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": ["0-2"]}, "tasks.x.vocabulary needs two groups or more, each older than the last: 0-2"),
        ({"vocabulary": ["3-7", "0-2"]}, "tasks.x.vocabulary needs two groups or more, each older than the last: 3-7"),
        ({"vocabulary": ["0-5", "5-9"]}, "each older than the last: 0-5, 5-9"),
        ({"vocabulary": ["young", "old"]}, "task 'x': 'young' is no group of ages: write such as 8-14 or 57"),
        ({"vocabulary": ["0-2", "101+"]}, "tasks.x.oldest is 100, and group 101. begins later"),
        ({"column": "gender"}, "task 'x': column 'gender' is words .*; a number of years is needed"),
        ({"groups": "yaw"}, "task 'x': column 'yaw' is number .*; words such as 8-14 are needed"),
        ({"oldst": 90}, "tasks.x.oldst: .*did you mean 'oldest'"),
        ({"spread": 0}, "tasks.x.spread"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        made(**settings)


def test_labels_that_are_refused(tmp_path: Path) -> None:
    faces = table(tmp_path, [{"age": 3}, {"age": -1}])
    with pytest.raises(PolyfaceError, match="task 'x': 1.png: age is -1, and an age is 0 or more: leave it empty"):
        made().targets(faces)
    faces = table(tmp_path, [{"stage": "adult"}], stage=Column("words", ("child", "adult")))
    with pytest.raises(PolyfaceError, match="task 'x': 'child' is no group of ages"):
        made(groups="stage").learn(faces)
    faces = table(tmp_path, [{"stage": "20-30"}], stage=Column("words"))
    with pytest.raises(PolyfaceError, match="tasks.x: column 'stage' names no groups: set vocabulary"):
        made(groups="stage").learn(faces)


# ------------------------------------------------------------------------------------------------------ all the way


def test_it_is_analysed_exported_and_written_like_any_task(
    tmp_path: Path, told: Any, picture: Callable[..., np.ndarray]
) -> None:
    from polyface.export.onnx import export_onnx

    bundle = load_bundle(make_bundle({"age": {"kind": "age"}}).save(tmp_path / "model"))
    assert bundle.tasks["age"].config()["vocabulary"] == list(VOCABULARIES["age_group"])
    assert export_onnx(bundle, tmp_path / "m.onnx") <= 1e-4
    (result,) = Analyzer(bundle, detector=told([10, 10, 80, 80]))(picture())
    (face,) = result.faces
    word, chance = face.labels["age"]
    assert list(face.probabilities["age"]) == list(VOCABULARIES["age_group"])
    assert face.probabilities["age"][word] == pytest.approx(chance)
    assert sum(face.probabilities["age"].values()) == pytest.approx(1, abs=1e-5)
    assert 0 < face.numbers["age_years"] < 100
    assert {"age", ">age_years"} <= result.table()[0].keys()
    said = json.loads(to_json_lines([result]))["faces"][0]
    assert said["labels"]["age"]["label"] == word
    assert said["other"]["age"]["years"] == pytest.approx(face.numbers["age_years"], abs=1e-5)
    to_parquet([result], tmp_path / "faces.parquet")
    row = pq.read_table(tmp_path / "faces.parquet").to_pylist()[0]
    assert (row["age"], row["age_years"]) == (word, pytest.approx(face.numbers["age_years"]))
    plain, written = (np.asarray(draw(picture(), result, labels=labels)) for labels in (False, True))
    assert (plain != written).any()


def test_what_is_explained_is_the_mean_in_years() -> None:
    """Half of it at 10 years and half at 30 is 20; each output's gradient is p·(year − mean)."""
    task, output = made(), torch.full((1, 101), -torch.inf)
    output[0, [10, 30]] = 0.0
    assert task.score_names == ["years"]
    assert task.scores(output).tolist() == [[20.0]]
    learnt = torch.zeros(1, 101, requires_grad=True)
    task.scores(learnt).sum().backward()  # type: ignore[no-untyped-call]
    expected = (torch.arange(101) - 50) / 101
    torch.testing.assert_close(learnt.grad, expected[None])
