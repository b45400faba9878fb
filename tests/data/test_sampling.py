"""Balanced sampling: every word equally often, nobody's face twice before all once, batches of both modalities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.boxes import Boxes
from polyface.data.crops import CropSpec
from polyface.data.loader import FaceLoader, FacePool
from polyface.data.sampling import balanced
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table

SPEC = CropSpec(size=16, channels=1)


@st.composite
def columns(draw: st.DrawFn, most: int = 2) -> list[np.ndarray]:
    """One or two columns of words over up to 40 faces, as uneven as can be."""
    count = draw(st.integers(1, 40))
    words = [st.sampled_from(["photo", "caricature"]), st.sampled_from(["ann", "bob", "eve", "zoe", None])]
    chosen = draw(st.sampled_from([words[:1], words[1:], words]))[:most]
    return [np.array(draw(st.lists(word, min_size=count, max_size=count)), dtype=object) for word in chosen]


def order(groups: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    return balanced(groups, np.random.default_rng(seed))


def even(counts: dict[object, int]) -> bool:
    return max(counts.values()) - min(counts.values()) <= 1


# ------------------------------------------------------------------------------------------------ the order


@given(columns(), st.integers(0, 99))
def test_it_is_as_many_faces_as_there_are_whatever_the_groups(groups, seed) -> None:
    found = order(groups, seed)
    assert found.dtype == np.int64
    assert found.shape == (len(groups[0]),)
    assert set(found.tolist()) <= set(range(len(groups[0])))


@given(columns(), st.integers(0, 99))
def test_every_word_is_shown_equally_often(groups, seed) -> None:
    """Of the first column over all faces, of the second within each word of the first; to within one."""
    found, first = order(groups, seed), groups[0]
    counts = {word: int((first[found] == word).sum()) for word in set(first.tolist())}
    if len(found) >= len(counts):
        assert even(counts)
    for word in counts if len(groups) > 1 else ():
        own, second = found[first[found] == word], groups[1]
        shown = Counter(second[own].tolist())
        everyone = set(second[first == word].tolist())
        assert even({person: shown[person] for person in everyone})


@given(columns(), st.integers(0, 99))
def test_nobodys_face_is_shown_again_before_all_of_them_were_once(groups, seed) -> None:
    found = order(groups, seed).tolist()
    cells = list(zip(*(column.tolist() for column in groups), strict=True))
    for cell in set(cells):
        faces = [row for row, each in enumerate(cells) if each == cell]
        shown = [row for row in found if cells[row] == cell]
        for start in range(0, len(shown), len(faces)):
            turn = shown[start : start + len(faces)]
            assert len(set(turn)) == len(turn)


@given(columns(), st.integers(0, 99))
def test_it_is_a_function_of_the_generators_state(groups, seed) -> None:
    np.testing.assert_array_equal(order(groups, seed), order(groups, seed))


def test_by_hand() -> None:
    """Six photos and two caricatures: four of each, in turn, each caricature twice."""
    modality = np.array(["photo"] * 6 + ["caricature"] * 2)
    people = np.array(["ann", "ann", "ann", "ann", "ann", "bob", "ann", "bob"])
    found = order([modality, people])
    assert (modality[found] == np.array(["caricature", "photo"] * 4)).all()
    photos = found[1::2]
    assert sorted(people[photos]) == ["ann", "ann", "bob", "bob"]
    assert (photos == 5).sum() == 2
    assert Counter(found[::2].tolist()) == {6: 2, 7: 2}


def test_people_come_in_another_order_every_turn() -> None:
    people = np.repeat(np.arange(8).astype(str), 20)
    turns = people[order([people])].reshape(-1, 8)
    assert all(set(turn) == set("01234567") for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 15
    firsts = {tuple(order([people], seed)[:8].tolist()) for seed in range(5)}
    assert len(firsts) == 5


def test_a_modality_with_one_face_is_half_of_what_is_shown() -> None:
    modality = np.array(["photo"] * 9 + ["caricature"])
    people = np.array([str(i % 3) for i in range(10)])
    found = order([modality, people])
    assert (found == 9).sum() == 5
    assert len(set(found.tolist()) - {9}) == 5


def test_a_null_is_a_word_of_its_own() -> None:
    people = np.array(["ann", None, None, None], dtype=object)
    assert Counter(people[order([people])].tolist()) == {"ann": 2, None: 2}


# ------------------------------------------------------------------------------------------------ in a pool


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FaceTable:
    """40 faces, 30 of them photos, of five people, the first of whom has half of all."""
    path: Path = tmp_path_factory.mktemp("sampling") / "t.parquet"
    picture = np.zeros((20, 20, 3), np.uint8)

    def record(row: int) -> Record:
        person = "ann" if row % 2 else "bcde"[row // 2 % 4]
        labels = {"identity": person, "modality": "caricature" if row % 4 == 1 else "photo"}
        return Record(picture + row, str(row), f"{row}.png", labels)

    write_table(map(record, range(40)), path)
    return FaceTable.open(path)


def pool(table: FaceTable, balance: Sequence[str] = ("modality", "identity"), ratio: float = 1.0) -> FacePool:
    boxes = Boxes(np.tile(np.array([2, 2, 18, 18], np.float32), (len(table), 1)), np.zeros(0, int))
    return FacePool([(table, boxes, ratio)], SPEC, {}, balance=balance)


@pytest.mark.parametrize("batch", [2, 6, 8])
def test_every_batch_of_even_size_holds_both_modalities_equally(table, batch: int) -> None:
    loader = FaceLoader(pool(table), batch, seed=1, stage="s", shuffle=True)
    modality = table.words("modality")
    for epoch in range(3):
        loader.epoch = epoch
        batches = list(loader)
        assert len(batches) == 40 // batch
        for raw in batches:
            assert Counter(modality[raw.rows.numpy()]) == {"photo": batch // 2, "caricature": batch // 2}


@pytest.mark.parametrize("world", [2, 3])
def test_every_process_gets_its_share_of_both_modalities(table, world: int) -> None:
    """Rows take turns: were they dealt out in turn too, one process would have the photos and one the caricatures."""
    modality, batch = table.words("modality"), 4
    whole = list(FaceLoader(pool(table), batch * world, seed=1, stage="s", shuffle=True))
    shares = [
        list(FaceLoader(pool(table), batch, seed=1, stage="s", shuffle=True, rank=rank, world=world))
        for rank in range(world)
    ]
    for together, *each in zip(whole, *shares, strict=True):
        for raw in each:
            assert Counter(modality[raw.rows.numpy()]) == {"photo": batch // 2, "caricature": batch // 2}
        assert sorted(torch.cat([raw.rows for raw in each]).tolist()) == sorted(together.rows.tolist())


def test_the_order_is_a_function_of_seed_stage_and_epoch(table) -> None:
    """Whatever was asked of the pool before: a resumed run sees the faces that a whole one does."""
    used, fresh = pool(table), pool(table)
    for epoch in range(3):
        used.order(7, "other", epoch, True)
    orders = [used.order(*key, True) for key in ((7, "s", 2), (8, "s", 2), (7, "t", 2), (7, "s", 3))]
    np.testing.assert_array_equal(fresh.order(7, "s", 2, True), orders[0])
    assert len({tuple(one.tolist()) for one in orders}) == 4
    resumed = FaceLoader(fresh, 8, seed=7, stage="s", shuffle=True)
    whole = FaceLoader(used, 8, seed=7, stage="s", shuffle=True)
    resumed.epoch = whole.epoch = 2
    resumed.first = 3
    for ours, theirs in zip(list(resumed), list(whole)[3:], strict=True):
        assert torch.equal(ours.rows, theirs.rows)
        assert torch.equal(ours.draws, theirs.draws)


def test_evaluation_and_pools_without_balance_are_as_they_were(table) -> None:
    assert pool(table).order(7, "s", 0, False).tolist() == list(range(40))
    plain = pool(table, balance=()).order(7, "s", 0, True)
    assert sorted(plain.tolist()) == list(range(40))
    assert sorted(pool(table).order(7, "s", 0, True).tolist()) != list(range(40))


def test_an_epoch_has_as_many_faces_whatever_the_ratio(table) -> None:
    np.testing.assert_array_equal(pool(table, ratio=2.5).order(7, "s", 0, True), pool(table).order(7, "s", 0, True))
