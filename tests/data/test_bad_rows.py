"""One bad row is one reported row, whatever it holds; the others are taken as they are."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.table import FaceTable
from polyface.data.values import LONGEST_WORD
from polyface.data.writing import ImportReport, Record, Skipped, check_table, import_table, write_table
from polyface.errors import PolyfaceError
from polyface.schema import IMAGE, Column

GREY = encode_png(np.full((20, 30, 3), 100, np.uint8))
OWN = {
    "mask": Column("words", ("no", "yes")),
    "mood": Column("distribution", ("happy", "sad")),
    "length": Column("number"),
    "eyes": Column("points", points=2),
    "note": Column("words"),
}
SOUND: dict[str, Any] = {
    "age": 3.5,
    "fold": 2,
    "gender": "male",
    "identity": "Ann",
    "box": [1, 2, 20, 18],
    "attributes": [1, -1, None] + [1] * 37,
    "landmarks_5": [[1, 2], [3, 4], [5, 6], [7, 8], [math.nan, math.nan]],
    "mask": "no",
    "mood": [1, 3],
    "length": 7,
    "eyes": [[1, 2], [3, 4]],
    "note": "é",
}
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

single = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [2**31, -(2**31) - 1, 2**40, 2**63, 10**400, -1, 1.7, 1e300, -1e39, math.inf, -math.inf, math.nan]
    )
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ["\udce9", "\ud800", "a\0b", "20_29", "²", "9" * 5000, "x" * 5000, "[" * 5000, "nan", "1e999", " "]
    )
    | st.binary(max_size=4)
    | st.builds(object)
    | st.sampled_from([1j, np.float32(3), np.int8(1), np.array([1, 2]), np.array(None), b"", {1, 2}, Path("x")])
)
values = st.recursive(
    single,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def face(number: int, image: Any = GREY, path: str | None = None, **labels: Any) -> Record:
    return Record(image, f"list:{number}", f"{number}.png" if path is None else path, labels)


def others_are_there(report: ImportReport, table: FaceTable, sound: dict[str, Any] = SOUND) -> None:
    """The first and the last of three rows are as they were given; the second is there or reported."""
    assert report.rows + len(report.skipped) == 3
    assert all(len(one.where) < 300 and len(one.reason) < 300 for one in report.skipped)
    assert "\n" not in "".join(one.where + one.reason for one in report.skipped)
    assert check_table(table) == []
    for row in (0, len(table) - 1):
        assert table.image(row).shape == (20, 30, 3)
        for name in sound:
            assert table.column(name)[row].as_py() is not None
    report.to_json().encode()


@quick
@given(st.sampled_from(sorted(SOUND)), values)
@example("mood", [1e308, 1e308])
@example("attributes", [True] * 40)
@example("attributes", np.ones(40, np.int8))
@example("attributes", np.ones((40, 2)))
@example("gender", ["male"])
@example("identity", {"a": 1})
def test_a_value_of_any_kind(tmp_path: Path, name: str, value: Any) -> None:
    faces = [face(0, **SOUND), face(1, **(SOUND | {name: value})), face(2, **SOUND)]
    report = write_table(faces, tmp_path / "t.parquet", on_bad="skip", columns=OWN)
    others_are_there(report, FaceTable.open(tmp_path / "t.parquet"))
    assert not report.skipped or report.skipped[0].reason.startswith(f"{name} ")


@quick
@given(st.one_of(st.text(max_size=8), st.sampled_from(["", "a\0b", "\udce9.png", "\ud800", "x" * 10**6, "a\nb"])))
def test_a_path_of_any_kind(tmp_path: Path, path: str) -> None:
    report = write_table([face(0), face(1, path=path), face(2)], tmp_path / "t.parquet", on_bad="skip")
    others_are_there(report, FaceTable.open(tmp_path / "t.parquet"), {})
    assert len(report.skipped) == (len(path) > LONGEST_WORD)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "absent", "nul", "long", "loop", "empty"])
def test_a_picture_that_is_no_file(tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    names = {"nul": "a\0b", "long": "x" * 300}
    faces = [face(0), face(1, image=tmp_path / names.get(kind, kind)), face(2)]
    report = write_table(faces, tmp_path / "t.parquet", on_bad="skip")
    assert [one.where for one in report.skipped] == ["list:1"]
    assert report.skipped[0].reason.startswith("1.png")


def test_a_name_that_is_not_utf8_is_told_in_utf8(tmp_path: Path) -> None:
    write_table([face(0, path="Jos\udce9/1.png")], tmp_path / "t.parquet")
    assert FaceTable.open(tmp_path / "t.parquet").path(0) == "Jos\\udce9/1.png"


def test_what_a_reader_says_is_cut_to_a_line(tmp_path: Path) -> None:
    said = Skipped("x" * 10**6, "a\nb" * 10**6)
    report = write_table([face(0), said], tmp_path / "t.parquet", on_bad="skip")
    assert len(report.to_json()) < 1000
    with pytest.raises(PolyfaceError) as caught:
        write_table([face(0), said], tmp_path / "u.parquet")
    assert len(str(caught.value)) < 600


# ------------------------------------------------------------------------------------------------- files of labels

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ["\ud800", "a\0b", "20_29", "²", "9" * 5000, "x" * 5000, "[" * 5000, "[[1]]", '{"a": "b"}', 10**400]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
LABELS = {key: value for key, value in SOUND.items() if key != "landmarks_5"} | {"mood": {"happy": 1, "sad": 3}}
TYPES = {
    "length": "number",
    "eyes": "points:2",
    "note": "words",
    "mask": "words:no,yes",
    "mood": "distribution:happy,sad",
}


@quick
@given(st.sampled_from([*sorted(LABELS), "file"]), plain)
@example("note", "\ud800")
@example("age", "20_29")
def test_a_row_of_json_of_any_kind(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "a.png").write_bytes(GREY)
    row = {"file": "a.png", **LABELS}
    lines = [json.dumps(one) for one in (row, row | {name: value}, row)]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    found = reader("json", columns=TYPES)
    report = import_table(found, tmp_path / "labels.jsonl", tmp_path / "t.parquet", on_bad="skip")
    others_are_there(report, FaceTable.open(tmp_path / "t.parquet"), LABELS)


@quick
@given(st.text(max_size=3) | st.sampled_from(["\ud800", "x" * 5000, "9" * 5000, "²"]), plain)
@example("a", {"": None, "0": None})
def test_a_column_of_any_name_and_kind(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "a.png").write_bytes(GREY)
    rows = [{"file": "a.png", "age": 3}, {name: value, "file": "a.png", "age": 4}, {"file": "a.png", "age": 5}]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    report = import_table(reader("json"), tmp_path / "labels.json", tmp_path / "t.parquet", on_bad="skip")
    others_are_there(report, FaceTable.open(tmp_path / "t.parquet"), {"age": 3})


@pytest.mark.parametrize(
    "line",
    [
        "a.png,1,x,y",
        "a.png",
        'a.png,"b',
        'a.png,"b"c',
        "a.png," + "x" * 10**6,
        "gone.png,1",
        "a.png,\0",
        "a\0.png,1",
        "[[[,1",
    ],
)
def test_a_line_of_csv_of_any_kind(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.png").write_bytes(GREY)
    (tmp_path / "labels.csv").write_text(f"file,note\na.png,one\na.png,two\n{line}\n")
    report = import_table(
        reader("csv", columns={"note": "words"}), tmp_path / "labels.csv", tmp_path / "t.parquet", on_bad="skip"
    )
    found = FaceTable.open(tmp_path / "t.parquet")
    assert found.words("note").tolist()[:2] == ["one", "two"]
    assert report.rows + len(report.skipped) == 3
    assert all(one.where == "labels.csv:4" for one in report.skipped)


def parquet(path: Path, columns: dict[str, pa.Array], images: list[Any] | None = None) -> Path:
    held = pa.array(images or [{"bytes": GREY, "path": f"{i}.png"} for i in range(3)], IMAGE)
    pq.write_table(pa.table({"image": held} | columns), path)
    return path


def strings(*words: bytes) -> pa.Array:
    """An array of strings that need not be UTF-8."""
    return pa.array(words, pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    "name, column, reason",
    [
        ("age", pa.array([1.0, 1e300, 3]), "age is 1e+300, out of the range"),
        ("age", pa.array([1.0, math.inf, 3]), "age is inf, out of the range"),
        ("fold", pa.array([1, 2**40, 3]), "expected a whole number"),
        ("fold", pa.array([1, 1.7, 3]), "fold is 1.7, expected a whole number"),
        ("fold", pa.array([1, 2**64 - 1, 3], pa.uint64()), "expected a whole number"),
        ("identity", strings(b"Ann", b"Jos\xe9", b"Bea"), "identity: not UTF-8"),
        ("identity", strings(b"Ann", b"Jos\xe9", b"Bea").dictionary_encode(), "identity: not UTF-8"),
        ("identity", pa.array(["Ann", "x" * 5000, "Bea"]), "identity is a word of 5,000 bytes"),
        ("box", pa.array([[1.0, 2, 9, 9], [1.0], [1.0, 2, 9, 9]]), "box: has 1 numbers"),
        ("landmarks_5", pa.array([[[1.0, 2]] * 5, [[1.0, 2]] * 4, [[1.0, 2]] * 5]), "landmarks_5 has shape"),
        ("attributes", pa.array([[1] * 40, [2] * 40, [1] * 40]), "attributes must be 40 values"),
    ],
    ids=str,
)
def test_a_row_of_parquet_is_named_with_column_and_reason(tmp_path: Path, name, column, reason) -> None:
    file = parquet(tmp_path / "in.parquet", {name: column})
    report = import_table(reader("parquet"), file, tmp_path / "t.parquet", on_bad="skip")
    assert [one.where for one in report.skipped] == ["in.parquet row 1"]
    assert reason in report.skipped[0].reason
    assert report.labelled == {name: 2}
    with pytest.raises(PolyfaceError, match="row 1") as caught:
        import_table(reader("parquet"), file, tmp_path / "u.parquet")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "image",
    [
        None,
        {"bytes": None, "path": None},
        {"bytes": None, "path": ""},
        {"bytes": b"", "path": None},
        {"bytes": b"nothing", "path": "x"},
        {"bytes": None, "path": "/dev/zero"},
        {"bytes": None, "path": "../out.png"},
        {"bytes": None, "path": "pipe"},
        {"bytes": None, "path": "link.png"},
        {"bytes": None, "path": "a\0b"},
        {"bytes": None, "path": "x" * 10**5},
    ],
    ids=lambda image: str(image)[:40],
)
def test_an_image_of_parquet_that_is_none(tmp_path: Path, image: Any) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (tmp_path / "out.png").write_bytes(GREY)
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    sound = [{"bytes": GREY, "path": "0.png"}, image, {"bytes": GREY, "path": "2.png"}]
    file = parquet(folder / "in.parquet", {"age": pa.array([1, 2, 3.0], pa.float32())}, sound)
    report = import_table(reader("parquet"), file, tmp_path / "t.parquet", on_bad="skip")
    assert [one.where for one in report.skipped] == ["in.parquet row 1"]
    assert len(report.skipped[0].reason) < 300
    opened = FaceTable.open(file)  # and as it is
    (bad,) = check_table(opened)
    assert bad.where == "row 1"
    with pytest.raises(PolyfaceError, match="in.parquet row 1") as caught:
        opened.image(1)
    assert len(str(caught.value)) < 400
    assert opened.image(2).shape == (20, 30, 3)


@pytest.mark.parametrize(
    "words, reason",
    [(strings(b"a", b"\xe9", b"b"), "is not UTF-8"), (pa.array(["a", "x" * 5000, "b"]), "is a word of")],
)
def test_words_that_no_table_holds_are_named_when_it_is_opened(tmp_path: Path, words: pa.Array, reason: str) -> None:
    file = parquet(tmp_path / "in.parquet", {"identity": words})
    with pytest.raises(PolyfaceError, match=f"in.parquet row 1: identity {reason}.*--on-bad skip"):
        FaceTable.open(file)


def classes(folder: Path, names: Any) -> Path:
    told = {"huggingface": json.dumps({"info": {"features": {"kind": {"_type": "ClassLabel", "names": names}}}})}
    file = parquet(folder / "in.parquet", {"kind": pa.array([0, 1, -1])})
    pq.write_table(pq.read_table(file).replace_schema_metadata(told), file)
    return file


@pytest.mark.parametrize("names", [None, "ab", [], [1, 2], ["\ud800", "b"]], ids=str)
def test_classes_of_odd_names(tmp_path: Path, names: Any) -> None:
    import_table(reader("parquet"), classes(tmp_path, names), tmp_path / "t.parquet", on_bad="skip")
    assert check_table(FaceTable.open(tmp_path / "t.parquet")) == []


@pytest.mark.parametrize("names", [["a", "a"], ["", "b"]], ids=str)
def test_classes_that_are_no_vocabulary_are_refused(tmp_path: Path, names: Any) -> None:
    with pytest.raises(PolyfaceError, match="column 'kind': a vocabulary is words, each once"):
        import_table(reader("parquet"), classes(tmp_path, names), tmp_path / "t.parquet", on_bad="skip")
