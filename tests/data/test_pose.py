"""How a head is turned: the mean face fits itself exactly, a mirror acts as on labels, what is no face stays null."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.pose import HeadPose, head_pose, mean_face, pose_words
from polyface.data.synthetic import render
from polyface.errors import PolyfaceError
from polyface.schema import POSE_FROM, VOCABULARIES, built_in, mirror_landmarks

ANGLE = st.floats(-60, 60)
PLACE = st.tuples(st.floats(0.1, 1000), st.floats(-3000, 3000), st.floats(-3000, 3000))
"""Pixels of half a face, and where its middle is."""


def shown(yaw: float, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """The mean face [68, 2] as a camera far away sees it: turned by the yaw, then by the pitch, then by the roll, each
    written out by hand; x to the right, y down, z towards the viewer."""
    y, p, r = np.radians([yaw, pitch, roll])
    a, b, c = mean_face().T
    a, c = a * np.cos(y) + c * np.sin(y), c * np.cos(y) - a * np.sin(y)  # what is in front goes to the right
    b, c = b * np.cos(p) - c * np.sin(p), c * np.cos(p) + b * np.sin(p)  # what is in front goes up
    return np.stack([a * np.cos(r) - b * np.sin(r), b * np.cos(r) + a * np.sin(r)], axis=1)  # the right goes down


def angles(found: HeadPose) -> np.ndarray:
    return np.stack([found.yaw, found.pitch, found.roll], axis=1)


@given(ANGLE, ANGLE, ANGLE, PLACE)
def test_a_turned_mean_face_is_measured_exactly(
    yaw: float, pitch: float, roll: float, place: tuple[float, float, float]
) -> None:
    scale, *middle = place
    found = head_pose((shown(yaw, pitch, roll) * scale + middle)[None])
    np.testing.assert_allclose(angles(found), [[yaw, pitch, roll]], atol=0.1)
    assert found.residual[0] < 1e-3


@given(st.integers(0, 2**32), ANGLE, ANGLE, ANGLE, PLACE)
def test_a_mirrored_face_is_turned_the_other_way_and_size_and_place_say_nothing(
    seed: int, yaw: float, pitch: float, roll: float, place: tuple[float, float, float]
) -> None:
    scale, *middle = place
    points = shown(yaw, pitch, roll) + np.random.default_rng(seed).normal(0, 0.03, (68, 2))
    mirrored = (points * [-1, 1])[mirror_landmarks(68)]
    plain, flipped, moved = angles(head_pose([points, mirrored, points * scale + middle]))
    names = ("yaw", "pitch", "roll")
    signs = [{"negate": -1, "none": 1}[str(built_in(name).mirror)] for name in names]
    np.testing.assert_allclose(flipped, plain * signs, atol=1e-6)
    np.testing.assert_allclose(moved, plain, atol=1e-4)


def test_the_mean_face_is_symmetric_and_the_nose_lies_in_front() -> None:
    face = mean_face()
    np.testing.assert_array_equal(face[mirror_landmarks(68)], face * [-1, 1, 1])
    assert face[:, 2].argmax() == 30  # its tip
    assert face[:17, 2].argmin() in (0, 16)  # the ears
    assert (np.diff(face[27:31, 2]) > 0).all()


def test_some_points_far_off_turn_nothing() -> None:
    points = shown(25, 5, -10)
    points[[19, 54, 33]] += [[0.6, 0.3], [-0.5, 0.5], [0.7, 0]]
    np.testing.assert_allclose(angles(head_pose(points[None])), [[25, 5, -10]], atol=2)


@pytest.mark.parametrize("share", [0.85, 1.15])
def test_a_narrow_or_wide_face_that_looks_ahead_is_not_turned(share: float) -> None:
    found = head_pose((mean_face()[:, :2] * [share, 1])[None])
    assert abs(found.yaw[0]) < 2


def test_a_hidden_half_of_the_jaw_says_nothing() -> None:
    points = shown(40, 0, 0)
    lost, moved = points.copy(), points.copy()
    lost[9:17] = np.nan
    moved[9:17, 0] += 0.3  # the contour that one sees instead
    np.testing.assert_allclose(angles(head_pose([lost, moved])), [[40, 0, 0]] * 2, atol=1e-3)


def test_half_a_face_is_enough() -> None:
    points = shown(75, 3, 2)
    points[mean_face()[:, 0] > 0] = np.nan
    np.testing.assert_allclose(angles(head_pose(points[None])), [[75, 3, 2]], atol=0.1)


def no_face() -> dict[str, np.ndarray]:
    face, some = shown(10, 5, 3), np.random.default_rng(0).normal(size=(68, 2))
    few, eyes = np.full((68, 2), np.nan), np.full((68, 2), np.nan)
    few[27:36], eyes[36:48] = face[27:36], face[36:48]
    half = np.where(np.arange(68)[:, None] < 60, [np.nan, 1.0], face)  # x alone is missing
    return {
        "nothing": np.full((68, 2), np.nan),
        "infinite": np.full((68, 2), np.inf),
        "few points": few,
        "half known points": half,
        "one place": np.ones((68, 2)),
        "a line": face * [1, 0.01],
        "a slanted line": face[:, :1] * [1.0, -2.0],
        "the eyes alone, which are flat": eyes,
        "any points": some,
        "points in another order": face[np.random.default_rng(1).permutation(68)],
        "mirrored and not renamed": face * [-1, 1],
        "renamed and not mirrored": face[mirror_landmarks(68)],
        "from behind": shown(170),
        "beyond profile": shown(100),
    }


@pytest.mark.parametrize("name", no_face())
def test_what_cannot_be_measured_stays_so_and_spoils_no_other(name: str) -> None:
    face = shown(10, 5, 3)
    with np.errstate(all="raise"):
        found = head_pose([face, no_face()[name], face])
    assert np.isnan(angles(found)[1]).all()
    assert np.isnan(found.residual[1])
    np.testing.assert_allclose(angles(found)[[0, 2]], [[10, 5, 3]] * 2, atol=1e-6)


def test_yaw_never_lies_beyond_profile() -> None:
    random = np.random.default_rng(3)
    faces = [shown(*random.uniform(-180, 180, 3)) + random.normal(0, 0.1, (68, 2)) for _ in range(300)]
    found = head_pose(faces)
    known = ~np.isnan(found.yaw)
    assert 50 < known.sum() < 250
    assert np.abs(found.yaw[known]).max() <= 90
    assert np.abs(found.pitch[known]).max() <= 90


def test_many_faces_are_as_each_alone() -> None:
    random = np.random.default_rng(4)
    faces = np.array([shown(*random.uniform(-50, 50, 3)) for _ in range(600)]) + random.normal(0, 0.05, (600, 68, 2))
    whole = angles(head_pose(faces))
    for row in (0, 255, 256, 599):
        np.testing.assert_allclose(whole[row], angles(head_pose(faces[row : row + 1]))[0], atol=1e-6)
    assert angles(head_pose(faces[:0])).shape == (0, 3)


def test_drawn_faces_are_measured_by_their_points() -> None:
    faces = render(300, 64, seed=1, modality="photo")
    found = head_pose(faces.labels["landmarks_68"])  # NaN where a point is hidden
    assert not np.isnan(found.yaw).any()
    assert np.abs(found.yaw - faces.labels["yaw"]).mean() < 3.5
    assert np.abs(found.roll - faces.roll).mean() < 1
    assert np.corrcoef(found.yaw, faces.labels["yaw"])[0, 1] > 0.99


def test_points_of_another_layout_are_refused() -> None:
    for shape in ((3, 5, 2), (68, 2), (1, 68, 3)):
        with pytest.raises(PolyfaceError, match=r"expected \[N, 68, 2\]"):
            head_pose(np.zeros(shape))


def test_words_follow_the_cut_points() -> None:
    assert POSE_FROM == (-45, -15, 15, 45)
    words = pose_words([-90, -45.1, -45, -15.1, -15, 0, 14.9, 15, 44.9, 45, 90, np.nan])
    left_profile, left, frontal, right, right_profile = VOCABULARIES["pose"]
    expected = [left_profile] * 2 + [left] * 2 + [frontal] * 3 + [right] * 2 + [right_profile] * 2
    assert words == [*expected, None]
    faces = render(64, 16, seed=2)
    assert pose_words(faces.labels["yaw"]) == list(faces.labels["pose"])
