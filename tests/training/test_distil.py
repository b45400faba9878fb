"""Distillation: the loss by hand, faces that nothing is said of, people's means, what validation sees, and faults."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from polyface import networks
from polyface.data.boxes import Boxes
from polyface.data.crops import CropSpec
from polyface.data.loader import FacePool, assemble
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.models.bundle import Bundle, load_bundle
from polyface.models.predict import TTA, predict
from polyface.tasks import build
from polyface.training.extras.distil import Distillation, DistilSpec, _of_photos, distillation
from polyface.training.learner import Learner

from .recognition import first_batch, fit, gradients, learner_of, recipe_of, stage_tree

# Of length 1 their mean is (.5, .5): less that, (.5, −.5) and (−.5, .5), at length 1 (h, −h) and (−h, h).
TARGETS = torch.tensor([[3.0, 0.0], [0.0, 0.2]])
NAN = [math.nan, math.nan]


def losses(distilled: Distillation, embedding: Tensor, rows: list[int]) -> Tensor:
    found = {"a": torch.ones(len(rows), 1), "b": torch.ones(len(rows), 1)}
    distilled.add_to(found, {"face": embedding}, torch.tensor(rows))
    assert found["b"].tolist() == [[1.0]] * len(rows)  # not one of its tasks
    return found["a"] - 1


def distil(targets: Tensor = TARGETS, weight: float = 2.0) -> Distillation:
    return Distillation(targets, {"a": "face"}, weight)


# ------------------------------------------------------------------------------------------------ the loss


def test_the_loss_by_hand() -> None:
    """The teacher's own direction: 0. The other face's: 2 · (1 − −1). From (0.8, 0.6), less the mean (.3, .1): the
    cosine with (h, −h) is .2 h / √.1."""
    embedding = torch.tensor([[9.0, 0.0], [4.0, 0.0], [0.8, 0.6]])
    found = losses(distil(), embedding, [0, 1, 0])
    third = 2 * (1 - 0.2 * math.sqrt(0.5) / math.sqrt(0.1))
    assert found[:, 0].tolist() == pytest.approx([0.0, 4.0, third], abs=1e-5)


@given(st.integers(0, 2**31), st.floats(0.1, 50), st.floats(0.1, 50))
def test_the_loss_is_one_of_directions_between_0_and_twice_its_weight(seed: int, longer: float, weight: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets, embedding = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    found = losses(distil(targets, weight), embedding, list(range(5)))
    assert float(found.min()) >= -1e-4 * weight
    assert float(found.max()) <= 2 * weight + 1e-4 * weight
    torch.testing.assert_close(
        losses(distil(targets * 3, weight), longer * embedding, list(range(5))), found, rtol=1e-3, atol=1e-3 * weight
    )
    torch.testing.assert_close(
        losses(distil(targets, weight), targets, list(range(5))), torch.zeros(5, 1), atol=1e-4 * weight, rtol=0
    )


def test_faces_that_nothing_is_said_of_pay_nothing_and_poison_nothing() -> None:
    """NaN targets: no loss, gradients of exactly 0, and others as if these faces were not there."""
    holes = torch.tensor([[3.0, 0.0], NAN, [0.0, 0.2]])
    embedding = torch.tensor([[0.8, 0.6], [0.1, 0.2], [0.3, 0.4]], requires_grad=True)
    found = losses(distil(holes), embedding, [0, 1, 2])
    found.sum().backward()
    assert embedding.grad is not None
    assert float(found[1].detach()) == 0
    assert embedding.grad[1].tolist() == [0.0, 0.0]
    alone = embedding.detach()[[0, 2]].requires_grad_()
    expected = losses(distil(), alone, [0, 1])
    expected.sum().backward()
    assert torch.equal(found[[0, 2]], expected)
    assert alone.grad is not None
    assert torch.equal(embedding.grad[[0, 2]], alone.grad)
    assert bool((alone.grad != 0).all())


def test_rows_are_those_of_the_training_faces() -> None:
    embedding = torch.tensor([[1.0, 0.0]] * 3)
    assert losses(distil(), embedding, [1, 0, 1])[:, 0].tolist() == pytest.approx([4.0, 0.0, 4.0], abs=1e-5)


# ------------------------------------------------------------------------------------------------ people's means


def table_of(folder: Path, faces: list[tuple[str | None, str]]) -> FaceTable:
    picture = np.zeros((8, 8, 3), np.uint8)
    labels = [{"identity": who, "modality": modality, "split": "train"} for who, modality in faces]
    write_table([Record(picture, str(i), f"{i}.png", one) for i, one in enumerate(labels)], folder / "t.parquet")
    return FaceTable.open(folder / "t.parquet")


def test_caricatures_are_taught_the_mean_of_their_persons_photos(tmp_path) -> None:
    """Of photos of length 1; photos themselves as they are; no photo, nothing to be taught."""
    faces = [("ann", "photo"), ("ann", "caricature"), ("bob", "photo"), ("ann", "photo"), ("eve", "caricature")]
    faces += [("ann", "caricature"), ("bob", "caricature")]
    given_ = np.array([[2, 0], [7, 7], [0, 0.5], [0, 3], [1, 1], [-1, 2], [5, 5]], np.float32)
    found = _of_photos(given_.copy(), table_of(tmp_path, faces))
    ann = [0.5, 0.5]
    np.testing.assert_allclose(found, [[1, 0], ann, [0, 1], [0, 1], NAN, ann, [0, 1]], atol=1e-6)
    assert found.dtype == np.float32


def test_caricatures_of_nobody_knows_whom_are_taught_nothing(tmp_path) -> None:
    """Those without a name are not one person."""
    given_ = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    found = _of_photos(given_, table_of(tmp_path, [(None, "photo"), (None, "caricature"), ("ann", "photo")]))
    np.testing.assert_array_equal(found, [[1, 0], NAN, [0, 1]])


# ------------------------------------------------------------------------------------------------ in training


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an embedding of 8 numbers, from a larger crop than the pupil's."""
    torch.manual_seed(7)
    config = {
        "trunk": {"name": "timm", "model": "test_resnet", "size": 48, "channels": 3, "pool": "map"},
        "branches": {"face": {"levels": 0, "hidden": [8], "similarity": "cosine"}},
        "heads": {"who": {"face": [0, 1]}},
    }
    tasks = {"who": build("who", {"kind": "identity", "people": ["x", "y"]})}
    crop = CropSpec(size=48, channels=3)
    return Bundle(networks.build(config), tasks, crop).save(tmp_path_factory.mktemp("teacher") / "model")


