"""FERET, AR, IMM, UMIST and Extended Yale B on hand-made files: labels, parts, each fault by its message, and several
of them as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyface import tasks
from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers._labelled import light_from
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, import_table
from polyface.errors import PolyfaceError

PNG = encode_png(np.full((20, 20, 3), 90, np.uint8))
HEADERS = {
    "feret": "file,person,code,yaw,light,expression",
    "ar": "file,person,session,code,yaw,light,expression",
    "imm": "file,person,code,yaw,light,expression",
    "umist": "file,person,frame",
    "pie": "file,person,camera,yaw,flash,light_side,room_light,expression,note",
}
ROWS = {
    "feret": ["007_ba.jpg,7,ba,0,usual,neutral", "007_bd.jpg,7,bd,-25,usual,neutral", "007_bj.jpg,7,bj,0,usual,other"],
    "ar": ["004_05.jpg,4,1,5,0,picture right,neutral", "004_13.jpg,4,2,13,0,picture left,neutral"],
    "imm": ["03_2.jpg,3,2,0,diffuse,happy", "03_5.jpg,3,5,0,spot picture right,neutral", "03_6.jpg,3,6,,,any"],
    "umist": ["02_01.jpg,2,1", "02_19.jpg,2,19"],
    "pie": ["01/c05_016.jpg,1,c05,-22.5,f02,1.86,0,neutral,", "01/c27_089.jpg,1,c27,0,f12,-0.40,0,neutral,"],
}


def put(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(PNG)


def labelled(root: Path, name: str, rows: list[str] | None = None) -> Path:
    """A set with `labels.csv`."""
    rows = ROWS[name] if rows is None else rows
    for row in rows:
        put(root / row.split(",")[0])
    (root / "labels.csv").write_text("\n".join([HEADERS[name], *rows]))
    return root


def read(name: str, root: Path, **options: Any) -> list[Record | Skipped]:
    return list(reader(name, **options).records(root))


def labels(name: str, root: Path, **options: Any) -> list[dict[str, Any]]:
    found = read(name, root, **options)
    assert all(isinstance(face, Record) for face in found), found
    return [{key: value for key, value in face.labels.items() if key != "split"} for face in found]  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- labels


def test_feret_by_hand(tmp_path):
    common = {"source": "feret", "modality": "photo", "identity": "feret-007", "illumination": "usual"}
    assert labels("feret", labelled(tmp_path, "feret")) == [
        common | {"yaw": 0.0, "expression": "neutral"},
        common | {"yaw": 25.0, "expression": "neutral"},  # the file has the opposite sign
        common | {"yaw": 0.0, "expression": None},  # another one, which is all that is published
    ]


def test_ar_by_hand(tmp_path):
    common = {"source": "ar", "modality": "photo", "identity": "ar-004", "yaw": 0.0, "expression": "neutral"}
    assert labels("ar", labelled(tmp_path, "ar")) == [
        common | {"session": "1", "illumination": "right", "light_from": "right"},
        common | {"session": "2", "illumination": "left", "light_from": "left"},
    ]
    both = labelled(tmp_path, "ar", ["004_07.jpg,4,1,7,0,both sides,neutral", "004_04.jpg,4,1,4,0,usual,scream"])
    found = [(face["illumination"], face["light_from"], face["expression"]) for face in labels("ar", both)]
    assert found == [("both", "front", "neutral"), ("none", "front", "scream")]


def test_imm_by_hand(tmp_path):
    common = {"source": "imm", "modality": "photo", "identity": "imm-03"}
    smile, spot, joker = labels("imm", labelled(tmp_path, "imm"))
    frontal = common | {"yaw": 0.0}
    assert smile == frontal | {"illumination": "diffuse", "light_from": "front", "expression": "smile"}
    assert spot == frontal | {"illumination": "spot", "light_from": "right", "expression": "neutral"}
    assert joker == common | dict.fromkeys(("yaw", "illumination", "light_from", "expression"))
    turned = labelled(tmp_path, "imm", ["03_3.jpg,3,3,30,diffuse,neutral", "03_4.jpg,3,4,-30,diffuse,neutral"])
    assert [face["yaw"] for face in labels("imm", turned)] == [-30.0, 30.0]


def test_umist_by_hand(tmp_path):
    common = {"source": "umist", "modality": "photo", "identity": "umist-02"}
    assert labels("umist", labelled(tmp_path, "umist")) == [common | {"frame": 1}, common | {"frame": 19}]


def yaleb(root: Path, *names: str, folder: str = "CroppedYale") -> Path:
    for name in names:
        put(root / folder / name)
    return root


def test_yaleb_by_hand(tmp_path):
    names = [f"yaleB39/yaleB39_P00A{light}.pgm" for light in ("+000E+90", "+035E-20", "-010E+00", "-110E+65")]
    common = {"source": "yaleb", "modality": "photo", "identity": "yaleb-39", "yaw": 0.0}
    assert labels("yaleb", yaleb(tmp_path, *names)) == [
        common | light
        for light in (  # the file's azimuth is positive to the viewer's left
            {"illumination": "A+000E+90", "light_azimuth": 0, "light_elevation": 90, "light_from": "front"},
            {"illumination": "A+035E-20", "light_azimuth": -35, "light_elevation": -20, "light_from": "left"},
            {"illumination": "A-010E+00", "light_azimuth": 10, "light_elevation": 0, "light_from": "front"},
            {"illumination": "A-110E+65", "light_azimuth": 110, "light_elevation": 65, "light_from": "right"},
        )
    ]
    assert labels("yaleb", tmp_path / "CroppedYale") == labels("yaleb", tmp_path)


def test_yaleb_bad_and_ambient_pictures_are_counted(tmp_path, caplog):
    good = "yaleB01/yaleB01_P00A+000E+00.pgm"
    root = yaleb(tmp_path, good, "yaleB01/yaleB01_P00A+005E+10.pgm.bad", "yaleB01/yaleB01_P00_Ambient.pgm")
    assert [face.where for face in read("yaleb", root)] == [good]
    assert f"{tmp_path}/CroppedYale: left out 1 pictures without a flash (_Ambient)" in caplog.messages


def test_the_side_of_the_light_in_words():
    found = [light_from(side) for side in (-1.7, -0.3, -0.2, 0.0, 0.2, 0.3)]
    assert found == ["left", "left", "front", "front", "front", "right"]


@pytest.mark.parametrize("name, people", [("feret", 200), ("ar", 99), ("imm", 40), ("umist", 20)])
def test_a_tenth_is_val_by_whole_people(tmp_path, name, people):
    first = {"feret": "{:03d}_ba.jpg,{},ba,0,usual,neutral", "ar": "{:03d}_01.jpg,{},1,1,0,usual,neutral"}
    second = {"feret": "{:03d}_bk.jpg,{},bk,0,other,neutral", "ar": "{:03d}_08.jpg,{},2,8,0,usual,neutral"}
    first |= {"imm": "{:02d}_1.jpg,{},1,0,diffuse,neutral", "umist": "{:02d}_01.jpg,{},1"}
    second |= {"imm": "{:02d}_2.jpg,{},2,0,diffuse,happy", "umist": "{:02d}_02.jpg,{},2"}
    rows = [text[name].format(person, person) for person in range(1, people + 1) for text in (first, second)]
    whose: dict[str, set[str]] = {}
    for face in read(name, labelled(tmp_path, name, rows)):
        assert isinstance(face, Record)
        whose.setdefault(face.labels["identity"], set()).add(face.labels["split"])
    assert len(whose) == people
    parts = [part for each in whose.values() for part in each]
    assert (len(parts), parts.count("val")) == (people, round(people / 10))
    assert set(parts) == {"train", "val"}


# ------------------------------------------------------------------------------------------- several as one


@pytest.fixture
def union(tmp_path) -> FaceTable:
    tables = []
    for name in ("pie", "feret", "ar", "imm", "umist"):
        import_table(reader(name), labelled(tmp_path / name, name), tmp_path / f"{name}.parquet")
        tables.append(tmp_path / f"{name}.parquet")
    root = yaleb(tmp_path / "yaleb", "yaleB01/yaleB01_P00A+035E+15.pgm")
    import_table(reader("yaleb"), root, tmp_path / "yaleb.parquet")
    return FaceTable.open(*tables, tmp_path / "yaleb.parquet")


def test_tables_of_all_sets_are_one_table(union):
    assert len(union) == 13
    assert len(set(union.words("identity"))) == 6
    assert union.declared("expression").vocabulary[:4] == ("neutral", "smile", "surprise", "squint")
    assert union.words("light_from").tolist() == [
        *("right", "left"),
        *(None, None, None),
        *("right", "left"),
        *("front", "right", None),
        *(None, None),
        "left",
    ]


@pytest.mark.parametrize(
    "task, classes",
    [
        (
            {"column": "yaw", "edges": [-12, 12], "vocabulary": ["left", "frontal", "right"]},
            [2, 1, 1, 2, 1, 1, 1, 1, 1, -1, -1, -1, 1],
        ),
        ({"column": "expression"}, [0, 0, 0, 0, -1, 0, 0, 1, 0, -1, -1, -1, -1]),
        ({"column": "light_from"}, [2, 0, -1, -1, -1, 2, 0, 1, 2, -1, -1, -1, 0]),
        (
            {"column": "illumination", "vocabulary": ["f02", "f12"]},
            [0, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1],
        ),
    ],
)
def test_side_tasks_of_the_union(union, task, classes):
    built = tasks.build("side", {"kind": "classification"} | task)
    built.learn(union)
    assert built.classes(union).tolist() == classes


# ------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "name, row, reason",
    [
        ("feret", "007_bd.jpg,7,bd,25,usual,neutral", "yaw is '25', but code bd has '-25'"),
        ("feret", "007_bd.jpg,7,bd,-250,usual,neutral", "yaw is -250, expected a number from -90 to 90"),
        ("feret", "007_bd.jpg,7,bd,-25,other,neutral", "light is 'other', but code bd has 'usual'"),
        ("feret", "007_bh.jpg,7,bh,0,usual,neutral", "code is 'bh'; known: ba, bd, be"),
        ("feret", "008_bd.jpg,7,bd,-25,usual,neutral", "file is '008_bd.jpg', but code bd has '007_bd.jpg'"),
        ("feret", "201_ba.jpg,201,ba,0,usual,neutral", "person is '201', expected a number from 1 to 200"),
        ("feret", ROWS["feret"][0], "a second row of 007_ba.jpg, after that of line 2"),
        ("ar", "004_08.jpg,4,1,8,0,usual,neutral", "session is '1', but code 8 has '2'"),
        ("ar", "004_15.jpg,4,2,15,0,usual,neutral", "code is '15'; did you mean '5'?"),
        ("ar", "004_03.jpg,4,1,3,0,usual,smile", "expression is 'smile', but code 3 has 'anger'"),
        ("ar", "004_06.jpg,4,1,6,0,picture right,neutral", "light is 'picture right', but code 6 has 'picture left'"),
        ("imm", "03_3.jpg,3,3,-30,diffuse,neutral", "yaw is '-30', but code 3 has '30'"),
        ("imm", "03_1.jpg,3,1,,diffuse,neutral", "yaw is '', but code 1 has '0'"),
        ("imm", "03_7.jpg,3,7,0,diffuse,neutral", "code is '7'; known: 1, 2, 3"),
        ("umist", "02_20.jpg,2,20", "frame is '20', expected a number from 1 to 19"),
        ("umist", "02_00.jpg,2,0", "frame is '0', expected a number from 1 to 19"),
        ("umist", "02_03.jpg,2,4", "file is '02_03.jpg', but frame 4 has '02_04.jpg'"),
        ("umist", "21_01.jpg,21,1", "person is '21', expected a number from 1 to 20"),
        ("umist", "02_03.jpg,2", "2 fields, expected 3 as in the first line"),
    ],
)
def test_a_row_that_cannot_be_read_names_its_line(tmp_path, name, row, reason):
    rows = [ROWS[name][0], row, ROWS[name][1]]
    first, bad, last = read(name, labelled(tmp_path, name, rows))
    assert isinstance(bad, Skipped)
    assert bad.where == "labels.csv:3"
    assert bad.reason.startswith(reason)
    assert isinstance(first, Record)
    assert isinstance(last, Record)


@pytest.mark.parametrize("name, column", [(name, column) for name in ROWS for column in HEADERS[name].split(",")])
def test_each_column_is_missed(tmp_path, name, column):
    labelled(tmp_path, name)
    file = tmp_path / "labels.csv"
    file.write_text(file.read_text().replace(f"{column},", "else,", 1).replace(f",{column}\n", ",else\n", 1))
    with pytest.raises(
        PolyfaceError, match=rf"labels.csv:1: lacks the column '{column}' \(.*\); obtain the file again"
    ):
        read(name, tmp_path)


@pytest.mark.parametrize("name", ["feret", "ar", "imm", "umist"])
def test_an_image_that_is_missing(tmp_path, name):
    root = labelled(tmp_path / "raw", name)
    (root / ROWS[name][1].split(",")[0]).unlink()
    report = import_table(reader(name), root, tmp_path / "t.parquet", on_bad="skip")
    assert report.rows == len(ROWS[name]) - 1
    assert [bad.where for bad in report.skipped] == ["labels.csv:3"]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("yaleB01/yaleB02_P00A+000E+00.pgm", "expected yaleBNN/yaleBNN_P00A"),
        ("yaleB01/yaleB01_P01A+000E+00.pgm", "expected yaleBNN/yaleBNN_P00A"),
        ("yaleB01/yaleB01_P00A+00E+00.pgm", "expected yaleBNN/yaleBNN_P00A"),
        ("yaleB01/yaleB01_P00A+181E+00.pgm", "light A+181E+00: expected an azimuth to 180 and an elevation to 90"),
        ("yaleB01/yaleB01_P00A+000E-95.pgm", "light A+000E-95: expected an azimuth to 180 and an elevation to 90"),
    ],
)
def test_yaleb_names_that_say_nothing(tmp_path, name, reason):
    found = read("yaleb", yaleb(tmp_path, name, "yaleB01/yaleB01_P00A+000E+00.pgm"))
    bad = [face for face in found if isinstance(face, Skipped)]
    assert len(found) == 2
    assert [(face.where, face.reason.startswith(reason)) for face in bad] == [(name, True)]


def test_yaleb_without_images(tmp_path):
    with pytest.raises(PolyfaceError, match="no image; reader 'yaleb' expects the folder CroppedYale"):
        read("yaleb", tmp_path)
