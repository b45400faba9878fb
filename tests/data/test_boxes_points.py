"""Upright squares from a detector's five points: the fit against another way to it, and what happens without points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.boxes import BoxSpec, boxes_for, boxes_of, upright
from polyface.data.crops import CropSpec, cut, transform
from polyface.data.detector import Detection
from polyface.data.loader import FacePool, cached_cuts
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError

ARCFACE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)  # of a square of 112
POINTS = BoxSpec(source="points")


def moved(side: float, degrees: float, centre: tuple[float, float]) -> np.ndarray:
    """ArcFace's places in a square of this side and centre, turned clockwise as seen."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (ARCFACE / 112 - 0.5) * side @ np.array([[cos, sin], [-sin, cos]]) + centre


def umeyama(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scaled rotation [2, 2] and shift [2] of least squares (Umeyama 1991, equations 40 to 43)."""
    mean, other = source.mean(0), target.mean(0)
    u, values, vt = np.linalg.svd((target - other).T @ (source - mean) / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    linear = u @ np.diag(signs) @ vt * (values * signs).sum() / source.var(0).sum()
    return linear, other - linear @ mean


# ---------------------------------------------------------------------------------------------------------- the fit


def test_by_hand() -> None:
    """A quarter turn clockwise takes (x, y) to (−y, x), so the middle (56, 56) to (−56, 56)."""
    quarter = np.stack([-ARCFACE[:, 1], ARCFACE[:, 0]], axis=1)
    found = upright(np.stack([ARCFACE, 2 * ARCFACE + [10, 20], quarter, -ARCFACE]))
    assert found.dtype == np.float32
    by_hand = [[0, 0, 112, 112, 0], [10, 20, 234, 244, 0], [-112, 0, 0, 112, 90], [-112, -112, 0, 0, 180]]
    found[3, 4] = abs(found[3, 4])  # half a turn is the same either way
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


@given(
    side=st.floats(2, 3000), degrees=st.floats(-179, 179), x=st.floats(-2000, 4000), y=st.floats(-2000, 4000)
)  # fmt: skip
def test_the_square_that_the_points_were_moved_with_is_found(side: float, degrees: float, x: float, y: float) -> None:
    ((x0, y0, x1, y1, angle),) = upright(moved(side, degrees, (x, y))[None]).astype(float)
    assert (x1 - x0, y1 - y0) == pytest.approx((side, side), abs=2e-3)  # float32 at some thousand pixels
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((x, y), abs=2e-3)
    assert angle == pytest.approx(degrees, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 500)), min_size=5, max_size=5).map(np.array))
def test_any_points_are_fitted_as_umeyama_does(points: np.ndarray) -> None:
    """Also profiles and mirrored faces, which no similarity meets exactly, and none may reflect."""
    ((x0, y0, x1, y1, angle),) = upright(points[None]).astype(float)
    linear, shift = umeyama(ARCFACE / 112, points)
    side = np.hypot(*linear[:, 0])
    if side < 1.001:
        assert side > 0.999 or np.isnan(x0)
        return
    turned = (x1 - x0) * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    np.testing.assert_allclose(turned, linear[:, 0], atol=2e-3)
    np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], linear @ [0.5, 0.5] + shift, atol=2e-3)


@given(degrees=st.floats(-120, 120), zoom=st.floats(0.5, 4), noise=st.integers(0, 99))
def test_points_that_turn_and_grow_take_their_square_along(degrees: float, zoom: float, noise: int) -> None:
    rough = ARCFACE + np.random.default_rng(noise).normal(0, 6, (5, 2))
    cos, sin = zoom * np.cos(np.radians(degrees)), zoom * np.sin(np.radians(degrees))
    matrix = np.array([[cos, sin], [-sin, cos]])
    (before,), (after,) = upright(rough[None]).astype(float), upright((rough @ matrix)[None]).astype(float)
    assert after[2] - after[0] == pytest.approx(zoom * (before[2] - before[0]), abs=1e-3)
    assert (after[4] - before[4] - degrees + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose((after[:2] + after[2:4]) / 2, (before[:2] + before[2:4]) / 2 @ matrix, atol=1e-3)


def test_no_points_make_no_square() -> None:
    one_gone = ARCFACE.copy()
    one_gone[2] = np.nan
    found = upright(np.stack([ARCFACE, np.full((5, 2), np.nan), one_gone, np.full((5, 2), 7.3), ARCFACE / 200]))
    np.testing.assert_array_equal(np.isnan(found).all(1), [False, True, True, True, True])
    np.testing.assert_array_equal(np.isnan(found).any(1), [False, True, True, True, True])
    assert upright(np.zeros((0, 5, 2))).shape == (0, 5)


# ---------------------------------------------------------------------------------------------------- boxes of tables


class Pointing:
    """A detector that finds the points it was told, by the picture's first pixel, in a box of its own."""

    def __init__(self, name: str, found: dict[int, np.ndarray]) -> None:
        self.id, self.found, self.calls = name, found, 0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.calls += 1
        points = self.found.get(int(image[0, 0, 0]))
        box = np.array([3, 4, 13, 24], np.float32)
        return [] if points is None else [Detection(box, 0.9, np.asarray(points, np.float32))]


def table(folder: Path, sizes: list[tuple[int, int]]) -> FaceTable:
    """Smooth pictures of (height, width); the first pixel of each holds its number."""
    faces = []
    for i, (height, width) in enumerate(sizes):
        rows, columns = np.mgrid[:height, :width]
        light = 120 + 60 * np.sin(columns / 7 + i) + 60 * np.cos(rows / 9)
        picture = np.repeat(light[..., None], 3, axis=2).astype(np.uint8)
        picture[0, 0] = i
        faces.append(Record(picture, f"row {i}", f"{i}.png", {"age": i}))
    write_table(faces, folder / "t.parquet")
    return FaceTable.open(folder / "t.parquet")


def test_a_missed_face_gets_a_level_square_of_the_usual_fitted_size(tmp_path: Path) -> None:
    """Fitted sides are 1/2 and 3/4 of their pictures' shorter sides: the median, 5/8, of the missed ones' 40 and 64."""
    faces = table(tmp_path, [(60, 80), (80, 100), (100, 40), (64, 64)])
    same_place = np.full((5, 2), 20.0)  # found, but of no use
    detector = Pointing("some", {0: moved(30, 15, (40, 30)), 1: moved(60, -40, (50, 41)), 3: same_place})
    found = boxes_of(faces, POINTS, detector)
    assert found.xyxy.dtype == np.float32
    assert found.missed.tolist() == [2, 3]
    by_hand = [[25, 15, 55, 45, 15], [20, 11, 80, 71, -40], [7, 37, 32, 62, 0], [11.5, 11.5, 51.5, 51.5, 0]]
    np.testing.assert_allclose(found.xyxy, by_hand, atol=1e-4)
    assert found.points is not None
    np.testing.assert_array_equal(np.isnan(found.points).all((1, 2)), [False, False, True, False])


def test_boxes_and_points_share_one_detection(tmp_path: Path) -> None:
    faces = table(tmp_path, [(60, 81), (60, 82)])
    detector = Pointing("shared", {0: moved(30, 15, (40, 30))})
    first, plain, again = (boxes_of(faces, spec, detector) for spec in (POINTS, BoxSpec(), POINTS))
    assert detector.calls == 2
    np.testing.assert_array_equal(plain.xyxy, [[3, 4, 13, 24], [30.5, 19.5, 50.5, 39.5]])
    np.testing.assert_array_equal(again.xyxy, first.xyxy)
    assert first.missed.tolist() == plain.missed.tolist() == [1]


def test_no_square_at_all_is_an_error(tmp_path: Path) -> None:
    faces = table(tmp_path, [(60, 83), (60, 84)])
    nowhere = dict.fromkeys(range(2), np.zeros((5, 2)))
    with pytest.raises(PolyfaceError, match="no face in any of 2 images"):
        boxes_of(faces, POINTS, Pointing("useless", nowhere))
    with pytest.raises(PolyfaceError, match="no face in any of 2 images"):
        boxes_of(faces, POINTS, Pointing("blind", {}))


def test_a_pool_crops_by_points(tmp_path: Path) -> None:
    """In the input, the points lie where they lie in a level square; the cache tells turned cuts from level ones."""
    faces = table(tmp_path, [(120, 130), (140, 110)])
    truth = {0: moved(60, 25, (60, 55)), 1: moved(70, -65, (52, 70))}
    boxes = boxes_of(faces, POINTS, Pointing("pool", truth))
    spec = CropSpec(size=56, channels=1, scale=1.0, margin=1.2)
    pool = FacePool.unlabelled(faces, boxes, spec)
    inside = transform(pool.crops, torch.from_numpy(np.stack([truth[0], truth[1]])).float())
    torch.testing.assert_close(inside, torch.from_numpy(ARCFACE / 2 - 0.5).float().expand(2, 5, 2), atol=1e-3, rtol=0)
    for row in range(2):
        np.testing.assert_array_equal(pool.cuts[0][row], cut(faces.image(row), boxes.xyxy[row], spec))
    level = cached_cuts(faces, type(boxes)(boxes.xyxy[:, :4].copy(), boxes.missed), spec)
    assert np.abs(level.astype(int) - pool.cuts[0]).max() > 30


# ---------------------------------------------------------------------------------------------- boxes of detections


def test_what_detections_are_cropped_by() -> None:
    box = np.float32([3, 4, 13, 24])
    found = [Detection(box, 0.9, moved(30, 15, (40, 30)).astype(np.float32)), Detection(box, 0.8, np.zeros((5, 2)))]
    np.testing.assert_allclose(boxes_for(found, POINTS), [[25, 15, 55, 45, 15], [3, 4, 13, 24, 0]], atol=1e-4)
    for source in ("detector", "table", "landmarks", "image"):
        np.testing.assert_array_equal(boxes_for(found, BoxSpec.model_validate({"source": source})), [box, box])
    assert boxes_for([], POINTS).shape == (0, 5)
    assert boxes_for([], BoxSpec()).shape == (0, 4)
    assert boxes_for(found, POINTS).dtype == boxes_for(found, BoxSpec()).dtype == np.float32
