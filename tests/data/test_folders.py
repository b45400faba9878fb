"""What a folder holds: one rule for endings, hidden, linked and closed folders, and a line for what is passed over."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from polyface.data import images
from polyface.data.folders import Held, look, pictures
from polyface.data.images import decode, suffixes
from polyface.data.readers import reader
from polyface.data.writing import Record, Skipped
from polyface.errors import PolyfaceError

from ..toys import noise


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def found(held: Held) -> list[str]:
    return [name.as_posix() for name in held.files]


# ------------------------------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (".jpg", "JPEG"),
        (".jpe", "JPEG"),
        (".jfif", "JPEG"),
        (".mpo", "JPEG"),
        (".apng", "PNG"),
        (".tif", "TIFF"),
        (".webp", "WEBP"),
        (".tga", "TGA"),
        (".pnm", "PPM"),
        (".j2k", "JPEG2000"),
    ],
)
def test_what_is_decoded_is_found(tmp_path: Path, ending: str, kind: str) -> None:
    for name in (f"a{ending}", f"B{ending.upper()}"):
        Image.fromarray(noise(8, 8)).save(tmp_path / name, kind)
        assert decode(tmp_path / name).shape == (8, 8, 3)
    assert found(look(tmp_path)) == [f"B{ending.upper()}", f"a{ending}"]


def test_formats_that_are_not_decoded_are_not_found() -> None:
    assert not suffixes() & {".eps", ".ps", ".pdf", ".mpg", ".psd", ".ico", ".h5", ".txt", ""}


def test_a_photo_of_an_iphone_is_read_where_its_extra_is_there(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    assert ".heic" in suffixes()
    array = noise(64, 48)
    Image.fromarray(array).save(tmp_path / "a.heic", quality=95, chroma=444)
    assert found(look(tmp_path)) == ["a.heic"]
    assert abs(decode(tmp_path / "a.heic").astype(int) - array).mean() < 4


def test_without_its_extra_the_line_and_the_error_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = tuple(name for name in images._formats() if name != "HEIF")
    monkeypatch.setattr(images, "_formats", lambda: without)
    images.suffixes.cache_clear()
    try:
        (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1")
        put(tmp_path, "b.HIF", "c.txt")
        told = look(tmp_path).told()
        assert told == (
            "passed over: 1 .heic (pip install 'polyface[heic]' reads them), "
            "1 .hif (pip install 'polyface[heic]' reads them), 1 .txt"
        )
        with pytest.raises(PolyfaceError, match=r"pip install 'polyface\[heic\]' reads them"):
            decode(tmp_path / "a.heic")
    finally:
        images.suffixes.cache_clear()


# --------------------------------------------------------------------------------------------------------- one rule


def test_what_is_passed_over_is_counted_by_its_ending(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.txt", "c.TXT", "d.md", "README", "Dr. Strange and others", ".DS_Store", ".git/x.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("nowhere", tmp_path / "gone.jpg")
    os.symlink("circle.jpg", tmp_path / "circle.jpg")
    held = look(tmp_path)
    assert found(held) == ["a.jpg"]
    assert held.told() == "passed over: 3 not a file, 2 .txt, 2 hidden, 2 without an ending, 1 .md"


def test_a_line_stays_short(tmp_path: Path) -> None:
    put(tmp_path, *(f"a.{number:03}" for number in range(100)))
    assert re.fullmatch(r"passed over: (1 \.\d{3}, ){12}88 of other kinds", look(tmp_path).told())


def test_nothing_passed_over_is_no_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "a.jpg")
    assert pictures(tmp_path) == [Path("a.jpg")]
    assert not caplog.records


def test_one_line_whatever_the_folder_is_called(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = put(tmp_path / "two\nlines", "a.jpg", "b.txt")
    assert pictures(folder) == [Path("a.jpg")]
    (line,) = caplog.messages
    assert line == f"{tmp_path}/two\\nlines: passed over: 1 .txt"


def test_files_come_in_the_order_of_their_paths_and_of_other_endings_too(tmp_path: Path) -> None:
    put(tmp_path, "b/2.jpg", "b.jpg", "a/c/1.jpg", "a/1.PTS", "a.pts", "a/.x.pts")
    assert found(look(tmp_path)) == ["a/c/1.jpg", "b/2.jpg", "b.jpg"]
    assert found(look(tmp_path, (".pts",))) == ["a/1.PTS", "a.pts"]


def test_a_linked_folder_is_followed_once(tmp_path: Path) -> None:
    put(tmp_path, "root/own/1.jpg", "elsewhere/2.jpg", "elsewhere/deep/3.jpg")
    for name in ("a", "b"):
        os.symlink("../elsewhere", tmp_path / "root" / name)
    os.symlink("own", tmp_path / "root" / "again")  # its real place is in the tree itself
    os.symlink("own/1.jpg", tmp_path / "root" / "file.jpg")
    held = look(tmp_path / "root")
    assert found(held) == ["a/2.jpg", "a/deep/3.jpg", "file.jpg", "own/1.jpg"]
    assert held.told() == "passed over: 2 linked to twice"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    put(tmp_path, "root/a/1.jpg", "b/2.jpg")
    os.symlink("..", tmp_path / "root" / "a" / "up")
    os.symlink("../root", tmp_path / "b" / "back")
    os.symlink("../../b", tmp_path / "root" / "a" / "other")
    assert found(look(tmp_path / "root")) == ["a/1.jpg", "a/other/2.jpg"]


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    put(tmp_path, ".photos/1.jpg")
    assert pictures(tmp_path / ".photos") == [Path("1.jpg")]


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which "closed" cannot be opened; of root, whom no rights hold, it is only said."""
    put(tmp_path, "open/1.jpg", "closed/2.jpg")
    scan: Callable[[str], object] = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return tmp_path


