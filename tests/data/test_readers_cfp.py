"""CFP on hand-made files: two people a fold, the side of a profile by its points, pairs by numbers, each fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.common import Pair
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError

PNG = encode_png(np.full((20, 20, 3), 90, np.uint8))
PEOPLE, FRONTAL, PROFILE = 20, 2, 1


def put(file: Path, data: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())


def points(jaw: float, eye: float, nose: float) -> str:
    """30 points of which only those that tell a side are elsewhere than at x = 10."""
    xs = [jaw, *[10.0] * 11, *[eye] * 6, *[10.0] * 3, nose, *[10.0] * 8]
    return "".join(f"{x:g},{5 + y}\n" for y, x in enumerate(xs))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty people, of each two frontal pictures and a profile; those of a fold have adjacent numbers."""
    data, protocol = tmp_path / "cfp-dataset/Data", tmp_path / "cfp-dataset/Protocol"
    names = [f"Person No. {number}" for number in range(1, PEOPLE + 1)]
    put(data / "list_name.txt", "\n".join(names) + "\n")
    for view, count in (("frontal", FRONTAL), ("profile", PROFILE)):
        paths = [f"{person:03d}/{view}/{one:02d}.jpg" for person in range(1, PEOPLE + 1) for one in range(1, count + 1)]
        lines = [f"{number} ../Data/Images/{path}\n" for number, path in enumerate(paths, 1)]
        put(protocol / f"Pair_list_{view[0].upper()}.txt", "".join(lines))
        for path in paths:
            put(data / "Images" / path, PNG)
    for fold in range(1, 11):
        one, other = 4 * fold - 3, 4 * fold - 1  # the first frontal pictures of the fold's people
        put(protocol / f"Split/FF/{fold:02d}/same.txt", f"{one},{one + 1}\n")
        put(protocol / f"Split/FF/{fold:02d}/diff.txt", f"{one},{other}\n")
        put(protocol / f"Split/FP/{fold:02d}/same.txt", f"{one},{2 * fold - 1}\n")
        put(protocol / f"Split/FP/{fold:02d}/diff.txt", f"{one},{2 * fold}\n")
    return tmp_path


def faces(root: Path, **options: int | str) -> dict[str, Record]:
    return {face.path: face for face in reader("cfp", **options).records(root) if isinstance(face, Record)}


def test_a_face_has_its_persons_name_fold_and_view(root: Path) -> None:
    found = faces(root)
    assert len(found) == PEOPLE * (FRONTAL + PROFILE)
    shared = {"source": "cfp", "modality": "photo", "split": "test", "identity": "person_no_3", "fold": 2}
    assert found["003/frontal/02.jpg"].labels == shared | {"pose": "frontal"}
    assert found["003/profile/01.jpg"].labels == shared | {"pose": None}  # without its points nobody knows the side
    assert faces(root / "cfp-dataset").keys() == found.keys()


@pytest.mark.parametrize(
    "jaw, eye, nose, pose",
    [
        (2, 12, 18, "right profile"),
        (18, 12, 2, "left profile"),
        (2, 12, 11, None),  # right of the jaw, but left of the eye
        (18, 8, 10, None),
    ],
)
def test_a_profiles_side_is_that_of_its_nose(root: Path, jaw: float, eye: float, nose: float, pose: str | None) -> None:
    for view in ("frontal", "profile"):
        put(root / f"cfp-dataset/Data/Fiducials/003/{view}/01.txt", points(jaw, eye, nose))
    found = faces(root)
    assert found["003/profile/01.jpg"].labels["pose"] == pose
    assert found["003/profile/01.jpg"].labels["landmarks_30"][21].tolist() == [nose, 26]
    assert found["003/frontal/01.jpg"].labels["pose"] == "frontal"


def test_pairs_are_those_of_the_list_with_their_folds(root: Path) -> None:
    found = {name: reader("cfp").pairs(root, "test", name) for name in ("FF", "FP")}
    assert found["FF"][2:4] == [
        Pair("003/frontal/01.jpg", "003/frontal/02.jpg", True, 2),
        Pair("003/frontal/01.jpg", "004/frontal/01.jpg", False, 2),
    ]
    assert found["FP"][18:] == [
        Pair("019/frontal/01.jpg", "019/profile/01.jpg", True, 10),
        Pair("019/frontal/01.jpg", "020/profile/01.jpg", False, 10),
    ]


