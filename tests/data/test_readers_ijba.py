"""IJB-A on hand-made lists: two splits with a video, a template of one picture, a probe without a mate, a lost file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from polyface import protocols
from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.common import Template
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.metrics.result import rows
from polyface.protocols.base import EvaluationSet

HEADER = (
    "TEMPLATE_ID,SUBJECT_ID,FILE,MEDIA_ID,SIGHTING_ID,FRAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT,RIGHT_EYE_X,"
    "RIGHT_EYE_Y,LEFT_EYE_X,LEFT_EYE_Y,NOSE_BASE_X,NOSE_BASE_Y,FACE_YAW,FOREHEAD_VISIBLE,EYES_VISIBLE,"
    "NOSE_MOUTH_VISIBLE,INDOOR,GENDER,SKIN_COLOR,AGE,FACIAL_HAIR"
)
PNG = encode_png(np.full((20, 20, 3), 90, np.uint8))
# List → its rows: template, subject, file. A file is called after the angle of its face's embedding, in degrees; what
# stands before _ is the medium, which frames of a video share.
LISTS: Mapping[str, list[tuple[int, int, str]]] = {
    "11_sets/split1/train_1": [
        (1, 5, "img/a_0.jpg"), (1, 5, "img/b_0.jpg"), (2, 6, "img/c_0.jpg"), (3, 0, "img/d_0.jpg")
    ],
    "11_sets/split1/verify_metadata_1": [
        (11, 7, "frame/v_0.jpg"), (11, 7, "frame/v_360.jpg"), (11, 7, "frame/v_90.jpg"), (11, 7, "img/e_90.jpg"),
        (12, 7, "img/f_60.jpg"),
        (13, 8, "img/g_45.jpg"),
        (14, 9, "img/lost_0.jpg"),
    ],
    "1N_sets/split1/search_gallery_1": [(21, 7, "img/h_0.jpg"), (22, 8, "img/i_90.jpg")],
    "1N_sets/split1/search_probe_1": [(31, 7, "img/j_10.jpg"), (32, 8, "img/k_40.jpg"), (33, 9, "img/l_75.jpg")],
    "11_sets/split2/verify_metadata_2": [(11, 7, "img/m_0.jpg"), (12, 7, "img/e_90.jpg"), (13, 8, "img/n_10.jpg")],
    "1N_sets/split2/search_gallery_2": [(21, 7, "img/h_0.jpg"), (22, 8, "img/i_90.jpg")],
    "1N_sets/split2/search_probe_2": [(31, 7, "img/o_2.jpg"), (32, 8, "img/p_87.jpg"), (33, 9, "img/q_5.jpg")],
}  # fmt: skip
COMPARISONS = {
    "11_sets/split1/verify_comparisons_1": "11,12\n11,13\n13,14\n",
    "11_sets/split2/verify_comparisons_2": "11,12\n11,13\n",
}


def line(template: int, subject: int, file: str) -> str:
    """A row: the sighting is a number of the file's own, the box 1, 2, 10 × 12, and the beard is of two kinds."""
    medium = file.split("/")[1].split("_")[0]
    return f"{template},{subject},{file},{medium},{sum(file.encode())},,1,2,10,12,,,,,,,-20,1,1,1,1,0,1,2,1,3"


def put(root: Path, name: str, text: str) -> None:
    file = root / f"IJB-A_{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, listed in LISTS.items():
        put(tmp_path, name, "\n".join([HEADER, *(line(*row) for row in listed)]) + "\n")
        for *_, file in listed:
            picture = tmp_path / "images" / file
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(PNG)
    for name, text in COMPARISONS.items():
        put(tmp_path, name, text)
    (tmp_path / "images/img/lost_0.jpg").unlink()
    return tmp_path


def faces(root: Path, **options: int | str) -> dict[str, Record]:
    return {face.path: face for face in reader("ijba", **options).records(root) if isinstance(face, Record)}


def face(file: str) -> str:
    return f"{file}#{sum(file.encode())}"


