"""Identity task: softmax and margins by hand, masks, whom it knows, mirrors, and answers in names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from polyface import tasks
from polyface.data.crops import around_centre
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.tasks import masked_sums, mean_of_terms
from polyface.tasks.identity import IdentityTask

PLAIN = torch.eye(2, 3)[None]
MIRROR = around_centre(40, torch.tensor([20.0]), torch.ones(1), torch.zeros(1, 2), torch.tensor([True]))
MARGINS = ["cosface", "arcface"]
cosines = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)


def who(people: list[str] | None = None, **settings: Any) -> IdentityTask:
    task = tasks.build(
        "who", {"kind": "identity", "people": ["ann", "bob", "eve"] if people is None else people} | settings
    )
    assert isinstance(task, IdentityTask)
    return task


def losses(task: IdentityTask, output: list[list[float]], target: list[int]) -> list[float]:
    found = task.loss(torch.tensor(output), torch.tensor(target))
    assert found.shape == (len(target), 1)
    return list(found[:, 0].tolist())


def right(task: IdentityTask, angle: float) -> float:
    """What the cosine of the right person is made into at an angle, from the loss against one other of cosine 0."""
    other = 0.0
    (loss,) = losses(task, [[math.cos(angle), other]], [0])
    return -math.log(math.expm1(loss)) / task.spec.scale + other


def test_a_person_has_one_name_however_a_table_writes_it(tmp_path) -> None:
    """José once composed and once not, Ann with a blank after her; nobody is called by a blank."""
    names = ["Jos\u00e9", "Jose\u0301", "Ann ", "Ann", " "]
    picture = np.zeros((8, 8, 3), np.uint8)
    records = [Record(picture, f"{i}", f"{i}.png", {"identity": name}) for i, name in enumerate(names)]
    write_table(records, tmp_path / "t.parquet")
    table, task = FaceTable.open(tmp_path / "t.parquet"), who([])
    task.learn(table)
    assert task.people == ["Ann", "Jos\u00e9"]
    assert task.targets(table).labelled[:, 0].tolist() == [True] * 4 + [False]
    given = who(["Jose\u0301", " Ann"])
    assert given.targets(table).values[:4].tolist() == [0, 0, 1, 1]
    assert len(table.where(identity="Jose\u0301")) == 2


@pytest.fixture
def faces(tmp_path) -> FaceTable:
    picture = np.zeros((8, 8, 3), np.uint8)
    known = [
        ("eve", "photo"),
        ("ann", "caricature"),
        (None, "photo"),
        ("zoe", "photo"),
        ("ann", "photo"),
        ("ann", None),
    ]
    records = [
        Record(picture, str(i), str(i), {"identity": name, "modality": modality})
        for i, (name, modality) in enumerate(known)
    ]
    write_table(records, tmp_path / "t.parquet")
    return FaceTable.open(tmp_path / "t.parquet")


# ------------------------------------------------------------------------------------------------ losses


def test_cross_entropy_by_hand() -> None:
    """Logits ln 3 and 0: probabilities 3/4 and 1/4."""
    found = losses(who(["ann", "bob"]), [[math.log(3), 0.0]] * 2, [0, 1])
    assert found == pytest.approx([math.log(4 / 3), math.log(4)])


def test_relu_of_the_logits_before_the_softmax() -> None:
    """−5 and −1 are both 0 then, as in the code of Ming et al.; what is positive stays."""
    task = who(relu=True)
    assert losses(task, [[-5.0, -1.0, 0.0]], [0]) == pytest.approx([math.log(3)])
    assert losses(task, [[math.log(3), -1.0, -9.0]], [0]) == pytest.approx([math.log(5 / 3)])
    np.testing.assert_allclose(task.read(torch.tensor([[-5.0, -1.0, -2.0]]), PLAIN, 40)["probabilities"], 1 / 3)
    assert losses(who(), [[-5.0, -1.0, 0.0]], [0])[0] > 5


def test_cosface_by_hand() -> None:
    """Cosines .8 and .5, margin .3, scale 10: both are 5, so that the loss is ln 2; ln(1 + e³) for the other one."""
    task = who(["ann", "bob"], loss="cosface", margin=0.3, scale=10)
    assert losses(task, [[0.8, 0.5]], [0]) == pytest.approx([math.log(2)], rel=1e-5)
    assert losses(task, [[0.8, 0.5]], [1]) == pytest.approx([math.log1p(math.exp(6))], rel=1e-5)


def test_arcface_by_hand() -> None:
    """The right one at 60°, the margin 30°: cos 90° = 0. At 120°: cos 150° = −√3/2."""
    task = who(["ann", "bob"], loss="arcface", margin=math.pi / 6, scale=4)
    assert losses(task, [[0.5, 0.0]], [0]) == pytest.approx([math.log(2)], rel=1e-5)
    expected = math.log1p(math.exp(4 * (0.25 + math.sqrt(3) / 2)))
    assert losses(task, [[-0.5, 0.25]], [0]) == pytest.approx([expected], rel=1e-5)


@given(st.floats(0, math.pi), st.floats(0, math.pi / 2))
def test_cosface_at_every_angle(angle: float, margin: float) -> None:
    found = right(who(["ann", "bob"], loss="cosface", margin=margin, scale=2), angle)
    assert found == pytest.approx(math.cos(angle) - margin, abs=1e-5)


@given(st.floats(0, 0.99), st.floats(0.1, math.pi / 2))
def test_arcface_is_the_cosine_of_angle_and_margin_up_to_pi(share: float, margin: float) -> None:
    angle = share * (math.pi - margin)
    found = right(who(["ann", "bob"], loss="arcface", margin=margin, scale=2), angle)
    assert found == pytest.approx(math.cos(angle + margin), abs=2e-4)


@given(st.floats(0.02, 1), st.floats(0.1, math.pi / 2))
def test_arcface_beyond_pi_is_a_line_of_the_cosine(share: float, margin: float) -> None:
    """Of slope 1 and below −1, where the cosine of both would rise again."""
    task, angle = who(["ann", "bob"], loss="arcface", margin=margin, scale=2), math.pi - margin * (1 - share)
    found = right(task, angle)
    assert found <= -1 + 1e-4
    assert found - right(task, math.pi) == pytest.approx(math.cos(angle) + 1, abs=1e-4)


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, math.pi / 2])
def test_a_wider_angle_is_never_better(kind: str, margin: float) -> None:
    """Beyond π too, where the cosine of the angle and the margin would rise again; every slope is finite."""
    task = who(["ann", "bob"], loss=kind, margin=margin, scale=4)
    angles = torch.linspace(0, math.pi, 400)
    output = torch.stack([angles.cos(), torch.full_like(angles, 0.1)], 1).requires_grad_()
    found = task.loss(output, torch.zeros(400, dtype=torch.long))[:, 0]
    assert bool((found.diff() > -1e-5).all())
    assert float((found[-1] - found[0]).detach()) > 4
    found.sum().backward()
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())


@given(st.lists(cosines, min_size=1, max_size=4), st.sampled_from(MARGINS), st.floats(0.5, 64))
def test_without_a_margin_it_is_the_softmax_of_scaled_cosines(
    values: list[list[float]], kind: str, scale: float
) -> None:
    output, target = torch.tensor(values), torch.arange(len(values)) % 3
    found = who(loss=kind, margin=0, scale=scale).loss(output, target)
    expected = F.cross_entropy(scale * output, target, reduction="none")[:, None]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@given(cosines, st.integers(0, 2), st.sampled_from(MARGINS))
def test_a_margin_makes_it_harder_and_leaves_the_others_alone(values: list[float], target: int, kind: str) -> None:
    output, own = torch.tensor([values]), torch.tensor([target])
    plain, harder = (who(loss=kind, margin=margin, scale=8) for margin in (0.0, 0.4))
    assert float(harder.loss(output, own)) >= float(plain.loss(output, own)) - 1e-5
    answers = [task.read(output, PLAIN, 40)["probabilities"] for task in (plain, harder)]
    np.testing.assert_array_equal(*answers)  # an answer knows no margin
    np.testing.assert_allclose(answers[0], (8 * output).softmax(1), rtol=1e-5)


def test_only_losses_with_a_margin_want_cosines() -> None:
    assert [who(loss=kind).head for kind in ("softmax", *MARGINS)] == ["linear", "cosine", "cosine"]


# ------------------------------------------------------------------------------------------------ labels


def test_whom_it_does_not_know_is_not_labelled(faces) -> None:
    found = who().targets(faces)
    assert found.labelled[:, 0].tolist() == [True, True, False, False, True, True]
    assert found.values[found.labelled[:, 0]].tolist() == [2, 0, 0, 0]
    photos = who(where={"modality": "photo"}).targets(faces)
    assert photos.labelled[:, 0].tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize("loss", ["softmax", *MARGINS])
def test_unlabelled_faces_have_exactly_no_gradient(faces, loss: str) -> None:
    task = who(loss=loss)
    found = task.targets(faces)
    output = torch.rand(6, 3, requires_grad=True)
    mean_of_terms(*masked_sums(task.loss(output, found.values), found.labelled)).backward()
    assert output.grad is not None
    assert (output.grad[[2, 3]] == 0).all()
    assert (output.grad[[0, 1, 4, 5]].abs().sum(1) > 0).all()


def test_a_mirrored_person_is_the_same_person() -> None:
    task, both = who(), torch.cat([PLAIN, MIRROR])
    assert task.prepare(torch.tensor([2, 2]), both, 40).tolist() == [2, 2]
    assert task.visible(torch.ones(2, 1, dtype=torch.bool), both).all()
    output = torch.tensor([[0.1, 0.7, 0.2]] * 2)
    assert task.decode(output, both, 40)["label"] == ["bob", "bob"]


def test_answers_are_names() -> None:
    task = who(["ann", "bob"], loss="cosface", scale=math.log(9))
    answer = task.decode(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), PLAIN.expand(2, 2, 3), 40)
    assert answer["label"] == task.labels(answer) == ["bob", "ann"]
    np.testing.assert_allclose(answer["probabilities"], [[0.1, 0.9], [0.9, 0.1]], rtol=1e-5)


# ------------------------------------------------------------------------------------------------ people


def test_people_are_those_of_the_training_faces_in_order_of_name(faces) -> None:
    task = who([])
    assert task.output_dim == 0
    task.learn(faces)
    assert (task.vocabulary, task.output_dim) == (["ann", "eve", "zoe"], 3)
    task.learn(faces.take(np.array([0, 3])))  # known already
    assert task.vocabulary == ["ann", "eve", "zoe"]


@pytest.mark.parametrize("least, people", [(1, ["ann", "eve", "zoe"]), (2, ["ann", "eve"])])
def test_people_of_too_few_faces_are_left_out(faces, least: int, people: list[str]) -> None:
    task = who([], faces=least)
    task.learn(faces.take(np.array([0, 0, 1, 2, 2, 3, 4])))
    assert task.vocabulary == people


@pytest.mark.parametrize("people, least, count", [([], 3, 1), ([], 4, 0)])
def test_nobody_to_tell_apart(faces, people: list[str], least: int, count: int) -> None:
    with pytest.raises(PolyfaceError, match=rf"task 'who': the training faces show {count} people .*two are needed"):
        who(people, faces=least).learn(faces)


def test_tasks_learn_people_apart_from_each_other(faces) -> None:
    one, other = who([]), who([])
    one.learn(faces)
    assert other.vocabulary == []


def test_configuration_carries_people_and_all_settings(faces) -> None:
    task = who([], loss="arcface", margin=0.2, scale=16, faces=1, where={"modality": "photo"}, column="identity")
    task.learn(faces)
    again = tasks.build("who", task.config())
    assert isinstance(again, IdentityTask)
    assert (again.config(), again.spec) == (task.config(), task.spec.model_copy(update={"people": task.vocabulary}))
    assert again.vocabulary == ["ann", "eve", "zoe"]
    output = torch.rand(4, 3)
    assert torch.equal(again.loss(output, torch.arange(4) % 3), task.loss(output, torch.arange(4) % 3))


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"column": "identty"}, "'identty'.*'identity'"),
        ({"people": ["ann"]}, "task 'who': people must name two or more, and nobody twice"),
        ({"people": ["ann", "bob", "ann"]}, "task 'who': people must name two or more, and nobody twice"),
        ({"loss": "sphereface"}, "tasks.who.loss"),
        ({"margin": -0.1}, "tasks.who.margin"),
        ({"margin": 1.6}, "tasks.who.margin"),  # of more than π/2 a right angle would be beyond π
        ({"scale": 0}, "tasks.who.scale"),
        ({"faces": 0}, "tasks.who.faces"),
        ({"margins": 0.1}, "tasks.who.margins.*'margin'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        who(**settings)
    assert "\n" not in str(caught.value)
