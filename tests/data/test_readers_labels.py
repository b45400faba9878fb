"""Anybody's labels: CSV, JSON, saved data sets and Parquet; what is guessed, how it is overridden, what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.table import FaceTable
from polyface.data.writing import ImportReport, Plan, Skipped, import_table, write_table
from polyface.errors import PolyfaceError
from polyface.schema import Column, built_in

PNG = encode_png(np.full((100, 200, 3), 90, np.uint8))  # 200 wide, 100 high


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        (tmp_path / "faces").mkdir(exist_ok=True)
        (tmp_path / "faces" / f"{number}.png").write_bytes(PNG)
    return tmp_path


def csv(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def jsonl(folder: Path, *rows: Any) -> Path:
    (folder / "labels.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder / "labels.jsonl"


def bring(name: str, file: Path, on_bad: str = "error", **options: Any) -> tuple[FaceTable, ImportReport]:
    out = file.parent / "out.parquet"
    report = import_table(reader(name, **options), file, out, on_bad=on_bad)
    return FaceTable.open(out), report


def plan(name: str, file: Path, **options: Any) -> Plan:
    found: Plan = reader(name, **options).plan(file)  # type: ignore[attr-defined]
    return found


# ---------------------------------------------------------------------------------------------------------- guessing


def test_csv_columns_are_guessed_from_names_and_values(folder) -> None:
    lines = ["Image,sex,Age,mask,group,score,person,empty"]
    groups = ["10-12", "4-6"]
    for i in range(8):
        lines.append(f"faces/{i}.png,,{20 + i},{i % 2},{groups[i % 2]},{i / 4},name {i},")
    found, report = bring("csv", csv(folder, "\n".join(lines)))
    assert report.plan.columns == {
        "age": built_in("age"),  # the same name but for letter case
        "mask": Column("words", ("no", "yes")),  # zeros and ones
        "group": Column("words", ("4-6", "10-12")),  # in the order of their numbers
        "score": Column("number"),
        "person": Column("words"),  # too many words for a vocabulary
    }
    assert report.plan.origins["age"] == "Age"
    assert report.plan.left == {"sex": "nothing is labelled", "empty": "nothing is labelled"}
    assert found.own == {k: v for k, v in report.plan.columns.items() if k != "age"}
    assert report.labelled == {"age": 8, "mask": 8, "group": 8, "score": 8, "person": 8}
    assert found.words("mask").tolist() == ["no", "yes"] * 4
    assert found.numbers("score").tolist() == [i / 4 for i in range(8)]
    assert found.path(3) == "faces/3.png"


def test_an_empty_field_is_null_and_nothing_else_is(folder) -> None:
    found, _ = bring("csv", csv(folder, "file,age,note\nfaces/0.png,,\nfaces/1.png,3, \nfaces/2.png,NaN,none\n"))
    assert found.column("age").to_pylist() == [None, 3, None]
    assert found.column("note").to_pylist() == [None, None, "none"]


def test_json_of_points_shares_and_booleans(folder) -> None:
    rows = [
        {
            "path": "faces/0.png",
            "smile": True,
            "eyes": [[1, 2], [3, 4]],
            "mood": {"sad": 1, "happy": 3},
            "box": [1, 2, 50, 60],
        },
        {"path": "faces/1.png", "smile": None, "eyes": [None, [5, 6]], "landmarks_5": [[i, i] for i in range(5)]},
        {"path": "faces/2.png", "smile": False, "mood": {"neutral": 2}},
    ]
    file = jsonl(folder, *rows)
    found, report = bring("json", file)
    assert found.own == {
        "mood": Column("distribution", ("happy", "neutral", "sad")),
        "eyes": Column("points", points=2),
    }
    assert found.words("smile").tolist() == ["yes", None, "no"]
    assert found.column("mood").to_pylist() == [[0.75, 0, 0.25], None, [0, 1, 0]]
    assert found.column("eyes").to_pylist() == [[1, 2, 3, 4], [None, None, 5, 6], None]
    assert found.column("box").to_pylist()[0] == [1, 2, 50, 60]
    assert found.points("landmarks_5")[1, 4].tolist() == [4, 4]
    (folder / "list.json").write_text(json.dumps(rows))
    again, _ = bring("json", folder / "list.json")
    assert again.labels.equals(found.labels)
    assert "eyes" in report.labelled


def test_lists_of_numbers_are_left_out_with_what_to_say(folder) -> None:
    file = jsonl(folder, {"image": "faces/0.png", "bbox": [1, 2, 3, 4], "mark": 1, "": 5})
    left = plan("json", file).left
    assert set(left) == {"bbox", ""}
    assert "--option columns.bbox=" in left["bbox"]
    assert "nearest known: 'box' (--map bbox=box)" in left["bbox"]


def test_a_name_close_to_a_known_one_is_told(folder) -> None:
    hints = plan("csv", csv(folder, "file,gendre\nfaces/0.png,male\nfaces/1.png,female\n")).hints
    assert hints == {"gendre": "nearest known: 'gender' (--map gendre=gender)"}


def test_left_and_right_change_places_in_a_mirror(folder) -> None:
    text = "file,gaze\n" + "".join(f"faces/{i}.png,{['left', 'right'][i % 2]}\n" for i in range(8))
    held = plan("csv", csv(folder, text)).columns["gaze"]
    assert held.class_order().tolist() == [1, 0]  # type: ignore[union-attr]


# --------------------------------------------------------------------------------------------------------- overriding


def test_columns_and_words_are_mapped(folder) -> None:
    text = "file;sex;kind\nfaces/0.png;M;1\nfaces/1.png;F;2\nfaces/2.png;?;1\n"
    choices = {"sex": "gender", "gender": {"M": "male", "F": "female", "?": ""}, "kind": {"1": "one", "2": "two"}}
    found, _ = bring("csv", csv(folder, text), map=choices, columns={"kind": "words:one,two"})
    assert found.words("gender").tolist() == ["male", "female", None]
    assert found.words("kind").tolist() == ["one", "two", "one"]


def test_what_a_column_holds_is_overridden(folder) -> None:
    text = "file,mask,level,note,yaw2\nfaces/0.png,1,3,a,-20\nfaces/1.png,0,1,b,5\n"
    held = {"mask": "words:0,1", "level": "words", "note": "none", "yaw2": {"type": "number", "mirror": "negate"}}
    found, report = bring("csv", csv(folder, text), columns=held)
    assert found.words("mask").tolist() == ["1", "0"]
    assert found.words("level").tolist() == ["3", "1"]
    assert found.declared("yaw2") == Column("number", mirror="negate")
    assert report.plan.left == {"note": "as asked"}


def test_votes_in_columns_become_soft_labels(folder) -> None:
    text = "file,happy,sad\nfaces/0.png,7,3\nfaces/1.png,,4\n"
    found, report = bring("csv", csv(folder, text), columns={"mood": "distribution:sad,happy"})
    np.testing.assert_allclose(found.numbers("mood"), [[0.3, 0.7], [1, 0]], rtol=1e-6)
    assert found.columns == ["mood"]
    assert report.plan.origins["mood"] == "sad, happy"
    with pytest.raises(PolyfaceError, match="no column 'mood' of shares, nor one 'angry'"):
        plan("csv", folder / "labels.csv", columns={"mood": "distribution:sad,angry"})


def test_a_word_outside_the_vocabulary_names_file_and_line(folder) -> None:
    file = csv(folder, "file,mask,gender\nfaces/0.png,yes,male\nfaces/1.png,yse,male\nfaces/2.png,no,M\n")
    with pytest.raises(PolyfaceError, match=r"labels\.csv:3: mask is 'yse'; did you mean 'yes'"):
        bring("csv", file, columns={"mask": "words:no,yes"})
    _, report = bring("csv", file, on_bad="skip", columns={"mask": "words:no,yes"})
    assert [one.where for one in report.skipped] == ["labels.csv:3", "labels.csv:4"]
    assert "gender is 'M'" in report.skipped[1].reason


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"image": "img"}, "no column of images .*name it with --option image="),
        ({"map": {"sxe": "gender"}}, "no column 'sxe' to map; did you mean 'sex'"),
        ({"map": {"sex": "age"}}, "two columns become 'age'"),
        ({"map": {"sxe": {"M": "male"}}}, "no column 'sxe' whose words to map; did you mean 'sex'"),
        ({"columns": 3}, "option columns has keys"),
        ({"columns": {"maks": "words:no,yes"}}, "no column 'maks' for --option columns.maks; did you mean 'mask'"),
        ({"columns": {"mask": "wrods"}}, "columns.mask: type is 'wrods'; did you mean 'words'"),
        ({"box": "xyhw"}, "option box is 'xyhw'; did you mean 'xywh'"),
        ({"box": "xywh"}, "no column holds boxes"),
        ({"box": "xywh:a,b,c,d"}, "option box names 'a'"),
        ({"box": "xywh:sex,age"}, "option box names 2 columns"),
    ],
)
def test_options_that_do_not_go_with_the_file(folder, options, expected) -> None:
    file = csv(folder, "file,sex,age,mask\nfaces/0.png,M,3,no\n")
    with pytest.raises(PolyfaceError, match=expected) as caught:
        plan("csv", file, **options)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    "header, values, option, box",
    [
        ("x0,y0,x1,y1", "50,20,110,90", "", [50, 20, 110, 90]),
        ("bbox_x,bbox_y,bbox_w,bbox_h", "50,20,60,70", "", [50, 20, 110, 90]),
        ("left,top,right,bottom", "50,20,110,90", "", [50, 20, 110, 90]),
        ("left,top,width,height", "50,20,60,70", "", [50, 20, 110, 90]),
        ("x0,y0,x1,y1", "0.25,0.2,0.55,0.9", "fractions", [49.5, 19.5, 109.5, 89.5]),
        ("x,y,w,h", "0.25,0.2,0.3,0.7", "xywh-fractions", [49.5, 19.5, 109.5, 89.5]),
        ("a,b,c,d", "50,20,60,70", "xywh:a,b,c,d", [50, 20, 110, 90]),
        ("box", '"[50, 20, 60, 70]"', "xywh", [50, 20, 110, 90]),
        ("bbox", "50 20 110 90", "xyxy:bbox", [50, 20, 110, 90]),
    ],
)
def test_forms_of_boxes(folder, header, values, option, box) -> None:
    text = f"file,{header}\nfaces/0.png,{values}\nfaces/1.png{',' * len(header.split(','))}\n"
    found, report = bring("csv", csv(folder, text), box=option)
    np.testing.assert_allclose(found.numbers("box")[0], box, atol=1e-4)
    assert found.column("box")[1].as_py() is None
    assert found.columns == ["box"]
    assert report.plan.hints["box"] == f"read as {option.partition(':')[0] or ('xywh' if 'w' in header else 'xyxy')}"


@pytest.mark.parametrize("values", ["0.25,0.2,0.55,0.9", "50,20,40,10", "50,20,x,90", "50,20,5000,90"])
def test_boxes_that_are_no_pixel_corners_are_refused(folder, values) -> None:
    file = csv(folder, f"file,x0,y0,x1,y1\nfaces/0.png,{values}\n")
    with pytest.raises(PolyfaceError, match=r"labels\.csv:2: box"):
        bring("csv", file)


# ------------------------------------------------------------------------------------------------------------ bad rows


def test_bad_rows_are_named_and_the_others_taken(folder) -> None:
    text = (
        "file,age\nfaces/0.png,3\nfaces/1.png\nfaces/2.png,old\n../out.png,3\n,3\nfaces/gone.png,3\n\nfaces/3.png,1e300\n"
        f"{folder / 'faces' / '4.png'},4\n/etc/passwd,5\n"
    )
    found, report = bring("csv", csv(folder, text), on_bad="skip")
    assert [found.path(row) for row in range(len(found))] == ["faces/0.png", "faces/4.png"]
    reasons = {one.where: one.reason for one in report.skipped}
    assert list(reasons) == [f"labels.csv:{line}" for line in (3, 4, 5, 6, 11, 7, 9)]
    assert "1 fields, expected 2" in reasons["labels.csv:3"]
    assert "age: could not convert" in reasons["labels.csv:4"]
    assert "not one inside" in reasons["labels.csv:5"]
    assert reasons["labels.csv:6"] == "image is null"
    assert "--option images=" in reasons["labels.csv:11"]
    assert "faces/gone.png: cannot be read" in reasons["labels.csv:7"]


def test_images_in_another_folder(folder) -> None:
    file = csv(folder, "file,age\n0.png,3\n")
    found, _ = bring("csv", file, images=str(folder / "faces"))
    assert found.path(0) == "0.png"


def test_json_that_is_none(folder) -> None:
    (folder / "a.jsonl").write_text('{"image": "faces/0.png", "age": 3}\n{"image": \n[1]\n')
    rows = list(reader("json").records(folder / "a.jsonl"))
    assert [type(row).__name__ for row in rows] == ["Record", "Skipped", "Skipped"]
    assert [row.where for row in rows[1:]] == ["a.jsonl:2", "a.jsonl:3"]
    for text, expected in {"[1, 2": "not JSON", "": "holds no object", '{"images": {}}': "no column of images"}.items():
        (folder / "b.json").write_text(text)
        with pytest.raises(PolyfaceError, match=expected) as caught:
            plan("json", folder / "b.json")
        assert "\n" not in str(caught.value)


def test_a_name_that_is_twice_in_an_object_is_told(folder) -> None:
    sound = '{"file": "faces/1.png", "age": 3}'
    twice = '{"file": "faces/0.png", "age": 1, "age": 2}'
    (folder / "a.jsonl").write_text(f"{twice}\n{sound}\n")
    (folder / "a.json").write_text(f"[{twice}, {sound}]")
    for name, where in (("a.jsonl", "a.jsonl:1"), ("a.json", "a.json item 0")):
        found, report = bring("json", folder / name, on_bad="skip")
        assert found.numbers("age").tolist() == [3]
        assert report.skipped == [Skipped(where, "age: is there twice")]


def test_json_without_end_is_one_bad_row(folder) -> None:
    deep = "[" * 100_000
    (folder / "a.jsonl").write_text(f'{{"file": "faces/0.png", "age": {deep}\n{{"file": "faces/1.png", "age": 3}}\n')
    found, report = bring("json", folder / "a.jsonl", on_bad="skip")
    assert (len(found), [one.where for one in report.skipped]) == (1, ["a.jsonl:1"])
    (folder / "b.json").write_text(deep)
    with pytest.raises(PolyfaceError, match=r"b.json: not JSON \(maximum recursion"):
        bring("json", folder / "b.json")


def test_bytes_in_json_are_no_path(folder) -> None:
    """A word where bytes belong would be read as a file, wherever that lies."""
    (folder / "secret.png").write_bytes(PNG)
    rows = [{"image": {"bytes": str(folder / "secret.png")}}, {"image": {"path": "faces/1.png"}}]
    found, report = bring("json", jsonl(folder, *rows), on_bad="skip")
    assert found.path(0) == "faces/1.png"
    assert report.skipped == [Skipped("labels.jsonl:1", "the image's bytes are a str; give its path")]


def test_csv_that_is_none(folder) -> None:
    for text, expected in {
        "": "is empty",
        "file,age,age\nx,1,2\n": "column 'age' is there twice",
        'file,age\n"x,1\n': "not CSV",
    }.items():
        with pytest.raises(PolyfaceError, match=expected):
            plan("csv", csv(folder, text))
    with pytest.raises(PolyfaceError, match="not found; reader 'csv' expects a .csv file"):
        plan("csv", folder / "gone.csv")


# --------------------------------------------------------------------------------------------------- saved data sets

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def saved(folder: Path, split: str = "", files: int = 2, count: int = 3) -> Path:
    """A data set as `Dataset.save_to_disk` writes it (a split of a `DatasetDict`)."""
    features = {
        "photo": {"_type": "Image"},
        "gender": {"names": ["female", "male"], "_type": "ClassLabel"},
        "mood": {"names": ["sad", "happy"], "_type": "ClassLabel"},
        "age": {"dtype": "float32", "_type": "Value"},
    }
    place = folder / split if split else folder
    place.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    for i, name in enumerate(names):
        columns = {
            "photo": pa.array([{"bytes": PNG, "path": f"{i}-{j}.png"} for j in range(count)], IMAGE),
            "gender": pa.array([j % 2 for j in range(count)], pa.int64()),
            "mood": pa.array([(j + i) % 2 if j else -1 for j in range(count)], pa.int64()),
            "age": pa.array([10.0 * i + j for j in range(count)], pa.float32()),
        }
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        with pa.OSFile(str(place / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in reversed(names)]}))
    (place / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_data_set(tmp_path) -> None:
    found, report = bring("huggingface", saved(tmp_path / "set"))
    assert found.column("age").to_pylist() == [10, 11, 12, 0, 1, 2]  # in the order of state.json
    assert found.words("gender").tolist() == ["female", "male", "female"] * 2
    assert found.declared("gender") == built_in("gender")  # its words have a meaning, whatever the order
    assert found.declared("mood") == Column("words", ("sad", "happy"))  # in the order of its integers
    assert found.words("mood").tolist() == [None, "sad", "happy", None, "happy", "sad"]  # -1 is null
    assert report.plan.origins["mood"] == "mood"
    assert "split" not in found.columns


def test_splits_of_a_saved_data_set(tmp_path) -> None:
    for split in ("train", "validation", "test"):
        saved(tmp_path / "sets", split, files=1, count=2)
    found, report = bring("huggingface", tmp_path / "sets")
    assert sorted(found.words("split").tolist()) == ["test", "test", "train", "train", "val", "val"]
    assert report.plan.columns["split"] == built_in("split")


def test_parquet_files_of_a_data_set(tmp_path) -> None:
    rows = [{"bytes": PNG, "path": None}] * 4
    for split in ("train", "test"):
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        table = pa.table({"image": pa.array(rows, IMAGE), "mask": ["a", "b", "a", "b"]})
        pq.write_table(table, tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    found, _ = bring("huggingface", tmp_path / "set")
    assert found.words("split").tolist() == ["test"] * 4 + ["train"] * 4
    assert found.declared("mask") == Column("words", ("a", "b"))
    assert len({found.path(row) for row in range(8)}) == 8


def test_folders_that_are_no_data_set(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolyfaceError, match=r"no \.arrow or \.parquet file; reader 'huggingface'"):
        plan("huggingface", tmp_path / "empty")
    with pytest.raises(PolyfaceError, match="not found; reader 'huggingface'"):
        plan("huggingface", tmp_path / "gone")
    broken = saved(tmp_path / "broken")
    (broken / "data-00000-of-00002.arrow").write_bytes(b"no arrow")
    with pytest.raises(PolyfaceError, match=r"data-00000-of-00002\.arrow: not a readable Arrow file"):
        plan("huggingface", broken)
    for state in ('{"_data_files": [{"filename": "../x.arrow"}]}', "{", '{"_data_files": [3]}'):
        (broken / "state.json").write_text(state)
        with pytest.raises(PolyfaceError, match=r"state\.json: "):
            plan("huggingface", broken)


# -------------------------------------------------------------------------------------------------------------- Parquet


def test_parquet_keeps_what_a_table_declares(folder) -> None:
    text = "file,mask,gaze\n" + "".join(f"faces/{i}.png,{i % 2},{'lr'[i % 2]}\n" for i in range(8))
    held = {"gaze": {"type": "words", "vocabulary": ["r", "l"], "mirror": {"l": "r"}}}
    first, _ = bring("csv", csv(folder, text), columns=held)
    write = import_table(reader("parquet"), folder / "out.parquet", folder / "again.parquet")
    again = FaceTable.open(folder / "again.parquet")
    assert again.own == first.own
    assert again.labels.equals(first.labels)
    assert again.fingerprint == first.fingerprint
    assert write.plan.left == {}


def test_parquet_words_are_mapped_so_that_tables_agree(folder) -> None:
    text = "file,mask,pose\n" + "".join(
        f"faces/{i}.png,{['on', 'off'][i % 2]},{['c1', 'c2'][i % 2]}\n" for i in range(8)
    )
    cameras = {"type": "words", "vocabulary": ["c1", "c2", "c3"], "mirror": {"c1": "c3"}}
    made, _ = bring("csv", csv(folder, text), columns={"pose": cameras, "mask": "words:off,on"})

    def again(**map_: Any) -> FaceTable:
        import_table(reader("parquet", map=map_), folder / "out.parquet", folder / "again.parquet")
        return FaceTable.open(folder / "again.parquet")

    assert again().own == made.own
    mapped = again(mask={"on": "yes", "off": "no"}, pose={"c1": "left", "c2": "frontal", "c3": "right"})
    assert mapped.words("mask").tolist() == ["yes", "no"] * 4
    assert mapped.own == {"mask": Column("words", ("no", "yes"))}  # the poses are the usual ones now
    assert mapped.words("pose").tolist() == ["left", "frontal"] * 4
    assert again(mask={"off": "on"}).declared("mask") == Column("words", ("on",))
    assert again(pose={"c1": "a", "c3": "b"}).declared("pose") == Column("words", ("a", "c2", "b"), mirror=(2, 1, 0))
    assert again(pose={"c3": ""}).declared("pose") == Column("words", ("c1", "c2"))
    assert again(mask="gender", gender={"on": "male", "off": "female"}).declared("gender") == built_in("gender")


def test_classes_are_no_numbers(tmp_path) -> None:
    features = {"age": {"names": ["20-29", "30-39"], "_type": "ClassLabel"}}
    table = pa.table({"image": pa.array([{"bytes": PNG, "path": "a"}] * 2, IMAGE), "age": [0, -1]})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), tmp_path / "x.parquet")
    with pytest.raises(PolyfaceError, match="column 'age' holds classes .20-29, 30-39., which are no age"):
        plan("parquet", tmp_path / "x.parquet")
    found, _ = bring("parquet", tmp_path / "x.parquet", map={"age": "decade"})
    assert found.words("decade").tolist() == ["20-29", None]
    left = plan("parquet", tmp_path / "x.parquet", columns={"age": "none"}).left
    assert left == {"age": "as asked"}


def test_parquet_columns_of_other_types_are_left_out_and_named(tmp_path) -> None:
    table = pa.table(
        {
            "image": pa.array([{"bytes": PNG, "path": "a"}], IMAGE),
            "raw": [b"x"],
            "when": pa.array([3], pa.timestamp("ms")),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert plan("parquet", tmp_path / "x.parquet").left == {"raw": "it is binary", "when": "it is timestamp[ms]"}


def test_parquet_in_types_of_other_writers(tmp_path) -> None:
    """Views and decimals, as Arrow's other libraries and databases write them."""
    decimals = pa.array([Decimal("21.5"), None], pa.decimal128(10, 2))
    words = pa.array(["male", "female"])
    for number, kind in enumerate((pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(len(PNG)))):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(
            pa.table({"image": pa.array([PNG] * 2, kind), "age": decimals, "gender": words.cast(pa.string_view())}),
            file,
        )
        found, _ = bring("parquet", file)
        assert found.words("gender").tolist() == ["male", "female"]
        assert found.numbers("age")[0] == 21.5
        assert np.isnan(found.numbers("age")[1])


