"""LFW and CFP as their authors publish them: counts, folds that share nobody, pairs against a parse of its own."""

from __future__ import annotations

from collections import Counter

import pytest

from polyface.data.readers import reader


@pytest.fixture(scope="module")
def lfw(real_data):
    return real_data("lfw")


def test_lfw_counts(lfw):
    faces = list(reader("lfw").records(lfw))
    assert len(faces) == 13233
    assert len({face.labels["identity"] for face in faces}) == 5749
    assert {face.labels["split"] for face in faces} == {"test"}
    folds = {face.labels["identity"]: face.labels["fold"] for face in faces}
    people = [601, 555, 552, 560, 567, 527, 597, 601, 580, 609]  # as people.txt says of itself
    assert Counter(folds.values()) == dict(enumerate(people, 1))
    # 5 of the images are in both lists of names, 4 in neither
    assert Counter(face.labels["gender"] for face in faces) == {"male": 10263, "female": 2961, None: 9}


def test_lfw_pairs_of_view_2(lfw):
    found = reader("lfw").pairs(lfw, "test")
    assert Counter((pair.fold, pair.same) for pair in found) == {
        (f, s): 300 for f in range(1, 11) for s in (True, False)
    }
    lines = [line.split("\t") for line in (lfw / "pairs.txt").read_text().splitlines()[1:]]
    for pair, line in zip(found, lines, strict=True):
        first, a, *other, b = line
        second = other[0] if other else first
        assert pair.first == f"{first}/{first}_{int(a):04d}.jpg"
        assert pair.second == f"{second}/{second}_{int(b):04d}.jpg"
        assert pair.same is not bool(other)
    folds = {face.labels["identity"]: face.labels["fold"] for face in reader("lfw").records(lfw)}
    assert all(folds[path.split("/")[0]] == pair.fold for pair in found for path in (pair.first, pair.second))


def test_lfw_folds_and_view_1_share_nobody(lfw):
    for split, parts in (("view1", (4038, 1711)), (7, (5749 - 597, 597))):
        people = {(face.labels["identity"], face.labels["split"]) for face in reader("lfw", split=split).records(lfw)}
        counts = Counter(part for _, part in people)
        assert len(people) == 5749
        assert (counts["train"] + counts["val"], counts["test"]) == parts
    assert len(reader("lfw", split=7).pairs(lfw, "test")) == 600
    assert len(reader("lfw").pairs(lfw, "test", "devtrain")) == 2200
    assert len(reader("lfw", split="view1").pairs(lfw, "test", "devtest")) == 1000
