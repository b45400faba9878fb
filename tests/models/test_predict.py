"""Predictions over a pool, plain and averaged over translations (TCDCN-Averaged)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from polyface import networks, tasks
from polyface.data.boxes import Boxes
from polyface.data.crops import CropSpec
from polyface.data.loader import FacePool
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.models.predict import TTA, Degradation, predict, translations
from polyface.networks import FaceOutput
from polyface.networks.heads import Embedding

SPEC = CropSpec(size=40, channels=1, scale=1.0, margin=1.6, oversample=1.0)
TASKS = {
    "landmarks": tasks.build("landmarks", {"kind": "landmarks", "points": 1}),
    "smile": tasks.build("smile", {"kind": "classification", "column": "smile"}),
}


class Plain(nn.Module):
    """A network without embeddings."""

    embeddings: Mapping[str, Embedding] = {}
    own_embeddings: Sequence[str] = ()

    def embedding_of(self, task: str) -> None:
        return None


class Centroid(Plain):
    """A network that sees: its one point is the centre of brightness, exactly; its smile depends on where that is."""

    def forward(self, images: Tensor) -> FaceOutput:
        size = images.shape[-1]
        along = (torch.arange(size) + 0.5) / size
        mass = images.sum((1, 2, 3))
        x = (images.sum((1, 2)) * along).sum(1) / mass
        y = (images.sum((1, 3)) * along).sum(1) / mass
        point = torch.stack([x, y], 1)
        return FaceOutput(point, {"landmarks": point, "smile": torch.stack([x, y], 1) * 20})


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> FacePool:
    """Five pictures, each with one soft blob near the middle, at a known sub-pixel place."""
    random = np.random.default_rng(0)
    centres = 50 + random.uniform(-6, 6, (5, 2))
    y, x = np.mgrid[:100, :100]
    faces = []
    for i, (cx, cy) in enumerate(centres):
        blob = 255 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 4.0**2))
        picture = np.repeat(blob.round().astype(np.uint8)[..., None], 3, axis=2)
        faces.append(Record(picture, str(i), f"{i}.png", {"landmarks_1": [[cx, cy]], "smile": "yes"}))
    path = tmp_path_factory.mktemp("predict") / "t.parquet"
    write_table(faces, path)
    table = FaceTable.open(path)
    boxes = np.concatenate([centres - 20, centres + 20], axis=1) + random.uniform(-3, 3, (5, 4))
    return FacePool([(table, Boxes(boxes.astype(np.float32), np.zeros(0, int)), 1.0)], SPEC, TASKS)


def truth(pool: FacePool) -> np.ndarray:
    return pool.table.points("landmarks_1")


def test_plain_answers_are_in_pixels_of_the_original(pool) -> None:
    found = predict(Centroid(), TASKS, pool)["landmarks"]["points"]
    np.testing.assert_allclose(found, truth(pool), atol=0.05)


def test_translations_are_undone(pool) -> None:
    """Every shifted crop is answered in its own frame; back in the original all 20 agree with the blob."""
    found = predict(Centroid(), TASKS, pool, tta=TTA(20, 0.08))["landmarks"]["points"]
    np.testing.assert_allclose(found, truth(pool), atol=0.05)


def test_spread_zero_is_plain(pool) -> None:
    torch.manual_seed(0)
    heads = {"landmarks": 2, "smile": 2}
    network = networks.build({"trunk": {"name": "tcdcn"}, "heads": heads})
    plain = predict(network, TASKS, pool)
    still = predict(network, TASKS, pool, tta=TTA(7, 0.0))
    moved = predict(network, TASKS, pool, tta=TTA(7, 0.05))
    np.testing.assert_allclose(still["landmarks"]["points"], plain["landmarks"]["points"], atol=1e-3)
    np.testing.assert_allclose(still["smile"]["probabilities"], plain["smile"]["probabilities"], atol=1e-5)
    assert np.abs(moved["landmarks"]["points"] - plain["landmarks"]["points"]).max() > 1e-3


def test_average_is_the_mean_of_the_shifted_answers(pool) -> None:
    """Probabilities, for which nothing is undone: the mean over all shifts of what each alone would say."""
    shifts = translations(4, 0.05, 40)
    found = predict(Centroid(), TASKS, pool, tta=TTA(4, 0.05))
    point = predict(Centroid(), TASKS, pool)["landmarks"]["points"][:, 0]
    matrices = pool.crops.numpy()
    inside = np.einsum("nij,nj->ni", matrices[:, :, :2], point) + matrices[:, :, 2]
    each = (inside[:, None] + shifts[:, :, 2].numpy() + 0.5) / 40 * 20
    expected = np.exp(each) / np.exp(each).sum(2, keepdims=True)
    np.testing.assert_allclose(found["smile"]["probabilities"], expected.mean(1), atol=0.02)
    words = ["yes" if p[1] > p[0] else "no" for p in found["smile"]["probabilities"]]
    assert found["smile"]["label"] == words


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
@pytest.mark.parametrize("average", [1, 3])
def test_batches_do_not_change_answers(pool, batch: int, average: int) -> None:
    whole = predict(Centroid(), TASKS, pool, batch=256, tta=TTA(average))
    parts = predict(Centroid(), TASKS, pool, batch=batch, tta=TTA(average))
    np.testing.assert_allclose(parts["landmarks"]["points"], whole["landmarks"]["points"], atol=1e-4)
    assert parts["smile"]["label"] == whole["smile"]["label"]
    assert len(parts["smile"]["label"]) == 5


def test_translations_are_fixed_distinct_and_within_the_spread() -> None:
    shifts = translations(20, 0.03, 40)
    assert torch.equal(shifts, translations(20, 0.03, 40))
    assert torch.equal(shifts[0], torch.eye(2, 3))
    assert torch.equal(shifts[:, :, :2], torch.eye(2).expand(20, 2, 2))
    lengths = shifts[:, :, 2].norm(dim=1)
    assert lengths.max().item() == pytest.approx(0.03 * 40)
    assert len({tuple(row) for row in shifts[:, :, 2].tolist()}) == 20
    assert math.isclose(shifts[:, :, 2].mean(0).norm().item(), 0, abs_tol=0.1)  # no side is preferred


def test_progress_counts_batches(pool) -> None:
    seen: list[tuple[int, int]] = []
    predict(Centroid(), TASKS, pool, batch=2, progress=lambda done, total, what: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_mirrored_views_are_mirrored_translations() -> None:
    matrices = TTA(3, 0.05, mirror=True).matrices(40)
    assert matrices.shape == (6, 2, 3)
    moved = matrices @ torch.tensor([3.0, 7.0, 1.0])
    np.testing.assert_allclose(moved[3:, 0], 39 - moved[:3, 0], atol=1e-5)
    np.testing.assert_allclose(moved[3:, 1], moved[:3, 1], atol=1e-5)


class FiveCentroids(Centroid):
    """The same point five times."""

    def forward(self, images: Tensor) -> FaceOutput:
        found = super().forward(images)
        return FaceOutput(found.shared, found.outputs | {"landmarks": found.shared.repeat(1, 5)})


def test_mirrored_answers_are_read_back_before_they_are_averaged(pool) -> None:
    five = TASKS | {"landmarks": tasks.build("landmarks", {"kind": "landmarks", "points": 5})}
    found = predict(FiveCentroids(), five, pool, tta=TTA(2, 0.05, mirror=True))
    np.testing.assert_allclose(found["landmarks"]["points"], truth(pool).repeat(5, 1), atol=0.05)
    plain, mirrored = (
        predict(FiveCentroids(), five, pool, tta=TTA(mirror=m))["smile"]["probabilities"] for m in (False, True)
    )
    assert np.abs(plain - mirrored).max() > 1e-3  # the mirrored face leans the other way


@pytest.mark.parametrize("wrong", [{"average": 0}, {"spread": -0.1}])
def test_wrong_views_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PolyfaceError, match="give at least 1, and at least 0"):
        TTA(**wrong)  # type: ignore[arg-type]


class Turned(Plain):
    """A network whose embedding is the centre of brightness in the crop, from its corner, at the given length."""

    def __init__(self, similarity: str) -> None:
        super().__init__()
        self.embeddings = {"face": Embedding(2, similarity)}

    def embedding_of(self, task: str) -> str:  # type: ignore[override]
        return "face"

    def forward(self, images: Tensor) -> FaceOutput:
        found = Centroid()(images)
        return FaceOutput(found.shared, found.outputs, {"face": self.embeddings["face"](found.shared)})


def test_the_mean_of_unit_embeddings_is_of_length_one_and_that_of_others_is_the_mean(pool) -> None:
    tta = TTA(4, 0.2)
    unit, plain = (predict(Turned(kind), TASKS, pool, tta=tta) for kind in ("cosine", "euclidean"))
    each = translations(4, 0.2, 40)[:, :, 2].numpy() / 40 + predict(Turned("euclidean"), TASKS, pool)["smile"][
        "embedding"
    ].reshape(5, 1, 2)  # a shifted crop's centre of brightness is shifted alike
    np.testing.assert_allclose(plain["smile"]["embedding"], each.mean(1), atol=2e-3)
    mean = (each / np.linalg.norm(each, axis=2, keepdims=True)).mean(1)
    assert np.linalg.norm(mean, axis=1).max() < 0.995  # the views differ: their mean is shorter
    np.testing.assert_allclose(np.linalg.norm(unit["smile"]["embedding"], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        unit["smile"]["embedding"], mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=2e-3
    )


@pytest.fixture(scope="module")
def several() -> networks.FaceNetwork:
    """A task with an embedding of its own, one that reads a part's, and two embeddings that are no task's."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "trunk": {"name": "tcdcn"},
        "parts": {"a": {"levels": 0, "reads": ["trunk.conv4"], "similarity": "cosine"}},
        "heads": {"landmarks": 2, "smile": {"a": [0, 1]}},
        "embeddings": {
            "landmarks": {"reads": ["a"]},
            "features": {"reads": ["trunk"]},
            "whole": {"reads": ["trunk", "a"], "similarity": "inner"},
        },
    }
    return networks.build(config).eval()


