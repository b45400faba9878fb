"""Landmark task: losses by hand, masks down to the gradient, mirrors, and decoding as the inverse of preparing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyface import tasks
from polyface.data.crops import around_centre
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.schema import Column, mirror_landmarks
from polyface.tasks import Task, masked_sums, mean_of_terms

NAN = math.nan


def landmarks(points: int = 5, **settings: object) -> Task:
    return tasks.build("landmarks", {"kind": "landmarks", "points": points} | settings)


def similarities(*, mirror: bool | None = None) -> st.SearchStrategy[Tensor]:
    """Crops [1, 2, 3] as augmentation makes them: turned, zoomed, moved, perhaps mirrored."""
    flips = st.booleans() if mirror is None else st.just(mirror)
    numbers = st.tuples(st.floats(-180, 180), st.floats(0.1, 4), st.floats(-2, 2), st.floats(-2, 2), flips)
    return numbers.map(
        lambda n: around_centre(
            40, torch.tensor([n[0]]), torch.tensor([n[1]]), torch.tensor([[n[2], n[3]]]), torch.tensor([n[4]])
        )
    )


@pytest.fixture
def table(tmp_path) -> Callable[..., FaceTable]:
    """``table({...}, {...})``: a face table with one grey face for each dict of labels."""

    def make(*labels: dict[str, object]) -> FaceTable:
        picture = np.full((50, 60, 3), 128, np.uint8)
        faces = [Record(picture, f"row {i}", f"{i}.png", given) for i, given in enumerate(labels)]
        write_table(faces, tmp_path / "faces.parquet")
        return FaceTable.open(tmp_path / "faces.parquet")

    return make


def test_losses_by_hand() -> None:
    """One point off by (0.3, 0.4), the other exact: ½·0.25, 0.7, and wing's two branches."""
    output = torch.tensor([[0.8, 0.9, 0.2, 0.3]])
    target = torch.tensor([[[0.5, 0.5], [0.2, 0.3]]])

    def loss(kind: str, **more: object) -> list[float]:
        return landmarks(2, loss=kind, **more).loss(output, target)[0].tolist()

    assert loss("l2") == pytest.approx([0.125, 0])
    assert loss("l1") == pytest.approx([0.7, 0])
    assert loss("l2", scale=4.0) == pytest.approx([0.5, 0])
    offset = 0.1 - 0.1 * math.log(1 + 0.1 / 0.02)
    assert loss("wing") == pytest.approx([0.7 - 2 * offset, 0])
    near = landmarks(2, loss="wing").loss(target.flatten(1) + torch.tensor([0.04, 0, 0, 0]), target)
    assert near[0].tolist() == pytest.approx([0.1 * math.log(1 + 0.04 / 0.02), 0], abs=1e-6)


def test_wing_is_continuous_where_its_branches_meet() -> None:
    target = torch.zeros(1, 1, 2)
    below, above = (
        landmarks(1, loss="wing").loss(torch.tensor([[x, 0.0]]), target).item() for x in (0.1 - 1e-6, 0.1 + 1e-6)
    )
    assert above == pytest.approx(below, abs=1e-5)


@pytest.mark.parametrize("kind", ["l2", "l1", "wing"])
def test_invisible_points_have_exactly_no_gradient_and_leave_no_nan(kind: str) -> None:
    task = landmarks(3, loss=kind)
    target = torch.tensor([[[0.1, 0.2], [NAN, NAN], [0.5, 0.6]], [[NAN, NAN]] * 3])
    labelled = ~target.isnan().any(-1)
    output = torch.full((2, 6), 0.9, requires_grad=True)
    sums, counts = masked_sums(task.loss(output, target), labelled)
    assert counts.tolist() == [1, 0, 1]
    loss = mean_of_terms(sums, counts)
    loss.backward()
    alone = torch.full((1, 6), 0.9, requires_grad=True)
    seen = torch.tensor([[[0.1, 0.2], [0.9, 0.9], [0.5, 0.6]]])
    task.loss(alone, seen).sum().backward()
    assert loss.item() == pytest.approx(task.loss(alone, seen).sum().item())
    assert output.grad is not None
    assert alone.grad is not None
    assert torch.equal(output.grad[0], alone.grad[0])
    assert (output.grad[0, [0, 1, 4, 5]] != 0).all()
    assert (output.grad[0, 2:4] == 0).all()
    assert (output.grad[1] == 0).all()


def test_units_are_crop_sides_from_edge_to_edge() -> None:
    """Pixel centres −0.5 and 39.5 are the edges of a 40-pixel crop."""
    points = torch.tensor([[[-0.5, -0.5], [39.5, 39.5], [19.5, 19.5]]])
    prepared = landmarks(3).prepare(points, torch.eye(2, 3)[None], 40)
    torch.testing.assert_close(prepared, torch.tensor([[[0.0, 0], [1, 1], [0.5, 0.5]]]))


