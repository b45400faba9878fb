"""FER+, UTKFace and the parts of LFW as they are: published counts, parts that share nobody, and what is labelled."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from polyface.data.readers import reader
from polyface.data.readers.ferplus import shares_of
from polyface.data.writing import Record

PARTS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


def faces(name: str, root: Path, **options: Any) -> list[Record]:
    found = list(reader(name, **options).records(root))
    assert all(isinstance(face, Record) for face in found)
    return found  # type: ignore[return-value]


def by_part(found: list[Record], column: str) -> tuple[int, ...]:
    """Labelled faces of train, val and test."""
    counts = Counter(face.labels["split"] for face in found if face.labels[column] is not None)
    return tuple(counts[part] for part in ("train", "val", "test"))


# ------------------------------------------------------------------------------------------------- FER+

# By the authors' rules on fer2013new.csv: train, val and test faces of eight words and of seven.
LABELLED = {
    "majority": ((25060, 3199, 3153), (24941, 3186, 3137)),
    "probability": ((27956, 3505, 3505), (27796, 3482, 3480)),
    "cross-entropy": ((27956, 3505, 3505), (27796, 3482, 3480)),
    "multi-target": ((27671, 3472, 3472), (27526, 3454, 3449)),
}


@pytest.mark.parametrize("mode", LABELLED)
def test_ferplus_counts_of_every_mode(real_data, mode):
    with (real_data("ferplus") / "fer2013new.csv").open() as file:
        rows = [(row[0], list(map(int, row[2:]))) for row in list(csv.reader(file))[1:] if row[1]]
    assert len(rows) == 35714
    for contempt, expected in zip((True, False), LABELLED[mode], strict=True):
        found = Counter(part for part, votes in rows if shares_of(votes, mode, contempt))
        assert tuple(found[part] for part in PARTS) == expected


def test_ferplus_faces(real_data, caplog):
    found = faces("ferplus", real_data("ferplus"))
    assert by_part(found, "source") == (28561, 3579, 3574)  # four of them of images that another row names too
    assert "left out 173 rows that name no image" in caplog.text
    assert by_part(found, "emotion") == LABELLED["majority"][1]
    assert by_part(found, "emotion_shares") == LABELLED["probability"][1]
    tested = Counter(face.labels["emotion"] for face in found if face.labels["split"] == "test")
    assert (tested["disgust"], tested["fear"], tested["contempt"]) == (18, 83, 0)


@pytest.mark.parametrize(
    "copies, tested, labelled", [("drop-earlier", 3574, LABELLED["majority"][1][2]), ("drop-later", 3260, 2855)]
)
def test_ferplus_without_copies_shares_no_picture(real_data, copies, tested, labelled):
    root = real_data("ferplus")
    found = faces("ferplus", root, copies=copies)
    seen: dict[bytes, set[str]] = {}
    for face in found:
        if face.labels["split"]:
            seen.setdefault((root / "data" / face.path).read_bytes(), set()).add(face.labels["split"])
    assert all(len(parts) == 1 for parts in seen.values())
    assert (by_part(found, "source")[2], by_part(found, "emotion")[2]) == (tested, labelled)


# ------------------------------------------------------------------------------------------------- UTKFace


def test_utkface_faces(real_data, caplog):
    found = faces("utkface", real_data("utkface"))
    assert by_part(found, "age") == (6204, 689, 1723)
    for column in ("age", "age_group", "gender", "race"):
        assert sum(by_part(found, column)) == 8616
    assert not caplog.text
    groups = Counter(face.labels["age_group"] for face in found)
    words = ("0-2", "3-7", "8-14", "15-22", "23-34", "35-45", "46-56", "57+")
    assert [groups[word] for word in words] == [1100, 1012, 1004, 1100, 1100, 1100, 1100, 1100]
    assert Counter(face.labels["gender"] for face in found) == {"male": 4509, "female": 4107}
    assert min(face.labels["age"] for face in found) == 1
    assert max(face.labels["age"] for face in found) == 116


# ------------------------------------------------------------------------------------------------- LFW


def test_lfw_identity_and_gender(real_data, caplog):
    root = real_data("lfw")
    people, genders = faces("lfw-identity", root, draw=7), faces("lfw-gender", root, draw=7)
    assert by_part(people, "identity") == (810, 90, 100)
    assert set(Counter(face.labels["identity"] for face in people).values()) == {20}
    named = list(dict.fromkeys(face.labels["identity"] for face in people))
    assert (named[0], named[47:]) == ("George_W_Bush", ["Tiger_Woods", "George_Robertson", "Hamid_Karzai"])
    assert Counter(face.labels["gender"] for face in genders) == {"male": 2905, "female": 2905}
    assert by_part(genders, "gender")[2] == 2 * 581
    assert (
        "left out 5 images that both male_names.txt and female_names.txt name, and 4 that neither does" in caplog.text
    )
    parts: dict[str, set[str]] = {}
    for face in genders:
        if face.labels["split"]:
            parts.setdefault(face.labels["identity"], set()).add(face.labels["split"])
    assert all(len(part) == 1 for part in parts.values())
    asked, learnt = (
        {face.path for face in people if (face.labels["split"] == "test") is test} for test in (True, False)
    )
    assert not asked & {face.path for face in genders if face.labels["split"] in ("train", "val")}
    assert not learnt & {face.path for face in genders if face.labels["split"] == "test"}


def test_the_lists_of_lfw_are_these(real_data):
    hints = {name: reader(name).plan(real_data("lfw")).hints for name in ("lfw-identity", "lfw-gender")}
    assert hints == {
        "lfw-identity": {"identity": "SHA-1 of the list 2d254e4b28e824ccf4c01ab5c6cc622e85383d3b"},
        "lfw-gender": {"gender": "SHA-1 of the list fb4a8a000011b04593e709f4479f5a0a3172c314"},
    }
