"""The face table: every column there and back, nulls kept, mistakes named, files whole or absent."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from polyface.data.images import encode_png
from polyface.data.table import FaceTable
from polyface.data.writing import ROW_GROUP, Record, Skipped, write_table
from polyface.errors import PolyfaceError
from polyface.schema import IMAGE, VOCABULARIES, column_type, person

NAN = math.nan
GREY = np.full((20, 30, 3), 100, np.uint8)


def face(number: int = 0, image: Any = GREY, **labels: Any) -> Record:
    return Record(image, f"list.txt:{number}", f"faces/{number}.png", labels)


def table(folder: Path, *faces: Record, name: str = "t.parquet") -> FaceTable:
    write_table(faces, folder / name)
    return FaceTable.open(folder / name)


def numbered(count: int, start: int = 0) -> list[Record]:
    """Faces whose pictures hold their number."""
    return [
        face(i, np.full((4, 5, 3), i % 256, np.uint8), identity=f"person {i}", fold=i)
        for i in range(start, start + count)
    ]


# ---------------------------------------------------------------------------------------------- round trips

inside = st.floats(-15, 35, width=32)
points = st.lists(st.none() | st.tuples(inside, inside), min_size=5, max_size=5).map(
    lambda found: [(NAN, NAN) if p is None else p for p in found]
)
LABELS: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.sampled_from(words) for name, words in VOCABULARIES.items()},
    "landmarks_5": points,
    "box": st.tuples(st.floats(0, 5, width=32), st.floats(0, 5, width=32)).map(
        lambda p: [float(np.float32(x)) for x in (*p, p[0] + 9, p[1] + 9)]
    ),
    "attributes": st.lists(st.sampled_from([-1, 1, None]), min_size=40, max_size=40),
    "identity": st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8).map(person),
    "source": st.text("abcé/ ", max_size=5),
    "illumination": st.text("xyz"),
    "yaw": st.floats(-90, 90, width=32),
    "age": st.floats(0, 120, width=32),
    "fold": st.integers(-(2**31), 2**31 - 1),
}
rows = st.lists(
    st.fixed_dictionaries({}, optional={k: st.none() | v for k, v in LABELS.items()}), min_size=1, max_size=6
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(rows)
def test_every_column_comes_back_as_it_went_in(tmp_path: Path, given_: list[dict[str, Any]]) -> None:
    found = table(tmp_path, *(face(i, **labels) for i, labels in enumerate(given_)))
    assert len(found) == len(given_)
    used = {name for labels in given_ for name, value in labels.items() if value is not None}
    assert set(found.columns) == used or (found.columns, used) == (["source"], set())
    for name in LABELS:
        assert found.column(name).type == column_type(name)
        back = found.column(name).to_pylist()
        for value, expected in zip(back, (labels.get(name) for labels in given_), strict=True):
            if name == "landmarks_5" and expected is not None:
                expected = [None if math.isnan(x) else x for point in expected for x in point]
                expected = None if set(expected) == {None} else expected  # of which none is seen: not labelled
            assert value == expected
    shapes = found.points("landmarks_5")
    for shape, labels in zip(shapes, given_, strict=True):
        expected = labels.get("landmarks_5")
        np.testing.assert_array_equal(shape, np.full((5, 2), NAN) if expected is None else np.float32(expected))
    attributes = found.numbers("attributes")
    for row, labels in zip(attributes, given_, strict=True):
        expected = labels.get("attributes") or [None] * 40
        np.testing.assert_array_equal(row, [NAN if v is None else v for v in expected])


def test_pictures_alone_are_a_table(tmp_path) -> None:
    found = table(tmp_path, face(0), face(1))
    assert len(found) == len(found.take(np.array([1, 0]))) == 2
    assert len(FaceTable.concat([found, table(tmp_path, face(2, age=3), name="u.parquet")])) == 3
    np.testing.assert_array_equal(found.image(1), GREY)


def test_half_a_point_is_no_point(tmp_path) -> None:
    found = table(tmp_path, face(landmarks_5=[[1, NAN], [2, 3], [None, 4], [5, 6], [7, 8]]))
    np.testing.assert_array_equal(found.points("landmarks_5")[0], [[NAN, NAN], [2, 3], [NAN, NAN], [5, 6], [7, 8]])
    assert found.column("landmarks_5").to_pylist()[0][:4] == [None, None, 2, 3]


def test_nan_is_not_a_label(tmp_path) -> None:
    found = table(tmp_path, face(0, age=NAN, gender="male"), face(1, age=3))
    assert found.column("age").to_pylist() == [None, 3]


def test_pictures_from_arrays_bytes_and_files_come_back_exactly(tmp_path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(picture))
    found = table(tmp_path, face(0, picture), face(1, encode_png(picture)), face(2, tmp_path / "a.png"))
    for row in range(3):
        np.testing.assert_array_equal(found.image(row), picture)
        assert found.path(row) == f"faces/{row}.png"
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG")
    kept = table(tmp_path, face(0, encoded.getvalue()), name="j.parquet")
    assert kept.image_struct(0) == (encoded.getvalue(), "faces/0.png")  # as it was encoded: nothing is lost twice


def test_image_is_the_struct_that_hugging_face_reads(tmp_path) -> None:
    table(tmp_path, face())
    plain = pq.read_table(tmp_path / "t.parquet")
    assert plain.schema.field("image").type == IMAGE == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    value = plain.column("image")[0].as_py()
    assert value["path"] == "faces/0.png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(value["bytes"]))), GREY)


def test_report_counts_what_is_labelled(tmp_path) -> None:
    faces = [face(0, gender="male", age=3), face(1, gender=None, age=4), face(2)]
    report = write_table(faces, tmp_path / "t.parquet")
    assert (report.rows, report.skipped, report.labelled) == (3, [], {"age": 2, "gender": 1})


# ------------------------------------------------------------------------------------------ views of tables


def shown(found: FaceTable) -> list[int]:
    """The numbers that the pictures hold, and that the labels agree with them."""
    numbers = [int(found.image(row)[0, 0, 0]) for row in range(len(found))]
    assert [fold % 256 for fold in found.column("fold").to_pylist()] == numbers
    assert found.words("identity").tolist() == [f"person {fold}" for fold in found.column("fold").to_pylist()]
    return numbers


def test_take_concat_and_where_keep_pictures_and_labels_together(tmp_path) -> None:
    one = table(tmp_path, *numbered(10), name="a.parquet")
    two = table(tmp_path, *numbered(5, 100), name="b.parquet")
    both = FaceTable.concat([one, two])
    assert shown(both) == [*range(10), *range(100, 105)]
    assert shown(both.take(np.array([12, 3, 3, 0]))) == [102, 3, 3, 0]
    assert shown(both.where(identity=["person 101", "person 4"])) == [4, 101]
    assert shown(FaceTable.concat([two.take(np.array([1])), both.where(identity="person 9")])) == [101, 9]
    assert shown(FaceTable.open(tmp_path)) == shown(both)
    assert shown(FaceTable.open(tmp_path / "b.parquet", tmp_path / "a.parquet")) == [*range(100, 105), *range(10)]
    assert len(both.where(gender="male")) == 0  # a column that nobody has
    assert shown(one) == list(range(10))  # all of these are views


def test_a_column_that_one_table_lacks_is_null_there(tmp_path) -> None:
    one = table(tmp_path, face(0, gender="male"), name="a.parquet")
    two = table(tmp_path, face(1, landmarks_5=np.ones((5, 2))), name="b.parquet")
    both = FaceTable.concat([one, two])
    assert both.words("gender").tolist() == ["male", None]
    assert np.isnan(both.points("landmarks_5")[0]).all()
    assert (both.points("landmarks_5")[1] == 1).all()
    assert both.classes("gender", ["female", "male"]).tolist() == [1, -1]
    assert both.words("pose").tolist() == [None, None]
    assert np.isnan(both.take(np.array([1, 0])).points("landmarks_5")[1]).all()


def test_more_rows_than_a_row_group(tmp_path) -> None:
    count = 4 * ROW_GROUP + 3
    tiny = [face(i, np.full((2, 2, 3), i % 256, np.uint8), fold=i, identity=f"person {i}") for i in range(count)]
    found = table(tmp_path, *tiny)
    picked = np.random.default_rng(0).permutation(count)[:40]
    assert shown(found.take(picked)) == [int(row) % 256 for row in picked]
    edges = np.array([0, ROW_GROUP - 1, ROW_GROUP, 4 * ROW_GROUP - 1, 4 * ROW_GROUP, count - 1])
    assert shown(found.take(edges)) == [int(row) % 256 for row in edges]


def test_many_threads_read_the_right_pictures(tmp_path) -> None:
    count = 6 * ROW_GROUP  # more row groups than are kept at once
    tiny = [face(i, np.full((2, 2, 3), i % 251, np.uint8)) for i in range(count)]
    found = table(tmp_path, *tiny)
    wanted = np.random.default_rng(0).integers(0, count, 400)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(found.image, wanted.tolist()))
    assert [int(picture[0, 0, 0]) for picture in pictures] == [int(row) % 251 for row in wanted]


def test_fingerprint_is_of_the_contents_and_not_of_the_file(tmp_path) -> None:
    one = table(tmp_path, *numbered(4), name="a.parquet")
    again = table(tmp_path, *numbered(4), name="b.parquet")
    assert one.fingerprint == again.fingerprint
    assert one.take(np.array([2])).fingerprint == again.take(np.array([2])).fingerprint


def test_fingerprint_tells_contents_and_rows_apart(tmp_path) -> None:
    one = table(tmp_path, *numbered(4), name="a.parquet")
    assert one.fingerprint == FaceTable.open(tmp_path / "a.parquet").fingerprint
    different = [
        table(tmp_path, *numbered(4, 1), name="c.parquet"),
        table(tmp_path, *numbered(5), name="d.parquet"),
        table(tmp_path, *[face(i, r.image, identity="x", fold=i) for i, r in enumerate(numbered(4))], name="e.parquet"),
        one.take(np.array([1, 0, 2, 3])),
        one.take(np.array([0, 1, 2])),
        FaceTable.concat([one, one]),
    ]
    prints = [one.fingerprint, *(other.fingerprint for other in different)]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    "wanted, rows",
    [
        ("> 30", [4]),
        ("< -30", [0]),
        (["< -30", "> 30"], [0, 4]),
        ("-30..30", [1, 2, 3]),
        (" -12.5 … 0 ", [2]),
    ],
)
def test_of_numbers_rows_are_chosen_by_ranges(tmp_path: Path, wanted: str | list[str], rows: list[int]) -> None:
    yaws = [-31.0, -30.0, -12.5, 30.0, 30.5, None]
    found = table(tmp_path, *[face(number, yaw=yaw) for number, yaw in enumerate(yaws)])
    assert np.flatnonzero(found.holding("yaw", wanted)).tolist() == rows
    assert len(found.where(yaw=wanted)) == len(rows)


@pytest.mark.parametrize("wanted", ["left", "30", ">", "5..3", "> 1e400"])
def test_what_is_no_range_of_numbers_is_said(tmp_path: Path, wanted: str) -> None:
    found = table(tmp_path, face(yaw=3.0))
    with pytest.raises(PolyfaceError, match="column 'yaw' holds numbers, of which .* is no range"):
        found.holding("yaw", wanted)


# ---------------------------------------------------------------------------------------------- mistakes

BAD: list[tuple[dict[str, Any], str]] = [
    ({"gender": "mael"}, "gender is 'mael'.*'male'"),
    ({"pose": "Frontal"}, "pose is 'Frontal'.*'frontal'"),
    ({"landmarks_5": [[0, 0]] * 4 + [[500, 3]]}, r"landmarks_5 has \(500, 3\), far outside its 30×20 image"),
    ({"landmarks_5": [[0, 0]] * 4 + [[3, -21]]}, r"landmarks_5 has \(3, -21\), far outside"),
    ({"landmarks_5": [[0, 0]] * 4 + [[math.inf, 0]]}, "landmarks_5 has .*inf.* far outside"),
    ({"landmarks_5": [[0, 0]] * 4}, r"landmarks_5 has shape \[4, 2\], expected \[5, 2\]"),
    ({"landmarks_5": [[0, 0], [1]]}, "landmarks_5 is not a value of its kind"),
    ({"landmarks_5": "here"}, "landmarks_5 "),
    ({"box": [5, 5, 5, 9]}, r"box \[5.0, 5.0, 5.0, 9.0\] is empty; expected x0 < x1"),
    ({"box": [9, 5, 5, 9]}, "is empty"),
    ({"box": [NAN, 5, 5, 9]}, "is empty"),
    ({"box": [0, 0, 5000, 9]}, "box has .*far outside"),
    ({"box": [1, 2, 3]}, r"box has shape \[3\], expected \[4\]"),
    ({"attributes": [1] * 39}, "attributes must be 40 values"),
    ({"attributes": [0] * 40}, "attributes must be 40 values out of -1, 1 and null"),
    ({"attributes": 3}, "attributes"),
    ({"age": "old"}, "age is not a value of its kind"),
    ({"fold": [1]}, "fold is not a value of its kind"),
    ({"landmark_5": [[0, 0]] * 5}, "unknown column 'landmark_5'.*'landmarks_5'"),
]


@pytest.mark.parametrize(
    "labels, expected", BAD, ids=[str(next(iter(labels))) + str(i) for i, (labels, _) in enumerate(BAD)]
)
def test_a_wrong_label_names_file_line_and_column(tmp_path, labels, expected) -> None:
    with pytest.raises(PolyfaceError, match=expected) as caught:
        write_table([face(0, gender="male"), face(7, **labels)], tmp_path / "t.parquet")
    message = str(caught.value)
    assert "\n" not in message
    assert "list.txt:7" in message or "unknown column" in message
    assert list(tmp_path.iterdir()) == []


def pictures(folder: Path) -> dict[str, Any]:
    whole = encode_png(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    return {"cut short": whole[: len(whole) // 2], "no image": b"text", "empty": b"", "absent": folder / "gone.png"}


@pytest.mark.parametrize("kind", ["cut short", "no image", "empty", "absent"])
def test_a_picture_that_cannot_be_read_names_row_and_file(tmp_path, kind) -> None:
    bad = face(7, pictures(tmp_path)[kind])
    with pytest.raises(PolyfaceError, match="list.txt:7.*faces/7.png") as caught:
        write_table([face(0), bad, face(1)], tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_on_bad_skip_reports_every_face_that_is_left_out(tmp_path) -> None:
    faces = [
        face(0, gender="male"),
        Skipped("list.txt:1", "no such file"),
        face(2, gender="both"),
        face(3, b"text"),
        face(4, gender="female"),
    ]
    report = write_table(faces, tmp_path / "t.parquet", on_bad="skip")
    found = FaceTable.open(tmp_path / "t.parquet")
    assert found.words("gender").tolist() == ["male", "female"]
    assert [found.path(row) for row in range(2)] == ["faces/0.png", "faces/4.png"]
    assert (report.rows, report.labelled) == (2, {"gender": 2})
    assert [skipped.where for skipped in report.skipped] == ["list.txt:1", "list.txt:2", "list.txt:3"]
    assert "no such file" in report.skipped[0].reason
    assert "'both'" in report.skipped[1].reason
    assert "list.txt" not in report.skipped[1].reason
    assert '"rows": 2' in report.to_json()
    with pytest.raises(PolyfaceError, match="list.txt:1: no such file.*--on-bad skip"):
        write_table(faces, tmp_path / "u.parquet")


def test_nothing_left_is_an_error_with_the_first_reason(tmp_path) -> None:
    with pytest.raises(PolyfaceError, match=r"no face could be read for .*first: list.txt:0: .*'x'"):
        write_table([face(0, gender="x")], tmp_path / "t.parquet", on_bad="skip")
    with pytest.raises(PolyfaceError, match="no face could be read"):
        write_table([], tmp_path / "t.parquet")
    with pytest.raises(PolyfaceError, match="on_bad is 'ignore'"):
        write_table([face()], tmp_path / "t.parquet", on_bad="ignore")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------- whole or absent


def test_a_failure_on_the_way_leaves_the_old_table(tmp_path) -> None:
    table(tmp_path, *numbered(3))
    before = (tmp_path / "t.parquet").read_bytes()

    def faces():
        yield from numbered(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(faces(), tmp_path / "t.parquet")
    with pytest.raises(PolyfaceError):
        write_table([*numbered(600), face(1, gender="x")], tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_killed_while_writing_leaves_no_table(tmp_path) -> None:
    """SIGKILL after the first row group: what lies about is no .parquet, and opening the folder says so."""
    code = """