def test_embeddings_that_are_no_tasks_are_answered_beside_the_tasks(pool, several) -> None:
    answers = predict(several, TASKS, pool)
    assert {name: set(answer) for name, answer in answers.items()} == {
        "landmarks": {"points", "embedding"},
        "smile": {"probabilities", "label", "embedding"},
        "features": {"embedding"},
        "whole": {"inner"},
    }
    assert [answers[name][key].shape[1] for name, key in (("features", "embedding"), ("whole", "inner"))] == [100, 164]
    np.testing.assert_allclose(np.linalg.norm(answers["features"]["embedding"], axis=1), 1, rtol=1e-5)
    # of some tasks as well, and of none all of them
    assert predict(several, {"smile": TASKS["smile"]}, pool).keys() == {"smile", "features", "whole"}
    assert predict(several, {}, pool).keys() == {"a", "landmarks", "features", "whole"}


def test_an_inner_embedding_is_averaged_as_it_is(pool, several) -> None:
    """The product of two means is the mean of the products over all crops of both: no length is put right."""
    many, none = predict(several, TASKS, pool, tta=TTA(3, 0.1)), predict(several, TASKS, pool, tta=TTA(3, 0.0))
    plain = predict(several, TASKS, pool)
    np.testing.assert_allclose(none["whole"]["inner"], plain["whole"]["inner"], rtol=1e-3, atol=1e-5)
    assert np.abs(many["whole"]["inner"] - plain["whole"]["inner"]).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(many["features"]["embedding"], axis=1), 1, rtol=1e-5)


