"""WebCaricature on hand-made files: images, points, and every list of its protocols; each fault by its message."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.common import Pair
from polyface.data.readers.webcaricature import (
    Identification,
    Subject,
    WebCaricature,
    identification,
    restricted_pairs,
    training_people,
    unrestricted_people,
)
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, write_table
from polyface.errors import PolyfaceError

from . import published

PNG = encode_png(np.full((20, 30, 3), 90, np.uint8))
VERIFICATION, IDENTIFICATION = "EvaluationProtocols/FaceVerification", "EvaluationProtocols/FaceIdentification"
PEOPLE = {"Ann Lee": (2, 3), "P!nk": (1, 1), "Jay-z": (2, 2)}


def put(file: Path, data: bytes | str = PNG) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def images(root: Path, people: Mapping[str, tuple[int, int]] = PEOPLE) -> Path:
    for name, counts in people.items():
        for letter, count in zip("CP", counts, strict=True):
            for number in range(1, count + 1):
                put(root / "OriginalImages" / name / f"{letter}{number:05d}.jpg")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return images(tmp_path)


def read(root: Path) -> list[Record | Skipped]:
    return list(reader("webcaricature").records(root))


# ------------------------------------------------------------------------------------------- faces


def test_by_hand(root, caplog):
    found = read(root)
    assert [face.path for face in found] == [  # type: ignore[union-attr]
        *("Ann Lee/C00001.jpg", "Ann Lee/C00002.jpg", "Ann Lee/P00001.jpg", "Ann Lee/P00002.jpg", "Ann Lee/P00003.jpg"),
        *("Jay-z/C00001.jpg", "Jay-z/C00002.jpg", "Jay-z/P00001.jpg", "Jay-z/P00002.jpg"),
        *("P!nk/C00001.jpg", "P!nk/P00001.jpg"),
    ]
    first, last = found[0], found[-1]
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert first.image == root / "OriginalImages" / "Ann Lee" / "C00001.jpg"
    assert first.labels == {"identity": "ann_lee", "modality": "caricature", "source": "webcaricature"}
    assert last.labels == {"identity": "p_nk", "modality": "photo", "source": "webcaricature"}
    assert not caplog.records


# ------------------------------------------------------------------------------------------- splits

CROWD = {f"Person {i:02d}": (4, 3) for i in range(9)}


def parts(root: Path, **options: Any) -> dict[str, str | None]:
    """The part of every image by its path."""
    found = list(reader("webcaricature", **options).records(root))
    return {face.path: face.labels.get("split") for face in found}  # type: ignore[union-attr]


def shown(found: Mapping[str, str | None], *chosen: str) -> set[str]:
    """The people whose images are in these parts."""
    return {path.split("/")[0] for path, part in found.items() if part in chosen}


def test_by_default_there_are_no_parts_and_for_a_test_elsewhere_all_is_test(root):
    assert set(parts(root).values()) == {None}
    found = parts(root, split="test")
    assert found.keys() == parts(root).keys()
    assert set(found.values()) == {"test"}


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine people with seven images each."""
    return images(tmp_path_factory.mktemp("crowd"), CROWD)


@settings(max_examples=15)
@given(draw=st.integers(0, 2**31))
def test_halves_share_nobody(crowd, draw):
    """Five people to learn from, four to be tested on; of the five's 35 images the tenth by SHA-1 is val."""
    found = parts(crowd, split="half", draw=draw)
    assert found.keys() == parts(crowd).keys()
    assert len(shown(found, "test")) == 4
    assert len(shown(found, "train")) == 5
    assert not shown(found, "test") & shown(found, "train", "val")
    learnt = [path for path in found if path.split("/")[0] not in shown(found, "test")]
    by_hash = sorted(learnt, key=lambda path: hashlib.sha1(path.encode()).hexdigest())
    assert {path for path, part in found.items() if part == "val"} == set(by_hash[:4])
    assert parts(crowd, split="half", draw=draw) == found


