"""LFW and CFP as their authors publish them: counts, folds that share nobody, pairs against a parse of its own."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import numpy as np
import pytest

from polyface import protocols
from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.table import FaceTable
from polyface.data.writing import write_table
from polyface.protocols.base import EvaluationSet


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


# ------------------------------------------------------------------------------------------- CFP


@pytest.fixture(scope="module")
def cfp(real_data, tmp_path_factory):
    """The real protocol, names and points, with one drawn picture in the place of each of the 7,000 images."""
    real, root = real_data("cfp") / "cfp-dataset", tmp_path_factory.mktemp("cfp")
    (root / "Data").mkdir()
    for name in ("Protocol", "Data/Fiducials", "Data/list_name.txt"):
        (root / name).symlink_to(real / name)
    picture = root / "picture.png"
    picture.write_bytes(encode_png(np.full((8, 8, 3), 90, np.uint8)))
    for person in range(1, 501):
        for view, count in (("frontal", 10), ("profile", 4)):
            folder = root / f"Data/Images/{person:03d}/{view}"
            folder.mkdir(parents=True)
            for number in range(1, count + 1):
                os.link(picture, folder / f"{number:02d}.jpg")
    return root


def test_cfp_counts(cfp):
    faces = list(reader("cfp").records(cfp))
    assert len(faces) == 7000
    per_person = Counter((face.labels["identity"], face.path.split("/")[1]) for face in faces)
    assert len(per_person) == 1000
    assert {(view, count) for (_, view), count in per_person.items()} == {("frontal", 10), ("profile", 4)}
    assert faces[0].labels["identity"] == "50_cent"
    assert Counter(face.labels["fold"] for face in faces) == dict.fromkeys(range(1, 11), 50 * 14)
    sides = Counter(face.labels["pose"] for face in faces)
    assert sides == {"frontal": 5000, "left profile": 1025, "right profile": 971, None: 4}
    assert {face.labels["landmarks_30"].shape for face in faces} == {(30, 2)}


@pytest.mark.parametrize("name", ["FF", "FP"])
def test_cfp_pairs(cfp, name):
    found = reader("cfp").pairs(cfp, "test", name)
    assert Counter((pair.fold, pair.same) for pair in found) == {
        (f, s): 350 for f in range(1, 11) for s in (True, False)
    }
    numbers = [
        tuple(map(int, line.split(",")))
        for fold in range(1, 11)
        for kind in ("same", "diff")
        for line in (cfp / f"Protocol/Split/{name}/{fold:02d}/{kind}.txt").read_text().split()
    ]
    view, each = ("frontal", 10) if name == "FF" else ("profile", 4)
    for pair, (first, second) in zip(found, numbers, strict=True):  # image k of a view is the person's k-th in turn
        assert pair.first == f"{(first - 1) // 10 + 1:03d}/frontal/{(first - 1) % 10 + 1:02d}.jpg"
        assert pair.second == f"{(second - 1) // each + 1:03d}/{view}/{(second - 1) % each + 1:02d}.jpg"


@pytest.fixture(scope="module")
def two_folds(cfp, tmp_path_factory):
    """A copy of which only the first two folds' images are there, and the table of them."""
    root = tmp_path_factory.mktemp("two") / "cfp"
    (root / "Data/Images").mkdir(parents=True)
    for name in ("Protocol", "Data/list_name.txt"):
        (root / name).symlink_to(cfp / name)
    people = {face.path[:3] for face in reader("cfp").records(cfp) if face.labels["fold"] <= 2}
    for person in people:
        shutil.copytree(cfp / "Data/Images" / person, root / "Data/Images" / person, copy_function=os.link)
    file = root.parent / "cfp.parquet"
    write_table(reader("cfp").records(root), file)
    return EvaluationSet(FaceTable.open(file), "test", root.parent, {"cfp": {}})


def evaluated(faces, embedding):
    protocol = protocols.build(protocols.settings("cfp"))
    cases = protocol.cases(faces)
    found = protocol.evaluate({"identity": {"embedding": embedding}}, cases)
    assert [one.metrics[0].folds for one in found.values()] == ["2 folds"] * 2
    assert [one.units for one in found.values()] == [1400] * 2
    return {prefix + metric.name: one.figure(metric) for prefix, one in found.items() for metric in one.metrics}


def test_cfp_is_evaluated_by_both_lists(two_folds, caplog):
    """By a network that knows everybody, one that knows nobody in profile, and one that knows nobody at all."""
    people, poses = (two_folds.table.words(column) for column in ("identity", "pose"))
    assert len(set(people)) == 100
    own = np.eye(100)[np.unique(people, return_inverse=True)[1]]
    everybody = {"accuracy": 100, "AUC": 100, "EER": 0, "TAR@FAR 0.1%": 100, "TAR@FAR 1%": 100}
    nobody = {"accuracy": 50, "AUC": 50, "EER": 50, "TAR@FAR 0.1%": 0, "TAR@FAR 1%": 0}
    for frontal, profile in ((everybody, everybody), (everybody, nobody), (nobody, nobody)):
        known = {"frontal": frontal is everybody, None: profile is everybody}
        seen = np.array([known[pose] for pose in poses])[:, None]
        embedding = np.concatenate([own * seen, ~seen], axis=1)
        expected = {"FF": frontal, "FP": profile}
        assert evaluated(two_folds, embedding) == pytest.approx(
            {f"{name} {metric}": value for name, one in expected.items() for metric, value in one.items()}
        )
    assert "left out 5600 of 7000 pairs" in caplog.text
