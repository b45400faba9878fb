"""Models that crop by the detector's points, alone and beside models that crop by its boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.data.boxes import BoxSpec
from polyface.data.crops import cut
from polyface.data.detector import Detection
from polyface.inference import Analyzer
from polyface.models.bundle import Bundle
from polyface.models.predict import answers

Make = Callable[..., Bundle]
Pictures = Callable[..., np.ndarray]
ARCFACE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)  # of a square of 112
SQUARES = [((60.0, 45.0), 50.0, 25.0), ((40.0, 50.0), 44.0, -70.0)]
"""Centre, side and angle of the faces that the detector here finds."""


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned about the origin, clockwise as seen."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[cos, sin], [-sin, cos]])


class Pointing:
    """A detector that finds faces in the given squares, in boxes that are not these squares."""

    id = "pointing"

    def __init__(self, *squares: tuple[tuple[float, float], float, float]) -> None:
        self.squares = squares

    def __call__(self, image: np.ndarray) -> list[Detection]:
        found = []
        for number, (centre, side, degrees) in enumerate(self.squares):
            points = turned((ARCFACE / 112 - 0.5) * side, degrees) + centre
            box = np.float32([centre[0] - 17, centre[1] - 23, centre[0] + 19, centre[1] + 21])
            found.append(Detection(box, 0.9 - 0.1 * number, points.astype(np.float32)))
        return found


def by_points(bundle: Bundle) -> Bundle:
    bundle.boxes = BoxSpec(source="points")
    return bundle


def constant(bundle: Bundle, points: np.ndarray) -> Bundle:
    """The model made to answer the same points of its crop (in input pixels) whatever it sees."""
    head = bundle.network.heads["landmarks"]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.from_numpy((points.ravel() + 0.5) / bundle.crop.size).float())
    return bundle


@given(
    centre=st.tuples(st.floats(20, 100), st.floats(20, 70)),
    side=st.floats(20, 90),
    degrees=st.floats(-180, 180),
    scale=st.floats(0.8, 1.6),
    shift=st.floats(-0.2, 0.2),
)
@settings(max_examples=25)
def test_points_land_where_the_turned_crop_says(
    make: Make,
    picture: Pictures,
    centre: tuple[float, float],
    side: float,
    degrees: float,
    scale: float,
    shift: float,
) -> None:
    inside = np.array([[0, 0], [39, 39], [19.5, 19.5], [10, 30], [-0.5, 39.5]])
    bundle = constant(by_points(make(scale=scale, shift_y=shift)), inside)
    detector = Pointing((centre, side, degrees))
    (result,) = Analyzer(bundle, detector=detector)(picture())
    down = [0, shift * side]
    expected = turned((inside + 0.5 - 20) / 40 * scale * side + down, degrees) + centre
    np.testing.assert_allclose(result.faces[0].points["landmarks"], expected, atol=5e-3)
    np.testing.assert_array_equal(result.faces[0].box, detector(picture())[0].box)  # what is told stays the box


def test_equals_the_network_by_hand(make: Make, picture: Pictures) -> None:
    bundle, image = by_points(make()), picture()
    (result,) = Analyzer(bundle, detector=Pointing(*SQUARES))(image)
    boxes = np.array([[x - s / 2, y - s / 2, x + s / 2, y + s / 2, angle] for (x, y), s, angle in SQUARES])
    cuts = torch.from_numpy(np.stack([cut(image, box, bundle.crop) for box in boxes]))
    crops = torch.from_numpy(bundle.crop.crops(boxes))
    expected = answers(bundle.network.eval(), bundle.tasks, cuts, crops, bundle.crop)
    for number, face in enumerate(result.faces):
        np.testing.assert_allclose(face.points["landmarks"], expected["landmarks"]["points"][number], atol=0.05)
        chances = list(face.probabilities["pose"].values())
        np.testing.assert_allclose(chances, expected["pose"]["probabilities"][number], atol=1e-3)


def test_a_turned_photo_gets_the_answers_of_the_level_one(make: Make, picture: Pictures) -> None:
    """Turned a quarter, pixel for pixel; the model that crops by boxes sees something else."""
    level = picture(100, 100)
    quarter = np.ascontiguousarray(np.rot90(level, -1))  # clockwise: (x, y) → (99 − y, x)
    (x, y), side, degrees = SQUARES[0]
    here, there = Pointing(((x, y), side, degrees)), Pointing(((99 - y, x), side, degrees + 90))
    upright, plain = by_points(make()), make()
    found = []
    for bundle in (upright, plain):
        (before,), (after,) = Analyzer(bundle, detector=here)(level), Analyzer(bundle, detector=there)(quarter)
        points = before.faces[0].points["landmarks"]
        moved = np.stack([99 - points[:, 1], points[:, 0]], axis=1)
        found.append(np.abs(after.faces[0].points["landmarks"] - moved).max())
    assert found[0] < 0.1
    assert found[1] > 1


def test_each_model_crops_in_its_own_way(make: Make, picture: Pictures) -> None:
    plain, points = make(name="plain"), by_points(make(name="points", seed=5))
    detector, image = Pointing(*SQUARES), picture()
    (together,) = Analyzer(plain, points, detector=detector)(image)
    (first,) = Analyzer(plain, detector=detector)(image)
    (second,) = Analyzer(points, detector=detector)(image)
    (boxed,) = Analyzer(plain)(image, np.stack([face.box for face in first.faces]))
    for face, a, b, c in zip(together.faces, first.faces, second.faces, boxed.faces, strict=True):
        np.testing.assert_array_equal(face.points["plain/landmarks"], a.points["landmarks"])
        np.testing.assert_array_equal(face.points["points/landmarks"], b.points["landmarks"])
        np.testing.assert_array_equal(a.points["landmarks"], c.points["landmarks"])


def test_own_boxes_are_used_as_they_are(make: Make, picture: Pictures) -> None:
    boxes = np.float32([[20, 15, 70, 75], [40.5, 10.25, 100, 80]])
    (plain,) = Analyzer(make())(picture(), boxes)
    (points,) = Analyzer(by_points(make()))(picture(), boxes)
    for a, b in zip(plain.faces, points.faces, strict=True):
        np.testing.assert_array_equal(a.points["landmarks"], b.points["landmarks"])


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_own_and_detected_boxes_in_one_batch(make: Make, picture: Pictures, batch: int) -> None:
    images = [picture(seed=seed) for seed in range(4)]
    own = [None, [20, 15, 70, 75], np.zeros((0, 4)), None]
    analyzer = Analyzer(by_points(make()), make(name="plain"), detector=Pointing(*SQUARES), batch=batch)
    together = analyzer(images, own)
    assert [len(result.faces) for result in together] == [2, 1, 0, 2]
    for image, boxes, result in zip(images, own, together, strict=True):
        (alone,) = Analyzer(by_points(make()), make(name="plain"), detector=Pointing(*SQUARES))(image, boxes)
        for a, b in zip(result.faces, alone.faces, strict=True):
            assert a.points.keys() == b.points.keys() == {"toy/landmarks", "plain/landmarks"}
            for task in a.points:
                np.testing.assert_allclose(a.points[task], b.points[task], atol=1e-3)


def test_where_points_make_no_square_the_box_is_taken(make: Make, picture: Pictures, told: Any) -> None:
    """The detector here says that all five points lie at (0, 0)."""
    detector = told([20, 15, 70, 75], [5, 5, 45, 50])
    (points,) = Analyzer(by_points(make()), detector=detector)(picture())
    (plain,) = Analyzer(make(), detector=detector)(picture())
    for a, b in zip(points.faces, plain.faces, strict=True):
        np.testing.assert_array_equal(a.points["landmarks"], b.points["landmarks"])