def test_every_draw_has_halves_of_its_own(crowd):
    tested = [frozenset(shown(parts(crowd, split="half", draw=draw), "test")) for draw in range(10)]
    assert len(set(tested)) > 8
    assert len(frozenset().union(*tested)) == 9  # and everybody is in some of them
    assert parts(crowd, split="half") == parts(crowd, split="half", draw=0)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty people with all lists: two in each fold of View 2, six to be found in each of the identification."""
    return published.webcaricature(tmp_path_factory.mktemp("listed"), lambda name, image: PNG)


def called(*numbers: int) -> set[str]:
    return {published.PEOPLE[number] for number in numbers}


def test_a_fold_of_view_2_is_tested_and_the_others_are_learnt_from(listed, caplog):
    found = parts(listed, split="verification", draw=3)
    assert shown(found, "test") == called(6, 7)
    assert shown(found, "train", "val") == {*published.PEOPLE} - called(6, 7)
    assert sum(part == "val" for part in found.values()) == 9  # a tenth of 90
    made = WebCaricature("verification", 3)
    pairs = made.pairs(listed, "test")
    assert [sum(pair.same is same for pair in pairs) for same in (True, False)] == [12, 12]
    assert pairs[0] == Pair("Person 06/C00001.jpg", "Person 06/P00001.jpg", True)  # all of one fold: of none
    assert {pair.fold for pair in made.pairs(listed, "train")} == {1, 2, 3, 5, 6, 7, 8, 9, 10}
    assert len(made.pairs(listed, "all")) == 240
    assert not caplog.records


def test_the_people_of_view_1(listed):
    found = parts(listed, split="verification", draw="dev")
    assert (shown(found, "test"), shown(found, "train")) == (called(2, 3), called(0, 1))
    assert found["Person 05/C00001.jpg"] is None
    pairs = WebCaricature("verification", "dev").pairs(listed, "test")
    assert {pair.first.split("/")[0] for pair in pairs} == called(2, 3)


@pytest.mark.parametrize("draw, first", [(0, 0), (8, 16), (9, 18), ("dev", 8)])
def test_people_of_a_fold_to_be_found_among_each_other(listed, draw, first):
    people = called(*(number % 20 for number in range(first, first + 6)))
    found = parts(listed, split="identification", draw=draw)
    assert shown(found, "test") == people
    assert shown(found, "train", "val") == {*published.PEOPLE} - people
    searches = WebCaricature("identification", draw).searches(listed, "test")
    assert {path.split("/")[0] for path in searches["P2C"].gallery} == people
    assert [len(one.gallery) for one in searches.values()] == [6, 6]
    assert [len(one.probes) for one in searches.values()] == [12, 18]


@pytest.mark.parametrize("draw", [10, -1, "seed"])
def test_a_fold_that_there_is_not(listed, draw):
    with pytest.raises(PolyfaceError, match=rf"draw is '{draw}'; expected a number from 0 to 9"):
        parts(listed, split="identification", draw=draw)


def test_a_list_of_fewer_folds(root):
    put(root / "EvaluationProtocols" / UNRESTRICTED, "1\nAnn Lee\t2\t3\n1\nJay-z\t2\t2\n")
    with pytest.raises(PolyfaceError, match="draw is 2, and View 2 has 2 folds here"):
        parts(root, split="verification", draw=2)
    assert shown(parts(root, split="verification", draw=1), "test") == {"Jay-z"}


def test_an_unknown_split(root):
    with pytest.raises(PolyfaceError, match="reader 'webcaricature': split is 'halves'; .*'half'"):
        parts(root, split="halves")


# ------------------------------------------------------------------------------------------- points

POINTS = np.array([[i + 0.5, 2 * i] for i in range(17)])


def points(lines: Any) -> str:
    return "".join(f"{x} {y} \r\n" for x, y in lines)


def test_points(root, tmp_path, caplog):
    put(root / "FacialPoints/Ann Lee/C00001.txt", points(POINTS))
    put(root / "FacialPoints/Jay-z/P00002.txt", points((f"{x:.7e}", f"{y:.7e}") for x, y in POINTS))
    report = write_table(reader("webcaricature").records(root), tmp_path / "t.parquet")
    assert (report.rows, report.labelled["landmarks_17"]) == (11, 2)
    table = FaceTable.open(tmp_path / "t.parquet")
    read_points = table.points("landmarks_17")
    for row in range(11):
        expected = POINTS if table.path(row) in ("Ann Lee/C00001.jpg", "Jay-z/P00002.jpg") else np.full((17, 2), np.nan)
        np.testing.assert_array_equal(read_points[row], expected)
    assert caplog.messages == [f"{root / 'FacialPoints'}: 9 of 11 images have no points there"]


@pytest.mark.parametrize(
    "text, reason",
    [
        (points(POINTS[1:]), "16 lines, expected 17 of an x and a y"),
        ("1 2 3\n" * 17, "17 lines, expected 17 of an x and a y"),
        ("", "0 lines, expected 17"),
        ("1 two\n" * 17, "a coordinate is not a number"),
    ],
)
def test_points_that_cannot_be_read_skip_their_face(root, text, reason):
    put(root / "FacialPoints/Ann Lee/C00001.txt", text)
    found = read(root)
    assert isinstance(found[0], Skipped)
    assert found[0].where == "FacialPoints/Ann Lee/C00001.txt"
    assert reason in found[0].reason
    assert all(isinstance(face, Record) for face in found[1:])


def test_images_that_are_neither(root):
    put(root / "OriginalImages/Ann Lee/A00001.jpg")
    assert read(root)[0] == Skipped("Ann Lee/A00001.jpg", "expected C… (a caricature) or P… (a photo) as its name")


def test_people_of_one_modality_are_named(tmp_path, caplog):
    read(images(tmp_path, {"Ann Lee": (1, 1), "Bob": (2, 0), "Cy": (0, 1), "Dee": (1, 0)}))
    folder = tmp_path / "OriginalImages"
    assert sorted(caplog.messages) == [
        f"{folder}: 1 people have no caricature: cy",
        f"{folder}: 2 people have no photo: bob, dee",
    ]


def test_missing_images(tmp_path):
    with pytest.raises(PolyfaceError, match=r"OriginalImages: not found; reader 'webcaricature' expects .*obtain them"):
        read(tmp_path)
    put(tmp_path / "OriginalImages/Ann/notes.txt", "nothing")
    with pytest.raises(PolyfaceError, match=r"OriginalImages: no image; reader 'webcaricature' expects"):
        read(tmp_path)


# ------------------------------------------------------------------------------------------- verification

ROWS = [
    "Ann Lee\tC00001\tP00003\r\n",
    "Jay-z\tC00002\tP00001\r\n",
    "P!nk\tC00001\tAnn Lee\tP00001\t\r\n",
    "Ann Lee\tC00002\tJay-z\tP00002\r\n",
]
FOLD = "".join(["2\r\n", *ROWS])
PAIRS = [
    Pair("Ann Lee/C00001.jpg", "Ann Lee/P00003.jpg", True),
    Pair("Jay-z/C00002.jpg", "Jay-z/P00001.jpg", True),
    Pair("P!nk/C00001.jpg", "Ann Lee/P00001.jpg", False),
    Pair("Ann Lee/C00002.jpg", "Jay-z/P00002.jpg", False),
]
ANN = Subject("ann_lee", [f"Ann Lee/C0000{i}.jpg" for i in (1, 2)], [f"Ann Lee/P0000{i}.jpg" for i in (1, 2, 3)])
PINK = Subject("p_nk", ["P!nk/C00001.jpg"], ["P!nk/P00001.jpg"])
JAY = Subject("jay_z", [f"Jay-z/C0000{i}.jpg" for i in (1, 2)], [f"Jay-z/P0000{i}.jpg" for i in (1, 2)])


@pytest.mark.parametrize("folds", ["", "10\n"])
def test_restricted_view_2(root, caplog, folds):
    """Whether the list begins with the number of its folds or at once with that of the first one's pairs."""
    put(
        root / VERIFICATION / "Restricted/RestrictedView2.txt",
        folds + FOLD * 9 + "1\nP!nk\tC00001\tP00001\n" + ROWS[2],
    )
    found = WebCaricature().pairs(root, "test")
    last = [Pair("P!nk/C00001.jpg", "P!nk/P00001.jpg", True), PAIRS[2]]
    assert found == [replace(pair, fold=fold) for fold, pairs in enumerate([*[PAIRS] * 9, last], 1) for pair in pairs]
    assert not caplog.records