def test_a_row_is_a_face_with_its_box(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = faces(root)
    # e_90, h_0 and i_90 are in both splits, d_0 … a_0 in a training list alone, and one is lost
    tested = {face(file) for name, listed in LISTS.items() if "train" not in name for *_, file in listed}
    assert found.keys() == tested - {face("img/lost_0.jpg")}
    assert found[face("frame/v_90.jpg")].labels == {
        "source": "ijba", "modality": "photo", "identity": "ijba-7", "box": (1, 2, 11, 14), "split": "test",
    }  # fmt: skip
    assert found[face("frame/v_90.jpg")].where == "verify_metadata_1.csv:4"
    assert "left out 1 of 17 faces" in caplog.text
    assert f"the first is verify_metadata_1.csv:8: {face('img/lost_0.jpg')}" in caplog.text


def test_a_split_has_its_own_people_to_train_on(root: Path) -> None:
    more = f"{line(4, 7, 'img/m_0.jpg')}\n" * 2  # of somebody who is tested as well, and twice
    put(root, "1N_sets/split1/train_1", (root / "IJB-A_11_sets/split1/train_1.csv").read_text() + more)
    found = {path: (one.labels["split"], one.labels["identity"]) for path, one in faces(root, split=1).items()}
    assert found[face("img/d_0.jpg")] == ("train", None)  # subject 0 is nobody
    trained = {found[face(f"img/{name}_0.jpg")] for name in "abc"}
    assert trained == {("train", "ijba-5"), ("train", "ijba-6")}  # a tenth of four faces is none
    assert found[face("img/m_0.jpg")] == ("train", "ijba-7")
    assert found[face("img/f_60.jpg")] == ("test", "ijba-7")
    assert face("img/n_10.jpg") not in found


def test_templates_are_of_media_and_compared_by_split(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = reader("ijba").templates(root, "test")
    assert list(found) == ["1", "2"]
    assert list(reader("ijba").templates(root, "test", "2")) == ["2"]
    video = [face(f"frame/v_{angle}.jpg") for angle in (0, 360, 90)]
    assert found["1"].templates["verify_metadata 11"] == Template("ijba-7", [video, [face("img/e_90.jpg")]])
    assert found["1"].pairs == [("verify_metadata 11", f"verify_metadata {one}") for one in (12, 13)]
    assert found["1"].gallery == ["search_gallery 21", "search_gallery 22"]
    assert found["1"].probes == ["search_probe 31", "search_probe 32", "search_probe 33"]
    told = "left out 1 of 9 templates, of which no image is in"
    assert told in caplog.text
    assert "such as verify_metadata 14, and 1 of 3 comparisons with them" in caplog.text


@pytest.fixture
def evaluated(root: Path, tmp_path: Path) -> tuple[EvaluationSet, np.ndarray]:
    write_table(reader("ijba").records(root), tmp_path / "faces.parquet")
    table = FaceTable.open(tmp_path / "faces.parquet")
    angles = [float(table.path(row).partition("#")[0].split("_")[1].removesuffix(".jpg")) for row in range(len(table))]
    angle = np.deg2rad(angles)
    data = tmp_path / "data"
    data.mkdir()
    (data / "ijba").symlink_to(root)
    return EvaluationSet(table, "test", data, {"ijba": {}}), np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_the_figures_by_hand(evaluated: tuple[EvaluationSet, np.ndarray]) -> None:
    """Split 1: the video's mean is (2/3, 1/3), with the picture at 90 that is the direction (1, 2), 63.4 degrees: 3.4
    from 60 (the same person) and 18.4 from 45 (another one). A mean of the four faces would be at 45, and wrong. Split
    2: the same person is 90 degrees away, another one 10.

    Searches of split 1: 10 is nearest to its own 0; 40 as well, but its own is 90; 75, of a stranger, is 15 away, so
    that of the two known ones the first is found. Split 2: 2, 87 and, of a stranger, 5: both known ones are found.
    """
    faces_, embedding = evaluated
    protocol = protocols.build(protocols.settings("ijba"))
    cases = protocol.cases(faces_)
    found = protocol.evaluate({"identity": {"embedding": embedding}}, cases)
    told = {
        row.metric: (row.mean, row.n, row.note)
        for prefix, one in found.items()
        for row in rows("x", {0: one}, prefix=prefix, resamples=20)
    }
    spread = "± 35.36 over 2 splits"
    assert told == {
        "TAR@FAR 1%": (50, 4, "± 70.71 over 2 splits"),
        "TAR@FAR 0.1%": (50, 4, "± 70.71 over 2 splits"),
        "closed-set rank-1": (75, 4, spread),
        "closed-set rank-5": (100, 4, "± 0.00 over 2 splits"),
        "open-set TPIR@FPIR 10%": (75, 6, spread),
        "open-set TPIR@FPIR 1%": (75, 6, spread),
    }
    assert [one.units for one in found.values()] == [4, 6, 6]
    people = [set(faces_.table.words("identity")[unit]) for unit in cases.units[""]]
    assert people == [{"ijba-7"}, {"ijba-7", "ijba-8"}] * 2
    assert {len(unit) for unit in cases.units["closed-set "]} == {1}


@pytest.mark.parametrize(
    "text, message",
    [
        ("TEMPLATE_ID,SUBJECT_ID\n", "_1.csv:1: lacks the column FILE; known: SUBJECT_ID, TEMPLATE_ID"),
        ("", "_1.csv:1: lacks the column TEMPLATE_ID; none is known"),
        (f"{HEADER}\n1,2\n", "_1.csv:2: 2 fields, expected 10 and more; obtain the file again"),
        (f"{HEADER}\n1,,img/x,3,4,,1,2,3,4\n", "_1.csv:2: SUBJECT_ID is empty"),
        (f"{HEADER}\n1,2,/x,3,4,,1,2,3,4\n", "_1.csv:2: path '/x' is not one inside the data"),
        (f"{HEADER}\n1,2,x,3,4,,1,2,3,\n", "_1.csv:2: '1 2 3 ' are not 4 numbers"),
        (f"{HEADER}\n1,2,x,3,4,,1,2,0,4\n", "_1.csv:2: a box of 0 × 4 pixels"),
        (
            f"{HEADER}\n{line(5, 8, 'img/f_60.jpg')}\n",
            r"_1.csv:2: img/f_60.jpg#\d+ is test and of subject 8, but test and of 7 by verify_metadata_1.csv:6",
        ),
    ],
)
def test_bad_lists_are_refused_with_their_line(root: Path, text: str, message: str) -> None:
    put(root, "1N_sets/split1/search_probe_1", text)
    with pytest.raises(PolyfaceError, match=message) as caught:
        faces(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("verify_comparisons_1", "11,12\n11\n", "verify_comparisons_1.csv:2: '11' is not the numbers of two templates"),
        ("verify_comparisons_1", "11,21\n", "verify_comparisons_1.csv:1: there is no template 21 in verify_metadata"),
        (
            "verify_metadata_1",
            f"{HEADER}\n{line(11, 7, 'img/f_60.jpg')}\n{line(11, 8, 'img/g_45.jpg')}\n",
            "verify_metadata_1.csv:3: template 11 is of ijba-8 here, and of ijba-7 before",
        ),
    ],
)
def test_bad_comparisons_are_refused_with_their_line(root: Path, name: str, text: str, message: str) -> None:
    put(root, f"11_sets/split1/{name}", text)
    with pytest.raises(PolyfaceError, match=message):
        reader("ijba").templates(root, "test")


def test_what_is_missing_is_said(root: Path) -> None:
    with pytest.raises(PolyfaceError, match="reader 'ijba': split is '11'"):
        faces(root, split=11)
    with pytest.raises(PolyfaceError, match="reader 'ijba': list is '3'"):
        reader("ijba").templates(root, "test", "3")
    with pytest.raises(PolyfaceError, match=r"train_2.csv: not found; reader 'ijba' expects .* obtain them from NIST"):
        faces(root, split=2)
    with pytest.raises(PolyfaceError, match="no lists of split 4; reader 'ijba' expects"):
        faces(root, split=4)
    (root / "IJB-A_1N_sets/split2/search_probe_2.csv").unlink()
    with pytest.raises(PolyfaceError, match="search_probe_2.csv: not found"):
        faces(root)
