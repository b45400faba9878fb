"""Files that are whole or absent, what is left aside, locks, and files of others that are never replaced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from polyface import files
from polyface.errors import PolyfaceError
from polyface.files import atomic_folder, atomic_path, check_output, check_regular, lock, made_here, read_bytes

WRITER = """
import sys, time
from pathlib import Path
from polyface.files import atomic_folder, atomic_path, lock
kind, path = sys.argv[1], Path(sys.argv[2])
if kind == "lock":
    with lock(path):
        print("ready", flush=True)
        time.sleep(60)
else:
    with (atomic_path if kind == "file" else atomic_folder)(path) as aside:
        (aside if kind == "file" else aside / "part").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


def at_work(kind: str, path: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of writing `path`, or holds its lock."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, kind, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture(autouse=True)
def as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_cleared", set())


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_what_was_there_and_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as aside:
        aside.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["table.txt"]


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127 + "a")  # 255 bytes
    with atomic_path(path) as aside:
        aside.write_text("whole")
    with lock(path):
        assert path.read_text() == "whole"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_aside_is_cleared_and_what_is_being_written_is_not(
    tmp_path: Path, kind: str
) -> None:
    other = at_work(kind, tmp_path / "other")
    killed = at_work(kind, tmp_path / "mine")
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(listed(tmp_path)) == 2
        with atomic_path(tmp_path / "new") as aside:
            aside.write_text("x")
        left = listed(tmp_path)
        assert len(left) == 2
        assert "new" in left
    finally:
        other.kill()
        other.wait()


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for text in ("one", "two"):
        with atomic_folder(folder) as aside:
            (aside / text).write_text(text)
    assert listed(folder) == ["two"]
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as aside:
        raise ZeroDivisionError
    assert listed(folder) == ["two"]
    assert listed(tmp_path) == ["model"]


def test_a_folder_that_was_moved_away_before_a_kill_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with atomic_folder(folder) as aside:
        (aside / "one").write_text("one")
    os.rename(folder, tmp_path / ".model.old")  # a kill between the two renames
    with pytest.raises(ZeroDivisionError), atomic_folder(folder):
        raise ZeroDivisionError
    assert listed(folder) == ["one"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = at_work("lock", path)
    with pytest.raises(PolyfaceError, match="another process is at work"), lock(path):
        raise AssertionError("held twice")
    holder.kill()
    holder.wait()
    with lock(path, wait=5.0):
        pass
    assert listed(tmp_path) == []


COUNTER = """
import sys
from pathlib import Path
from polyface.files import lock
path = Path(sys.argv[1])
for _ in range(100):
    with lock(path, wait=60):
        path.write_text(str(int(path.read_text()) + 1))
"""


def test_a_lock_that_is_removed_when_it_is_let_go_is_still_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    counters = [subprocess.Popen([sys.executable, "-c", COUNTER, str(path)]) for _ in range(3)]
    assert [counter.wait() for counter in counters] == [0, 0, 0]
    assert path.read_text() == "300"
    assert listed(tmp_path) == ["count"]


def test_files_of_others_are_never_replaced_unless_told(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("mine")
    link = tmp_path / "link.txt"
    link.symlink_to(letter)
    for path in (letter, link):
        with pytest.raises(PolyfaceError, match="was not made by Polyface"):
            check_output(path)
        check_output(path, overwrite=True)


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"Exif Polyface drawing of 1")
    (tmp_path / "folder").symlink_to(tmp_path)
    os.link(photo, tmp_path / "again.jpg")
    for path in (photo, tmp_path / "folder" / "photo.jpg", tmp_path / "again.jpg"):
        with pytest.raises(PolyfaceError, match="is read by this command"):
            check_output(path, overwrite=True, inputs=[tmp_path / "missing.jpg", photo])
    check_output(photo)


def test_no_device_and_no_folder_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(PolyfaceError, match=r"is a (folder|device)"):
            check_output(path, overwrite=True)


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PolyfaceError, match="no folder that can be written"):
        check_output(tmp_path / "file" / "new.txt")
    check_output(tmp_path / "a" / "b" / "new.txt")


@pytest.mark.parametrize(
    ("content", "made"),
    [
        (b"", True),
        (b"x" * 2**17, False),
        (b"x" * 2**17 + b"\x18\x10polyface.columns", True),
        (b'{"made_by":"polyface 0.1.0 12ab"' + b"x" * 2**17, True),
        (b"Dear Polyface,\n polyface analyze\n" + b"x" * 2**17, False),
        (b"PAR1" + b"x" * 2**17 + b"/home/me/polyface/one.jpg PAR1", False),
    ],
)
def test_what_polyface_made_says_so_at_an_end(tmp_path: Path, content: bytes, made: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert made_here(path) is made


def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe")
    os.symlink("pipe", "photo.jpg")
    with socket.socket(socket.AF_UNIX) as held:
        held.bind("socket")
        for path in ("pipe", "photo.jpg", "socket", "/dev/zero", "/dev/null"):
            with pytest.raises(PolyfaceError, match=rf"^{path}: not a regular file"):
                read_bytes(path)


def test_files_folders_and_nothing_are_no_pipes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.symlink(tmp_path / "file", tmp_path / "link")
    for path in (tmp_path / "file", tmp_path / "link", tmp_path, tmp_path / "gone", "a" * 300, "a\0b"):
        check_regular(path)
    for path, reason in ((tmp_path, "Is a directory"), ("a" * 300, "File name too long"), ("a\0b", "embedded null")):
        with pytest.raises(PolyfaceError, match=rf"cannot be read \({reason}"):
            read_bytes(path)


def test_an_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    for error in (OSError(28, "No space left on device"), OSError("of a library")):
        with pytest.raises(OSError) as told, atomic_path(tmp_path / "table.parquet"):
            raise error
        assert told.value.filename == (str(tmp_path / "table.parquet") if error.errno else None)
        assert str(told.value).startswith("[Errno 28] No space left" if error.errno else "of a library")
    with pytest.raises(OSError) as told, atomic_path(tmp_path / "table.parquet"):
        raise OSError(13, "Permission denied", "another")
    assert told.value.filename == "another"