def test_restricted_view_1(root):
    put(root / VERIFICATION / "Restricted/RestrictedView1_DevTrain.txt", FOLD)
    put(root / VERIFICATION / "Restricted/RestrictedView1_DevTest.txt", FOLD.replace("C00001", "C00002"))
    offered = WebCaricature().pairs(root, "test", "1")
    assert offered[:4] == [replace(pair, fold=1) for pair in PAIRS]
    assert [(pair.first, pair.fold) for pair in offered[4:6]] == [("Ann Lee/C00002.jpg", 2), ("Jay-z/C00002.jpg", 2)]
    with pytest.raises(PolyfaceError, match="view is 0, expected 1"):
        WebCaricature().pairs(root, "test", "both")


def test_pairs_without_their_images_are_left_out_and_counted(root, caplog):
    (root / "OriginalImages/Ann Lee/C00001.jpg").unlink()
    put(root / VERIFICATION / "Restricted/RestrictedView2.txt", FOLD + FOLD.replace("P!nk", "Nobody Known"))
    found = WebCaricature().pairs(root, "all")
    assert found == [
        *(replace(pair, fold=1) for pair in PAIRS[1:]),
        *(replace(pair, fold=2) for pair in (PAIRS[1], PAIRS[3])),
    ]
    what = f"left out 3 of 8 pairs, of which an image is not in {root / 'OriginalImages'}"
    assert caplog.messages == [f"{root / VERIFICATION}: {what}; the first is RestrictedView2.txt:2: Ann Lee/C00001"]


