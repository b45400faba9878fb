"""`polyface data` writes over no file but its own, says what is lost, and a damaged or odd table is one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyface.data.images import encode_png
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.schema import IMAGE

Command = Callable[..., Any]
GREY = encode_png(np.full((40, 50, 3), 90, np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(4):
        folder = tmp_path / "photos" / f"p{number}"
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(GREY)
    return tmp_path / "photos"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_table([Record(GREY, f"row {i}", f"{i}.png", {"age": i + 1}) for i in range(3)], tmp_path / "faces.parquet")
    return tmp_path / "faces.parquet"


def foreign(path: Path, columns: dict[str, Any], images: list[Any] | None = None) -> Path:
    """A Parquet file that Polyface did not make."""
    held = pa.array(images if images is not None else [{"bytes": GREY, "path": f"{i}.png"} for i in range(3)], IMAGE)
    pq.write_table(pa.table({"image": held} | columns), path)
    return path


def commands(out: Path, photos: Path, table: Path) -> list[list[Any]]:
    return [
        ["data", "import", "folder", photos, out],
        ["data", "label", table, "face5", out],
        ["data", "show", table, "--picture", out],
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("linked", [False, True])
def test_nothing_is_written_over_a_file_of_somebody_else(
    polyface: Command, photos: Path, table: Path, tmp_path: Path, which: int, linked: bool
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("years of work")
    out = tmp_path / "link" if linked else mine
    if linked:
        out.symlink_to(mine)
    command = commands(out, photos, table)[which]
    assert "not made by Polyface" in polyface(*command).mistake
    assert mine.read_text() == "years of work"
    assert "is a folder; name a file" in polyface(*commands(photos, photos, table)[which]).mistake


@pytest.mark.parametrize("which", [0, 2])
def test_a_second_run_replaces_what_the_first_wrote(
    polyface: Command, photos: Path, table: Path, tmp_path: Path, which: int
) -> None:
    for _ in range(2):
        assert polyface(*commands(tmp_path / "out", photos, table)[which]).status == 0
    (tmp_path / "out").write_text("mine")
    assert polyface(*commands(tmp_path / "out", photos, table)[which], "--overwrite").status == 0
    assert (tmp_path / "out").read_bytes()[:4] in (b"PAR1", b"\x89PNG")


def test_no_table_is_written_over_while_it_is_read(polyface: Command, table: Path, tmp_path: Path) -> None:
    before = table.read_bytes()
    (tmp_path / "link.parquet").symlink_to(table)
    for out in (table, tmp_path / "link.parquet"):
        for command in (
            ["data", "import", "parquet", table, out],
            ["data", "import", "parquet", tmp_path, out],
            ["data", "import", "huggingface", tmp_path, out],
            ["data", "label", table, "face5", out],
            ["data", "label", tmp_path, "face5", out],
            ["data", "show", table, "--picture", out],
        ):
            assert "is read by this command" in polyface(*command, "--overwrite").mistake
    assert table.read_bytes() == before


def test_an_import_of_which_most_is_lost_says_so(polyface: Command, photos: Path, tmp_path: Path) -> None:
    for number in range(3):
        (photos / f"p{number}" / "0.png").write_bytes(b"")
    told = polyface("data", "import", "folder", photos, tmp_path / "t.parquet", "--on-bad", "skip")
    assert told.status == 0
    assert f"note: most of {photos} is missing or bad: 3 of 4 faces were skipped (first: p0/0.png: is empty" in told.out
    shown = polyface("data", "show", tmp_path / "t.parquet").out
    assert "when it was made, 3 of 4 faces were skipped (first: p0/0.png" in shown


@pytest.mark.parametrize("command", ["check", "show", "picture", "label", "import"])
@pytest.mark.parametrize("kind", ["pipe", "text", "cut", "no image", "unknown", "words", "no rows"])
def test_a_table_that_is_none_is_one_line(
    polyface: Command, table: Path, tmp_path: Path, command: str, kind: str
) -> None:
    file = tmp_path / "odd.parquet"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "text":
        file.write_text("hello")
    elif kind == "cut":
        file.write_bytes(table.read_bytes()[:-30])
    elif kind == "no image":
        pq.write_table(pa.table({"age": [1.0]}), file)
    elif kind == "unknown":
        foreign(file, {"when": pa.array([1, 2, 3], pa.timestamp("s"))})
    elif kind == "words":
        foreign(file, {"identity": pa.array([b"a", b"\xe9", b"c"]).view(pa.string())})
    else:
        foreign(file, {"age": pa.array([], pa.float32())}, [])
    told = polyface(
        *{
            "check": ["data", "check", file],
            "show": ["data", "show", file],
            "picture": ["data", "show", file, "--picture", tmp_path / "sheet.png"],
            "label": ["data", "label", file, "face5", tmp_path / "out.parquet"],
            "import": ["data", "import", "parquet", file, tmp_path / "out.parquet"],
        }[command]
    )
    sound = {("no rows", "check"), ("no rows", "show"), ("unknown", "import")}
    assert (told.status == 0) == ((kind, command) in sound)
    if told.status:
        assert "odd.parquet" in told.mistake or (kind == "no rows" and "no face could be read" in told.mistake)


def test_show_counts_words_that_no_vocabulary_holds(polyface: Command, tmp_path: Path) -> None:
    file = foreign(tmp_path / "t.parquet", {"gender": pa.array(["male", "mael", "Male"])})
    shown = polyface("data", "show", file).out
    assert "3 labelled   male 1, 2 of other words, which count as not labelled" in shown


@pytest.mark.parametrize("path", ["/dev/zero", "../out.png", "pipe", "link.png", "folder/out.png"])
def test_no_command_opens_a_picture_outside_the_tables_folder(polyface: Command, tmp_path: Path, path: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "out.png").write_bytes(GREY)
    os.mkfifo(folder / "pipe")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "folder").symlink_to(tmp_path)
    sound = {"bytes": GREY, "path": "0.png"}
    file = foreign(folder / "t.parquet", {}, [sound, {"bytes": None, "path": path}, sound])
    told = polyface("data", "check", file)
    assert told.status == 1
    assert told.out.startswith("row 1: image path")
    for command in (
        ["show", file, "--picture", tmp_path / "sheet.png"],
        ["label", file, "face5", tmp_path / "o.parquet"],
    ):
        assert "t.parquet row 1: image path" in polyface("data", *command).mistake
        assert not command[-1].exists()
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (50, 40)
    assert FaceTable.open(file).image(0).shape == (40, 50, 3)
