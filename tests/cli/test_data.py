"""`polyface data`: what comes in is what is shown and checked, and what is bad is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyface import demo
from polyface.data.boxes import BoxSpec
from polyface.data.readers import READERS
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.models.bundle import Bundle

Command = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of two people, a folder each."""
    for name, count in (("ann", 2), ("bob", 1)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(np.full((40, 50, 3), 60 * index, np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four faces: two smile, one does not, of one it is not known; two of them are of one person."""
    points = np.array([[20.0, 20], [40, 20], [30, 30], [24, 40], [36, 40]])
    records = [
        Record(
            np.full((60, 60, 3), 60 * row, np.uint8),
            f"row {row}",
            f"{row}.png",
            {"smile": smile, "identity": "ab"[row // 3], "landmarks_5": points, "box": [10, 10, 50, 50]},
        )
        for row, smile in enumerate(["yes", "no", None, "yes"])
    ]
    write_table(records, tmp_path / "faces.parquet")
    return tmp_path / "faces.parquet"


def test_list_names_every_reader_and_says_which_were_tried(polyface: Command) -> None:
    lines = polyface("data", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(READERS.names())
    assert re.search(r"^mtfl +verified +\S", "\n".join(lines), re.M)
    assert all(re.match(r"\S+ +(not )?verified +\S", line) for line in lines)


def test_import_writes_the_faces_and_says_what_they_are_labelled_for(
    polyface: Command, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "photos.parquet"
    told = polyface("data", "import", "folder", photos, out)
    assert told.status == 0
    assert told.out == f"{out}: 3 faces, 0 skipped; labelled: identity 3\n"
    assert FaceTable.open(out).words("identity").tolist() == ["ann", "ann", "bob"]


def test_import_stops_at_a_bad_image_or_reports_it(polyface: Command, photos: Path, tmp_path: Path) -> None:
    (photos / "ann" / "broken.png").write_bytes(b"")
    out = tmp_path / "photos.parquet"
    assert "broken.png" in polyface("data", "import", "folder", photos, out).mistake
    assert not out.exists()
    told = polyface("data", "import", "folder", photos, out, "--on-bad", "skip")
    assert re.search(r"^skipped ann/broken.png: .*is empty", told.out, re.M)
    assert "3 faces, 1 skipped" in told.out


def test_import_names_what_it_does_not_know(polyface: Command, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    assert "did you mean 'folder'?" in polyface("data", "import", "foldr", photos, out).mistake
    told = polyface("data", "import", "cavi", photos, out, "--option", "splitt=clean")
    assert "split" in told.mistake
    assert (
        "--option split: expected name=value"
        in polyface("data", "import", "folder", photos, out, "--option", "split").mistake
    )


def test_show_counts_labels_words_and_people(polyface: Command, table: Path, tmp_path: Path) -> None:
    told = polyface("data", "show", table, "--picture", tmp_path / "sheet.png", "--count", 3).out
    assert told.startswith(f"{table}: 4 faces\n")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in told.splitlines()[1:]}
    assert lines["smile"] == "3 labelled no 1, yes 2"
    assert lines["identity"] == "4 labelled a 3, b 1"
    assert lines["landmarks_5"] == lines["box"] == "4 labelled"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 100
    assert "no such face table" in polyface("data", "show", tmp_path / "gone.parquet").mistake


def test_check_finds_what_went_bad_after_writing(polyface: Command, table: Path, tmp_path: Path) -> None:
    whole = polyface("data", "check", table)
    assert (whole.status, whole.out) == (0, f"{table}: 0 bad faces\n")
    rows = pq.read_table(table)
    images = rows.column("image").to_pylist()
    images[2]["bytes"] = images[2]["bytes"][:40]
    position = rows.column_names.index("image")
    damaged = rows.set_column(position, rows.field("image"), pa.array(images, rows.field("image").type))
    pq.write_table(damaged, tmp_path / "bad.parquet")
    told = polyface("data", "check", tmp_path / "bad.parquet")
    assert told.status == 1
    assert re.search(r"row 2 .*2.png.*: .*(truncated|corrupt|not an image)", told.out)
    assert told.out.endswith("bad.parquet: 1 bad faces\n")


def test_label_adds_a_models_answers_and_marks_them(
    polyface: Command, table: Path, five: Bundle, tmp_path: Path
) -> None:
    five.boxes = BoxSpec(source="table")
    saved, out = five.save(tmp_path / "asker"), tmp_path / "labelled.parquet"
    told = polyface("data", "label", table, saved, out, "--task", "pose")
    assert told.status == 0, told.err
    faces = FaceTable.open(out)
    assert faces.pseudo("pose") == "toy"  # the name that it was trained under, not its folder's
    assert faces.column("pose").null_count == 0
    assert told.out == f"{out}: 4 faces; labelled by {saved}: pose 4\n"
    assert faces.words("smile").tolist() == ["yes", "no", None, "yes"]  # what people said is as it was
    assert "(answers of toy, not labels)" in polyface("data", "show", out).out
    assert "pseudo-labels may not mix" in polyface("data", "label", table, saved, out, "--task", "smile").mistake
    assert "did you mean 'pose'" in polyface("data", "label", table, saved, out, "--task", "posse").mistake
    without = polyface("data", "label", table, saved, out, "--task", "pose", "--pose").mistake
    assert "pose is measured by landmarks_68" in without


def test_label_measures_pose_by_the_shipped_model(polyface: Command, tmp_path: Path) -> None:
    pictures = sorted((Path(demo.__file__).parent / "faces").rglob("neutral.jpg"))[:3]
    photos = [np.asarray(Image.open(path)) for path in pictures]
    mirrored = [np.ascontiguousarray(photo[:, ::-1]) for photo in photos]
    records = [Record(photo, "", f"{row}.png", {}) for row, photo in enumerate([*photos, *mirrored])]
    write_table(records, tmp_path / "faces.parquet")
    told = polyface("data", "label", tmp_path / "faces.parquet", "face68", tmp_path / "out.parquet", "--pose")
    assert told.status == 0, told.err
    assert told.out.endswith("labelled by face68: landmarks_68 6, pitch 6, pose 6, roll 6, yaw 6\n")
    faces = FaceTable.open(tmp_path / "out.parquet")
    yaw = faces.numbers("yaw")
    assert np.abs(yaw).max() < 15  # they look into the camera
    assert set(faces.words("pose")) == {"frontal"}
    np.testing.assert_allclose(yaw[:3], -yaw[3:], atol=5)
    np.testing.assert_allclose(faces.numbers("pitch")[:3], faces.numbers("pitch")[3:], atol=5)