def test_ten_thousand_columns_are_no_matter_of_minutes(folder) -> None:
    names = [f"c{number}" for number in range(20_000)]
    with pytest.raises(PolyfaceError, match="no column of images"):
        plan("csv", csv(folder, ",".join(names) + "\n" + ",".join("1" * len(names)) + "\n"))
    began = process_time()
    with pytest.raises(PolyfaceError, match="column 'c7' is there twice"):
        plan("csv", csv(folder, ",".join([*names, "c7"]) + "\n" + ",".join("1" * 20_001) + "\n"))
    assert process_time() - began < 2


def test_words_that_are_not_utf8_are_skipped(tmp_path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"Jos\xe9", b"Ann"]).buffers())
    table = pa.table({"image": pa.array([{"bytes": PNG, "path": "a"}] * 2, IMAGE), "identity": bad})
    pq.write_table(table, tmp_path / "x.parquet")
    found, report = bring("parquet", tmp_path / "x.parquet", on_bad="skip")
    assert found.words("identity").tolist() == ["Ann"]
    assert report.skipped == [Skipped("x.parquet row 0", "identity: not UTF-8 (unexpected end of data)")]


def test_a_reader_without_a_plan_declares_nothing(folder) -> None:
    report = import_table(reader("folder"), folder / "faces", folder / "t.parquet")
    assert (report.rows, report.plan) == (8, Plan())
    assert write_table(reader("folder").records(folder / "faces"), folder / "t.parquet").rows == 8
