"""CelebA on hand-made files: each layout, each label by a hand-worked row, each fault by its message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.table import FaceTable
from polyface.data.writing import Record, Skipped, write_table
from polyface.errors import PolyfaceError
from polyface.schema import ATTRIBUTES

PNG = encode_png(np.full((100, 80, 3), 90, np.uint8))
ALIGNED = encode_png(np.full((218, 178, 3), 90, np.uint8))  # 178 wide, 218 high
NAMES = ("000001.jpg", "000002.jpg", "000003.jpg")
VALUES = [1 if i % 3 == 0 else -1 for i in range(40)]
POINTS = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
ALIGNED_LIST, WILD_LIST, BOX_LIST = (
    "list_landmarks_align_celeba.txt",
    "list_landmarks_celeba.txt",
    "list_bbox_celeba.txt",
)


def put(file: Path, data: bytes | str = PNG) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def counted(header: str, rows: Sequence[str]) -> str:
    return "\n".join([str(len(rows)), header, *rows]) + "\n"


def attributes(rows: Sequence[str] | None = None, header: str = " ".join(ATTRIBUTES)) -> str:
    values = " ".join(f"{value:2d}" for value in VALUES)
    return counted(header, [f"{name} {values}" for name in NAMES] if rows is None else rows)


def row(**other: str) -> str:
    """A row of attributes, with the text of some of them replaced."""
    texts = dict(zip(ATTRIBUTES, map(str, VALUES), strict=True)) | other
    return " ".join(texts.values())


def celeba(
    root: Path, folder: str = "img_align_celeba", anno: str = "", evaluation: str = "", **lists: str | None
) -> Path:
    """The data set in `root`; a list given by its name replaces the one made here, None leaves it out."""
    texts: dict[str, str | None] = {
        "list_attr_celeba": attributes(),
        "identity_CelebA": "".join(f"{name} {2880 + i}\n" for i, name in enumerate(NAMES)),
        "list_eval_partition": "".join(f"{name} {i}\n" for i, name in enumerate(NAMES)),
        **lists,
    }
    for name, text in texts.items():
        if text is not None:
            put(root / (evaluation if name == "list_eval_partition" else anno) / f"{name}.txt", text)
    for name in NAMES:
        put(root / folder / name)
    return root


def read(root: Path, **options: Any) -> list[Record | Skipped]:
    return list(reader("celeba", **options).records(root))


def faces(root: Path, **options: Any) -> list[Record]:
    found = read(root, **options)
    assert all(isinstance(face, Record) for face in found), found
    return found  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------- what is read


def test_by_hand(tmp_path, caplog):
    first, second, third = faces(celeba(tmp_path))
    assert first.where == "list_attr_celeba.txt:3"
    assert first.path == "img_align_celeba/000001.jpg"
    assert first.image == tmp_path / "img_align_celeba" / "000001.jpg"
    assert first.labels == {
        "attributes": VALUES,
        "identity": "2880",
        "split": "train",
        "source": "celeba",
        "modality": "photo",
    }
    assert [face.labels["split"] for face in (second, third)] == ["val", "test"]
    assert not caplog.records


@pytest.mark.parametrize(
    "folder, anno, evaluation",
    [
        ("img_align_celeba", "", ""),
        ("Img/img_align_celeba", "Anno", "Eval"),
        ("img_align_celeba/img_align_celeba", "", ""),
        ("img_align_celeba", "Anno", "Anno"),
    ],
)
@pytest.mark.parametrize("outer", ["", "CelebA", "celeba"])
def test_layouts(tmp_path, outer, folder, anno, evaluation):
    celeba(tmp_path / outer, folder, anno, evaluation)
    found = faces(tmp_path)
    assert [face.path for face in found] == [f"img_align_celeba/{name}" for name in NAMES]  # the same in every layout
    assert [face.image for face in found] == [tmp_path / outer / folder / name for name in NAMES]


def test_lossless_images_have_the_rows_of_the_jpegs(tmp_path):
    celeba(tmp_path)
    for name in NAMES:
        (tmp_path / "img_align_celeba" / name).unlink()
        put(tmp_path / "Img" / "img_align_celeba_png.7z" / "img_align_celeba_png" / name.replace("jpg", "png"))
    (tmp_path / "img_align_celeba").rmdir()
    assert [face.path for face in faces(tmp_path)] == [f"img_align_celeba_png/00000{i}.png" for i in (1, 2, 3)]


def test_other_files_are_no_faces(tmp_path):
    celeba(tmp_path)
    for name in ("._000001.jpg", "Thumbs.db", "readme.txt"):
        put(tmp_path / "img_align_celeba" / name)
    assert len(faces(tmp_path)) == 3


@given(st.permutations(range(40)))
def test_columns_are_known_by_name(tmp_path, order):
    header = " ".join(ATTRIBUTES[i] for i in order)
    rows = [f"{name} " + " ".join(str(VALUES[i]) for i in order) for name in NAMES]
    for face in faces(celeba(tmp_path, list_attr_celeba=attributes(rows, header))):
        assert face.labels["attributes"] == VALUES


def test_a_nought_is_not_labelled_and_stays_so_in_the_table(tmp_path):
    rows = [f"{NAMES[0]} {row(Bald='0', Male='0')}", *(f"{name} {row()}" for name in NAMES[1:])]
    celeba(tmp_path / "raw", list_attr_celeba=attributes(rows))
    expected = [None if name in ("Bald", "Male") else v for name, v in zip(ATTRIBUTES, VALUES, strict=True)]
    assert faces(tmp_path / "raw")[0].labels["attributes"] == expected
    write_table(reader("celeba").records(tmp_path / "raw"), tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert table.column("attributes").to_pylist() == [expected, VALUES, VALUES]
    assert table.column("identity").to_pylist() == ["2880", "2881", "2882"]
    assert table.column("split").to_pylist() == ["train", "val", "test"]


# ------------------------------------------------------------------------------------------- a part of the images


def test_a_part_of_the_images_with_the_full_lists(tmp_path, caplog):
    root = celeba(tmp_path / "raw")
    (root / "img_align_celeba" / NAMES[1]).unlink()
    report = write_table(reader("celeba").records(root), tmp_path / "t.parquet", on_bad="error")
    assert (report.rows, report.skipped) == (2, [])
    (line,) = caplog.messages
    assert "list_attr_celeba.txt: left out 1 of 3 rows, which have no image in" in line
    assert line.endswith("img_align_celeba")


def test_rows_that_are_left_out_need_not_be_sound(tmp_path):
    root = celeba(tmp_path, list_attr_celeba=attributes([f"{NAMES[0]} 7", *(f"{n} {row()}" for n in NAMES[1:])]))
    assert isinstance(read(root)[0], Skipped)
    (root / "img_align_celeba" / NAMES[0]).unlink()
    assert len(faces(root)) == 2


@pytest.mark.parametrize("name", ["list_attr_celeba", "identity_CelebA", "list_eval_partition"])
def test_an_image_without_a_row(tmp_path, name):
    full = celeba(tmp_path / "full")
    lines = (full / f"{name}.txt").read_text().splitlines()
    del lines[-2]
    if name == "list_attr_celeba":
        lines[0] = "2"
    found = read(celeba(tmp_path / "raw", **{name: "\n".join(lines)}))
    assert [isinstance(face, Skipped) for face in found] == [False, True, False]
    assert found[1] == Skipped("img_align_celeba/000002.jpg", f"has no row in {name}.txt")
    with pytest.raises(PolyfaceError, match=rf"000002.jpg: has no row in {name}.txt; mend it, or pass --on-bad skip"):
        write_table(found, tmp_path / "t.parquet")


# ------------------------------------------------------------------------------------------- rows that cannot be read


@pytest.mark.parametrize(
    "name, text, where, reason",
    [
        ("list_attr_celeba", row(Bald="2"), 4, "Bald is '2', expected 1, -1 or 0 (not labelled)"),
        ("list_attr_celeba", row(Young="yes"), 4, "Young is 'yes', expected 1, -1 or 0 (not labelled)"),
        ("list_attr_celeba", row(Young=""), 4, "39 values, expected 40"),
        ("list_attr_celeba", row(Young="1 1"), 4, "41 values, expected 40"),
        ("list_attr_celeba", "", 4, "0 values, expected 40"),
        ("identity_CelebA", "", 2, "0 values, expected one: the person's number"),
        ("identity_CelebA", "12 13", 2, "2 values, expected one: the person's number"),
        ("list_eval_partition", "3", 2, "part is '3', expected 0 (train), 1 (val) or 2 (test)"),
        ("list_eval_partition", "train", 2, "part is 'train', expected 0 (train), 1 (val) or 2 (test)"),
        ("list_eval_partition", "", 2, "part is '', expected 0 (train), 1 (val) or 2 (test)"),
    ],
)
def test_a_row_that_cannot_be_read_names_file_and_line(tmp_path, name, text, where, reason):
    good = row() if name == "list_attr_celeba" else "1"
    rows = [f"{NAMES[0]} {good}", f"{NAMES[1]} {text}", f"{NAMES[2]} {good}"]
    lists = {name: attributes(rows) if name == "list_attr_celeba" else "\n".join(rows)}
    found = read(celeba(tmp_path, **lists))
    assert [isinstance(face, Skipped) for face in found] == [False, True, False]
    assert found[1] == Skipped(f"{name}.txt:{where}", reason)


def test_of_two_rows_nobody_knows_the_right_one(tmp_path):
    found = read(celeba(tmp_path, list_eval_partition="000001.jpg 0\n000002.jpg 0\n000003.jpg 0\n000002.jpg 2\n"))
    assert [isinstance(face, Skipped) for face in found] == [False, True, False]
    assert found[1] == Skipped("list_eval_partition.txt:4", "a second row of 000002, after that of line 2")


# ------------------------------------------------------------------------------------------- lists that cannot be read

ROWS = [f"{name} {row()}" for name in NAMES]


@pytest.mark.parametrize(
    "text, reason",
    [
        (attributes().replace("3\n", "4\n", 1), r"list_attr_celeba.txt:1: says that 4 rows follow, but 3 do; obtain"),
        (attributes().replace("3\n", "2\n", 1), r"list_attr_celeba.txt:1: says that 2 rows follow, but 3 do; obtain"),
        (attributes().removeprefix("3\n"), r"list_attr_celeba.txt: does not begin with a line that counts its rows"),
        ("3\n", r"list_attr_celeba.txt: does not begin with a line that counts its rows"),
        ("", r"list_attr_celeba.txt: does not begin with a line that counts its rows"),
        (
            attributes(ROWS, " ".join(a for a in ATTRIBUTES if a != "Bald")),
            r"list_attr_celeba.txt:2: lacks the column 'Bald'; obtain the file again",
        ),
        (
            attributes(ROWS, " ".join(ATTRIBUTES).replace("Bald", "Blad")),
            r"list_attr_celeba.txt:2: unknown column 'Blad'; did you mean 'Bald'\?",
        ),
        (
            attributes(ROWS, " ".join([*ATTRIBUTES, "Bald"])),
            r"list_attr_celeba.txt:2: column 'Bald' stands there twice; obtain the file again",
        ),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, text, reason):
    with pytest.raises(PolyfaceError, match=reason) as caught:
        read(celeba(tmp_path, list_attr_celeba=text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["list_attr_celeba", "identity_CelebA", "list_eval_partition"])
def test_a_missing_list(tmp_path, name):
    with pytest.raises(PolyfaceError, match=rf"{name}.txt: not found; reader 'celeba' expects .*obtain it from http"):
        read(celeba(tmp_path, **{name: None}))


def test_missing_images(tmp_path):
    root = celeba(tmp_path)
    for name in NAMES:
        (root / "img_align_celeba" / name).unlink()
    with pytest.raises(PolyfaceError, match=r"img_align_celeba: no image; reader 'celeba' expects "):
        read(root)
    (root / "img_align_celeba").rmdir()
    with pytest.raises(PolyfaceError, match=r"img_align_celeba: not found; reader 'celeba' expects "):
        read(root)


# ------------------------------------------------------------------------------------------- points and boxes


def test_points_of_aligned_images_are_those_of_the_published_size(tmp_path, caplog):
    rows = [f"{name} 69 109  106  113   77  142   73  152  108  15{i}" for i, name in enumerate(NAMES)]
    root = celeba(tmp_path, **{ALIGNED_LIST.removesuffix(".txt"): counted(POINTS, rows)})
    put(root / "img_align_celeba" / NAMES[1], ALIGNED)
    first, second, third = faces(root)
    expected = [[69, 109], [106, 113], [77, 142], [73, 152], [108, 151]]  # as published: they count from 0
    np.testing.assert_array_equal(second.labels["landmarks_5"], expected)
    assert "landmarks_5" not in first.labels
    assert "landmarks_5" not in third.labels
    (line,) = caplog.messages
    assert line.endswith("img_align_celeba: left out the points of 2 images that are not 178×218 pixels")


def test_points_of_an_image_that_is_none_are_left_to_the_import(tmp_path):
    rows = [f"{name} 1 2 3 4 5 6 7 8 9 10" for name in NAMES]
    root = celeba(tmp_path, **{ALIGNED_LIST.removesuffix(".txt"): counted(POINTS, rows)})
    put(root / "img_align_celeba" / NAMES[0], b"nothing")
    assert len(faces(root)) == 3
    report = write_table(reader("celeba").records(root), tmp_path / "t.parquet", on_bad="skip")
    assert report.rows == 2
    assert [skipped.where for skipped in report.skipped] == ["list_attr_celeba.txt:3"]


def wild(root: Path, **lists: str | None) -> Path:
    """Images in the wild, with points x1 y1 … = 1 … 10 and boxes."""
    return celeba(
        root,
        folder="Img/img_celeba",
        anno="Anno",
        evaluation="Eval",
        **{
            WILD_LIST.removesuffix(".txt"): counted(POINTS, [f"{name} 1 2 3 4 5 6 7 8 9 10" for name in NAMES]),
            BOX_LIST.removesuffix(".txt"): counted(
                "image_id x_1 y_1 width height",
                ["000001.jpg    9  7 22 31", "000002.jpg 0 0 0 0", "000003.jpg 216 59 91 126"],
            ),
            **lists,
        },
    )


def test_images_in_the_wild(tmp_path):
    first, second, third = faces(wild(tmp_path))
    assert first.path == "img_celeba/000001.jpg"
    assert first.labels["box"] == [9, 7, 31, 38]  # x, y, x + width, y + height
    assert second.labels["box"] is None
    assert third.labels["box"] == [216, 59, 307, 185]
    for face in (first, second, third):
        np.testing.assert_array_equal(face.labels["landmarks_5"], np.arange(1, 11).reshape(5, 2))


def test_columns_of_points_and_boxes_are_known_by_name(tmp_path):
    swapped = POINTS.replace("lefteye", "X").replace("righteye", "lefteye").replace("X", "righteye")
    root = wild(
        tmp_path,
        list_landmarks_celeba=counted(swapped, [f"{name} 1 2 3 4 5 6 7 8 9 10" for name in NAMES]),
        list_bbox_celeba=counted("image_id width height x_1 y_1", [f"{name} 22 31 9 7" for name in NAMES]),
    )
    first = faces(root)[0]
    np.testing.assert_array_equal(first.labels["landmarks_5"], [[3, 4], [1, 2], [5, 6], [7, 8], [9, 10]])
    assert first.labels["box"] == [9, 7, 31, 38]


def test_aligned_images_have_no_box_and_no_points_of_the_wild(tmp_path, caplog):
    root = wild(tmp_path)
    for name in NAMES:
        put(root / "Img" / "img_align_celeba" / name, ALIGNED)
    assert [face.path for face in faces(root)] == [f"img_align_celeba/{name}" for name in NAMES]
    assert not {"box", "landmarks_5"} & faces(root)[0].labels.keys()
    assert faces(root, images="aligned")[0].labels == faces(root)[0].labels
    assert faces(root, images="wild")[0].path == "img_celeba/000001.jpg"
    assert "box" in faces(root, images="wild")[0].labels
    assert not caplog.records


def test_the_option_asks_for_images_that_are_not_there(tmp_path):
    with pytest.raises(PolyfaceError, match=r"img_celeba: not found; reader 'celeba' expects "):
        read(celeba(tmp_path), images="wild")
    with pytest.raises(PolyfaceError, match=r"reader 'celeba': images is 'wlid'; did you mean 'wild'\?"):
        read(tmp_path, images="wlid")


def test_an_image_may_lack_points_and_box(tmp_path):
    root = wild(
        tmp_path,
        list_landmarks_celeba=counted(POINTS, [f"{name} 1 2 3 4 5 6 7 8 9 10" for name in NAMES[:1]]),
        list_bbox_celeba=None,
    )
    first, second, _ = faces(root)
    assert "landmarks_5" in first.labels
    assert not {"box", "landmarks_5"} & second.labels.keys()


@pytest.mark.parametrize(
    "name, header, text, reason",
    [
        ("list_landmarks_celeba", POINTS, "1 2 3 4 5 6 7 8 9", "9 values, expected 10"),
        ("list_landmarks_celeba", POINTS, "1 2 3 4 5 6 7 8 9 ten", "'1 2 3 4 5 6 7 8 9 ten' are not 10 numbers"),
        ("list_bbox_celeba", "image_id x_1 y_1 width height", "1 2 3", "3 values, expected 4"),
        ("list_bbox_celeba", "image_id x_1 y_1 width height", "1 2 3 x", "'1 2 3 x' are not 4 numbers"),
    ],
)
def test_points_and_boxes_that_cannot_be_read(tmp_path, name, header, text, reason):
    found = read(wild(tmp_path, **{name: counted(header, [f"{image} {text}" for image in NAMES[:1]])}))
    assert found[0] == Skipped(f"{name}.txt:3", reason)
    assert [isinstance(face, Record) for face in found[1:]] == [True, True]


def test_a_box_of_negative_width_is_told_by_the_import(tmp_path):
    rows = [f"{name} 9 7 {width} 31" for name, width in zip(NAMES, (22, -22, 22), strict=True)]
    root = wild(tmp_path / "raw", list_bbox_celeba=counted("image_id x_1 y_1 width height", rows))
    report = write_table(reader("celeba").records(root), tmp_path / "t.parquet", on_bad="skip")
    assert report.rows == 2
    assert [(s.where, "is empty" in s.reason) for s in report.skipped] == [("list_attr_celeba.txt:4", True)]
