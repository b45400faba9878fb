"""Readers on hand-made files: each label by a hand-worked line, each fault by its message."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import READERS, reader
from polyface.data.readers.common import held_out, stable_path
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, write_table
from polyface.errors import PolyfaceError

PNG = encode_png(np.full((100, 120, 3), 90, np.uint8))


def put(file: Path, data: bytes | str = PNG) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def read(name: str, root: Path, **options: Any) -> list[Record | Skipped]:
    return list(reader(name, **options).records(root))


def faces(name: str, root: Path, **options: Any) -> list[Record]:
    found = read(name, root, **options)
    assert all(isinstance(f, Record) for f in found), found
    return found  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize("name", sorted(READERS.names()))
def test_every_reader_describes_itself_in_one_line(name):
    found = reader(name)
    assert found.name == name
    assert isinstance(found.verified, bool)
    for text in (found.about, found.layout):
        assert text
        assert "\n" not in text
    for word in ("Layout:", "Labels:", "icence", "ource:" if name in ("mtfl", "300w") else "ource"):
        assert word in (type(found).__doc__ or "")


@pytest.mark.parametrize("name", [name for name in sorted(READERS.names()) if not hasattr(READERS.get(name), "drawn")])
def test_every_reader_says_what_it_expected_where(name, tmp_path):
    with pytest.raises(PolyfaceError) as caught:
        read(name, tmp_path / "nowhere")
    assert "nowhere" in str(caught.value)
    assert f"not found; reader '{name}' expects {reader(name).layout}" in str(caught.value)


def test_unknown_reader_names_its_neighbour():
    with pytest.raises(PolyfaceError, match="unknown reader 'mtlf': did you mean 'mtfl'?"):
        reader("mtlf")


def test_unknown_option_names_its_neighbour():
    with pytest.raises(PolyfaceError, match="reader 'folder': unknown option 'peple'; did you mean 'people'?"):
        reader("folder", peple=True)
    with pytest.raises(PolyfaceError, match="reader 'mtfl': unknown option 'people'"):
        reader("mtfl", people=True)


def test_options_leave_the_registered_reader_alone():
    assert reader("folder", people=True) != reader("folder")
    assert reader("folder") == reader("folder")


class Mine:
    name, verified, about, layout = "mine", False, "mine", "anything"

    def records(self, root: Path) -> Any:
        return iter([Skipped("a", "b")])


broken = 3


def points(monkeypatch, **named: str) -> None:
    found = [EntryPoint(name, value, READERS.group) for name, value in named.items()]
    monkeypatch.setattr("polyface.registry.entry_points", lambda group: found if group == "polyface.readers" else [])


def test_entry_points_join_without_being_imported(monkeypatch):
    points(monkeypatch, mine="a_package_that_does_not_exist:Mine")
    assert "mine" in READERS.names()
    assert "mtfl" in READERS.names()


def test_entry_point_class_and_instance(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "mine_package", type("M", (), {"Mine": Mine, "made": Mine()}))
    points(monkeypatch, mine="mine_package:Mine", made="mine_package:made")
    assert read("mine", tmp_path) == read("made", tmp_path) == [Skipped("a", "b")]


@pytest.mark.parametrize(
    "value, words",
    [
        ("a_package_that_does_not_exist:Mine", "cannot be loaded: ModuleNotFoundError"),
        ("json:loads", "is no reader: it has no name, verified, about, layout, records"),
    ],
)
def test_broken_entry_point(monkeypatch, value, words):
    points(monkeypatch, bad=value)
    with pytest.raises(PolyfaceError, match="reader 'bad' ") as caught:
        reader("bad")
    assert value in str(caught.value)
    assert words in str(caught.value)


def test_a_built_in_reader_is_not_replaced(monkeypatch):
    points(monkeypatch, mtfl="json:loads")
    assert READERS.origin("mtfl") == "polyface"
    assert reader("mtfl").verified


# ------------------------------------------------------------------------------------------- the fixed cut


def test_held_out_takes_the_smallest_hashes():
    names = [f"f/{i}.jpg" for i in range(40)]
    smallest = sorted(names, key=lambda n: hashlib.sha1(n.encode()).hexdigest())[:4]
    assert held_out(names) == set(smallest)


@given(st.dictionaries(st.text(max_size=5), st.integers(1, 6), max_size=40), st.randoms())
def test_held_out_is_a_function_of_the_names_alone(sizes, random):
    shuffled = list(sizes.items())
    random.shuffle(shuffled)
    chosen = held_out(sizes)
    assert chosen == held_out(dict(shuffled))
    taken, wanted = sum(sizes[name] for name in chosen), round(0.1 * sum(sizes.values()))
    assert wanted <= taken <= wanted + 5  # whole photos: at most the last one goes over


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", r"\\server\a.jpg", r"C:\a.jpg", ""])
def test_paths_that_leave_the_folder(name):
    with pytest.raises(ValueError, match="is not one inside the data set's folder"):
        stable_path(name)


def test_stable_path():
    assert stable_path(r"a\b\c.jpg") == stable_path("a/b//c.jpg") == "a/b/c.jpg"


# ------------------------------------------------------------------------------------------- MTFL

POINTS = "11 21 16 12.5 20 31 31.5 41 51 52"
LINE = rf"lfw_5590\A_0001.jpg {POINTS} 1 2 2 3"


def mtfl(root: Path, training: str = LINE, testing: str = f"AFLW/1-b.jpg {POINTS} 2 1 1 5") -> Path:
    put(root / "training.txt", training)
    put(root / "testing.txt", testing)
    for folder in ("lfw_5590", "net_7876", "AFLW"):
        (root / folder).mkdir(exist_ok=True)
    return root


def test_mtfl_by_hand(tmp_path):
    train, test = faces("mtfl", mtfl(tmp_path, f"{LINE}\n\n"))
    assert train.where == "training.txt:1"
    assert train.path == "lfw_5590/A_0001.jpg"
    assert train.image == tmp_path / "lfw_5590" / "A_0001.jpg"
    # x1 … x5, y1 … y5, counted from 1
    expected = [[10, 30], [20, 30.5], [15, 40], [11.5, 50], [19, 51]]
    np.testing.assert_array_equal(train.labels.pop("landmarks_5"), expected)
    assert train.labels == {
        "gender": "male",
        "smile": "no",
        "glasses": "no",
        "pose": "frontal",
        "source": "lfw_5590",
        "split": "train",
    }
    assert test.labels["split"] == "test"
    assert [test.labels[k] for k in ("gender", "smile", "glasses", "pose", "source")] == [
        "female",
        "yes",
        "yes",
        "right profile",
        "AFLW",
    ]


@pytest.mark.parametrize(
    "code, word", [("1", "left profile"), ("2", "left"), ("3", "frontal"), ("4", "right"), ("5", "right profile")]
)
def test_mtfl_pose_words(tmp_path, code, word):
    assert faces("mtfl", mtfl(tmp_path, f" {LINE[:-1]}{code}"))[0].labels["pose"] == word


def test_mtfl_validation_is_the_tenth_of_smallest_hash(tmp_path):
    names = [f"net_7876/{i}.jpg" for i in range(50)]
    lines = "\n ".join(f"{name} {POINTS} 1 1 1 1".replace("/", "\\") for name in names)
    found = faces("mtfl", mtfl(tmp_path, lines))
    smallest = sorted(names, key=lambda n: hashlib.sha1(n.encode()).hexdigest())[:5]
    assert {f.path for f in found if f.labels["split"] == "val"} == set(smallest)
    assert sum(f.labels["split"] == "train" for f in found) == 45


@pytest.mark.parametrize(
    "line, reason",
    [
        (LINE.removesuffix(" 3"), "14 fields, expected 15: path, 5 x, 5 y, gender, smile, glasses, pose"),
        (LINE.replace("12.5", "12,5"), "are not 10 numbers"),
        (rf"lfw_5590\a.jpg {POINTS} 3 2 2 3", "gender is '3', expected a code from 1 to 2"),
        (rf"lfw_5590\a.jpg {POINTS} 1 0 2 3", "smile is '0', expected a code from 1 to 2"),
        (rf"lfw_5590\a.jpg {POINTS} 1 1 x 3", "glasses is 'x', expected a code from 1 to 2"),
        (rf"lfw_5590\a.jpg {POINTS} 1 1 1 6", "pose is '6', expected a code from 1 to 5"),
        (rf"lfw_5590\a.jpg {POINTS} 1 1 1 -1", "pose is '-1'"),
        (rf"..\..\a.jpg {POINTS} 1 1 1 1", "is not one inside the data set's folder"),
        (f"a.jpg {POINTS} 1 1 1 1", "path 'a.jpg' names no image folder"),
    ],
)
def test_mtfl_malformed_line_names_file_and_line(tmp_path, line, reason):
    found = read("mtfl", mtfl(tmp_path, f"{LINE}\n {line}\n {LINE}"))
    assert [isinstance(f, Skipped) for f in found] == [False, True, False, False]
    assert found[1].where == "training.txt:2"
    assert reason in found[1].reason  # type: ignore[union-attr]


@pytest.mark.parametrize("absent", ["training.txt", "testing.txt", "lfw_5590", "AFLW"])
def test_mtfl_missing_part(tmp_path, absent):
    root = mtfl(tmp_path)
    (root / absent).unlink() if absent.endswith("txt") else (root / absent).rmdir()
    with pytest.raises(PolyfaceError, match=rf"{absent}: not found; reader 'mtfl' expects .*obtain it from http"):
        read("mtfl", root)


def test_mtfl_root_may_hold_the_folder(tmp_path):
    mtfl(tmp_path / "MTFL") if (tmp_path / "MTFL").mkdir() is None else None
    assert len(faces("mtfl", tmp_path)) == 2


def test_mtfl_missing_image_is_told_by_the_import(tmp_path):
    root = mtfl(tmp_path / "m") if (tmp_path / "m").mkdir() is None else tmp_path
    put(root / "AFLW" / "1-b.jpg")
    report = write_table(reader("mtfl").records(root), tmp_path / "t.parquet", on_bad="skip")
    assert report.rows == 1
    assert [s.where for s in report.skipped] == ["training.txt:1"]


# ------------------------------------------------------------------------------------------- .pts

OFFICIAL = "version: 1\nn_points:  3\n{\n1 1\n11.5 21\n 30 40 \n}\n"


def test_pts_official_counts_from_one(tmp_path):
    put(tmp_path / "a" / "x.pts", OFFICIAL)
    put(tmp_path / "a" / "x.jpg")
    (only,) = faces("300w", tmp_path)
    np.testing.assert_array_equal(only.labels["landmarks_3"], [[0, 0], [10.5, 20], [29, 39]])
    assert (only.where, only.path, only.image) == ("a/x.pts", "a/x.jpg", tmp_path / "a" / "x.jpg")
    assert only.labels["source"] is only.labels["split"] is None


def test_pts_bare_counts_from_zero(tmp_path):
    put(tmp_path / "x.pts", "1 1\n11.5 21\n\nnan nan\n")
    put(tmp_path / "x.PNG")
    (only,) = faces("300w", tmp_path)
    np.testing.assert_array_equal(only.labels["landmarks_3"], [[1, 1], [11.5, 21], [np.nan, np.nan]])


@pytest.mark.parametrize(
    "text, reason",
    [
        (OFFICIAL.replace("3\n", "4\n", 1), "3 points, but its header says 4"),
        (OFFICIAL.replace("11.5 21", "11.5"), "line 5: '11.5' is not a point (x y)"),
        (OFFICIAL.replace("11.5 21", "11.5 21 1"), "line 5: '11.5 21 1' is not a point (x y)"),
        (OFFICIAL.replace("}", ""), "not between { and }"),
        ("version: 1\n1 2\n", "not between { and }"),
        ("1 2\nthree 4\n", "line 2: 'three 4' is not a point (x y)"),
        ("", "holds no points"),
        ("version: 1\nn_points: 0\n{\n}\n", "holds no points"),
    ],
)
def test_pts_malformed(tmp_path, text, reason):
    put(tmp_path / "x.pts", text)
    put(tmp_path / "x.jpg")
    (only,) = read("300w", tmp_path)
    assert isinstance(only, Skipped)
    assert only.where == "x.pts"
    assert reason in only.reason


def test_pts_without_an_image(tmp_path):
    put(tmp_path / "x.pts", OFFICIAL)
    (only,) = read("300w", tmp_path)
    assert only == Skipped("x.pts", "no image of that name beside it (.jpg, .png or the like)")


def test_no_pts_at_all(tmp_path):
    put(tmp_path / "x.jpg")
    with pytest.raises(PolyfaceError, match=r"no \.pts file; reader '300w' expects a tree of folders"):
        read("300w", tmp_path)


@pytest.mark.parametrize(
    "folder, source, split",
    [
        ("afw", "AFW", "train"),
        ("afw/afw", "AFW", "train"),
        ("Helen/trainset", "Helen", "train"),
        ("helen/testset", "Helen", "test"),
        ("LFPW/trainset", "LFPW", "train"),
        ("lfpw/testset", "LFPW", "test"),
        ("ibug", "IBUG", "test"),
        ("300W/01_Indoor", "300W", "test"),
        ("300-W/helen/trainset", "Helen", "train"),
        ("mine", None, None),
        ("mine/train", None, "train"),
    ],
)
def test_pts_source_and_split_by_folder(tmp_path, folder, source, split):
    root = tmp_path / "300w"  # the name people give the folder of all sets says nothing
    for i in range(4):  # a tenth of four is none
        put(root / folder / f"image_{i}.pts", OFFICIAL)
        put(root / folder / f"image_{i}.png")
    for found in (faces("300w", root), faces("300w", root / folder.split("/")[0])):
        assert {(f.labels["source"], f.labels["split"]) for f in found} == {(source, split)}


def test_pts_faces_of_one_photo_stay_together(tmp_path):
    for source in ("helen/trainset", "afw", "lfpw/trainset"):
        for photo in range(20):
            for k in (1, 2, 3):
                put(tmp_path / source / f"{photo}_{k}.pts", OFFICIAL)
                put(tmp_path / source / f"{photo}_{k}.jpg")
    found = faces("300w", tmp_path)
    parts: dict[tuple[str, str], set[str]] = {}
    for face in found:
        parts.setdefault((face.labels["source"], Path(face.path).stem.split("_")[0]), set()).add(face.labels["split"])
    assert all(len(parts[key]) == 1 for key in parts if key[0] != "LFPW")
    assert any(len(parts[key]) == 2 for key in parts if key[0] == "LFPW")  # its names end in the image's number
    for source in ("Helen", "AFW", "LFPW"):
        held = sum(f.labels["split"] == "val" for f in found if f.labels["source"] == source)
        assert held == 6
    inner = faces("300w", tmp_path / "helen" / "trainset")  # the same cut from wherever one starts
    assert [f.labels["split"] for f in inner] == [f.labels["split"] for f in found if f.labels["source"] in ("Helen",)]


def test_pts_a_whole_source_can_be_tested(tmp_path):
    for folder in ("afw", "helen/trainset", "helen/testset"):
        for photo in range(10):
            put(tmp_path / folder / f"{photo}_1.pts", OFFICIAL)
            put(tmp_path / folder / f"{photo}_1.jpg")
    found = faces("300w", tmp_path, tested=["AFW"])
    counted = Counter((face.labels["source"], face.labels["split"]) for face in found)
    assert counted == {("AFW", "test"): 10, ("Helen", "train"): 9, ("Helen", "val"): 1, ("Helen", "test"): 10}
    with pytest.raises(PolyfaceError, match=r"300w: tested.*'afw'.*AFW"):
        read("300w", tmp_path, tested=["afw"])


# ------------------------------------------------------------------------------------------- folders


def test_folder_of_people(tmp_path):
    for name in ("Ann/1.jpg", "Ann/2.PNG", "Bob/1.jpg", ".cache/1.jpg", "Bob/._1.jpg", "notes.txt"):
        put(tmp_path / name)
    found = faces("folder", tmp_path)
    assert [(f.path, f.labels) for f in found] == [
        ("Ann/1.jpg", {"identity": "Ann"}),
        ("Ann/2.PNG", {"identity": "Ann"}),
        ("Bob/1.jpg", {"identity": "Bob"}),
    ]
    assert all(f.labels == {} for f in faces("folder", tmp_path, people=False))


@pytest.mark.parametrize(
    "names", [("1.jpg", "2.jpg"), ("a/1.jpg",), ("a/1.jpg", "b/c/1.jpg"), ("train/1.jpg", "Val/1.jpg")]
)
def test_folder_without_people(tmp_path, names):
    for name in names:
        put(tmp_path / name)
    assert all(f.labels == {} for f in faces("folder", tmp_path))


def test_folder_of_people_by_option(tmp_path):
    for name in ("0.jpg", "train/1.jpg", "a/b/1.jpg"):
        put(tmp_path / name)
    found = {f.path: f.labels for f in faces("folder", tmp_path, people=True)}
    assert found == {"0.jpg": {}, "train/1.jpg": {"identity": "train"}, "a/b/1.jpg": {}}


def test_folder_without_images(tmp_path):
    with pytest.raises(PolyfaceError, match="no image; reader 'folder' expects a folder of images"):
        read("folder", tmp_path)
    with pytest.raises(PolyfaceError, match="not a folder; reader 'folder'"):
        read("folder", put(tmp_path / "a.jpg"))


# ------------------------------------------------------------------------------------------- Parquet


def parquet(file: Path, columns: dict[str, Any], images: Any = None, features: dict[str, Any] | None = None) -> Path:
    count = len(next(iter(columns.values()))) if columns else 1
    if images is None:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        images = pa.array([{"bytes": PNG, "path": f"{i}.png"} for i in range(count)], kind)
    table = pa.table({"image": images, **columns})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def test_parquet_reads_what_polyface_writes(tmp_path):
    labels = {"landmarks_5": np.array([[1, 2], [3, 4], [np.nan] * 2, [7, 8], [9, 10]]), "gender": "male", "age": 31.5}
    more = {"box": [1, 2, 30, 40], "attributes": [1, -1, None, *[1] * 37], "fold": 3, "identity": "Ann"}
    first = [Record(PNG, "a", "x/a.png", {**labels, **more}), Record(PNG, "b", "x/b.png", {})]
    write_table(first, tmp_path / "one.parquet")
    write_table(reader("parquet").records(tmp_path / "one.parquet"), tmp_path / "two.parquet")
    one, two = (FaceTable.open(tmp_path / f"{n}.parquet") for n in ("one", "two"))
    assert one.labels.equals(two.labels)
    assert [one.path(i) for i in range(2)] == [two.path(i) for i in range(2)] == ["x/a.png", "x/b.png"]


def test_parquet_of_hugging_face(tmp_path):
    file = parquet(
        tmp_path / "hf.parquet",
        {
            "gender": pa.array([1, 0, -1, None]),
            "landmarks_5": pa.array([[[float(i), 2.0] for i in range(4)] + [None], [], None, [[1.0, 2.0]] * 5]),
            "caption": pa.array(["a"] * 4),
            "modality": pa.array(["photo", "sketch", None, "photo"]).dictionary_encode(),
        },
        features={"gender": {"names": ["female", "male"], "_type": "ClassLabel"}, "caption": {"_type": "Value"}},
    )
    found = faces("parquet", file)
    assert [f.labels["gender"] for f in found] == ["male", "female", None, None]
    np.testing.assert_array_equal(found[0].labels["landmarks_5"][:, 0], [0, 1, 2, 3, np.nan])
    assert found[1].labels["landmarks_5"].shape == (0, 2)  # refused, by its shape, when the table is written
    assert found[2].labels["landmarks_5"] is None
    assert [f.labels["modality"] for f in found] == ["photo", "sketch", None, "photo"]
    assert found[0].labels["caption"] == "a"  # a column of their own, of whatever words
    assert found[3].where == "hf.parquet row 3"


def test_parquet_of_plain_binary_and_of_paths(tmp_path):
    plain = parquet(tmp_path / "a" / "plain.parquet", {}, pa.array([PNG], pa.large_binary()))
    (only,) = faces("parquet", plain)
    assert (only.image, only.path) == (PNG, "plain/0")
    struct = pa.struct([("path", pa.string()), ("bytes", pa.binary())])
    rows = [{"path": "i/0.png"}, {"path": "../0.png"}, {"path": None}, None]
    found = read("parquet", parquet(tmp_path / "b" / "paths.parquet", {}, pa.array(rows, struct)))
    assert found[0].image == tmp_path / "b" / "i" / "0.png"  # type: ignore[union-attr]
    assert "not one inside" in found[1].reason  # type: ignore[union-attr]
    assert found[2:] == [
        Skipped("paths.parquet row 2", "image is null"),
        Skipped("paths.parquet row 3", "image is null"),
    ]


def test_parquet_folder_in_order(tmp_path):
    for name in ("b", "a"):
        parquet(tmp_path / f"{name}.parquet", {"identity": [name, name]})
    assert [f.labels["identity"] for f in faces("parquet", tmp_path)] == ["a", "a", "b", "b"]


def test_parquet_empty_folder(tmp_path):
    with pytest.raises(PolyfaceError, match=r"no \.parquet file; reader 'parquet' expects"):
        read("parquet", tmp_path)


def test_parquet_that_is_none(tmp_path):
    with pytest.raises(PolyfaceError, match=r"x\.parquet: not a readable Parquet file"):
        read("parquet", put(tmp_path / "x.parquet", b"nothing"))


def test_parquet_without_images(tmp_path):
    pq.write_table(pa.table({"img": [b"1"], "age": [3]}), tmp_path / "x.parquet")
    with pytest.raises(PolyfaceError, match=r"no column 'image' \(it has img, age\)"):
        read("parquet", tmp_path / "x.parquet")
    with pytest.raises(PolyfaceError, match="column 'image' is int64, expected struct"):
        read("parquet", parquet(tmp_path / "y.parquet", {}, pa.array([1])))


@pytest.mark.parametrize(
    "column, values, words",
    [
        ("age", ["old"], "age: could not convert string to float"),
        ("gender", [1], "gender is '1'; known: female, male"),
        ("box", ["1 2 3"], "box: has 3 numbers, expected 4"),
        ("box", [[[1.0, 2.0]]], "box: has 1 numbers, expected 4"),
        ("landmarks_5", [["a"]], "landmarks_5: 1 coordinates, an odd number"),
        ("attributes", [["a"] * 40], "attributes must be 40 values"),
    ],
)
def test_parquet_column_of_another_type(tmp_path, column, values, words):
    file = parquet(tmp_path / "x.parquet", {column: values})
    with pytest.raises(PolyfaceError, match=r"x\.parquet row 0: ") as caught:
        write_table(reader("parquet").records(file), tmp_path / "t.parquet")
    assert words in str(caught.value)


def test_parquet_bad_values_name_their_row(tmp_path):
    features = {"gender": {"names": ["female", "male"], "_type": "ClassLabel"}}
    columns = {"gender": pa.array([0, 2]), "landmarks_2": pa.array([[1.0, 2, 3], [1.0, 2, 3, 4]])}
    found = read("parquet", parquet(tmp_path / "x.parquet", columns, features=features))
    assert found == [
        Skipped("x.parquet row 0", "landmarks_2: 3 coordinates, an odd number"),
        Skipped("x.parquet row 1", "gender: class 2 is none of the 2 named"),
    ]


@pytest.mark.parametrize("metadata", [b"not json", b"[]", b'{"info": {"features": 3}}'])
def test_parquet_odd_metadata_is_not_used(tmp_path, metadata):
    table = pa.table({"image": [PNG], "identity": ["Ann"]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    assert faces("parquet", tmp_path / "x.parquet")[0].labels == {"identity": "Ann"}
