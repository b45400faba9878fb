"""Sets of known pose, light and expression: counts, and the signs of yaw and light against the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from polyface.data.images import decode
from polyface.data.readers import reader
from polyface.data.writing import Record


def records(name, root, **options) -> list[Record]:
    found = list(reader(name, **options).records(root))
    assert all(isinstance(face, Record) for face in found)
    return found


def counts(found: Iterable[Record], column: str) -> dict[str, int]:
    return dict(Counter(face.labels[column] for face in found))


def pictures(found: Iterable[Record]) -> np.ndarray:
    """Grey pictures [N, H, W] in float64."""
    return np.stack([decode(face.image.read_bytes(), face.where)[..., 0] for face in found]).astype(float)


def sides(images: np.ndarray) -> np.ndarray:
    """ln of the mean brightness of the right half over that of the left one, [N]."""
    half = images.shape[-1] // 2
    return np.log((images[..., half:].mean((-1, -2)) + 1) / (images[..., :half].mean((-1, -2)) + 1))


@pytest.fixture(scope="module")
def pie(real_data):
    return records("pie", real_data("pie"))


def test_pie_counts(pie):
    assert len(pie) == 11554
    assert counts(pie, "camera") == {"c05": 3332, "c07": 1629, "c09": 1632, "c27": 3329, "c29": 1632}
    assert counts(pie, "yaw") == {22.5: 3332, 0.0: 6590, -22.5: 1632}
    assert sorted(counts(pie, "identity").values()) == [164] + [170] * 67
    assert counts(pie, "expression") == {"neutral": 10466, "talk": 408, "blink": 340, "smile": 340}
    flashes = counts(pie, "illumination")
    assert flashes.pop("none") == 1564
    assert sorted(flashes.values()) == [474] * 3 + [476] * 18
    assert counts(pie, "split") == {"train": 4739, "val": 1020, "test": 5774, None: 21}


def test_pie_instants_are_seen_once_by_each_camera(pie):
    seen: dict[str, list[str]] = {}
    for face in pie:
        if face.labels["expression"] != "talk":
            seen.setdefault(face.labels["instant"], []).append(face.labels["camera"])
    assert all(len(set(cameras)) == len(cameras) for cameras in seen.values())
    assert Counter(map(len, seen.values())) == {5: 68 * 24 - 3, 3: 3, 2: 68 * 22}  # three lack c07 and c27


def test_pie_light_comes_from_the_side_that_is_said(pie):
    lit = [face for face in pie if face.labels["camera"] == "c27" and face.labels["light_side"] is not None]
    for room in ("no", "yes"):
        those = [face for face in lit if face.labels["room_light"] == room]
        told = np.array([face.labels["light_side"] for face in those])
        measured = sides(pictures(those))
        assert np.corrcoef(told, measured)[0, 1] > 0.85
        for word, sign in (("left", -1), ("right", 1)):
            agree = [
                sign * side > 0 for side, face in zip(measured, those, strict=True) if face.labels["light_from"] == word
            ]
            assert np.mean(agree) > 0.95, (room, word)


def test_pie_yaw_has_the_schemas_sign(pie):
    """A face that turns to the picture's right ends before that edge, and behind it is the dark room; mirrored, it is
    like one that turns to the left."""
    lit = [face for face in pie if face.labels["room_light"] == "no" and face.labels["split"]]
    right, front, left = (
        pictures([face for face in lit if face.labels["yaw"] == yaw]).mean(0) for yaw in (22.5, 0.0, -22.5)
    )
    edges = [face[:, -3:].mean() - face[:, :3].mean() for face in (right, front, left)]
    assert edges[0] < -10 < edges[1] < 10 < edges[2]
    assert alike(right[:, ::-1], left) > alike(right, left) + 0.2


def alike(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
