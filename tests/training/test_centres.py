"""Centres: where the faces of a batch move them, by hand; what the loss trains and what not; resuming with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyface.data.loader import FaceBatch, assemble
from polyface.errors import PolyfaceError
from polyface.networks import FaceOutput
from polyface.networks.heads import Embedding
from polyface.training.extras.base import Setup
from polyface.training.extras.centres import Centres, CentresSpec
from polyface.training.learner import Learner

from .recognition import (
    CENTRES,
    Gone,
    faces_of,
    first_batch,
    fit,
    gradients,
    learner_of,
    of_rows,
    recipe_of,
    stage_tree,
    stopping_at,
    unlabelled,
)


def centres(rate: float = 0.5, weight: float = 0.1, people: int = 3, tasks: str = "a") -> Centres:
    """Of tasks that all read one branch `face`, with embeddings of two numbers."""
    network = SimpleNamespace(embedding_of=lambda task: "face", embeddings={"face": Embedding(2, "cosine")})
    asking = {name: SimpleNamespace(people=["somebody"] * people) for name in tasks}
    spec = CentresSpec(tasks=list(tasks), weight=weight, rate=rate)
    return Centres(spec, Setup(None, network, asking, None, None))  # type: ignore[arg-type]


def output_of(embedding: Tensor) -> FaceOutput:
    return FaceOutput(embedding, {}, {"face": embedding})


def batch_of(targets: dict[str, Tensor], labelled: dict[str, Tensor] | None = None) -> FaceBatch:
    nothing = torch.zeros(0)
    return FaceBatch(nothing, targets, labelled or {}, nothing, nothing)


def follow(own: Centres, faces: list[list[float]], people: list[int], labelled: list[bool] | None = None) -> Tensor:
    mask = torch.tensor([True] * len(people) if labelled is None else labelled)[:, None]
    target = torch.tensor(people)
    batch = batch_of(dict.fromkeys(own.branches, target), dict.fromkeys(own.branches, mask))
    assert own.add_total(output_of(torch.tensor(faces)), batch) is None
    return own.table


@pytest.fixture
def learner(tmp_path: Path) -> Callable[..., Learner]:
    """``learner(weight=…)``: a small one with centres."""

    def make(changes: dict[str, Any] | None = None, **options: Any) -> Learner:
        given = {"centres": CENTRES | options} | (changes or {})
        return learner_of(recipe_of(tmp_path, stage_tree(given)))

    return make


# ------------------------------------------------------------------------------------------------ the update


def test_centres_start_at_0() -> None:
    assert centres().table.tolist() == [[0.0, 0.0]] * 3


def test_a_centre_moves_half_of_the_way_to_the_mean_of_its_faces() -> None:
    """Spec 2.8d, a = .5: from (2, 4), with faces of mean (4, 0), to (3, 2); from 0, with one face (1, 1), to half."""
    own = centres()
    own.table.copy_(torch.tensor([[2.0, 4.0], [0.0, 0.0], [0.3, 0.7]]))
    found = follow(own, [[5.0, -2.0], [1.0, 1.0], [3.0, 2.0]], [0, 1, 0])
    assert found[:2].tolist() == [[3.0, 2.0], [0.5, 0.5]]


@given(
    st.floats(0.05, 1),
    st.lists(st.tuples(st.integers(0, 3), st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=12),
    st.integers(0, 2**31),
)
def test_the_update_is_mings(rate: float, faces: list[tuple[int, float, float]], seed: int) -> None:
    """c_y ← c_y − (1 − a) Σ (c_y − e) / n_y for a = 1 − rate; whoever is absent stays where they are, to the bit."""
    own = centres(rate, people=5)
    own.table.copy_(torch.randn(5, 2, generator=torch.Generator().manual_seed(seed)))
    before, a = own.table.clone(), 1 - rate
    people = [who for who, *_ in faces]
    found = follow(own, [[x, y] for _, x, y in faces], people)
    for who in range(5):
        if who not in people:
            assert torch.equal(found[who], before[who])
            continue
        apart = torch.stack([before[who] - torch.tensor([x, y]) for person, x, y in faces if person == who])
        torch.testing.assert_close(found[who], before[who] - (1 - a) * apart.sum(0) / len(apart))


def test_unlabelled_faces_move_nothing() -> None:
    """Their person is whatever number stands for unknown, 0."""
    own = centres()
    before = follow(own, [[1.0, 0.0], [0.0, 1.0]], [0, 1]).clone()
    after = follow(own, [[9.0, 9.0], [9.0, 9.0]], [0, 1], [False, False])
    assert torch.equal(after, before)
    assert follow(own, [[9.0, 9.0], [1.5, 2.0]], [0, 0], [False, True])[0].tolist() == [1.0, 1.0]


def test_tasks_follow_one_after_the_other_on_one_table() -> None:
    """Both read the same person's face at (1, 0): to a half, then to three quarters."""
    own = centres(tasks="ab")
    assert follow(own, [[1.0, 0.0]], [1])[1].tolist() == [0.75, 0.0]