def spec(teacher: Path, **options: Any) -> DistilSpec:
    return DistilSpec(**{"teacher": str(teacher), "tasks": ["verification", "visual"]} | options)


@pytest.fixture
def learner(tmp_path: Path, teacher: Path) -> Callable[..., Learner]:
    """``learner(weight=…)``: one that is taught."""

    def make(**options: Any) -> Learner:
        chosen = recipe_of(tmp_path, stage_tree({"distil": spec(teacher, **options).model_dump()}))
        return learner_of(chosen)

    return make


def test_the_teacher_is_asked_of_every_training_face_and_its_mirror_image(learner, teacher) -> None:
    ours = learner()
    own, pool = ours.extras["distil"].distillation, ours._train.pool
    assert own.branches == {"verification": "verification", "visual": "visual"}
    bundle = load_bundle(teacher, quiet=True)
    faces = FacePool.unlabelled(pool.table, Boxes(pool.boxes, np.zeros(0, np.int64)), bundle.crop)
    said = [
        torch.from_numpy(predict(bundle.network, bundle.tasks, faces, tta=TTA(mirror=mirror))["who"]["embedding"])
        for mirror in (False, True)
    ]
    unit = F.normalize(said[1])
    torch.testing.assert_close(own.targets, F.normalize(unit - unit.mean(0)), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(said[0], said[1], atol=1e-4)
    assert own.targets.shape == (len(pool), 8)


def test_training_pays_and_validation_does_not(learner) -> None:
    ours, plain = learner(weight=10.0, weighted=True), learner(weight=0.0, weighted=True)
    raw = first_batch(ours)
    batch = assemble(raw, ours.crop, ours.tasks, None)
    ours.network.load_state_dict(plain.network.state_dict())
    differences = {}
    for training in (False, True):
        found = []
        for each in (ours, plain):
            each.network.train(training)
            torch.manual_seed(0)
            with torch.no_grad():
                output, means, _ = each._losses(batch, each.network)
            found.append(means)
        differences[training] = found[0] - found[1]
    assert differences[False].tolist() == [0.0] * 3
    own = ours.extras["distil"].distillation
    for place, (task, keep) in enumerate((("verification", slice(None)), ("visual", batch.labelled["visual"][:, 0]))):
        told = F.normalize(F.normalize(output.embeddings[task]) - own.mean)
        expected = 10 * (1 - (told * own.targets[batch.rows]).sum(1))
        torch.testing.assert_close(differences[True][place], expected[keep].mean(), rtol=1e-4, atol=1e-4)
    assert float(differences[True][2]) == 0
    assert float(differences[True][0]) > 1


def test_by_default_the_weights_do_not_see_it(learner) -> None:
    """Ming's L_4 takes the task of the highest loss for the hardest: it sees the tasks' own losses, whatever a teacher
    says; with `weighted`, those that are distilled seem harder."""
    seen = {}
    for name, options in {"plain": {"weight": 0.0}, "taught": {}, "weighted": {"weighted": True}}.items():
        ours = learner(**options)
        given: list[dict[str, float]] = []
        plain = ours.weighting.combine
        ours.weighting.combine = lambda losses, context, plain=plain, given=given: (
            given.append({name: float(loss.detach()) for name, loss in losses.items()}) or plain(losses, context)
        )
        torch.manual_seed(0)  # dropout
        found = gradients(ours, first_batch(ours))
        own = {name: value for name, value in found.items() if name.startswith("weighting")}
        seen[name] = given[0], own, found["network.branches.verification.fc.1.weight"]
    assert seen["taught"][0] == seen["plain"][0]
    assert seen["taught"][1].keys() == seen["plain"][1].keys() != set()
    assert all(torch.equal(value, seen["plain"][1][name]) for name, value in seen["taught"][1].items())
    assert not torch.allclose(seen["taught"][2], seen["plain"][2], atol=1e-3)  # and yet it is taught
    assert seen["weighted"][0]["verification"] > seen["plain"][0]["verification"] + 1
    assert seen["weighted"][0]["caricature"] == seen["plain"][0]["caricature"]


def test_in_a_plain_sum_it_is_the_same_inside_and_outside(tmp_path, teacher) -> None:
    found = []
    for weighted in (False, True):
        asked = spec(teacher, weighted=weighted).model_dump()
        ours = learner_of(recipe_of(tmp_path, stage_tree({"distil": asked, "weighting": {"name": "uniform"}})))
        torch.manual_seed(0)
        found.append(gradients(ours, first_batch(ours)))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-6)


