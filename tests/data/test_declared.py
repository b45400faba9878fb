"""Columns of a table's own: declared in the file, kept by every view of it, checked when written and when joined."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyface.data.table import FaceTable
from polyface.data.tablefile import DECLARED
from polyface.data.values import LONGEST_WORD
from polyface.data.writing import Record, check_table, write_table
from polyface.errors import PolyfaceError
from polyface.schema import VOCABULARIES, Column, built_in, read_column

GREY = np.full((20, 30, 3), 100, np.uint8)
MASK = Column("words", ("no", "yes"))
MOOD = Column("distribution", ("happy", "neutral", "sad"))
OWN = {
    "mask": MASK,
    "mood": MOOD,
    "beard": Column("number", unit="mm"),
    "gaze": Column("words", ("l", "c", "r"), mirror=(2, 1, 0)),
    "eyes": Column("points", points=2, mirror=(1, 0)),
    "note": Column("words"),
}


def face(number: int = 0, image: Any = GREY, **labels: Any) -> Record:
    return Record(image, f"list.txt:{number}", f"faces/{number}.png", labels)


def table(folder: Path, *faces: Record, name: str = "t.parquet", columns: dict[str, Column] = OWN) -> FaceTable:
    write_table(faces, folder / name, columns=columns)
    return FaceTable.open(folder / name)


# ------------------------------------------------------------------------------------------------ declarations

word = st.text("abcdefgh 0123+-é", min_size=1, max_size=6)
vocabularies = st.lists(word, min_size=2, max_size=6, unique=True)


@st.composite
def pairings(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """A permutation that is its own inverse."""
    order = list(range(size))
    for i, j in draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=2)):
        if order[i] == i and order[j] == j:
            order[i], order[j] = j, i
    return tuple(order)


@st.composite
def declarations(draw: st.DrawFn) -> Column:
    kind = draw(st.sampled_from(["number", "words", "free", "points", "distribution"]))
    if kind == "number":
        return Column("number", mirror=draw(st.sampled_from(["", "none", "negate"])), unit=draw(st.text(max_size=4)))
    if kind == "free":
        return Column("words")
    if kind == "points":
        count = draw(st.integers(1, 6))
        return Column("points", points=count, mirror=draw(st.just("") | pairings(count)))
    words = tuple(draw(vocabularies))
    return Column(kind, words, mirror=draw(st.sampled_from(["", "none"]) | pairings(len(words))))


@given(declarations())
def test_a_declaration_comes_back_as_it_was_written(column: Column) -> None:
    assert read_column(json.loads(column.to_json()), "x") == column
    assert read_column(column.settings(), "x") == column


@pytest.mark.parametrize(
    "short, column",
    [
        ("number", Column("number")),
        ("words", Column("words")),
        ("words:no,yes", MASK),
        ("words: no , yes ", MASK),
        ("points:2", Column("points", points=2)),
        ("distribution:happy,neutral,sad", MOOD),
        ({"type": "words", "vocabulary": ["l", "c", "r"], "mirror": {"l": "r"}}, OWN["gaze"]),
        ({"type": "number", "unit": "mm"}, OWN["beard"]),
    ],
)
def test_short_and_long_forms(short: Any, column: Column) -> None:
    assert read_column(short, "x") == column


@pytest.mark.parametrize(
    "wrong, expected",
    [
        ("nubmer", "type is 'nubmer'; did you mean 'number'"),
        ({"type": "words", "vocabulry": []}, "unknown setting 'vocabulry'; did you mean 'vocabulary'"),
        ({"type": "words", "vocabulary": [False, True]}, "put yes and no in quotes"),
        ({"type": "words", "vocabulary": ["a", "a"]}, "each once"),
        ("distribution:happy", "needs a vocabulary of two words"),
        ("number:a,b", "number takes no vocabulary"),
        ("points", "points is 0"),
        ("points:many", "points is many"),
        ({"type": "words", "points": 3}, "points is 3"),
        ({"type": "words", "vocabulary": ["a", "b"], "mirror": "negate"}, "mirror is 'negate'"),
        ({"type": "words", "vocabulary": ["a", "b"], "mirror": {"a": "c"}}, "mirror names 'c'"),
        ({"type": "words", "vocabulary": ["a", "b", "c"], "mirror": [1, 2, 0]}, "as pairs that change places"),
        ({"type": "words", "vocabulary": ["a", "b"], "mirror": [0]}, "as pairs"),
        ({"type": "words", "vocabulary": ["a", "b"], "mirror": ["b", "a"]}, "as pairs"),
        (3, "expected a type such as number"),
        ("box", "type is 'box'"),
    ],
)
def test_wrong_declarations_are_named_in_one_line(wrong: Any, expected: str) -> None:
    with pytest.raises(PolyfaceError, match=re.escape(expected)) as caught:
        read_column(wrong, "columns.x")
    assert str(caught.value).startswith("columns.x")
    assert "\n" not in str(caught.value)


def test_a_declaration_says_itself_in_a_line() -> None:
    assert str(OWN["gaze"]) == "words (l, c, r); a mirror swaps l ↔ r"
    assert str(OWN["beard"]) == "number in mm"
    assert str(Column("words", ("left", "front"))) == "words (left, front); cannot be mirrored"
    assert "negates" in str(built_in("yaw"))


def test_order_of_classes_in_a_mirror() -> None:
    assert OWN["gaze"].class_order().tolist() == [2, 1, 0]
    assert Column("words", ("left", "right")).class_order().tolist() == [1, 0]  # by what the words say
    assert Column("words", ("left", "right"), mirror="none").class_order() is None
    assert MASK.class_order() is None


# ------------------------------------------------------------------------------------------------------- tables

inside = st.floats(-15, 35, width=32)
shares = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)
LABELS: dict[str, st.SearchStrategy[Any]] = {
    "mask": st.sampled_from(MASK.vocabulary),
    "mood": shares | shares.map(lambda votes: dict(zip(MOOD.vocabulary, votes, strict=True))),
    "beard": st.floats(-(2.0**100), 2.0**100, width=32),
    "gaze": st.sampled_from(["l", "c", "r"]),
    "eyes": st.lists(st.none() | st.tuples(inside, inside), min_size=2, max_size=2),
    "note": st.text("abcé ", max_size=5),
    "smile": st.sampled_from(["no", "yes"]),
}
rows = st.lists(
    st.fixed_dictionaries({}, optional={k: st.none() | v for k, v in LABELS.items()}), min_size=1, max_size=5
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(rows)
def test_own_columns_come_back_as_they_went_in(tmp_path: Path, given_: list[dict[str, Any]]) -> None:
    for labels in given_:
        if labels.get("eyes") is not None:
            labels["eyes"] = [(math.nan, math.nan) if p is None else p for p in labels["eyes"]]
    found = table(tmp_path, *(face(i, **labels) for i, labels in enumerate(given_)))
    used = {name for labels in given_ for name, value in labels.items() if value is not None}
    assert set(found.own) == used & set(OWN)
    for name in used & set(OWN):
        assert found.declared(name) == OWN[name]
        assert found.column(name).type == OWN[name].arrow
        for value, labels in zip(found.column(name).to_pylist(), given_, strict=True):
            expected = labels.get(name)
            if expected is None or (name == "eyes" and np.isnan(expected).all()):
                assert value is None  # null alone says "not labelled"
            elif name == "mood":
                votes = list(expected.values()) if isinstance(expected, dict) else expected
                np.testing.assert_allclose(value, np.array(votes) / sum(votes), rtol=1e-6)
            elif name == "eyes":
                flat = [None if math.isnan(x) else x for point in expected for x in point]
                assert value == (None if set(flat) == {None} else flat)  # no point seen: not labelled
            else:
                assert value == expected
    assert check_table(found) == []


def whole(folder: Path, name: str = "t.parquet", **more: Any) -> FaceTable:
    labels = {"mask": "yes", "mood": [1, 0, 3], "beard": 2.5, "gaze": "l", "note": "x"} | more
    return table(folder, face(0, **labels), face(1), face(2, mask="no"), name=name)


def test_views_keep_what_is_declared(tmp_path) -> None:
    one, two = whole(tmp_path, "a.parquet"), whole(tmp_path, "b.parquet", beard=7)
    bare = table(tmp_path, face(9, smile="yes"), name="c.parquet")
    views = [
        one.take(np.array([2, 0])),
        one.where(mask="yes"),
        FaceTable.concat([one, two]),
        FaceTable.concat([bare, one]),  # the first lacks the columns
        FaceTable.concat([one, bare]).take(np.array([3, 0])),
        FaceTable.open(tmp_path),
    ]
    for view in views:
        assert view.own == one.own == {name: OWN[name] for name in ("beard", "gaze", "mask", "mood", "note")}
    assert FaceTable.concat([bare, one]).words("mask").tolist() == [None, "yes", None, "no"]
    assert bare.own == {}
    assert bare.declared("smile") == built_in("smile")


def test_a_name_that_nobody_declares_is_an_error_with_the_nearest(tmp_path) -> None:
    found = whole(tmp_path)
    for ask in (found.declared, found.column, found.numbers):
        with pytest.raises(PolyfaceError, match="unknown column 'maks': did you mean 'mask'"):
            ask("maks")
    with pytest.raises(PolyfaceError, match="unknown column 'mask_worn'"):
        write_table([face(0, mask_worn="yes")], tmp_path / "u.parquet")


@pytest.mark.parametrize(
    "labels, expected",
    [
        ({"mask": "yse"}, "list.txt:7: mask is 'yse'; did you mean 'yes'?"),
        ({"mood": [1, 2]}, r"list.txt:7: mood has shape [2], expected [3]"),
        ({"mood": {"hapy": 1}}, "list.txt:7: mood names 'hapy'; did you mean 'happy'?"),
        ({"mood": [0, 0, 0]}, "not all 0"),
        ({"mood": [1, -1, 1]}, "shares of 0 or more"),
        ({"mood": [1, math.nan, 1]}, "shares of 0 or more"),
        ({"mood": "happy"}, "list.txt:7: mood"),
        ({"beard": "long"}, "list.txt:7: beard is not a value of its kind"),
        ({"beard": 1e300}, "list.txt:7: beard is 1e+300, out of the range"),
        ({"beard": math.inf}, "out of the range"),
        ({"fold": 1.7}, "fold is 1.7, expected a whole number"),
        ({"fold": 2**40}, "expected a whole number"),
        ({"eyes": [[0, 0], [500, 0]]}, "eyes has (500, 0), far outside its 30×20 image"),
        ({"note": "é" * LONGEST_WORD}, f"note is a word of {2 * LONGEST_WORD:,} bytes"),
        ({"note": "\udce9"}, "note is not a value of its kind"),
        ({"gender": "x" * 10**6}, "gender is 'xxx"),
        ({"box": [0.2, 0.1, 0.9, 0.8]}, "smaller than 2 pixels; other forms are read with --option box=xywh"),
    ],
    ids=str,
)
def test_a_wrong_value_names_row_and_column(tmp_path, labels, expected) -> None:
    faces = [face(0, mask="no"), face(7, **labels)]
    with pytest.raises(PolyfaceError, match=re.escape(expected)) as caught:
        write_table(faces, tmp_path / "t.parquet", columns=OWN)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    report = write_table(faces, tmp_path / "t.parquet", columns=OWN, on_bad="skip")
    assert (report.rows, [one.where for one in report.skipped]) == (1, ["list.txt:7"])


def test_a_built_in_column_of_words_may_have_another_vocabulary(tmp_path) -> None:
    cameras = Column("words", ("c05", "c27", "c29"), mirror=(2, 1, 0))
    groups = Column("words", ("0-2", "4-6"))
    faces = [face(0, pose="c05", age_group="4-6"), face(1, pose="c27")]
    found = table(tmp_path, *faces, columns={"pose": cameras, "age_group": groups})
    assert found.own == {"pose": cameras, "age_group": groups}
    assert found.classes("pose", cameras.vocabulary).tolist() == [0, 1]
    with pytest.raises(PolyfaceError, match="pose is 'left'"):
        table(tmp_path, face(0, pose="left"), columns={"pose": cameras})
    with pytest.raises(PolyfaceError, match="pose is 'c05'"):
        table(tmp_path, face(0, pose="c05"), columns={})


@pytest.mark.parametrize(
    "name, column",
    [("yaw", Column("number", unit="rad")), ("age", MASK), ("smile", MOOD), ("box", MASK)],
)
def test_other_built_in_columns_keep_their_meaning(tmp_path, name: str, column: Column) -> None:
    with pytest.raises(PolyfaceError, match=f"column '{name}' is .* cannot be declared"):
        table(tmp_path, face(0, **{name: "yes"}), columns={name: column})


def test_tables_that_declare_a_column_differently_do_not_mix(tmp_path) -> None:
    one = whole(tmp_path, "a.parquet")
    other = table(tmp_path, face(0, mask="yes"), name="b.parquet", columns={"mask": Column("words", ("yes", "no"))})
    with pytest.raises(
        PolyfaceError, match=r"'mask' is words \(no, yes\) in a.parquet and .*\(yes, no\) in b.parquet"
    ) as e:
        FaceTable.concat([one, other])
    assert "--map mask.WORD=WORD" in str(e.value)
    assert "\n" not in str(e.value)
    poses = table(
        tmp_path, face(0, pose="left"), name="c.parquet", columns={"pose": Column("words", ("left", "right"))}
    )
    usual = table(tmp_path, face(0, pose="left"), name="d.parquet")
    with pytest.raises(PolyfaceError, match="'pose' is"):
        FaceTable.concat([usual, poses])


def test_the_class_of_soft_labels_is_the_largest_share(tmp_path) -> None:
    moods = [[1, 0, 3], [2, 2, 0], None, [0, 5, 1]]
    found = table(tmp_path, *(face(i, mood=mood) for i, mood in enumerate(moods)))
    assert found.classes("mood", MOOD.vocabulary).tolist() == [2, -1, -1, 1]  # a tie counts as unlabelled
    assert found.classes("mood", ["sad"]).tolist() == [0, -1, -1, -1]
    assert len(found.where(mood="neutral")) == 1


def test_files_that_declare_nonsense_are_refused(tmp_path) -> None:
    whole(tmp_path)
    plain = pq.read_table(tmp_path / "t.parquet")

    def put(name: str, mark: bytes | None) -> Path:
        index = plain.schema.get_field_index("mask")
        field = plain.schema.field("mask").with_metadata({DECLARED: mark} if mark else {})
        pq.write_table(plain.set_column(index, field, plain.column("mask")), tmp_path / name)
        return tmp_path / name

    for mark, expected in {
        None: "unknown column 'mask'",
        b"{": "its declaration is damaged",
        b'{"type": "wrods"}': "type is 'wrods'",
        b'{"type": "number"}': "column 'mask' is string, expected float",
    }.items():
        with pytest.raises(PolyfaceError, match=expected) as caught:
            FaceTable.open(put("bad.parquet", mark))
        assert "bad.parquet" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_column_twice_is_refused(tmp_path) -> None:
    whole(tmp_path)
    plain = pq.read_table(tmp_path / "t.parquet")
    pq.write_table(plain.append_column("mask", plain.column("mask")), tmp_path / "twice.parquet")
    with pytest.raises(PolyfaceError, match=r"twice\.parquet: column 'mask' is there twice"):
        FaceTable.open(tmp_path / "twice.parquet")


@pytest.mark.parametrize(
    "image, reason",
    [
        (None, "image is null"),
        ({"bytes": None, "path": None}, "image is null"),
        ({"bytes": None, "path": "/dev/zero"}, "not a file inside the table's folder"),
        ({"bytes": None, "path": "../out.png"}, "not a file inside the table's folder"),
        ({"bytes": None, "path": "gone.png"}, "not a file inside the table's folder"),
    ],
)
def test_check_names_rows_whose_image_is_none(tmp_path, image, reason) -> None:
    whole(tmp_path)
    (tmp_path.parent / "out.png").write_bytes(b"x")
    plain = pq.read_table(tmp_path / "t.parquet")
    images = [*plain.column("image").to_pylist()[:1], image, *plain.column("image").to_pylist()[2:]]
    field = plain.schema.field("image")
    pq.write_table(plain.set_column(0, field, pa.array(images, field.type)), tmp_path / "n.parquet")
    (bad,) = check_table(FaceTable.open(tmp_path / "n.parquet"))
    assert bad.where == "row 1"
    assert reason in bad.reason


def test_a_flipped_bit_is_told(tmp_path) -> None:
    found = table(tmp_path, *(face(i, beard=i + 0.5) for i in range(50)), columns=OWN)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    place = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0).column(2)
    data[(place.dictionary_page_offset or place.data_page_offset) + place.total_compressed_size - 3] ^= 1
    (tmp_path / "t.parquet").write_bytes(bytes(data))
    assert found.numbers("beard")[3] == 3.5
    with pytest.raises(PolyfaceError, match="not a readable Parquet file"):
        FaceTable.open(tmp_path / "t.parquet")


def test_a_flipped_bit_of_a_picture_is_told(tmp_path) -> None:
    table(tmp_path, *(face(i, beard=1.0) for i in range(3)))
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    place = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0).column(0)
    data[place.data_page_offset + place.total_compressed_size - 9] ^= 1
    (tmp_path / "t.parquet").write_bytes(bytes(data))
    bad = check_table(FaceTable.open(tmp_path / "t.parquet"))
    assert [one.where for one in bad] == ["row 0", "row 1", "row 2"]
    assert "its pictures are damaged" in bad[0].reason


# -------------------------------------------------------------------------------------------------- fingerprints


def test_a_fingerprint_is_the_digest_of_the_content(tmp_path) -> None:
    """Worked out here from what the table is given: no version of a library may change it, since caches and
    checkpoints hang on it."""

    def pgm(number: int, **labels: Any) -> Record:
        picture = b"P5 30 20 255\n" + bytes([100 + number]) * 600
        return Record(picture, f"list.txt:{number}", f"faces/{number}.pgm", labels)

    first = {"pose": "left", "yaw": np.float32(-12.5), "age": np.float64(0.1), "fold": np.int64(3), "mask": "yes"}
    points = [[1, 2], [3, 4], [math.nan, 5], [6, 7], [8, 9.5]]
    second = {"landmarks_5": np.array(points, np.float32), "attributes": np.array([1, -1, *[1] * 38])}
    faces = [pgm(0, **first), pgm(1, **second)]
    write_table(faces, tmp_path / "a.parquet", columns={"pose": built_in("pose"), "mask": MASK})
    names = ["age", "attributes", "fold", "landmarks_5", "mask", "pose", "yaw"]
    told = '{"type": "words", "vocabulary": ["no", "yes"]}'
    rows = [
        [0.10000000149011612, None, 3, None, "yes", "left", -12.5],
        [None, [1, -1, *[1] * 38], None, [1.0, 2.0, 3.0, 4.0, None, None, 6.0, 7.0, 8.0, 9.5], None, None, None],
    ]
    lines = [[names, {"mask": told}]]
    for number, row in enumerate(rows):
        lines.append([hashlib.sha1(faces[number].image).hexdigest(), f"faces/{number}.pgm", *row])
    expected = hashlib.sha1("\n".join(map(json.dumps, lines)).encode()).hexdigest()
    assert FaceTable.open(tmp_path / "a.parquet").fingerprint == expected


def test_fingerprints_tell_declarations_apart(tmp_path) -> None:
    made = [
        Column("words", ("no", "yes")),
        Column("words", ("yes", "no")),
        Column("words", ("no", "yes", "maybe")),
        Column("words", ("no", "yes"), mirror=(1, 0)),
        Column("words"),
    ]
    prints = {table(tmp_path, face(0, mask="yes"), columns={"mask": one}).fingerprint for one in made}
    assert len(prints) == len(made)
    assert table(tmp_path, face(0, mask="yes"), columns={"mask": made[0]}).fingerprint in prints
    narrow = table(tmp_path, face(0, pose="left"), columns={"pose": Column("words", VOCABULARIES["pose"][1:4])})
    assert narrow.fingerprint != table(tmp_path, face(0, pose="left"), columns={}).fingerprint
