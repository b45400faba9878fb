"""Turned boxes: the crop shows upright what leans in the image; matrices, landmarks and pictures agree on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.data.boxes import upright
from polyface.data.crops import CropSpec, cut, invert, is_mirrored, sample, transform
from polyface.errors import PolyfaceError

ARCFACE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)  # of a square of 112
PLAIN = CropSpec(size=40, channels=1, scale=1.0, margin=1.0, oversample=1.0)

angle = st.floats(-180, 180)
place = st.tuples(st.floats(-100, 300), st.floats(-100, 300))
specs = st.builds(
    CropSpec,
    size=st.sampled_from([40, 41, 112]),
    channels=st.sampled_from([1, 3]),
    scale=st.floats(0.7, 1.5),
    shift_y=st.floats(-0.2, 0.2),
    margin=st.floats(1, 1.6),
    oversample=st.floats(0.8, 2),
)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned about the origin, clockwise as seen (y points down)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ np.array([[cos, sin], [-sin, cos]])


def square(centre: tuple[float, float], side: float, degrees: float) -> np.ndarray:
    x, y = centre
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2, degrees])


# -------------------------------------------------------------------------------------------------------- matrices


@given(specs, place, st.floats(5, 400), angle)
def test_a_faces_points_land_on_their_places(
    spec: CropSpec, centre: tuple[float, float], side: float, degrees: float
) -> None:
    """However a face lies in its image: the places of the unit square, grown by 1/scale about (½, ½ + shift_y)."""
    points = turned((ARCFACE / 112 - 0.5) * side, degrees) + centre
    matrix = torch.from_numpy(spec.crops(upright(points[None]))).double()
    expected = ((ARCFACE / 112 - 0.5 - [0, spec.shift_y]) / spec.scale + 0.5) * spec.size - 0.5
    landed = transform(matrix, torch.from_numpy(points)[None])[0].numpy()
    np.testing.assert_allclose(landed, expected, atol=0.01 + 0.1 / side)  # float32 boxes


@given(specs, place, st.floats(5, 400), angle)
def test_corners_of_the_turned_square_become_corners_of_the_input(
    spec: CropSpec, centre: tuple[float, float], side: float, degrees: float
) -> None:
    units = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    corners = turned(units * side * spec.scale + [0, spec.shift_y * side], degrees) + centre
    matrix = torch.from_numpy(spec.crops(square(centre, side, degrees))).double()
    landed = transform(matrix, torch.from_numpy(corners)[None])[0].numpy()
    np.testing.assert_allclose(landed, (units + 0.5) * spec.size - 0.5, atol=0.01)


def test_squares_by_hand() -> None:
    """Down a face that is turned a quarter clockwise is to the left in the image."""
    spec = CropSpec(scale=1.5, shift_y=0.2)
    boxes = [[0, 0, 100, 100, 90], [0, 0, 100, 60, 0], [0, 0, 100, 100, -90], [0, 0, 100, 100, 180]]
    centres, sides, angles = spec.squares(np.array(boxes, float))
    np.testing.assert_allclose(centres, [[30, 50], [50, 50], [70, 50], [50, 30]], atol=1e-9)
    np.testing.assert_allclose(sides, [150] * 4)
    np.testing.assert_array_equal(angles, [90, 0, -90, 180])
    np.testing.assert_array_equal(spec.squares(np.array([[0, 0, 100, 60.0]]))[2], [0])
    assert [len(part) for part in spec.squares(np.zeros((0, 5)))] == [0, 0, 0]


@given(specs, place, st.floats(5, 400), angle)
def test_matrices_stay_similarities_and_bring_landmarks_back(
    spec: CropSpec, centre: tuple[float, float], side: float, degrees: float
) -> None:
    matrix = torch.from_numpy(spec.crops(square(centre, side, degrees))).double()
    linear, zoom = matrix[0, :, :2], spec.size / (side * spec.scale)
    torch.testing.assert_close(linear @ linear.T, zoom**2 * torch.eye(2).double(), atol=1e-5 * zoom**2, rtol=0)
    assert not is_mirrored(matrix).any()
    points = torch.tensor([[[0.0, 0], [20, 300], [55.5, -7]]]).double()
    torch.testing.assert_close(transform(invert(matrix), transform(matrix, points)), points, atol=1e-6, rtol=0)


# -------------------------------------------------------------------------------------------------------- pictures


@settings(max_examples=40)
@given(specs, st.tuples(st.floats(-20, 60), st.floats(-20, 60)), st.tuples(st.floats(3, 90), st.floats(3, 90)))
def test_not_turned_is_the_same_bit_for_bit(
    spec: CropSpec, corner: tuple[float, float], extent: tuple[float, float]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    box = np.float32([*corner, corner[0] + extent[0], corner[1] + extent[1]])
    level = np.append(box, np.float32(0))
    np.testing.assert_array_equal(cut(picture, level, spec), cut(picture, box, spec))
    assert spec.crops(level[None]).tobytes() == spec.crops(box[None]).tobytes()


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A picture known at every place: waves along three directions and a spot, 0…255."""
    waves = np.sin(x / 9) + np.sin((x + 2 * y) / 21) + np.cos((y - x / 2) / 13)
    return 110 + 30 * waves + 50 * np.exp(-((x - 12) ** 2 + (y + 8) ** 2) / 300)


def painted(centre: tuple[float, float], degrees: float, zoom: float) -> np.ndarray:
    """The scene, turned and zoomed about `centre`, uint8 RGB [260, 280, 3]."""
    rows, columns = np.mgrid[:260, :280]
    back = turned(np.stack([columns - centre[0], rows - centre[1]], -1), -degrees) / zoom
    return np.repeat(scene(back[..., 0], back[..., 1]).round().astype(np.uint8)[..., None], 3, axis=2)