def test_a_step_draws_the_embedding_to_the_teachers(learner) -> None:
    """After steps on one batch the cosine has grown; the weights' own task is all but silent."""
    ours = learner(weight=1000.0)
    raw = first_batch(ours)
    batch = assemble(raw, ours.crop, ours.tasks, None)
    target = ours.extras["distil"].distillation.targets[batch.rows]

    def cosine() -> float:
        with torch.no_grad():
            own = ours.network.eval()(batch.images).embeddings["verification"]
        ours.network.train()
        return float((F.normalize(own - ours.extras["distil"].distillation.mean) * target).sum(1).mean())

    before, optimiser = cosine(), torch.optim.Adam(ours.network.parameters(), 0.01)
    for _ in range(15):
        gradients(ours, raw)
        optimiser.step()
    assert cosine() > before + 0.2


def test_caricatures_whose_people_have_no_photo_do_no_harm(learner) -> None:
    """Bad input: nothing is said of them, and a batch of them alone has the gradients that it has without a teacher."""
    ours, found = learner(people=True), []
    raw = first_batch(ours)
    ours.extras["distil"].distillation.targets[raw.rows] = math.nan
    for taught in (True, False):
        if not taught:
            del ours.extras["distil"]
        torch.manual_seed(0)  # dropout
        found.append(gradients(ours, raw))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert bool(found[0]["network.branches.visual.fc.1.weight"].any())


