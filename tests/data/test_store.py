"""Tables that a recipe names: raw sets are read again when they change, and are not trained on when most is lost."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyface.data import store
from polyface.data.readers import READERS
from polyface.data.store import cached_table, listing, open_source
from polyface.data.writing import Record, write_table
from polyface.errors import NoDataError, PolyfaceError
from polyface.schema import IMAGE


def picture(file: Path, grey: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20, 3), grey, np.uint8)).save(file)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_said", set())
    return tmp_path / "cache" / "tables"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four of the people's pictures, a folder each."""
    for number in range(4):
        picture(tmp_path / "data" / "folder" / f"p{number}" / "0.png", number)
    return tmp_path / "data"


def spoil(data: Path, count: int) -> None:
    for number in range(count):
        (data / "folder" / f"p{number}" / "0.png").write_bytes(b"")


def test_a_raw_set_is_read_once(data: Path, cache: Path) -> None:
    one, two = open_source("folder", data), open_source("folder", data)
    assert one.fingerprint == two.fingerprint
    assert len(list(cache.glob("*.parquet"))) == 1
    assert [file.suffix for file in cache.iterdir() if file.suffix != ".lock"].count(".json") == 1


READER = """
from polyface.data.writing import Record

class Own:
    name, verified, about, layout = "own", False, "", ""

    def records(self, root):
        yield Record(root / "p0/0.png", "0", "0.png", {"identity": "ann"})
"""


def test_a_raw_set_is_read_again_by_a_reader_that_changed(data: Path, tmp_path: Path) -> None:
    """The folder is what it was, and so are the options: an upgrade brings other labels."""
    (data / "folder").rename(data / "own")
    file, found = tmp_path / "own.py", []
    for name in ("ann", "bob", "ann"):
        file.write_text(READER.replace("ann", name))
        spec = importlib.util.spec_from_file_location(f"own_{len(found)}", file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # where inspect looks for its file
        spec.loader.exec_module(module)
        READERS.add("own", module.Own)
        try:
            found.append(open_source("own", data))
        finally:
            READERS.remove("own")
            del sys.modules[spec.name]
    assert [table.words("identity").tolist() for table in found] == [["ann"], ["bob"], ["ann"]]
    assert found[0].fingerprint == found[2].fingerprint != found[1].fingerprint


def deeper(data: Path) -> None:
    picture(data / "folder" / "p3" / "1.png", 9)


def relabelled(data: Path) -> None:
    (data / "folder" / "p3").rename(data / "folder" / "q3")


def redrawn(data: Path) -> None:
    file = data / "folder" / "p3" / "0.png"
    time = file.stat().st_mtime_ns
    picture(file, 200)
    os.utime(file, ns=(time, time + 1))


@pytest.mark.parametrize("change", [deeper, relabelled, redrawn])
def test_a_raw_set_that_changes_below_its_top_folder_is_read_again(data: Path, change: Any) -> None:
    before, top = open_source("folder", data), (data / "folder").stat()
    change(data)
    os.utime(data / "folder", ns=(top.st_atime_ns, top.st_mtime_ns))
    assert open_source("folder", data).fingerprint != before.fingerprint


def test_links_are_followed_and_circles_are_not(data: Path, tmp_path: Path) -> None:
    (data / "folder" / "circle").symlink_to(data / "folder")
    (data / "folder" / "nowhere").symlink_to(data / "gone")
    (data / "folder" / "linked").symlink_to(tmp_path / "elsewhere")
    picture(tmp_path / "elsewhere" / "0.png", 5)
    before = listing(data / "folder")
    assert before == listing(data / "folder")
    picture(tmp_path / "elsewhere" / "1.png", 6)
    assert listing(data / "folder") != before


def test_faces_that_are_skipped_are_told_once(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoil(data, 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # made, then found in the cache
            assert len(open_source("folder", data)) == 2
    (line,) = caplog.messages
    assert "2 of 4 faces were skipped (first: p0/0.png: is empty" in line


def test_a_set_that_is_mostly_missing_is_refused_until_it_is_taken_on_purpose(data: Path, tmp_path: Path) -> None:
    spoil(data, 3)
    for _ in range(2):
        with pytest.raises(NoDataError, match=r"'folder': 3 of 4 faces were skipped \(first: p0/0.png: ") as caught:
            open_source("folder", data)
        assert f"polyface data import folder {data / 'folder'} {data / 'folder'}.parquet --on-bad skip" in str(
            caught.value
        )
    picture(data / "folder" / "p0" / "0.png")
    assert len(open_source("folder", data)) == 2  # what was missing is there
    write_table([Record(np.zeros((4, 4, 3), np.uint8), "x", "x.png", {})], data / "folder.parquet")
    assert len(open_source("folder", data)) == 1


def test_progress_counts_the_faces_that_are_taken(data: Path) -> None:
    spoil(data, 1)
    told: list[tuple[int, int, str]] = []
    open_source("folder", data, progress=lambda *step: told.append(step))
    assert told[-1] == (3, 4, "faces read · 1 skipped")


def test_a_damaged_table_in_the_cache_is_made_again(cache: Path) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        write_table([Record(np.zeros((4, 4, 3), np.uint8), "x", "x.png", {"age": 3})], path)

    for _ in range(2):
        cached_table("x", b"y", make)
    (file,) = cache.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    assert cached_table("x", b"y", make).numbers("age").tolist() == [3]
    assert len(made) == 2


def test_a_table_that_cannot_be_made_leaves_nothing(cache: Path) -> None:
    def fail(path: Path) -> None:
        raise PolyfaceError("no face could be read")

    with pytest.raises(PolyfaceError, match="no face"):
        cached_table("x", b"y", fail)
    assert list(cache.glob("*.parquet")) == []


@pytest.mark.parametrize(
    "labels, expected",
    [
        ({"split": pa.array(["train", "tran"])}, "row 1: split is tran: did you mean 'train'?"),
        ({"age": pa.array([3, math.inf], pa.float32())}, "row 1: age is inf: numbers are finite"),
        ({"box": pa.array([[1, 2, 3, 4], [1, 2, -math.inf, 4]], pa.list_(pa.float32(), 4))}, "row 1: box is "),
    ],
    ids=["word", "number", "box"],
)
def test_labels_that_training_would_pass_over_are_named(data: Path, labels: Any, expected: str) -> None:
    """In Parquet from elsewhere: Polyface's own tables were checked when they were written."""
    image = pa.array([{"bytes": b"x", "path": "x"}] * 2, IMAGE)
    pq.write_table(pa.table({"image": image} | labels), data / "own.parquet")
    with pytest.raises(PolyfaceError, match=re.escape(f"own.parquet {expected}")):
        open_source(str(data / "own.parquet"), data)
    pq.write_table(
        pa.table({"image": image} | {name: column.take([0, 0]) for name, column in labels.items()}),
        data / "own.parquet",
    )
    assert len(open_source(str(data / "own.parquet"), data)) == 2
