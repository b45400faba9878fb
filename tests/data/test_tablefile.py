"""A table's file: damage anywhere is told, its fingerprint follows its content, row groups stay readable."""

from __future__ import annotations

import copy
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyface.data import tablefile, writing
from polyface.data.images import encode_png
from polyface.data.readers import reader
from polyface.data.seal import footer_of
from polyface.data.table import FaceTable
from polyface.data.tablefile import TableFile
from polyface.data.writing import Record, import_table, write_table
from polyface.errors import PolyfaceError
from polyface.schema import IMAGE, Column

NOISE = np.random.default_rng(0)
OWN = {"mood": Column("words", ("calm", "cross"))}


def face(number: int, side: int = 6, **labels: Any) -> Record:
    picture = NOISE.integers(0, 256, (side, side, 3), np.uint8)
    return Record(picture, f"list:{number}", f"{number}.png", labels)


def faces(count: int) -> list[Record]:
    """Labelled in every kind of column, each fourth not at all."""
    points = NOISE.uniform(0, 5, (count, 5, 2))
    return [
        face(
            i,
            age=20.5 + i,
            fold=i,
            gender=("male", "female")[i % 2],
            identity=f"p{i // 2}",
            landmarks_5=points[i],
            box=[0, 0, 5, 5],
            mood=("calm", "cross")[i % 2],
        )
        if i % 4
        else face(i)
        for i in range(count)
    ]


def content(path: Path) -> list[Any]:
    """All that a table says: its columns, what they hold, its pictures."""
    table = FaceTable.open(path)
    columns = [(name, str(table.declared(name)), table.column(name).to_pylist()) for name in table.columns]
    return [*columns, *(table.image_struct(row) for row in range(len(table)))]


# ------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("part", ["anywhere", "footer", "headers"])
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path, part: str) -> None:
    path = tmp_path / "t.parquet"
    write_table(faces(9), path, columns=OWN)
    sound, data = content(path), path.read_bytes()
    meta = pq.read_metadata(path).row_group(0)
    starts = [(c := meta.column(i)).dictionary_page_offset or c.data_page_offset for i in range(meta.num_columns)]
    places = {
        "anywhere": range(len(data)),
        "footer": range(len(data) - len(footer_of(path)[0]), len(data)),
        "headers": [start + i for start in starts for i in range(24)],
    }[part]
    dice, told = random.Random(0), 0
    for _ in range(250):
        damaged = bytearray(data)
        damaged[dice.choice(places)] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        try:
            assert content(path) == sound
        except PolyfaceError:
            told += 1
    assert told > (249 if part == "footer" else 150)


def test_a_damaged_table_is_no_source_either(tmp_path: Path) -> None:
    write_table(faces(9), tmp_path / "t.parquet", columns=OWN)
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data.replace(b"calm", b"balm"))  # in the declaration too
    for read in (FaceTable.open, lambda path: import_table(reader("parquet"), path, tmp_path / "u.parquet")):
        with pytest.raises(PolyfaceError, match=r"t.parquet: (is damaged|not a readable Parquet file)"):
            read(tmp_path / "t.parquet")


def test_tables_without_a_seal_open_as_before(tmp_path: Path) -> None:
    """Those of older versions and of other programs, with checksums of pages or without."""
    path = tmp_path / "t.parquet"
    write_table(faces(9), path, columns=OWN)
    sound = content(path)
    for checksums in (True, False):
        pq.write_table(pq.read_table(path), tmp_path / "old.parquet", write_page_checksum=checksums)
        assert content(tmp_path / "old.parquet") == sound
        assert not footer_of(tmp_path / "old.parquet")[1]


@pytest.mark.parametrize("size", [0, 3, 7, 8, 11, 12, 40])
def test_what_is_shorter_than_a_footer(tmp_path: Path, size: int) -> None:
    (tmp_path / "t.parquet").write_bytes((b"PAR1" * 10)[:size])
    with pytest.raises(PolyfaceError, match="not a readable Parquet file"):
        FaceTable.open(tmp_path / "t.parquet")


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """Labels of one table beside pictures of another would be wrong without a word."""
    path = tmp_path / "t.parquet"
    write_table([face(0, age=1), face(1, age=2)], path)
    table = FaceTable.open(path)
    before = table.image(1).copy()
    file = TableFile(path)
    write_table([face(2, age=3), face(3, age=4)], path)
    assert (table.image(1) == before).all()  # the file that was opened
    with pytest.raises(PolyfaceError, match="t.parquet: was changed while it was read"):
        copy.copy(file)  # opened again, as in another process


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.parquet")
    for path in (tmp_path / "t.parquet", tmp_path):
        with pytest.raises(PolyfaceError, match="not a regular file"):
            FaceTable.open(path)


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    held = pa.array([{"bytes": encode_png(np.zeros((4, 4, 3), np.uint8)), "path": "0.png"}], IMAGE)
    fields = [
        pa.field("image", IMAGE),
        pa.field("gender", pa.string(), metadata={"a": "b"}),
        pa.field("gender", pa.string()),
    ]
    words = pa.array(["male"])
    for name, table in {
        "gender": pa.Table.from_arrays([held, words, words], schema=pa.schema(fields)),
        "image": pa.Table.from_arrays([held, held], names=["image", "image"]),
    }.items():
        pq.write_table(table, tmp_path / "t.parquet")
        for read in (FaceTable.open, lambda path: import_table(reader("parquet"), path, tmp_path / "u.parquet")):
            with pytest.raises(PolyfaceError, match=f"t.parquet: column '{name}' is there twice; rename one"):
                read(tmp_path / "t.parquet")


