"""What a frozen trunk makes of faces: computed once, whole or absent, and the same as if it were computed anew."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyface import networks
from polyface.data.augment import DRAWS, AugmentSpec
from polyface.data.boxes import Boxes
from polyface.data.crops import CropSpec
from polyface.data.features import Features, cached_maps
from polyface.data.loader import FaceLoader, FacePool, assemble
from polyface.data.synthetic import records
from polyface.data.table import FaceTable
from polyface.data.writing import write_table
from polyface.networks import FaceNetwork

SPEC = CropSpec(size=40, channels=1, margin=1.2, oversample=1.0)
CONFIG: dict[str, Any] = {
    "trunk": {"name": "timm", "model": "test_resnet", "size": 40, "channels": 1, "pool": "map", "frozen": True},
    "parts": {"inner": {"kind": "pool", "reads": ["trunk.stage2"]}},
    "heads": {"pose": {"reads": ["inner"], "outputs": 5}},
}
MIRROR = AugmentSpec(mirror=0.5)


def network(seed: int = 0, **changes: Any) -> FaceNetwork:
    torch.manual_seed(seed)
    return networks.build(CONFIG | changes)


def faces(folder: Path, count: int, seed: int) -> tuple[FaceTable, Boxes, float]:
    write_table(records(count, 48, seed=seed), folder / f"{seed}.parquet")
    return FaceTable.open(folder / f"{seed}.parquet"), Boxes(np.tile(np.float32([4, 4, 44, 44]), (count, 1)), []), 1.0  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> FacePool:
    """Two tables, of 70 and 9 faces."""
    folder = tmp_path_factory.mktemp("faces")
    return FacePool([faces(folder, 70, 1), faces(folder, 9, 2)], SPEC, {})


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYFACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many faces each call of a trunk is shown."""
    counts: list[int] = []
    original = FaceNetwork.features

    def features(self: FaceNetwork, images: torch.Tensor) -> dict[str, torch.Tensor]:
        counts.append(len(images))
        return original(self, images)

    monkeypatch.setattr(FaceNetwork, "features", features)
    return counts


def test_the_maps_are_those_of_the_pictures_whichever_are_mirrored(pool: FacePool) -> None:
    own, rows = network(), np.array([78, 3, 69, 70, 3])
    features, loader = Features(own, pool, MIRROR), FaceLoader(pool, 5, shuffle=True)
    draws = np.full((5, DRAWS), 0.9, np.float32)
    draws[[0, 1], 4] = 0.1
    for given, augment, found in (
        (None, None, features.of(rows)),
        (draws, MIRROR, features.drawn(rows, draws)),
        (np.zeros((5, DRAWS), np.float32), MIRROR, features.of(rows, True)),
    ):
        raw = loader._raw(rows, None)
        raw.draws = raw.draws if given is None else torch.from_numpy(given)
        expected = own.features(assemble(raw, SPEC, {}, augment).images)
        assert found.keys() == {"shared", "stage2"}  # of five
        for name, maps in found.items():
            torch.testing.assert_close(maps, expected[name], rtol=1e-5, atol=1e-6)
            assert maps.is_contiguous(memory_format=torch.channels_last)
    plain, turned = features.of(rows[1:2]), features.of(rows[1:2], True)
    assert (plain["stage2"] - turned["stage2"]).abs().max() > 0.01