@pytest.mark.parametrize("folds", ["", "2\n"])
def test_unrestricted_view_2(root, caplog, folds):
    put(
        root / VERIFICATION / "UnRestricted/UnRestrictedView2.txt",
        folds + "2\nAnn Lee\t2\t3\nP!nk\t1\t1\n1\nJay-z\t2\t2\n",
    )
    assert unrestricted_people(root) == [[ANN, PINK], [JAY]]
    assert not caplog.records


def test_unrestricted_view_1(root, caplog):
    train = put(root / VERIFICATION / "UnRestricted/UnRestrictedView1_DevTrain.txt", "2\nJay-z 3 2\nNobody Known 4 5\n")
    put(root / VERIFICATION / "UnRestricted/UnRestrictedView1_DevTest.txt", "1\nAnn Lee\t2\t3\n")
    assert unrestricted_people(root, view=1) == [[JAY], [ANN]]
    folder = root / "OriginalImages"
    assert caplog.messages == [
        f"{train}: left out 1 of 2 people, absent from {folder}",
        f"{train}: left out 10 of 14 images, absent from {folder}",
    ]


# ------------------------------------------------------------------------------------------- identification


@pytest.mark.parametrize("fold, number", [(None, "_dev"), (1, "1"), (10, "10")])
def test_training_people(root, fold, number):
    put(root / IDENTIFICATION / f"FR_Train{number}.txt", "Jay-z\t2\t2\nAnn Lee\t1\t2\n")
    ann = Subject("ann_lee", ["Ann Lee/C00001.jpg"], ["Ann Lee/P00001.jpg", "Ann Lee/P00002.jpg"])
    assert training_people(root, fold) == [JAY, ann]


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("fold, number", [(None, "_dev"), (1, "1"), (10, "10")])
def test_identification(root, caplog, fold, number, counted):
    lists = {
        "C2P/FR_Gallery_C2P": ["Ann Lee\tP00002", "Jay-z\tP00001"],
        "C2P/FR_Probe_C2P": ["Ann Lee\tC00001", "Ann Lee\tC00002", "Jay-z\tC00002"],
        "P2C/FR_Gallery_P2C": ["Jay-z\tC00001\t", "Ann Lee\tC00002"],
        "P2C/FR_Probe_P2C": ["Jay-z\tP00002.jpg"],
    }
    for name, lines in lists.items():
        text = "\r\n".join([str(len(lines)), *lines] if counted else lines)
        put(root / IDENTIFICATION / f"{name}{number}.txt", text)
    assert identification(root, "C2P", fold) == Identification(
        ["Ann Lee/P00002.jpg", "Jay-z/P00001.jpg"], ["Ann Lee/C00001.jpg", "Ann Lee/C00002.jpg", "Jay-z/C00002.jpg"]
    )
    searches = WebCaricature().searches(root, "test", number.strip("_"))
    assert searches == {way: identification(root, way, fold) for way in ("C2P", "P2C")}
    assert identification(root, "P2C", fold) == Identification(
        ["Jay-z/C00001.jpg", "Ann Lee/C00002.jpg"], ["Jay-z/P00002.jpg"]
    )
    assert not caplog.records


def test_probes_that_nobody_could_find_are_left_out_and_counted(root, caplog):
    gallery = put(root / IDENTIFICATION / "C2P/FR_Gallery_C2P1.txt", "Ann Lee\tP00009\nP!nk\tP00001\nJay-z\tP00001\n")
    probes = put(root / IDENTIFICATION / "C2P/FR_Probe_C2P1.txt", "Ann Lee\tC00001\nJay-z\tC00001\nP!nk\tC00002\n")
    assert identification(root, "C2P", 1) == Identification(
        ["P!nk/P00001.jpg", "Jay-z/P00001.jpg"], ["Jay-z/C00001.jpg"]
    )
    folder = root / "OriginalImages"
    assert sorted(caplog.messages) == sorted(
        [
            f"{gallery}: left out 1 of 3 images, absent from {folder}",
            f"{probes}: left out 1 of 3 images, absent from {folder}",
            f"{probes}: left out 1 probes of people without a gallery image",
        ]
    )


