"""Large pictures: small faces are found whole and once, large ones stay as they were, and memory is bounded."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from polyface.data import detector as module
from polyface.data.detector import RetinaFace

FACES = sorted((Path(module.__file__).parents[1] / "demo" / "faces").glob("*/*.jpg"))
"""Photos of 300 pixels whose faces are about 100 wide."""


def faces(*rows: tuple[float, float, float, float, float]) -> module._Faces:
    """Of (x0, y0, x1, y1, score)."""
    told = np.array(rows, np.float32).reshape(-1, 5)
    return module._Faces(told[:, :4], told[:, 4], np.zeros((len(told), 5, 2), np.float32))


# ------------------------------------------------------------------------------------------- scales and tiles


@pytest.mark.parametrize(
    "longest, settings, sides",
    [
        (300, {}, [300]),
        (100, {}, [160]),
        (640, {}, [640]),
        (641, {}, [640, 641]),
        (4000, {}, [640, 4000]),
        (9818, {}, [640, 4096]),
        (9818, {"max_side": 640}, [640]),
        (9818, {"max_side": 320}, [320]),
        (9818, {"max_side": 10_000}, [640, 5120, 9818]),
    ],
)
def test_sides_that_are_searched(longest, settings, sides):
    assert RetinaFace(**settings)._sides(longest) == sides


@given(st.integers(1, 9000), st.data())
def test_every_place_is_answered_for_and_a_small_face_there_is_seen_whole(length, data):
    cores = module._cores(length)
    assert cores[0].seen.start == 0
    assert cores[-1].seen.stop == length
    assert all(one.high == other.low for one, other in pairwise(cores))
    assert max(core.seen.stop - core.seen.start for core in cores) <= module._CORE + 2 * module._MARGIN
    centre = data.draw(st.floats(-5, length + 5))
    half = module._MARGIN - 8
    owners = [core for core in cores if core.holds(np.array([centre]))[0]]
    assert owners
    for core in owners:
        assert core.seen.start <= max(centre - half, 0)
        assert min(centre + half, length) <= core.seen.stop


# ------------------------------------------------------------------------------------------- what a finer search adds


def test_a_face_that_is_surely_found_stays_as_it_is():
    large = (100, 100, 300, 300, 0.9)
    finer = faces((104, 96, 305, 298, 0.99), (150, 150, 200, 200, 0.6), (280, 280, 340, 340, 0.7))
    found = module._with(faces(large), 0.2, finer, 1, 0.4)
    # the same face again, and a part of it that looks like a face; the neighbour is new
    np.testing.assert_array_equal(found.boxes, [large[:4], (280, 280, 340, 340)])


def test_the_finer_search_knows_small_faces_better():
    coarse = faces((100, 100, 150, 150, 0.99), (400, 400, 450, 450, 0.6))  # 10 pixels at this scale
    found = module._with(coarse, 0.2, faces((102, 98, 148, 150, 0.9)), 1, 0.4)
    np.testing.assert_array_equal(found.boxes, [(102, 98, 148, 150), (400, 400, 450, 450)])


def test_better_faces_on_what_is_no_face_are_kept():
    crowd = [(x, 100, x + 40, 150, 0.99) for x in (100, 160, 220)]
    found = module._with(faces((90, 90, 300, 300, 0.55)), 0.2, faces(*crowd), 1, 0.4)
    assert len(found.boxes) == 4


def test_what_may_be_cut_by_a_tile_is_left_to_the_coarser_search():
    found = module._with(faces(), 0.2, faces((0, 0, 257, 100, 0.9), (300, 0, 550, 100, 0.9)), 1, 0.4)
    np.testing.assert_array_equal(found.boxes, [(300, 0, 550, 100)])


# ------------------------------------------------------------------------------------------- the real network


def mosaic(width: int, height: int, face: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture full of photos whose faces are so many pixels wide; the faces' centres [N, 2]."""
    side = 3 * face
    picture, centres = np.full((height, width, 3), 128, np.uint8), []
    photos = [np.asarray(Image.open(path).convert("RGB").resize((side, side), 1)) for path in FACES]
    for number, (y, x) in enumerate(np.ndindex(height // side, width // side)):
        picture[y * side : (y + 1) * side, x * side : (x + 1) * side] = photos[number % len(photos)]
        centres.append(((x + 0.5) * side, (y + 0.5) * side))
    return picture, np.array(centres)


@pytest.mark.parametrize("face", [24, 36])
def test_small_faces_of_a_large_picture_are_found_once(face):
    picture, centres = mosaic(2400, 1800, face)
    found = RetinaFace(threads=1)(picture)
    middles = np.array([one.box.reshape(2, 2).mean(0) for one in found])
    near = np.linalg.norm(middles[:, None] - centres, axis=2) < face / 2
    assert near.any(axis=0).mean() >= 0.98
    assert near.sum(axis=0).max() == 1
    assert len(found) <= 1.01 * len(centres)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert len(RetinaFace(threads=1, max_side=640)(picture)) < len(centres) / 2  # which is why


def test_a_face_that_fills_a_large_picture_is_found_as_before():
    photo = np.asarray(Image.open(FACES[0]).convert("RGB").resize((3000, 3000)))
    (coarse,) = RetinaFace(threads=1, max_side=640)(photo)
    (found,) = RetinaFace(threads=1)(photo)
    np.testing.assert_array_equal(found.box, coarse.box)
    np.testing.assert_array_equal(found.points, coarse.points)


def test_a_tile_bounds_what_is_searched_at_once(monkeypatch):
    seen = []

    class Session:
        def run(self, names, feeds):
            seen.append(feeds["input"].shape[2:])
            count = sum(2 * (seen[-1][0] // s) * (seen[-1][1] // s) for s in (8, 16, 32))
            return [np.zeros((1, count, k), np.float32) for k in (4, 2, 10)]

    found = RetinaFace(max_side=10_000)
    monkeypatch.setattr(found, "_session", Session)
    assert found(np.zeros((900, 9000, 3), np.uint8)) == []
    assert len(seen) == 1 + 5 + 9
    assert max(np.prod(shape) for shape in seen) <= 1280**2