@given(similarities(), st.integers(0, 2**31), st.sampled_from([5, 68]))
def test_decoding_inverts_preparing(crops: Tensor, seed: int, points: int) -> None:
    task = landmarks(points)
    original = torch.rand(1, points, 2, generator=torch.Generator().manual_seed(seed)) * 40
    output = task.prepare(original, crops, 40).flatten(1)
    np.testing.assert_allclose(task.decode(output, crops, 40)["points"], original.numpy(), atol=5e-3)


@given(similarities(mirror=True))
def test_mirrored_faces_exchange_left_and_right(crops: Tensor) -> None:
    """The point that a mirrored picture shows as its left eye was the right eye, wherever it moved."""
    task = landmarks(5)
    original = torch.rand(1, 5, 2) * 40
    plain = original @ crops[:, :, :2].transpose(1, 2) + crops[:, None, :, 2]
    prepared = task.prepare(original, crops, 40) * 40 - 0.5
    torch.testing.assert_close(prepared, plain[:, [1, 0, 2, 4, 3]], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("points", [5, 68])
def test_masks_follow_their_points_through_a_mirror(points: int) -> None:
    """A hidden left eye is a hidden right eye in the mirrored picture: targets are NaN exactly where masks say."""
    task = landmarks(points)
    values = torch.rand(4, points, 2) * 40
    hidden = torch.rand(4, points) < 0.4
    hidden[:, 0], hidden[:, mirror_landmarks(points)[0]] = True, False
    values[hidden] = NAN
    crops = around_centre(
        40, torch.zeros(4), torch.ones(4), torch.zeros(4, 2), torch.tensor([True, False, True, False])
    )
    seen = task.visible(~hidden, crops)
    assert torch.equal(seen, ~task.prepare(values, crops, 40).isnan().any(-1))
    assert torch.equal(seen[0], ~hidden[0][torch.from_numpy(mirror_landmarks(points))])
    assert torch.equal(seen[1], ~hidden[1])
    assert not torch.equal(seen[0], ~hidden[0])


def test_targets_mask_invisible_points_unlabelled_rows_and_where(table) -> None:
    points = np.arange(10.0).reshape(5, 2)
    partly = points.copy()
    partly[2] = NAN
    faces = table(
        {"landmarks_5": points, "gender": "male"},
        {"landmarks_5": partly, "gender": "male"},
        {"gender": "male"},
        {"landmarks_5": points, "gender": "female"},
        {"landmarks_5": points},
    )
    found = landmarks(5).targets(faces)
    assert found.labelled.tolist() == [[True] * 5, [True, True, False, True, True], [False] * 5, [True] * 5, [True] * 5]
    torch.testing.assert_close(found.values[0], torch.from_numpy(points).float())
    men = landmarks(5, where={"gender": "male"}).targets(faces)
    assert men.labelled.any(1).tolist() == [True, True, False, False, False]
    assert not landmarks(68).targets(faces).labelled.any()


def test_five_points_follow_from_68_where_a_face_has_these_alone(table) -> None:
    """Each eye is the mean of its six points; a face's own five points go before."""
    all_points, own = np.arange(136.0).reshape(68, 2) / 4, np.ones((5, 2))
    hidden = all_points.copy()
    hidden[36] = NAN
    faces = table(
        {"landmarks_68": all_points},
        {"landmarks_68": all_points, "landmarks_5": own},
        {"landmarks_68": hidden},
        {"gender": "male"},
    )
    found = landmarks(5).targets(faces)
    four_times = [[77, 78], [89, 90], [60, 61], [96, 97], [108, 109]]  # means of points 36–41 and 42–47; 30, 48, 54
    assert (4 * found.values[0]).tolist() == four_times
    assert found.values[1].tolist() == own.tolist()
    assert found.labelled.tolist() == [[True] * 5, [True] * 5, [False, True, True, True, True], [False] * 5]
    assert not landmarks(5).targets(table({"gender": "male"})).labelled.any()


def test_terms_and_output_are_named_and_sized() -> None:
    task = landmarks(68)
    assert task.output_dim == 136
    assert len(task.terms) == 68
    assert task.terms[3] == "landmarks/3"


def test_configuration_rebuilds_the_task() -> None:
    task = landmarks(7, loss="wing", scale=2.0, where={"modality": ["photo"]})
    again = tasks.build("landmarks", task.config())
    assert again.config() == task.config()
    assert again.output_dim == 14


def test_mirroring_an_unknown_layout_says_what_to_do() -> None:
    crops = around_centre(40, torch.zeros(1), torch.ones(1), torch.zeros(1, 2), torch.tensor([True]))
    with pytest.raises(PolyfaceError, match="7 landmarks.*augment.mirror"):
        landmarks(7).prepare(torch.rand(1, 7, 2), crops, 40)


# ------------------------------------------------------------------------------------------------ points of one's own


def own_table(folder, mirror: str | tuple[int, ...] = (1, 0, 2)) -> FaceTable:
    """Two faces with three points in a column `ears`, of which a mirror exchanges the first two; one lacks them."""
    points = np.array([[10.0, 20], [30, 20], [20, 40]])
    picture = np.full((50, 60, 3), 128, np.uint8)
    faces = [Record(picture, "row 0", "0.png", {"ears": points}), Record(picture, "row 1", "1.png", {"gender": "male"})]
    write_table(faces, folder / "own.parquet", columns={"ears": Column("points", points=3, mirror=mirror)})
    return FaceTable.open(folder / "own.parquet")


def test_points_of_ones_own_are_learnt_as_the_table_declares_them(tmp_path) -> None:
    table, task = own_table(tmp_path), landmarks(3, column="ears")
    task.learn(table)
    again = tasks.build("landmarks", task.config())  # as a bundle holds it
    for one in (task, again):
        targets = one.targets(table)
        assert targets.labelled.tolist() == [[True] * 3, [False] * 3]
        flip = around_centre(40, *(torch.zeros(1), torch.ones(1), torch.zeros(1, 2)), torch.tensor([True]))
        moved = one.prepare(targets.values[:1], flip, 40)
        expected = (torch.tensor([[29.0, 20], [9, 20], [19, 40]])[[1, 0, 2]][[1, 0, 2]] + 0.5) / 40
        torch.testing.assert_close(moved[0].sort(0).values, expected.sort(0).values)
        assert moved[0, 0, 0] < moved[0, 1, 0]  # the first is the left one again
        assert one.declares() == Column("points", points=3, mirror=(1, 0, 2))
    assert not landmarks(3, column="ears").targets(table.take(np.array([1]))).labelled.any()


def test_72_points_are_mirrored_by_the_tables_own_map(tmp_path) -> None:
    """The schema knows no layout of 72. Here a mirror turns the order round: point i becomes point 71 − i."""
    points, column = np.stack([np.arange(72.0) / 2, np.full(72, 20.0)], 1), "landmarks_72"
    face = Record(np.full((50, 60, 3), 128, np.uint8), "row 0", "0.png", {column: points})
    order = tuple(range(71, -1, -1))
    write_table([face], tmp_path / "own.parquet", columns={column: Column("points", points=72, mirror=order)})
    table, task = FaceTable.open(tmp_path / "own.parquet"), landmarks(72)
    flip = around_centre(40, *(torch.zeros(1), torch.ones(1), torch.zeros(1, 2)), torch.tensor([True]))
    with pytest.raises(PolyfaceError, match="no mirror map is known for 72"):
        task.prepare(task.targets(table).values, flip, 40)
    task.learn(table)
    moved = task.prepare(task.targets(table).values, flip, 40)[0, :, 0]
    assert (moved.diff() > 0).all()  # from the left to the right, as before
    assert task.declares() == Column("points", points=72, mirror=order)  # for tables that its answers label
    assert landmarks(68).declares() is None


def test_errors_of_other_points_are_told_in_the_size_of_their_box_or_between_given_eyes(tmp_path) -> None:
    table = own_table(tmp_path)
    guess = table.points("ears") + np.array([4.0, 0])
    for settings, expected in (({}, 100 * 4 / 20), ({"eyes": [[0], [1, 2]]}, 100 * 4 / math.hypot(15, 10))):
        result = landmarks(3, column="ears", **settings).evaluate({"points": guess}, table)
        assert result.figure(result.metrics[0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mirror": [1, 0]}, r"tasks\.landmarks\.mirror must name each of 0 … 2 once"),
        ({"mirror": [1, 1, 2]}, "mirror must name each"),
        ({"eyes": [[0], [3]]}, r"tasks\.landmarks\.eyes must be two lists of points of 3"),
        ({"eyes": [[0]]}, "eyes must be two lists"),
    ],
)
def test_wrong_mirrors_and_eyes_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PolyfaceError, match=message):
        landmarks(3, column="ears", **settings)


def test_a_column_of_other_points_is_refused(tmp_path) -> None:
    with pytest.raises(PolyfaceError, match="column 'ears' is 3 points.*, not 4 points"):
        landmarks(4, column="ears").learn(own_table(tmp_path))