import os, signal, sys
import numpy as np
from polyface.data.writing import Record, write_table
faces = [Record(np.zeros((2, 2, 3), np.uint8), str(i), str(i), {}) for i in range(1100)]
def kill(done, total, what):
    if done == 1024:
        os.kill(os.getpid(), signal.SIGKILL)
write_table(faces, sys.argv[1], progress=kill)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.parquet")], env=os.environ, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "t.parquet").exists()
    with pytest.raises(PolyfaceError, match="no face table"):
        FaceTable.open(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(table(tmp_path, *numbered(2))) == 2  # and it is not in the way
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


# ------------------------------------------------------------------------------------------------- opening


def test_files_that_are_no_face_tables_are_named(tmp_path) -> None:
    (tmp_path / "text.parquet").write_text("hello")
    whole = tmp_path / "whole.parquet"
    write_table(numbered(3), whole)
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-100])
    pq.write_table(pa.table({"gender": ["male"]}), tmp_path / "bare.parquet")
    struct = pa.array([{"bytes": b"", "path": ""}], IMAGE)
    pq.write_table(pa.table({"image": struct, "colour": ["red"]}), tmp_path / "extra.parquet")
    pq.write_table(pa.table({"image": struct, "box": [[1.0, 2, 3, 4]]}), tmp_path / "type.parquet")
    for name, expected in {
        "gone": "gone.parquet: no such face table.*polyface data import",
        "text": "text.parquet: not a readable Parquet file",
        "cut": "cut.parquet: not a readable Parquet file",
        "bare": "bare.parquet: no image column.*polyface data import",
        "extra": "extra.parquet: unknown column 'colour'",
        "type": "type.parquet: column 'box' is list.*expected fixed_size_list",
    }.items():
        with pytest.raises(PolyfaceError, match=expected) as caught:
            FaceTable.open(tmp_path / f"{name}.parquet")
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolyfaceError, match="no face table .*empty"):
        FaceTable.open(tmp_path / "empty")