def test_people_of_nine_folds_are_trained_on(root: Path) -> None:
    found = faces(root, split=2)
    people = {
        part: {path[:3] for path, face in found.items() if face.labels["split"] == part}
        for part in ("train", "val", "test")
    }
    assert people["test"] == {"003", "004"}
    assert {part: len(names) for part, names in people.items()} == {"train": 16, "val": 2, "test": 2}
    lists = reader("cfp", split=2)
    assert [pair.fold for pair in lists.pairs(root, "test", "FF")] == [None, None]
    assert not {pair.first[:3] for pair in lists.pairs(root, "train", "FF")} & (people["test"] | people["val"])


def test_a_missing_image_is_told_with_its_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "cfp-dataset/Data/Images/004/profile/01.jpg").unlink()
    found = reader("cfp").pairs(root, "test", "FP")
    assert len(found) == 19
    assert "left out 1 of 20 pairs, of which an image is not in" in caplog.text
    assert "the first is FP/02/diff.txt:1: 004/profile/01.jpg" in caplog.text


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("Split/FF/03/same.txt", "9,41\n", "FF/03/same.txt:1: there is no image 41 among 40; obtain the file again"),
        ("Split/FF/03/same.txt", "\n0,9\n", "FF/03/same.txt:2: there is no image 0 among 40"),
        ("Split/FP/03/diff.txt", "9,5,6\n", "FP/03/diff.txt:1: '9,5,6' is not two numbers of images"),
        ("Split/FF/03/diff.txt", "9,10\n", "FF/03/diff.txt:1: 005/frontal/01.jpg and .*, expected two people"),
        ("Split/FP/03/same.txt", "9,6\n", "FP/03/same.txt:1: 005/frontal/01.jpg and .*, expected one person"),
        ("Split/FF/03/diff.txt", "9,1\n", "FF/03/diff.txt:1: person 001 is in fold 1 and in this one"),
        ("Pair_list_P.txt", "1 ../001/profile/01.jpg\n", "Pair_list_P.txt:1: '1 .*' is not <number> ../Data/Images"),
        ("Pair_list_F.txt", "1 Images/001/profile/01.jpg\n", "Pair_list_F.txt:1: .*Images/001/frontal/01.jpg"),
    ],
)
def test_bad_lists_are_refused_with_their_line(root: Path, file: str, text: str, message: str) -> None:
    put(root / "cfp-dataset/Protocol" / file, text)
    with pytest.raises(PolyfaceError, match=message) as caught:
        faces(root)
    assert "\n" not in str(caught.value)


def test_faces_that_cannot_be_taken_are_told(root: Path) -> None:
    put(root / "cfp-dataset/Data/Images/021/frontal/01.jpg", PNG)
    put(root / "cfp-dataset/Data/Images/001/back/01.jpg", PNG)
    put(root / "cfp-dataset/Data/Fiducials/002/frontal/01.txt", "1,2\n")
    put(root / "cfp-dataset/Data/Fiducials/002/frontal/02.txt", points(1, 2, 3).replace("10,", "ten,", 1))
    told = {one.where: one.reason for one in reader("cfp").records(root) if isinstance(one, Skipped)}
    assert told == {
        "021/frontal/01.jpg": "expected 001/frontal/01.jpg, of a person from 1 to 20",
        "001/back/01.jpg": "expected 001/frontal/01.jpg, of a person from 1 to 20",
        "Data/Fiducials/002/frontal/01.txt": "1 lines, expected 30 of an x and a y",
        "Data/Fiducials/002/frontal/02.txt": "a coordinate is not a number",
    }


def test_what_is_missing_is_said(root: Path) -> None:
    with pytest.raises(PolyfaceError, match="reader 'cfp': split is '0'"):
        faces(root, split=0)
    with pytest.raises(PolyfaceError, match="reader 'cfp': list is 'PF'"):
        reader("cfp").pairs(root, "test", "PF")
    with pytest.raises(PolyfaceError, match=r"Images: not found; reader 'cfp' expects .* obtain it from"):
        faces(root / "cfp-dataset/Protocol")
    (root / "cfp-dataset/Protocol/Split/FP/07/diff.txt").unlink()
    with pytest.raises(PolyfaceError, match=r"07/diff.txt: not found; reader 'cfp' expects"):
        faces(root)