def test_a_folder_that_cannot_be_opened_is_an_error_that_names_it(closed: Path) -> None:
    line = rf"^{closed}/closed: this folder cannot be opened \(Permission denied\)"
    with pytest.raises(PolyfaceError, match=line):
        pictures(closed)
    with pytest.raises(PolyfaceError, match=rf"^{closed}/closed: this folder"):
        pictures(closed / "closed")


def test_an_import_skips_and_reports_it(closed: Path) -> None:
    skipped, taken = reader("folder").records(closed)
    assert skipped == Skipped(f"{closed}/closed", "this folder cannot be opened (Permission denied)")
    assert isinstance(taken, Record)
    assert taken.path == "open/1.jpg"


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match=r"holds no image \(it is empty\)"):
        pictures(tmp_path)
    put(tmp_path, "a.txt")
    with pytest.raises(PolyfaceError, match=r"holds no image \(passed over: 1 \.txt\)"):
        pictures(tmp_path)


# ---------------------------------------------------------------------------------------------------- the folder reader


def test_people_whose_folders_are_spelt_alike_are_one(tmp_path: Path) -> None:
    put(tmp_path, "José/1.jpg", "Jose\u0301/2.jpg", "Ann/3.jpg", "Ann /4.jpg")
    records = list(reader("folder").records(tmp_path))
    assert {record.path[-5:]: record.labels["identity"] for record in records} == {
        "1.jpg": "José",
        "2.jpg": "José",
        "3.jpg": "Ann",
        "4.jpg": "Ann",
    }


def test_a_folder_that_names_nobody_costs_its_own_photos_alone(tmp_path: Path) -> None:
    put(tmp_path, " /1.jpg", "two\nlines/2.jpg", "Ann/3.jpg")
    blank, taken, lines = reader("folder").records(tmp_path)
    assert taken.labels == {"identity": "Ann"}
    for skipped in (blank, lines):
        assert isinstance(skipped, Skipped)
        assert "give a word or more, in one line" in skipped.reason


def test_names_that_are_not_utf8_are_taken_under_one_that_is(tmp_path: Path) -> None:
    name = os.fsdecode(b"Ren\xe9")
    put(tmp_path, f"{name}/a.jpg", "Ann/b.jpg")
    first, second = reader("folder").records(tmp_path)
    assert (first.path, second.path) == ("Ann/b.jpg", "Ren\\udce9/a.jpg")
    assert second.labels == {"identity": "Ren\\udce9"}
    assert second.image.exists()
