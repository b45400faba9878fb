"""CMU PIE on hand-made label files: each label by a hand-worked row, instants, halves, each fault by its message."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.readers.pie import FLASHES
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, import_table
from polyface.errors import PolyfaceError

HEADER = "file,person,camera,yaw,view,flash,light_side,room_light,expression,note"
ROWS = [
    "01/c05_006.jpg,1,c05,-22.5,level,,,1,neutral,",
    "01/c27_009.jpg,1,c27,0,level,,,1,neutral,",
    "01/c29_100.jpg,1,c29,22.5,level,f02,1.86,0,neutral,upside down",
    "01/c07_057.jpg,1,c07,0,from below,f08,-0.03,0,neutral,",
    "01/c05_137.jpg,1,c05,-22.5,level,f17,-1.70,1,neutral,",
    "01/c05_142.jpg,1,c05,-22.5,level,,,1,neutral,",
    "01/c27_164.jpg,1,c27,0,level,,,1,neutral,",
    "01/c05_165.jpg,1,c05,-22.5,level,,,1,talk,",
    "01/c05_166.jpg,1,c05,-22.5,level,,,1,talk,",
    "01/c27_168.jpg,1,c27,0,level,,,1,talk,",
    "02/c27_009.jpg,2,c27,0,level,,,1,smile,",
]


def pie(root: Path, rows: list[str] = ROWS, header: str = HEADER) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        file = root / row.split(",")[0]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encode_png(np.full((32, 32), 90, np.uint8)[..., None].repeat(3, 2)))
    return root


def read(root: Path, **options: Any) -> list[Record | Skipped]:
    return list(reader("pie", **options).records(root))


def labels(root: Path, **options: Any) -> list[dict[str, Any]]:
    found = read(root, **options)
    assert all(isinstance(face, Record) for face in found), found
    return [face.labels for face in found]  # type: ignore[union-attr]


def test_labels_by_hand(tmp_path):
    found = labels(pie(tmp_path), split="none")
    common = {"source": "pie", "modality": "photo", "identity": "pie-01", "expression": "neutral", "split": None}
    assert found[0] == common | {
        "camera": "c05",
        "yaw": 22.5,  # the file has the opposite sign
        "illumination": "none",
        "room_light": "yes",
        "light_side": None,
        "light_from": None,  # that of the room is not known
        "instant": "pie-01 none yes neutral 1",
    }
    assert found[4] == common | {
        "camera": "c05",
        "yaw": 22.5,
        "illumination": "f17",
        "room_light": "yes",
        "light_side": -1.7,
        "light_from": "left",
        "instant": "pie-01 f17 yes neutral 1",
    }
    assert [(face["yaw"], face["light_from"]) for face in found[2:4]] == [(-22.5, "right"), (0, "front")]
    assert str(found[1]["yaw"]) == "0.0"  # no minus before a zero
    assert (FLASHES[0], FLASHES[20:]) == ("f02", ("f22", "none"))


def test_an_instant_is_one_moment_seen_by_several_cameras(tmp_path):
    moments: dict[str, list[int]] = {}
    for row, face in enumerate(labels(pie(tmp_path))):
        moments.setdefault(face["instant"], []).append(row)
    # the first neutral series; each flash; the second neutral series; all that talk; somebody else
    assert list(moments.values()) == [[0, 1], [2], [3], [4], [5, 6], [7, 8, 9], [10]]


def test_a_table_declares_what_is_its_own(tmp_path):
    report = import_table(reader("pie"), pie(tmp_path / "raw"), tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert report.rows == len(ROWS)
    mirrored = table.declared("camera").class_order()
    words = table.declared("camera").vocabulary
    assert {word: words[mirrored[i]] for i, word in enumerate(words) if mirrored[i] != i} == {
        "c05": "c29",
        "c29": "c05",
    }
    assert table.declared("light_side").mirror == table.declared("yaw").mirror == "negate"
    assert list(table.declared("light_from").class_order()) == [2, 1, 0]
    assert table.declared("room_light").vocabulary == ("no", "yes")
    assert not table.declared("instant").vocabulary


# ------------------------------------------------------------------------------------------- halves


def everybody(root: Path) -> Path:
    return pie(root, [f"{p:02d}/c27_009.jpg,{p},c27,0,level,,,1,neutral," for p in range(1, 69)])


def parts(root: Path, **options: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for face in labels(root, **options):
        found.setdefault(face["split"], set()).add(face["identity"])
    return found


def test_each_half_is_tested_once(tmp_path):
    even, odd = (parts(everybody(tmp_path), split="halves", draw=draw) for draw in (4, 7))
    assert {part: len(people) for part, people in even.items()} == {"train": 28, "val": 6, "test": 34}
    assert even["test"] == odd["train"] | odd["val"]
    assert odd["test"] == even["train"] | even["val"]
    assert parts(tmp_path) == even
    ordered = sorted(even["train"] | even["val"], key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert even["val"] == set(ordered[:6])


def test_a_persons_part_does_not_depend_on_who_else_is_there(tmp_path):
    whole = parts(everybody(tmp_path / "all"))
    few = parts(pie(tmp_path / "few", [f"{p:02d}/c27_009.jpg,{p},c27,0,level,,,1,neutral," for p in range(1, 69, 9)]))
    assert all(people <= whole[part] for part, people in few.items())


def test_an_upside_down_crop_is_in_no_part(tmp_path):
    assert [row for row, face in enumerate(labels(pie(tmp_path))) if face["split"] is None] == [2]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "half"}, r"reader 'pie': split is 'half'; did you mean 'halves'\?"),
        ({"draw": -1}, "reader 'pie': draw is '-1'; expected a number from 0 on"),
        ({"draw": "seed"}, "reader 'pie': draw is 'seed'; expected a number from 0 on"),
    ],
)
def test_options_that_are_none(tmp_path, options, message):
    with pytest.raises(PolyfaceError, match=message):
        read(pie(tmp_path), **options)


# ------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "row, reason",
    [
        ("01/c06_001.jpg,1,c06,0,level,,,1,neutral,", "camera is 'c06'; did you mean 'c0"),
        ("01/c27_001.jpg,1,c27,0,level,f23,0.1,1,neutral,", "flash is 'f23'; did you mean 'f2"),
        ("01/c27_001.jpg,1,c27,0,level,f01,0.1,1,neutral,", "flash is 'f01'; did you mean 'f"),
        ("01/c27_001.jpg,1,c27,22.5,level,,,1,neutral,", "yaw is 22.5, but camera c27 sees 0"),
        ("01/c05_001.jpg,1,c05,22.5,level,,,1,neutral,", "yaw is 22.5, but camera c05 sees -22.5"),
        ("01/c27_001.jpg,1,c27,91,level,,,1,neutral,", "yaw is 91, expected a number from -90 to 90"),
        ("01/c27_001.jpg,1,c27,nan,level,,,1,neutral,", "yaw is nan, expected a number from -90 to 90"),
        ("01/c27_001.jpg,1,c27,,level,,,1,neutral,", "yaw is '', expected a number"),
        ("01/c27_001.jpg,1,c29,22.5,level,,,1,neutral,", "file is '01/c27_001.jpg', expected 01/c29_ and three digits"),
        ("02/c27_001.jpg,1,c27,0,level,,,1,neutral,", "file is '02/c27_001.jpg', expected 01/c27_ and three digits"),
        ("01/c27_001.jpg,69,c27,0,level,,,1,neutral,", "person is '69', expected a number from 1 to 68"),
        ("01/c27_001.jpg,0,c27,0,level,,,1,neutral,", "person is '0', expected a number from 1 to 68"),
        ("01/c27_001.jpg,1,c27,0,level,,,0,neutral,", "no flash and room_light 0: there is no light to see by"),
        ("01/c27_001.jpg,1,c27,0,level,,0.3,1,neutral,", "light_side is 0.3, but no flash fired"),
        ("01/c27_001.jpg,1,c27,0,level,f02,,1,neutral,", "light_side is '', expected a number"),
        ("01/c27_001.jpg,1,c27,0,level,f02,inf,1,neutral,", "light_side is inf, expected a number from -10 to 10"),
        ("01/c27_001.jpg,1,c27,0,level,,,2,neutral,", "room_light is '2'; known: 0, 1"),
        ("01/c27_001.jpg,1,c27,0,level,,,1,smiles,", "expression is 'smiles'; did you mean 'smile'?"),
        ("01/c27_001.jpg,1,c27,0,level,,,1,neutral,blurred", "note is 'blurred'; known: , upside down"),
        ("01/c27_001.jpg,1,c27,0,level,,,1,neutral", "9 fields, expected 10 as in the first line"),
        ("../c27_001.jpg,1,c27,0,level,,,1,neutral,", "path '../c27_001.jpg' is not one inside the data set's folder"),
        ("01/c05_006.jpg,1,c05,-22.5,level,,,1,blink,", "a second row of 01/c05_006.jpg, after that of line 2"),
    ],
)
def test_a_row_that_cannot_be_read_names_its_line_and_spoils_no_other(tmp_path, row, reason):
    (tmp_path / "labels.csv").write_text("\n".join([HEADER, ROWS[0], row, ROWS[1]]))
    first, bad, last = read(tmp_path)
    assert isinstance(bad, Skipped)
    assert bad.where == "labels.csv:3"
    assert bad.reason.startswith(reason)
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert first.labels["instant"] == last.labels["instant"]  # a row that is left out is no shot


def test_a_column_that_is_missing(tmp_path):
    header = HEADER.replace("flash", "flush")
    with pytest.raises(PolyfaceError, match=r"labels.csv:1: lacks the column 'flash' \(did you mean 'flush'\?\)"):
        read(pie(tmp_path, header=header))
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(PolyfaceError, match="labels.csv:1: lacks the column 'file'"):
        read(tmp_path)


def test_an_image_that_is_missing(tmp_path):
    root = pie(tmp_path / "raw")
    (root / "01" / "c27_009.jpg").unlink()
    report = import_table(reader("pie"), root, tmp_path / "t.parquet", on_bad="skip")
    assert report.rows == len(ROWS) - 1
    assert [bad.where for bad in report.skipped] == ["labels.csv:3"]
    with pytest.raises(PolyfaceError, match=r"labels.csv:3: 01/c27_009.jpg"):
        import_table(reader("pie"), root, tmp_path / "u.parquet")