def test_a_table_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_table(faces(3), folder / "t.parquet", columns=OWN)
    sound = content(folder / "t.parquet")
    import_table(reader("parquet"), folder / "t.parquet", folder / "u.parquet")
    assert content(folder / "u.parquet") == sound


# --------------------------------------------------------------------------------------------------- row groups


def test_row_groups_are_cut_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GROUP_BYTES", 40_000)
    given = [face(i, side=60 if i % 5 else 150, fold=i) for i in range(30)]  # of 11 and of 68 thousand bytes
    write_table(given, tmp_path / "t.parquet")
    meta = pq.read_metadata(tmp_path / "t.parquet")
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    assert all(group.num_rows == 1 or group.column(0).total_compressed_size < 41_000 for group in groups)
    assert max(group.num_rows for group in groups) == 3
    table = FaceTable.open(tmp_path / "t.parquet")
    for row in NOISE.permutation(30):
        np.testing.assert_array_equal(table.image(int(row)), given[row].image)


def test_a_row_group_larger_than_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of more than 2 GiB, of which Arrow makes no single array."""
    monkeypatch.setattr(tablefile, "_READ", 30_000)
    monkeypatch.setattr(tablefile, "_KEPT", 100_000)
    given = [face(i, side=60) for i in range(20)]
    write_table(given, tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    for row in NOISE.permutation(20):
        np.testing.assert_array_equal(table.image(int(row)), given[row].image)


# ------------------------------------------------------------------------------------------------- fingerprints


def mended(table: pa.Table) -> pa.Table:
    ages = table.column("age").to_pylist()
    return table.set_column(table.column_names.index("age"), "age", pa.array([99.0, *ages[1:]], pa.float32()))


def test_a_table_that_was_mended_elsewhere_has_another_fingerprint(tmp_path: Path) -> None:
    """Other programs keep what the file says of itself, the fingerprint too."""
    path = tmp_path / "t.parquet"
    write_table([face(0, age=1), face(1, age=2)], path)
    prints = [FaceTable.open(path).fingerprint]
    for change in (lambda table: table, mended, lambda table: table.slice(1)):
        pq.write_table(change(pq.read_table(path)), tmp_path / "other.parquet")
        prints.append(FaceTable.open(tmp_path / "other.parquet").fingerprint)
    assert len(set(prints)) == 4


def test_a_fingerprint_follows_paths_and_pictures(tmp_path: Path) -> None:
    one, two = face(0, age=1), face(1, age=1)
    renamed = Record(one.image, one.where, "other.png", one.labels)
    prints = set()
    for given in ([one, two], [two, one], [one], [renamed, two], [one, face(2, age=1)]):
        write_table(given, tmp_path / "t.parquet")
        prints.add(FaceTable.open(tmp_path / "t.parquet").fingerprint)
    assert len(prints) == 5


@pytest.mark.parametrize("statistics", [True, False])
def test_pictures_outside_the_file_are_part_of_its_content(tmp_path: Path, statistics: bool) -> None:
    images = [{"bytes": None, "path": "a.png"}, {"bytes": b"x", "path": "b.png"}, {"bytes": None, "path": "gone.png"}]
    pq.write_table(pa.table({"image": pa.array(images, IMAGE)}), tmp_path / "t.parquet", write_statistics=statistics)
    prints = []
    for side in (4, 5, 5):
        (tmp_path / "a.png").write_bytes(encode_png(np.zeros((side, side, 3), np.uint8)))
        os.utime(tmp_path / "a.png", ns=(0, side))
        prints.append(FaceTable.open(tmp_path / "t.parquet").fingerprint)
    assert prints[0] != prints[1] == prints[2]


def test_what_was_skipped_stays_with_the_table(tmp_path: Path) -> None:
    bad = [face(i, age="old") for i in range(3, 6)]
    write_table([face(0, age=1), face(1, age=2), *bad], tmp_path / "t.parquet", on_bad="skip")
    (lost,) = FaceTable.open(tmp_path / "t.parquet").left_out
    assert (lost.skipped, lost.faces, lost.most) == (3, 5, True)
    assert str(lost).startswith("3 of 5 faces were skipped (first: list:3: age is not a value of its kind")
    write_table([face(0, age=1)], tmp_path / "t.parquet")
    assert FaceTable.open(tmp_path / "t.parquet").left_out == []