def test_a_gallery_of_the_other_modality(root):
    put(root / IDENTIFICATION / "C2P/FR_Gallery_C2P1.txt", "Ann Lee\tP00001\nP!nk\tC00001\n")
    with pytest.raises(PolyfaceError, match=r"FR_Gallery_C2P1.txt: 'P!nk/C00001' is no photo; obtain the file again"):
        identification(root, "C2P", 1)


# ------------------------------------------------------------------------------------------- faults

RESTRICTED = "FaceVerification/Restricted/RestrictedView2.txt"
UNRESTRICTED = "FaceVerification/UnRestricted/UnRestrictedView2.txt"
TRAIN, PROBE = "FaceIdentification/FR_Train3.txt", "FaceIdentification/P2C/FR_Gallery_P2C3.txt"
READ: dict[str, Callable[[Path], Any]] = {
    RESTRICTED: restricted_pairs,
    UNRESTRICTED: unrestricted_people,
    TRAIN: lambda root: training_people(root, 3),
    PROBE: lambda root: identification(root, "P2C", 3),
}


@pytest.mark.parametrize(
    "name, text, message",
    [
        (RESTRICTED, FOLD + "Ann Lee\tC00001\tP00001\n", ":1: says that 4 rows follow, but 5 do"),
        (RESTRICTED, FOLD + "2\n" + ROWS[0] + ROWS[3], ":6: says that 4 rows follow, but 2 do"),
        (RESTRICTED, "3\n" + FOLD * 2, ":1: says that 3 folds follow, but 2 do"),
        (
            RESTRICTED,
            FOLD.replace("P!nk\tC00001\tAnn Lee", "P!nk\tC00001"),
            ": 3 of the 4 pairs of fold 1 match, expected",
        ),
        (
            RESTRICTED,
            "1\nAnn Lee\tP00001\tC00001\n",
            ":2: 'Ann Lee\tP00001\tC00001' is not <name> <caricature> <photo>",
        ),
        (RESTRICTED, "Ann Lee\tC00001\tP00001\n12\n", ":2: '12' is not <name> <caricature> <photo>"),
        (UNRESTRICTED, "1\nAnn Lee\t2\n", ":2: 'Ann Lee\t2' is not <name> <number of caricatures> <number of photos>"),
        (UNRESTRICTED, "2\nAnn Lee\t2\t3\n", ":1: says that 2 rows follow, but 1 do"),
        (TRAIN, "Ann Lee\ttwo\t3\n", ":1: 'Ann Lee\ttwo\t3' is not <name> <number of caricatures>"),
        (TRAIN, "", ": names nobody; obtain the file again"),
        (TRAIN, "0\n", ": names nobody; obtain the file again"),
        (PROBE, "C00001\n", ":1: 'C00001' is not <name> <image>"),
        (PROBE, "Ann Lee\t1\n", ":1: 'Ann Lee\t1' is not <name> <image>"),
    ],
)
def test_a_list_that_is_not_what_it_says(root, name, text, message):
    file = put(root / "EvaluationProtocols" / name, text)
    with pytest.raises(PolyfaceError) as caught:
        READ[name](root)
    assert f"{file}{message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READ)
def test_a_missing_list(root, name):
    with pytest.raises(PolyfaceError, match=rf"{Path(name).name}: not found; reader 'webcaricature' expects .*obtain"):
        READ[name](root)


def test_what_there_is_no_list_of(root):
    for wrong in (lambda: restricted_pairs(root, 3), lambda: unrestricted_people(root, 0)):
        with pytest.raises(PolyfaceError, match=r"view is \d, expected 1 \(development\) or 2 \(evaluation\)"):
            wrong()
    for wrong in (lambda: training_people(root, 0), lambda: identification(root, "C2P", 11)):
        with pytest.raises(PolyfaceError, match=r"fold is \d+, expected 1 to 10, or None for development"):
            wrong()
    with pytest.raises(PolyfaceError, match=r"direction is 'P2P'; did you mean"):
        identification(root, "P2P", 1)