# ------------------------------------------------------------------------------------------------ the loss


def test_the_loss_is_half_the_squared_distance_to_the_own_centre() -> None:
    """½ · 5² of (3, 4) from 0; ½ · 2 of (1, 1) from 0; ½ · 1 of (2, 1) from (2, 0)."""
    own = centres(weight=0.1)
    own.table[2] = torch.tensor([2.0, 0.0])
    losses = {"a": torch.tensor([[1.0], [2.0], [3.0]]), "b": torch.ones(3, 1)}
    embeddings = torch.tensor([[3.0, 4.0], [1.0, 1.0], [2.0, 1.0]])
    own.add_losses(losses, output_of(embeddings), batch_of({"a": torch.tensor([0, 1, 2])}), True)
    assert losses["a"][:, 0].tolist() == pytest.approx([1 + 1.25, 2 + 0.1, 3 + 0.05])
    assert losses["b"][:, 0].tolist() == [1.0] * 3  # not one of its tasks


def test_its_gradient_draws_the_embedding_and_leaves_the_table() -> None:
    own = centres(weight=0.1)
    own.table[1] = torch.tensor([1.0, 0.0])
    embedding = torch.tensor([[3.0, 4.0]], requires_grad=True)
    losses = {"a": torch.zeros(1, 1)}
    own.add_losses(losses, output_of(embedding), batch_of({"a": torch.tensor([1])}), True)
    losses["a"].sum().backward()
    assert embedding.grad is not None
    torch.testing.assert_close(embedding.grad, 0.1 * torch.tensor([[2.0, 4.0]]))
    assert not own.table.requires_grad
    assert own.table.grad is None
    assert list(own.parameters()) == []


# ------------------------------------------------------------------------------------------------ in training


def test_a_step_adds_the_loss_from_the_centres_of_before_and_then_moves_them(learner) -> None:
    ours, plain = learner(), learner(weight=0.0)
    table = torch.randn(4, 8)
    for each in (ours, plain):
        each.extras["centres"].table.copy_(table)
        each.network.eval()  # no dropout, and batch norm as it is
    batch = first_batch(ours)
    face = assemble(batch, ours.crop, ours.tasks, ours.spec.data.augment)
    with torch.no_grad():
        output = ours.network(face.images)
        found, without = (each._losses(face, each.network)[1] for each in (ours, plain))
    people, photos = face.targets["verification"], face.labelled["visual"][:, 0]
    expected = {
        name: 0.05 * (output.embeddings[name] - table[people]).square().sum(1) for name in ("verification", "visual")
    }
    by_hand = torch.stack([expected["verification"].mean(), expected["visual"][photos].mean(), torch.zeros(())])
    torch.testing.assert_close(found - without, by_hand, rtol=1e-4, atol=1e-6)
    assert torch.equal(ours.extras["centres"].table, table)
    ours.training_step(batch, 0)
    assert not torch.equal(ours.extras["centres"].table, table)


def test_two_tasks_share_one_table(learner) -> None:
    """Of photos, both tasks move it; of caricatures, verification alone."""
    ours = learner(rate=1.0)
    own = ours.extras["centres"]
    assert own.table.shape == (4, 8)
    assert own.branches == {"verification": "verification", "visual": "visual"}
    ours.network.eval()
    for modality, last in (("photo", "visual"), ("caricature", "verification")):
        rows = faces_of(ours, modality)[:1]
        raw = of_rows(ours, rows)
        ours.training_step(raw, 0)
        batch = assemble(raw, ours.crop, ours.tasks, None)
        with torch.no_grad():
            embedding = ours.network(batch.images).embeddings[last][0]
        torch.testing.assert_close(own.table[int(batch.targets["verification"][0])], embedding)