def test_choosing_by_a_column_that_holds_no_words(tmp_path) -> None:
    found = table(tmp_path, face(0, age=3))
    with pytest.raises(PolyfaceError, match="'landmarks_5' holds no words"):
        found.where(landmarks_5="3")
    with pytest.raises(PolyfaceError, match="'age' holds numbers, of which '3' is no range"):
        found.where(age="3")
    with pytest.raises(PolyfaceError, match="'gendre'.*'gender'"):
        found.where(gendre="male")


def test_lists_that_are_not_labelled_are_read_by_every_arrow(tmp_path):
    """Older Arrow cannot read a list of fixed length that is null itself, so files hold lists of nulls instead."""
    points = np.array([[1.0, 2], [3, 4], [5, 6], [7, 8], [NAN, NAN]])
    faces = [face(landmarks_5=points), face(), face(landmarks_5=np.full((5, 2), NAN)), face(box=[1, 1, 5, 5])]
    path = tmp_path / "faces.parquet"
    report = write_table(faces, path)
    assert report.labelled == {"box": 1, "landmarks_5": 2}
    stored = pq.read_table(path)
    for name in ("landmarks_5", "box"):
        assert stored.column(name).null_count == 0
    table = FaceTable.open(path)
    assert table.column("landmarks_5").is_valid().to_pylist() == [True, False, False, False]
    assert table.column("box").is_valid().to_pylist() == [False, False, False, True]
    np.testing.assert_array_equal(table.points("landmarks_5")[0], points)
    old = stored.set_column(0, "image", stored.column("image"))
    nulls = pa.array(
        [v if any(x is not None for x in v) else None for v in stored.column("box").to_pylist()],
        stored.schema.field("box").type,
    )
    pq.write_table(old.set_column(old.schema.get_field_index("box"), stored.schema.field("box"), nulls), path)
    assert FaceTable.open(path).column("box").equals(table.column("box"))  # as files of 0.1 say it