@given(st.floats(0.05, 1), st.integers(8, 60), st.integers(0, 10**6))
def test_a_grey_square_lies_within_each_face(covered: float, size: int, first: int) -> None:
    """All of it, wherever it is: its sides are `covered` of the crop's, to a pixel."""
    faces = np.arange(first, first + 5)
    images = torch.zeros(5, 3, size, size)
    shown = Degradation(covered)(images, faces)
    assert torch.equal(images, torch.zeros_like(images))
    grey = shown == 127.5
    assert torch.equal(grey, shown > 0)
    for face in grey[:, 0]:
        rows, columns = face.any(1).sum(), face.any(0).sum()
        assert rows * columns == face.sum()  # a rectangle
        assert abs(rows - covered * size) <= 1
        assert abs(columns - covered * size) <= 1
    assert torch.equal(Degradation(covered)(images, faces), shown)


def test_grey_squares_lie_everywhere() -> None:
    """Over 1,000 faces every place of the middle is covered about as often."""
    shown = Degradation(0.4)(torch.zeros(1000, 1, 20, 20), np.arange(1000)) > 0
    often = shown.float().mean(0)[0]
    assert often[8:12, 8:12].min() > 0.4
    assert often[8:12, 8:12].max() < 0.5  # (0.4 / 0.6)² = 0.44
    assert often[0, 0] > 0


def test_fewer_pixels_lose_what_is_small_and_keep_the_mean() -> None:
    fine = torch.zeros(1, 1, 40, 40)
    fine[..., ::2] = 255
    shown = Degradation(pixels=20)(fine, np.zeros(1))
    assert shown.shape == fine.shape
    assert fine.std() > 100
    assert shown[..., 4:-4].std() < 1  # it is grey but for what its borders end in
    assert abs(shown[..., 4:-4].mean() - 127.5) < 1
    assert torch.equal(Degradation(pixels=40)(fine, np.zeros(1)), fine)


def test_degraded_faces_are_what_the_network_sees(pool: FacePool) -> None:
    """The centre of brightness is drawn to the grey square; each crop of a face has the square at the same place."""
    plain = predict(Centroid(), TASKS, pool)["landmarks"]["points"]
    covered = predict(Centroid(), TASKS, pool, degradation=Degradation(0.5))["landmarks"]["points"]
    assert np.abs(covered - plain).max() > 1
    one_by_one = predict(Centroid(), TASKS, pool, batch=1, degradation=Degradation(0.5))["landmarks"]["points"]
    np.testing.assert_allclose(one_by_one, covered, atol=1e-4)
