"""MTFL and 300-W as their authors publish them: counts, marginals, and that every point lies in its image."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from polyface.data.images import decode
from polyface.data.readers import reader
from polyface.data.writing import Record


def records(name, root):
    found = list(reader(name).records(root))
    assert all(isinstance(face, Record) for face in found)
    return found


@pytest.fixture(scope="module")
def mtfl(real_data):
    return records("mtfl", real_data("mtfl"))


@pytest.fixture(scope="module")
def ibug(real_data):
    return records("300w", real_data("300w"))


def test_mtfl_counts(mtfl):
    assert Counter(f.labels["split"] for f in mtfl) == {"train": 9000, "val": 1000, "test": 2995}
    assert Counter(f.labels["source"] for f in mtfl) == {"lfw_5590": 4151, "net_7876": 5849, "AFLW": 2995}
    assert len({f.path for f in mtfl}) == len(mtfl)


def test_mtfl_marginals(mtfl):
    training = [f.labels for f in mtfl if f.labels["split"] != "test"]
    testing = [f.labels for f in mtfl if f.labels["split"] == "test"]

    def count(labels, column):
        return dict(Counter(label[column] for label in labels))

    assert count(training, "gender") == {"male": 5807, "female": 4193}
    assert count(training, "smile") == {"yes": 5616, "no": 4384}
    assert count(training, "glasses") == {"yes": 1408, "no": 8592}
    poses = {"left profile": 136, "left": 1113, "frontal": 7445, "right": 1111, "right profile": 195}
    assert count(training, "pose") == poses
    assert count(testing, "glasses") == {"yes": 241, "no": 2754}
    assert count(testing, "pose")["frontal"] == 1825  # 39 % are not, as the paper says


def test_mtfl_points_are_in_order_and_in_the_image(mtfl):
    for face in mtfl[::200]:
        height, width = decode(face.image).shape[:2]
        points = face.labels["landmarks_5"]
        assert ((points > -0.2 * width) & (points < [1.2 * width, 1.2 * height])).all(), face.where
    frontal = np.stack([f.labels["landmarks_5"] for f in mtfl if f.labels["pose"] == "frontal"])
    left, right, nose, mouth_left, mouth_right = np.median(frontal, axis=0)
    assert left[0] < nose[0] < right[0]
    assert mouth_left[0] < nose[0] < mouth_right[0]
    assert left[1] < nose[1] < mouth_left[1]


def test_300w_counts(ibug):
    found = Counter((f.labels["source"], f.labels["split"] == "test") for f in ibug)
    assert found == {
        ("Helen", False): 870,
        ("Helen", True): 330,
        ("AFW", False): 337,
        ("LFPW", False): 805,
        ("LFPW", True): 224,
    }
    held = Counter(f.labels["source"] for f in ibug if f.labels["split"] == "val")
    assert 87 <= held["Helen"] <= 90
    assert 34 <= held["AFW"] <= 43
    assert 79 <= held["LFPW"] <= 82
    assert all(f.labels["landmarks_68"].shape == (68, 2) for f in ibug)


def test_300w_photos_are_whole(ibug):
    parts = {}
    for face in ibug:
        name = face.path.rsplit("/", 1)[-1]
        # Helen and AFW number the faces of a photo (NAME_1.jpg); LFPW numbers photos (image_0001.jpg), one face each
        photo = (face.labels["source"], name if face.labels["source"] == "LFPW" else name.rsplit("_", 1)[0])
        parts.setdefault(photo, set()).add(face.labels["split"])
    assert all(len(found) == 1 or "test" in found for found in parts.values())
    assert not any({"train", "val"} <= found for found in parts.values())


def test_300w_points_are_in_the_image(ibug):
    for face in ibug[::50]:
        height, width = decode(face.image).shape[:2]
        points = face.labels["landmarks_68"]
        assert ((points > -0.2 * width) & (points < [1.2 * width, 1.2 * height])).all(), face.where
