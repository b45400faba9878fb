"""LFW on hand-made files: images, the people of each fold, pairs of each part, each fault by its message."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.common import Pair
from polyface.data.writing import Record
from polyface.errors import PolyfaceError

PNG = encode_png(np.full((20, 20, 3), 90, np.uint8))
PEOPLE = {"Ann_Low": 3, "Bob_Ray": 2, "Cid": 2, "Dan_O'Neil": 1, "Eve": 2, "Flo": 1}
FOLDS = [["Ann_Low", "Bob_Ray"], ["Cid", "Dan_O'Neil"], ["Eve", "Flo"]]
# Three folds of one pair of one person and one of two.
ROWS = [
    "Ann_Low\t1\t3",
    "Ann_Low\t2\tBob_Ray\t1",
    "Cid\t1\t2",
    "Cid\t2\tDan_O'Neil\t1",
    "Eve\t2\t1",
    "Flo\t1\tEve\t1",
]


def people_file(folds: Sequence[Sequence[str]], listed: dict[str, int] = PEOPLE) -> str:
    rows = [line for names in folds for line in (len(names), *(f"{name}\t{listed[name]}" for name in names))]
    return "\n".join(map(str, [len(folds), *rows] if len(folds) > 1 else rows)) + "\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, count in PEOPLE.items():
        (tmp_path / "lfw_funneled" / name).mkdir(parents=True)
        for number in range(1, count + 1):
            (tmp_path / "lfw_funneled" / name / f"{name}_{number:04d}.jpg").write_bytes(PNG)
    (tmp_path / "people.txt").write_text(people_file(FOLDS))
    (tmp_path / "pairs.txt").write_text("\n".join(["3\t1", *ROWS]) + "\n")
    return tmp_path


def parts(root: Path, split: int | str = "test") -> dict[str, str]:
    """Person → part; every face of a person must be in the same one."""
    found = [face for face in reader("lfw", split=split).records(root) if isinstance(face, Record)]
    of_person = {(face.labels["identity"], face.labels["split"]) for face in found}
    assert len(of_person) == len(dict(of_person))
    return dict(of_person)


def test_a_face_is_its_folder_and_the_fold_of_its_person(root: Path) -> None:
    (root / "male_names.txt").write_text("Bob_Ray_0001.jpg\nBob_Ray_0002.jpg\n")
    (root / "female_names.txt").write_text("Ann_Low_0001.jpg\nBob_Ray_0002.jpg\n")
    faces = {face.path: face.labels for face in reader("lfw").records(root) if isinstance(face, Record)}
    assert len(faces) == sum(PEOPLE.values())
    shared = {"source": "lfw", "modality": "photo", "split": "test"}
    assert faces["Ann_Low/Ann_Low_0001.jpg"] == shared | {"identity": "Ann_Low", "fold": 1, "gender": "female"}
    assert faces["Bob_Ray/Bob_Ray_0001.jpg"]["gender"] == "male"
    assert faces["Bob_Ray/Bob_Ray_0002.jpg"]["gender"] is None  # in both lists
    assert faces["Eve/Eve_0002.jpg"] == shared | {"identity": "Eve", "fold": 3, "gender": None}


def test_the_people_of_nine_folds_are_trained_on_and_those_of_the_tenth_tested(root: Path) -> None:
    assert set(parts(root).values()) == {"test"}
    for split in (2, "2"):
        found = parts(root, split)
        assert {name for name, part in found.items() if part == "test"} == {"Cid", "Dan_O'Neil"}
        assert {part for name, part in found.items() if name not in FOLDS[1]} == {"train", "val"}
    # a tenth of the other 8 faces is one: it is that of the person with the smallest SHA-1
    first = min({*PEOPLE} - {*FOLDS[1]}, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert [name for name, part in found.items() if part == "val"] == [first]


def test_view_1_has_people_to_train_on_and_to_test(root: Path) -> None:
    (root / "peopleDevTrain.txt").write_text(people_file([["Ann_Low", "Cid", "Eve", "Flo"]]))
    (root / "peopleDevTest.txt").write_text(people_file([["Bob_Ray", "Dan_O'Neil"]]))
    found = parts(root, "view1")
    assert {name for name, part in found.items() if part == "test"} == {"Bob_Ray", "Dan_O'Neil"}
    assert set(found.values()) == {"train", "val", "test"}


def test_pairs_keep_their_order_and_fold(root: Path) -> None:
    found = reader("lfw").pairs(root, "test")
    assert found[:2] == [
        Pair("Ann_Low/Ann_Low_0001.jpg", "Ann_Low/Ann_Low_0003.jpg", True, 1),
        Pair("Ann_Low/Ann_Low_0002.jpg", "Bob_Ray/Bob_Ray_0001.jpg", False, 1),
    ]
    assert [(pair.same, pair.fold) for pair in found] == [(s, f) for f in (1, 2, 3) for s in (True, False)]
    assert reader("lfw").pairs(root, "all") == found


def test_pairs_of_one_fold_have_no_other_one_to_pick_a_threshold_on(root: Path) -> None:
    lists = reader("lfw", split=2)
    found = lists.pairs(root, "test")
    assert [(pair.first, pair.fold) for pair in found] == [("Cid/Cid_0001.jpg", None), ("Cid/Cid_0002.jpg", None)]
    training = lists.pairs(root, "train")
    assert training
    assert not any(name in pair.first for pair in training for name in FOLDS[1])
    assert len(lists.pairs(root, "all")) == 6


def test_view_1_pairs_have_no_folds(root: Path) -> None:
    (root / "pairsDevTest.txt").write_text("1\nAnn_Low\t1\t2\nEve\t1\tFlo\t1\n")
    found = reader("lfw").pairs(root, "test", "devtest")
    assert [(pair.same, pair.fold) for pair in found] == [(True, None), (False, None)]


def test_what_is_absent_is_told_with_its_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "lfw_funneled/Cid/Cid_0002.jpg").unlink()
    list(reader("lfw").records(root))
    assert "1 people have fewer images than listed, the first is people.txt:6: Cid has 1 of 2 images" in caplog.text
    caplog.clear()
    found = reader("lfw").pairs(root, "test")
    assert [pair.fold for pair in found] == [1, 1, 3, 3]
    assert "left out 2 of 6 pairs, of which an image is not in" in caplog.text
    assert "the first is pairs.txt:4: Cid/Cid_0002.jpg" in caplog.text


def test_without_lists_faces_have_no_fold_and_a_person_no_list_names_no_part(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "people.txt").write_text(people_file(FOLDS[:2]))
    assert parts(root, 1)["Eve"] is None
    assert "2 people are in no part of the split '1'" in caplog.text
    (root / "people.txt").unlink()
    assert all(face.labels["fold"] is None for face in reader("lfw").records(root) if isinstance(face, Record))


@pytest.mark.parametrize(
    "rows, message",
    [
        (["3\t1", *ROWS[:5]], r"pairs.txt:1: says that 6 pairs follow, but 5 do; obtain the file again"),
        (["three", *ROWS], r"pairs.txt:1: 'three' is not <folds> <pairs of one person>"),
        (["0\t1", *ROWS], r"pairs.txt:1: '0\t1' is not <folds>"),
        ([], r"pairs.txt:1: '' is not <folds>"),
        (["3\t1", "Ann_Low\t1\tx", *ROWS[1:]], r"pairs.txt:2: 'Ann_Low 1 x' is not <name> <image> <image>"),
        (["3\t1", "Ann_Low\t1", *ROWS[1:]], r"pairs.txt:2: 'Ann_Low 1' is not <name> <image> <image>"),
        (["3\t1", ROWS[1], ROWS[0], *ROWS[2:]], r"pairs.txt:2: .* expected a pair of one person here"),
        (["3\t1", ROWS[0], "Eve\t1\t2", *ROWS[2:]], r"pairs.txt:3: .* expected a pair of two people here"),
    ],
)
def test_bad_pairs_are_refused_with_their_line(root: Path, rows: list[str], message: str) -> None:
    (root / "pairs.txt").write_text("\n".join(rows))
    with pytest.raises(PolyfaceError, match=message) as caught:
        reader("lfw").pairs(root, "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("3\n2\nAnn_Low\t3\nBob_Ray\t2\n", "people.txt:1: says that 3 folds follow, but 1 do"),
        ("2\n2\nAnn_Low\t3\n2\nCid\t2\nEve\t2\n", "people.txt:2: says that 2 rows follow, but 1 do"),
        ("1\nAnn_Low 3\n", "people.txt:2: 'Ann_Low 3' is not <name> <number of images>"),
        ("", "people.txt: names nobody"),
    ],
)
def test_bad_people_are_refused_with_their_line(root: Path, text: str, message: str) -> None:
    (root / "people.txt").write_text(text)
    with pytest.raises(PolyfaceError, match=message):
        list(reader("lfw").records(root))


def test_what_is_asked_for_and_missing_is_said(root: Path) -> None:
    with pytest.raises(PolyfaceError, match="reader 'lfw': split is '11'"):
        list(reader("lfw", split=11).records(root))
    with pytest.raises(PolyfaceError, match="reader 'lfw': list is 'devtests'; did you mean 'devtest'"):
        reader("lfw").pairs(root, "test", "devtests")
    with pytest.raises(PolyfaceError, match=r"peopleDevTrain.txt: not found; reader 'lfw' expects .* obtain them from"):
        list(reader("lfw", split="view1").records(root))
    with pytest.raises(PolyfaceError, match="none of 6 pairs is of two images of the part 'train'"):
        reader("lfw").pairs(root, "train")
    with pytest.raises(PolyfaceError, match="lfw-deepfunneled: not found; reader 'lfw' expects"):
        list(reader("lfw").records(root / "lfw_funneled/Cid"))
