"""From tables to batches: order and draws as pure functions, shares of ranks, masks, caches, moved landmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface import tasks
from polyface.data.augment import AugmentSpec
from polyface.data.boxes import Boxes
from polyface.data.crops import CropSpec, is_mirrored
from polyface.data.loader import FaceLoader, FacePool, RawBatch, assemble, cached_cuts
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError

SPEC = CropSpec(size=40, channels=1, scale=1.2, margin=1.8, oversample=1.5)
LANDMARKS = {"landmarks": tasks.build("landmarks", {"kind": "landmarks", "points": 5})}
MIXED = LANDMARKS | {"pose": tasks.build("pose", {"kind": "classification", "column": "pose"})}


def made(folder: Path, count: int, name: str = "t", first: int = 0) -> tuple[FaceTable, Boxes]:
    """Pictures of a soft blob each, at landmark 0; every third hides its right mouth corner, every second its pose."""
    random = np.random.default_rng(first)
    faces = []
    rows, columns = np.mgrid[:80, :80]
    for i in range(first, first + count):
        x, y = random.uniform(30, 50, 2)
        light = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
        points = np.array([[x, y], [x + 4, y], [x, y + 5], [x - 3, y + 9], [x + 3, y + 9]])
        if i % 3 == 0:
            points[4] = np.nan
        labels = {"landmarks_5": points, "fold": i} | ({"pose": "left"} if i % 2 else {})
        faces.append(Record(np.repeat(light.round().astype(np.uint8)[..., None], 3, 2), str(i), f"{i}.png", labels))
    write_table(faces, folder / f"{name}.parquet")
    table = FaceTable.open(folder / f"{name}.parquet")
    box = np.tile(np.array([20, 20, 60, 60], np.float32), (count, 1))
    return table, Boxes(box, np.zeros(0, int))


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> FacePool:
    folder = tmp_path_factory.mktemp("loader")
    return FacePool([(*made(folder, 30), 1.0)], SPEC, MIXED)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Callable[..., FacePool]:
    """``mixture(2.5, 0.5)``: tables of 12 and 20 faces with these ratios."""
    folder = tmp_path_factory.mktemp("mixture")
    tables = [made(folder, 12, "a"), made(folder, 20, "b", first=12)]

    def make(*ratios: float) -> FacePool:
        return FacePool([(*table, ratio) for table, ratio in zip(tables, ratios, strict=True)], SPEC, LANDMARKS)

    return make


def loader(pool: FacePool, batch: int = 7, *, epoch: int = 0, first: int = 0, **settings: object) -> FaceLoader:
    made_ = FaceLoader(pool, batch, **{"seed": 5, "stage": "s", "shuffle": True} | settings)  # type: ignore[arg-type]
    made_.epoch, made_.first = epoch, first
    return made_


def rows(batches: FaceLoader | Sequence[RawBatch]) -> list[list[int]]:
    return [raw.rows.tolist() for raw in batches]


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


# ---------------------------------------------------------------------------------------------------- order


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.text(max_size=8), st.integers(0, 50), st.integers(1, 10))
def test_order_and_draws_are_functions_of_seed_stage_epoch_and_row(pool, seed, stage, epoch, batch) -> None:
    """A new loader, one that has run other epochs before, and one of another batch size agree face by face."""
    fresh = list(loader(pool, batch, seed=seed, stage=stage, epoch=epoch))
    used = loader(pool, batch, seed=seed, stage=stage, epoch=epoch + 1)
    list(used)
    used.epoch = epoch
    again = list(used)
    assert rows(fresh) == rows(again)
    assert all(torch.equal(a.draws, b.draws) for a, b in zip(fresh, again, strict=True))
    single = loader(pool, 1, seed=seed, stage=stage, epoch=epoch)
    each = {int(raw.rows): raw.draws[0] for raw in single}
    for raw in fresh:
        for row, draw in zip(raw.rows.tolist(), raw.draws, strict=True):
            assert torch.equal(draw, each[row])


def test_an_epoch_shows_every_face_once_in_an_order_of_its_own(pool) -> None:
    seen = [flat(rows(loader(pool, 1, epoch=epoch))) for epoch in range(3)]
    assert all(sorted(order) == list(range(30)) for order in seen)
    others = [flat(rows(loader(pool, 1, **change))) for change in ({"seed": 6}, {"stage": "t"})]
    distinct = {tuple(order) for order in [*seen, *others]}
    assert len(distinct) == 5
    assert list(range(30)) not in seen


def test_evaluation_keeps_the_order_and_drops_nothing(pool) -> None:
    plain = loader(pool, 7, shuffle=False)
    assert len(plain) == 5
    batches = list(plain)
    assert flat(rows(batches)) == list(range(30))
    assert [len(raw.rows) for raw in batches] == [7, 7, 7, 7, 2]
    assert all(len(raw.draws) == 0 for raw in batches)


def test_training_drops_the_incomplete_batch(pool) -> None:
    assert len(loader(pool, 7)) == 4
    assert [len(batch) for batch in rows(loader(pool, 7))] == [7] * 4


@given(st.integers(0, 4))
def test_a_skipped_beginning_changes_nothing_that_follows(pool, first: int) -> None:
    whole = list(loader(pool))
    part = loader(pool, first=first)
    rest = list(part)
    assert rows(rest) == rows(whole)[first:]
    assert all(torch.equal(a.draws, b.draws) for a, b in zip(rest, whole[first:], strict=True))
    assert rows(part) == rows(whole)  # the next epoch is whole again


# ----------------------------------------------------------------------------------------------------- ranks


@given(st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_ranks_divide_every_global_batch_exactly(pool, world: int, batch: int, shuffle: bool) -> None:
    single = loader(pool, batch * world, shuffle=shuffle)
    ranks = [list(loader(pool, batch, shuffle=shuffle, rank=r, world=world)) for r in range(world)]
    assert {len(share) for share in ranks} == {len(single)}  # equal numbers of steps: nobody waits for ever
    for step, whole in enumerate(single):
        parts = [share[step].rows.tolist() for share in ranks]
        assert sorted(flat(parts)) == sorted(whole.rows.tolist())
        if shuffle:
            assert {len(part) for part in parts} == {batch}
            together = {
                int(row): draw for share in ranks for row, draw in zip(share[step].rows, share[step].draws, strict=True)
            }
            for row, draw in zip(whole.rows.tolist(), whole.draws, strict=True):
                assert torch.equal(together[row], draw)


# ---------------------------------------------------------------------------------------------------- ratios


@pytest.mark.parametrize(
    "ratios, expected", [((1, 1), (12, 20)), ((2.5, 0.5), (30, 10)), ((0.25, 3), (3, 60)), ((1, 0.01), (12, 0))]
)
def test_ratios_are_counted(mixture, ratios, expected) -> None:
    pool = mixture(*ratios)
    seen = Counter(flat(rows(loader(pool, 1))))
    assert sum(n for row, n in seen.items() if row < 12) == expected[0]
    assert sum(n for row, n in seen.items() if row >= 12) == expected[1]
    for part, ratio in ((range(12), ratios[0]), (range(12, 32), ratios[1])):
        counts = {seen[row] for row in part}
        assert counts <= {int(ratio), int(ratio) + 1}  # as even as it can be


def test_a_share_is_drawn_anew_every_epoch(mixture) -> None:
    pool = mixture(1, 0.5)
    shown = [frozenset(row for row in flat(rows(loader(pool, 1, epoch=e))) if row >= 12) for e in range(8)]
    assert len(set(shown)) > 1
    assert frozenset.union(*shown) == frozenset(range(12, 32))


def test_pictures_of_several_tables_are_their_rows(mixture) -> None:
    pool = mixture(1, 1)
    wanted = np.array([31, 0, 12, 11, 5, 20])
    together = pool.cuts_of(wanted)
    for cut, row in zip(together, wanted, strict=True):
        part = pool.cuts[0][row] if row < 12 else pool.cuts[1][row - 12]
        np.testing.assert_array_equal(cut.numpy(), part)
    assert pool.table.column("fold").to_pylist() == list(range(32))


# ------------------------------------------------------------------------------------------ labels and masks


def test_masks_are_the_nulls_of_the_table(pool) -> None:
    for raw in loader(pool, 30):
        for row, points, pose in zip(raw.rows.tolist(), raw.labelled["landmarks"], raw.labelled["pose"], strict=True):
            assert points.tolist() == [True, True, True, True, row % 3 != 0]
            assert pose.tolist() == [row % 2 == 1]


def test_landmarks_of_a_varied_batch_lie_on_the_blob(pool) -> None:
    """Rotated, zoomed, moved, mirrored: the light of each picture is where its own target says."""
    augment = AugmentSpec(rotate=40, zoom=0.2, shift=0.1, mirror=0.5)
    along = torch.arange(40.0)
    mirrored = 0
    for raw in loader(pool, 10):
        batch = assemble(raw, pool.crop, MIXED, augment)
        light = batch.images[:, 0]
        x = (light.sum(1) * along).sum(1) / light.sum((1, 2))
        y = (light.sum(2) * along).sum(1) / light.sum((1, 2))
        flipped = is_mirrored(batch.crops)
        first = torch.where(flipped[:, None], batch.targets["landmarks"][:, 1], batch.targets["landmarks"][:, 0])
        torch.testing.assert_close(first * 40 - 0.5, torch.stack([x, y], 1), atol=0.15, rtol=0)
        # Half of the poses are labelled "left" (1); in a mirror it is "right" (3).
        seen = batch.labelled["pose"][:, 0]
        assert torch.equal(batch.targets["pose"][seen], torch.where(flipped, 3, 1)[seen])
        assert torch.equal(batch.labelled["landmarks"], ~batch.targets["landmarks"].isnan().any(-1))
        mirrored += int(flipped.sum())
    assert 0 < mirrored < 30


def test_without_draws_or_augmentation_a_batch_is_plain(pool) -> None:
    raw = next(iter(loader(pool, 10, shuffle=False)))
    plain = assemble(raw, pool.crop, MIXED, AugmentSpec(rotate=40, mirror=1))
    assert torch.equal(plain.images, assemble(raw, pool.crop, MIXED, None).images)
    torch.testing.assert_close(plain.crops, pool.crops[:10], atol=1e-4, rtol=1e-5)
    varied = assemble(next(iter(loader(pool, 10))), pool.crop, MIXED, AugmentSpec(rotate=40))
    still = assemble(next(iter(loader(pool, 10))), pool.crop, MIXED, None)
    assert not torch.allclose(varied.images, still.images)
    torch.testing.assert_close(still.crops, pool.crops[still.rows], atol=1e-4, rtol=1e-5)


def test_a_batch_without_a_face(pool) -> None:
    """The last share of a process when there are fewer faces than processes."""
    empty = list(loader(pool, 10, shuffle=False, rank=30, world=31))[-1]
    batch = assemble(empty, pool.crop, MIXED, None)
    assert batch.images.shape == (0, 1, 40, 40)
    assert batch.targets["landmarks"].shape == (0, 5, 2)


# ---------------------------------------------------------------------------------------------------- caches


def test_the_second_time_nothing_is_decoded(tmp_path, monkeypatch) -> None:
    table, boxes = made(tmp_path, 6)
    seen: list[str] = []
    first = cached_cuts(table, boxes, SPEC, lambda done, total, what: seen.append(f"{done}/{total} {what}"))
    assert first.shape == (6, 1, SPEC.cut_size, SPEC.cut_size)
    assert seen == ["6/6 faces cut out"]
    copy = np.array(first)

    def refuse(self: FaceTable, row: int) -> np.ndarray:
        raise AssertionError("decoded again")

    monkeypatch.setattr(FaceTable, "image", refuse)
    again = cached_cuts(FaceTable.open(tmp_path / "t.parquet"), boxes, SPEC)
    np.testing.assert_array_equal(again, copy)
    assert not again.flags.writeable
    other = Boxes(boxes.xyxy + 1, boxes.missed)
    for changed in ((table, other, SPEC), (table, boxes, SPEC.model_copy(update={"scale": 1.3})),
                    (table.take(np.arange(5, -1, -1)), boxes, SPEC)):  # fmt: skip
        with pytest.raises(AssertionError, match="decoded again"):
            cached_cuts(*changed)


def test_a_failure_while_cutting_leaves_no_cache(tmp_path, cache_folder, monkeypatch) -> None:
    table, boxes = made(tmp_path, 6, "broken", first=100)
    before = set((cache_folder / "cuts").glob("*")) if (cache_folder / "cuts").exists() else set()
    image = FaceTable.image

    def broken(self: FaceTable, row: int) -> np.ndarray:
        if row == 4:
            raise PolyfaceError("row 4 is broken")
        return image(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(FaceTable, "image", broken)
        with pytest.raises(PolyfaceError, match="row 4 is broken"):
            cached_cuts(table, boxes, SPEC)
    assert {path for path in (cache_folder / "cuts").glob("*")} == before
    assert len(cached_cuts(table, boxes, SPEC)) == 6


def test_mistakes_are_named(pool) -> None:
    with pytest.raises(PolyfaceError, match="no face is left"):
        FacePool([], SPEC, LANDMARKS)
    with pytest.raises(PolyfaceError, match=r"30 training faces do not fill one batch of 16 on 2 process"):
        loader(pool, 16, world=2)