def test_people_who_are_absent_from_a_batch_stay_where_they_are(learner) -> None:
    ours = learner()
    own = ours.extras["centres"]
    people = ours._train.pool.targets["verification"].values.numpy()
    ours.training_step(first_batch(ours), 0)
    before = own.table.clone()
    ours.training_step(of_rows(ours, (people == 2).nonzero()[0][:6]), 0)
    moved = (own.table != before).any(1)
    assert moved.tolist() == [False, False, True, False]


def test_faces_without_a_label_neither_pay_nor_move(learner) -> None:
    ours = learner({"centres": {"tasks": ["verification"], "weight": 10.0, "rate": 0.5}})
    own = ours.extras["centres"]
    raw = unlabelled(first_batch(ours), "verification", slice(0, 16))
    found = gradients(ours, raw)
    assert torch.equal(own.table, torch.zeros(4, 8))
    assert all((value == 0).all() for name, value in found.items() if name.startswith("network.branches.verification"))


def test_no_gradient_and_no_optimiser_reaches_the_table(learner) -> None:
    ours = learner()
    own = ours.extras["centres"]
    gradients(ours, first_batch(ours))
    assert own.table.grad is None
    grouped = {id(p) for group in ours.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert id(own.table) not in grouped
    assert "extras.centres.table" in ours.state_dict()


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, monkeypatch) -> None:
    """To the bit, as centres are part of the checkpoint: ended after the third and after the seventh of ten steps."""
    chosen = recipe_of(tmp_path, stage_tree({"centres": CENTRES | {"weight": 3.0}}))
    whole = fit(chosen, tmp_path / "whole")["one"]
    for step in (3, 7):
        with monkeypatch.context() as patch:
            patch.setattr(Learner, "training_step", stopping_at(step))
            with pytest.raises(Gone):
                fit(chosen, tmp_path / "killed", checkpoint_steps=1)
    table = torch.load(tmp_path / "killed/one/last.ckpt", weights_only=True)["state_dict"]["extras.centres.table"]
    assert float(table.norm(dim=1).min()) > 0.1
    resumed = fit(chosen, tmp_path / "killed", checkpoint_steps=1)["one"]
    assert resumed.history == whole.history
    weights = [(result.bundle / "model.safetensors").read_bytes() for result in (whole, resumed)]
    assert weights[0] == weights[1]


def test_without_centres_the_network_learns_otherwise(learner) -> None:
    """The comparison above is about something."""
    ours, plain = learner(weight=3.0), learner({"centres": None})
    assert "centres" not in plain.extras
    a, b = (gradients(each, first_batch(each)) for each in (ours, plain))
    torch.manual_seed(0)
    assert not torch.allclose(a["network.branches.visual.fc.1.weight"], b["network.branches.visual.fc.1.weight"])
    assert a.keys() == b.keys()


# ------------------------------------------------------------------------------------------------ faults

TREE = stage_tree()
CLASSIFY = {"kind": "classification", "column": "identity", "vocabulary": ["synthetic-0", "synthetic-1"]}
TWO = {"kind": "identity", "people": ["synthetic-0", "synthetic-1"]}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"centres": {"tasks": ["visal"]}}, "centres.tasks names 'visal', which is no identity task; .*'visual'"),
        ({"tasks": TREE["tasks"] | {"visual": CLASSIFY}}, "centres.tasks names 'visual', which is no identity task"),
        (
            {"network": TREE["network"] | {"branches": {name: {} for name in TREE["network"]["branches"]}}},
            "centres.tasks: 'verification' reads no embedding: give its branch a similarity",
        ),
        (
            {"tasks": TREE["tasks"] | {"visual": TWO}},
            r"share one table, but people and length of embeddings differ: .*\(4, 8\).*\(2, 8\)",
        ),
    ],
)
def test_what_can_have_no_centres(learner, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message) as caught:
        learner(changes)
    assert "\n" not in str(caught.value)
