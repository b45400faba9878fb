"""The schema: mirror maps are what a mirror does, eyes and groups index the right points, types and names."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from polyface import schema
from polyface.data.synthetic.head import mean_face
from polyface.errors import PolyfaceError
from polyface.schema import (
    ATTRIBUTES,
    POSES,
    VOCABULARIES,
    column_type,
    eyes,
    five_of_68,
    is_column,
    landmark_count,
    landmark_groups,
    mirror_classes,
    mirror_landmarks,
)

FIVE = np.array([[30.0, 40], [70, 41], [50, 60], [36, 80], [66, 81]])  # a face as the viewer sees it, nearly symmetric


def face(points: int) -> np.ndarray:
    """A face seen from the front, [points, 2], x to the right; 68: the renderer's mean face, symmetric about x = 0."""
    return FIVE if points == 5 else mean_face()[:, :2].astype(float)


@pytest.mark.parametrize("points", [5, 68])
def test_mirroring_twice_changes_nothing(points: int) -> None:
    order = mirror_landmarks(points)
    assert sorted(order) == list(range(points))
    np.testing.assert_array_equal(order[order], np.arange(points))


@pytest.mark.parametrize("points, width", [(5, 100.0), (68, 0.0)])
def test_a_mirrored_face_keeps_its_shape_under_the_map(points: int, width: float) -> None:
    """Mirror the picture, rename the points: point i is where point i of a symmetric face has to be."""
    shape = face(points)
    mirrored = shape * [-1, 1] + [width, 0]
    np.testing.assert_allclose(mirrored[mirror_landmarks(points)], shape, atol=2.0 if points == 5 else 1e-6)
    assert np.abs(mirrored - shape).max() > 0.5  # without the map the points are elsewhere


@pytest.mark.parametrize("points", [5, 68])
def test_left_is_the_viewers(points: int) -> None:
    shape = face(points)
    left, right = eyes(points)
    assert shape[left, 0].mean() < shape[right, 0].mean()
    assert sorted(mirror_landmarks(points)[left]) == sorted(right)


def test_midline_points_stay() -> None:
    order = mirror_landmarks(68)
    assert [i for i in range(68) if order[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


@pytest.mark.parametrize("points", [5, 68])
def test_groups_cover_every_point_and_mirror_onto_each_other(points: int) -> None:
    groups = landmark_groups(points)
    assert sorted({i for group in groups.values() for i in group}) == list(range(points))
    order = mirror_landmarks(points)
    for name, group in groups.items():
        side = {"left": "right", "right": "left"}
        other = " ".join(side.get(word, word) for word in name.split())
        assert {int(order[i]) for i in group} == set(groups[other])


def test_unknown_layouts_have_a_group_a_point() -> None:
    assert landmark_groups(3) == {"point 0": [0], "point 1": [1], "point 2": [2]}


def test_five_points_of_68() -> None:
    shape = face(68)
    five = five_of_68(shape)
    np.testing.assert_allclose(five[0], shape[36:42].mean(0))
    np.testing.assert_allclose(five[2:], shape[[30, 48, 54]])
    mirrored = (shape * [-1, 1])[mirror_landmarks(68)]
    np.testing.assert_allclose(five_of_68(mirrored), (five * [-1, 1])[mirror_landmarks(5)])
    assert five_of_68(np.zeros((2, 3, 68, 2))).shape == (2, 3, 5, 2)


def test_pose_classes_turn_round_and_others_do_not() -> None:
    order = mirror_classes(POSES)
    assert order is not None
    assert [POSES[i] for i in order] == ["right profile", "right", "frontal", "left", "left profile"]
    for column, words in VOCABULARIES.items():
        if column != "pose":
            assert mirror_classes(words) is None


@pytest.mark.parametrize("lookup", [mirror_landmarks, eyes])
def test_unknown_layouts_are_errors_that_name_the_known(lookup) -> None:
    with pytest.raises(PolyfaceError, match=r"19 landmarks .*known: \[5, 68\]"):
        lookup(19)


def test_column_types() -> None:
    assert column_type("landmarks_68") == pa.list_(pa.float32(), 136)
    assert column_type("box") == pa.list_(pa.float32(), 4)
    assert column_type("attributes") == pa.list_(pa.int8(), 40)
    assert column_type("image") == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert all(column_type(name) == pa.string() for name in VOCABULARIES)
    with pytest.raises(PolyfaceError, match="unknown column 'identiy': did you mean 'identity'"):
        column_type("identiy")


@pytest.mark.parametrize(
    "name, count", [("landmarks_5", 5), ("landmarks_72", 72), ("landmarks_0", None), ("landmarks_05", None),
                    ("landmarks_", None), ("landmarks_5x", None), ("xlandmarks_5", None), ("pose", None)]
)  # fmt: skip
def test_landmark_columns(name: str, count: int | None) -> None:
    assert landmark_count(name) == count
    assert is_column(name) is (count is not None or name == "pose")


def test_words_are_unique_and_attributes_are_celeba_s() -> None:
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES)  # CelebA lists them in this order
    for words in VOCABULARIES.values():
        assert len(set(words)) == len(words) >= 2
    assert schema.VOCABULARIES["pose"] == POSES


def test_one_person_has_one_name() -> None:
    assert {schema.person(name) for name in ("José", "Jose\u0301", " José", "José \t", "\u00a0José\n")} == {"José"}
    assert schema.person("Ann  Lee") == "Ann  Lee"
    assert schema.person(b"Jos\xe9".decode("utf-8", "surrogateescape")) == "Jos\\udce9"


@pytest.mark.parametrize("name", ["", "  ", "\u2003", "Ann\nBea", "Ann\u2028Bea", None, 7, b"Ann"])
def test_what_names_nobody_is_refused(name: object) -> None:
    with pytest.raises(PolyfaceError, match="give a word or more, in one line"):
        schema.person(name)