def test_batches_hold_maps_in_place_of_pictures_and_mirror_the_same_faces(pool: FacePool) -> None:
    own, loaders = network(), [FaceLoader(pool, 20, seed=4, stage="s", shuffle=True) for _ in range(2)]
    loaders[1].features = Features(own, pool, MIRROR)
    mirrored = 0
    for plain, cached in zip(*loaders, strict=True):
        assert len(cached.cuts) == 0
        want, have = (assemble(raw, SPEC, {}, MIRROR) for raw in (plain, cached))
        torch.testing.assert_close(have.crops, want.crops, rtol=0, atol=0)
        mirrored += int((have.crops[:, 0, 0] < 0).sum())
        for name, maps in have.maps.items():
            torch.testing.assert_close(maps, own.features(want.images)[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            own(have.maps).outputs["pose"], own(want.images).outputs["pose"], rtol=1e-5, atol=1e-6
        )
    assert 10 < mirrored < 50


def test_nothing_is_computed_twice(pool: FacePool, seen: list[int]) -> None:
    told: list[str] = []
    Features(network(), pool, AugmentSpec(), lambda done, total, what: told.append(f"{done}/{total} {what}"))
    assert seen == [64, 6, 9]
    assert told == [f"{done} faces seen by the trunk" for done in ("64/70", "70/70", "9/9")]
    Features(network(), pool, MIRROR)
    assert seen[3:] == [64, 6, 9]  # the mirror images alone
    Features(network(heads={"smile": {"reads": ["inner"], "outputs": 2}}, embeddings={}), pool, MIRROR)
    assert len(seen) == 6  # another network with the same trunk
    Features(network(parts={"inner": {"kind": "pool", "reads": ["trunk.stage3"]}}), pool, AugmentSpec())
    assert seen[6:] == [64, 6, 9]  # that reads another map


@pytest.mark.parametrize("change", ["weights", "options", "pixels", "crop", "boxes", "rows"])
def test_another_trunk_crop_or_face_is_another_file(seen: list[int], change: str, tmp_path: Path) -> None:
    table, boxes, _ = faces(tmp_path, 8, 3)
    cached = Features(network(), FacePool([(table, boxes, 1.0)], SPEC, {}), AugmentSpec())
    own, crop = network(), SPEC
    if change == "weights":
        with torch.no_grad():
            next(own.trunk.parameters())[0] += 1e-3
    elif change == "options":
        own = network(trunk=CONFIG["trunk"] | {"size": 48})
        crop = SPEC.model_copy(update={"size": 48})
    elif change == "pixels":
        own = network(normalise={"mean": 100, "std": 128})
    elif change == "crop":
        crop = SPEC.model_copy(update={"shift_y": 0.1})
    elif change == "boxes":
        boxes = Boxes(boxes.xyxy + 1, boxes.missed)
    elif change == "rows":
        table = table.take(np.arange(8)[::-1])
    other = Features(own, FacePool([(table, boxes, 1.0)], crop, {}), AugmentSpec())
    assert seen == [8, 8]
    have, want = (each.of(np.arange(8))["stage2"] for each in (other, cached))
    assert have.shape != want.shape or not torch.allclose(have, want)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_what_is_not_whole_is_not_kept(
    pool: FacePool, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    original, calls = FaceNetwork.features, [0]

    def features(self: FaceNetwork, images: torch.Tensor) -> dict[str, torch.Tensor]:
        calls[0] += 1
        if calls[0] == 2:
            raise error
        return original(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(FaceNetwork, "features", features)
        with pytest.raises(type(error)):
            Features(network(), pool, AugmentSpec())
    assert list(empty_cache.iterdir()) == []
    assert len(Features(network(), pool, AugmentSpec()).of(np.arange(79))["shared"]) == 79


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="where the system cannot reserve space for a file")
def test_a_full_disk_is_told_before_anything_is_written(
    pool: FacePool, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device.*features/\w+-stage2.npy|features/\w+-shared.npy"):
        Features(network(), pool, AugmentSpec())
    assert list(empty_cache.iterdir()) == []


def test_what_a_killed_process_left_is_not_read(pool: FacePool, empty_cache: Path) -> None:
    killed: Callable[..., Any] = lambda done, total, what: os._exit(9)  # noqa: E731
    if not (child := os.fork()):
        cached_maps(network(), pool.cuts[0], SPEC, False, killed)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [path for path in empty_cache.iterdir() if path.suffix != ".lock"]
    assert len(left) == 2  # written aside
    features = Features(network(), pool, AugmentSpec())
    rows = np.arange(60, 79)
    expected = network().features(assemble(FaceLoader(pool, 1, shuffle=False)._raw(rows, None), SPEC, {}, None).images)
    torch.testing.assert_close(features.of(rows)["shared"], expected["shared"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage", ["cut short", "no array", "other faces"])
def test_a_file_that_is_not_whole_is_computed_anew_and_that_is_said(
    pool: FacePool, empty_cache: Path, caplog: pytest.LogCaptureFixture, seen: list[int], damage: str
) -> None:
    """What another program, or a disk, did to it: what is written by this one is whole or absent."""
    expected = {name: maps.clone() for name, maps in Features(network(), pool, MIRROR).of(np.arange(79)).items()}
    files = sorted(empty_cache.glob("*.npy"))
    before, shown = {file: file.read_bytes() for file in files}, sum(seen)
    if damage == "other faces":
        np.save(files[0], np.load(files[0])[:-1])
    else:
        files[0].write_bytes(before[files[0]][:-100] if damage == "cut short" else b"no array")
    found = Features(network(), pool, MIRROR).of(np.arange(79))
    assert all(torch.equal(maps, expected[name]) for name, maps in found.items())
    assert caplog.messages == [f"{files[0]}: is not whole; what it held is computed anew"]
    assert {file: file.read_bytes() for file in files} == before
    assert sum(seen) - shown in (70, 9)  # the faces of one file


def test_a_trunk_that_gives_a_vector(pool: FacePool) -> None:
    own = network(trunk={"name": "tcdcn", "frozen": True}, parts={}, heads={"pose": 5})
    found = Features(own, pool, AugmentSpec()).of(np.arange(3))
    assert {name: maps.shape for name, maps in found.items()} == {"shared": (3, own.shared_dim)}