@settings(max_examples=60)
@given(
    degrees=angle,
    centre=st.tuples(st.floats(125, 150), st.floats(120, 140)),
    zoom=st.floats(0.4, 1.2),
    size=st.sampled_from([24, 41, 90]),
    shift=st.floats(-0.1, 0.1),
)
def test_a_turned_picture_is_cut_as_the_level_one(
    degrees: float, centre: tuple[float, float], zoom: float, size: int, shift: float
) -> None:
    """Reduced up to five times, or enlarged up to twice."""
    spec = CropSpec(size=size, channels=3, scale=1.0, margin=1.0, oversample=1.0, shift_y=shift)
    side = 100 * zoom
    level = cut(painted(centre, 0, zoom), square(centre, side, 0), spec).astype(int)
    ours = cut(painted(centre, degrees, zoom), square(centre, side, degrees), spec).astype(int)
    difference = np.abs(ours - level)[:, 1:-1, 1:-1]  # the rim of a level cut weighs no pixels beyond its own
    assert difference.max() <= 6
    assert difference.mean() < 1.2


@settings(max_examples=60)
@given(
    spec=specs,
    side=st.floats(30, 200),
    degrees=angle,
    off=st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
)
def test_a_spot_lies_where_the_matrix_says(
    spec: CropSpec, side: float, degrees: float, off: tuple[float, float]
) -> None:
    x, y = 150.3, 148.6
    rows, columns = np.mgrid[:300, :300]
    spread = max(side / 25, 1.5)
    light = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    picture = np.repeat(light.round().astype(np.uint8)[..., None], 3, axis=2)
    box = square((x + off[0] * side, y + off[1] * side), side, degrees)
    cuts = torch.from_numpy(cut(picture, box, spec))[None]
    (image,) = sample(cuts, torch.from_numpy(spec.cut_to_input())[None], spec.size).sum(1)
    along = torch.arange(spec.size, dtype=torch.float)
    found = torch.stack([(image.sum(0) * along).sum(), (image.sum(1) * along).sum()]) / image.sum()
    landed = transform(torch.from_numpy(spec.crops(box)), torch.tensor([[[x, y]]]))[0, 0]
    wide = spread * spec.size / (side * spec.scale)
    shown = torch.exp(-((along - landed[:, None]) ** 2) / (2 * wide**2))  # the rim may cut a part of the spot off
    expected = (shown * along).sum(1) / shown.sum(1)
    torch.testing.assert_close(found, expected, atol=0.1 * max(1, spec.size / 40), rtol=0)


@pytest.mark.parametrize("degrees", [1.0, 20.0, 45.0, -63.0, 90.0])
@pytest.mark.parametrize("shrink", [2.5, 3.3, 10.0])
def test_reducing_averages_whatever_the_angle(degrees: float, shrink: float) -> None:
    """Stripes finer than the cut's pixels become grey, where single pixels of theirs are black or white."""
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    out = cut(stripes, square((300, 301), 40 * shrink, degrees), PLAIN)
    assert out.min() > 100
    assert out.max() < 155


@pytest.mark.parametrize(
    "box", [(-30, -20, 50, 60), (20, 10, 140, 130), (-200, -200, -120, -120), (-60, -60, 110, 110)]
)
@pytest.mark.parametrize("degrees", [30.0, -100.0])
def test_outside_the_image_is_black(box: tuple[float, ...], degrees: float) -> None:
    white = np.full((60, 70, 3), 255, np.uint8)
    given = np.array([*box, degrees])
    (out,) = cut(white, given, PLAIN)
    step = (box[2] - box[0]) / 40
    rows, columns = np.mgrid[:40, :40]
    inputs = torch.from_numpy(np.stack([columns, rows], -1).reshape(1, -1, 2)).double()
    x, y = transform(invert(torch.from_numpy(PLAIN.crops(given)).double()), inputs)[0].numpy().T.reshape(2, 40, 40)
    depth = np.minimum.reduce([x + 0.5, 69.5 - x, y + 0.5, 59.5 - y])  # how far inside the image
    reach = 2 * max(step, 1)
    assert (out[depth > reach] == 255).all()
    assert (out[depth < -reach] == 0).all()
    assert (depth < -reach).any()


def test_whole_pixels_of_a_quarter_turn() -> None:
    """A quarter turn moves pixels onto pixels: what is left of it is the softness of the filters."""
    rows, columns = np.mgrid[:50, :60]
    picture = np.stack([4 * columns, 5 * rows, columns + 3 * rows], -1).astype(np.uint8)  # linear: filters leave it be
    spec = CropSpec(size=16, channels=3, scale=1.0, margin=1.0, oversample=1.0)
    out = cut(picture, np.array([9.5, 19.5, 25.5, 35.5, 90]), spec)
    expected = np.rot90(picture[20:36, 10:26])  # shown upright: turned back, counter-clockwise
    assert np.abs(out.transpose(1, 2, 0)[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 1


@pytest.mark.parametrize(
    "box, expected",
    [
        ((0, 0, 1e5, 1e5, 30), "far larger than its 60×50 image"),
        ((0, 0, 480, 480, 45), "far larger than its 60×50 image"),  # what holds it is: 480·√2 > 8·64
        ((0, 0, 9, 9, math.nan), "expected finite"),
        ((0, 0, 9, 9, math.inf), "expected finite"),
        ((5, 5, 5, 9, 10), "expected finite x0 < x1"),
    ],
)
def test_absurd_turned_boxes_are_refused(box: tuple[float, ...], expected: str) -> None:
    with pytest.raises(PolyfaceError, match=expected):
        cut(np.zeros((50, 60, 3), np.uint8), np.array(box), PLAIN)