def test_a_stage_is_taught_by_an_earlier_one(tmp_path) -> None:
    """The teacher is named like `init.source`; targets are found again and no part of model or checkpoint. History and
    loggers say what is added to the loss: in a plain sum, where it teaches the same, as much as the task's own loss is
    greater by where it is a part of that."""
    network = {
        "branches": {"face": {"levels": 0, "hidden": [8], "similarity": "cosine"}},
        "heads": {"verification": "face"},
    }
    tree = stage_tree({"tasks": {"verification": {"kind": "identity"}}, "weighting": {"name": "uniform"}})
    tree["network"] = tree["network"] | network
    tree["optimisation"] = tree["optimisation"] | {"epochs": 1}
    taught = {"teacher": "one", "tasks": ["verification"], "people": True, "weighted": True}
    pupil = tree | {"name": "two", "distil": taught}
    results = fit(recipe_of(tmp_path, tree, pupil), tmp_path / "in")
    saved = torch.load(tmp_path / "in/two/last.ckpt", weights_only=True)["state_dict"]
    assert [name for name in saved if "distil" in name] == ["extras.distil.added"]
    (row,), (plain,) = results["two"].history, results["one"].history
    pupil["distil"] = taught | {"weighted": False}
    (beside,) = fit(recipe_of(tmp_path, tree, pupil), tmp_path / "beside", logger="csv")["two"].history
    assert beside["train"]["verification"] + beside["distil"]["verification"] == pytest.approx(
        row["train"]["verification"], rel=1e-4
    )
    assert [told for told in (row, plain) if "distil" in told] == []
    (logged,) = csv.DictReader(next((tmp_path / "beside/two").rglob("metrics.csv")).read_text().splitlines())
    assert float(logged["distil/verification"]) == pytest.approx(beside["distil"]["verification"])
    assert float(logged["weights/verification"]) == 1
    assert row["train"]["verification"] > plain["train"]["verification"] + 0.5  # 10 · (1 − cosine) on top
    assert row["validation"]["verification"] < row["train"]["verification"]


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    "tasks, dim, message",
    [
        (["verification"], 6, "distil.tasks: 'verification' must read an embedding of 6 numbers, as those of"),
        (["verifcation"], 8, "distil.tasks: 'verifcation' must read an embedding of 8"),
    ],
)
def test_pupils_that_cannot_be_compared(tmp_path, teacher, tasks: list[str], dim: int, message: str) -> None:
    bundle = load_bundle(teacher, quiet=True)
    if dim != 8:
        config = bundle.network.config | {"branches": {"face": {"levels": 0, "hidden": [dim], "similarity": "cosine"}}}
        bundle = replace(bundle, network=networks.build(config))
    ours = learner_of(recipe_of(tmp_path, stage_tree()))
    with pytest.raises(PolyfaceError, match=message) as caught:
        distillation(spec(teacher, tasks=tasks), bundle, ours.network, ours._train.pool)
    assert "\n" not in str(caught.value)


def test_a_teacher_without_an_embedding(tmp_path, teacher) -> None:
    bundle = load_bundle(teacher, quiet=True)
    config = bundle.network.config | {"branches": {"face": {"levels": 0, "hidden": [8]}}}
    ours = learner_of(recipe_of(tmp_path, stage_tree()))
    silent = replace(bundle, network=networks.build(config))
    with pytest.raises(PolyfaceError, match="has 0 tasks that read an embedding; expected one"):
        distillation(spec(teacher), silent, ours.network, ours._train.pool)


def test_caricatures_alone_have_nothing_to_be_taught(tmp_path, teacher) -> None:
    """Bad input: no training face is a photo."""
    tree = stage_tree({"tasks": {"verification": {"kind": "identity"}}, "weighting": {"name": "uniform"}})
    tree["data"]["tables"][0]["where"] = {"modality": "caricature"}
    tree["network"]["heads"] = {"verification": "verification"}
    ours = learner_of(recipe_of(tmp_path, tree))
    asked = spec(teacher, tasks=["verification"], people=True)
    with pytest.raises(PolyfaceError, match="distil.people: .*photo"):
        distillation(asked, load_bundle(teacher, quiet=True), ours.network, ours._train.pool)
