"""What a gallery promises of the disk: no acknowledged face is lost, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.gallery.format import names_of
from polyface.gallery.gallery import Gallery
from polyface.gallery.types import Precomputed

EMBEDDER = Precomputed("net", 8, "euclidean")
LOG, VECTORS = "faces-0.jsonl", "vectors-0.f32"


def draw(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)


def filled(folder: Path, *batches: int) -> Gallery:
    """An open gallery: one person a batch, p0, p1, …"""
    gallery = Gallery.create(folder, EMBEDDER)
    for number, count in enumerate(batches):
        gallery.enrol_embeddings(draw(count, number), f"p{number}")
    return gallery


def holds(folder: Path, *batches: int, write: bool = True) -> None:
    """That exactly these faces are there, each with its own embedding."""
    with Gallery.open(folder, write=write) as gallery:
        assert gallery.people() == {f"p{number}": count for number, count in enumerate(batches) if count}
        for number, count in enumerate(batches):
            if count:
                found = gallery.search_embeddings(draw(count, number), top=1, by="image")
                assert {match.person for (match,) in found} == {f"p{number}"}
                assert max(match.distance for (match,) in found) < 1e-3


# ------------------------------------------------------------------------------------------------------------ the kill

ADD = """
import sys
import time
import numpy as np
from polyface.gallery.gallery import Gallery
with Gallery.open(sys.argv[1], write=True) as gallery:
    for number in range(int(sys.argv[2]), 100_000):
        vectors = np.random.default_rng(number).standard_normal((5, 8)).astype(np.float32)
        gallery.enrol_embeddings(vectors, f"p{number}")
        print(number, flush=True)
"""


def test_killed_while_adding_it_holds_every_acknowledged_face(tmp_path: Path) -> None:
    filled(tmp_path / "g").close()
    start = 0
    for kill_at in (0, 3, 17, 40):
        command = [sys.executable, "-c", ADD, str(tmp_path / "g"), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            last = start - 1
            for line in process.stdout:
                last = int(line)
                if last >= start + kill_at:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            last = max([last, *map(int, process.stdout)])  # acknowledged before the signal came
        assert process.returncode == -signal.SIGKILL
        with Gallery.open(tmp_path / "g") as gallery:
            people = gallery.people()
            assert set(people.values()) == {5}
            assert [f"p{number}" in people for number in range(last + 1)] == [True] * (last + 1)
        start = len(people)
    holds(tmp_path / "g", *[5] * start)


CHANGE = """
import sys
import time
from polyface.gallery import index
from polyface.gallery.gallery import Gallery
index.LEAST = 32
print("started", flush=True)
for name in sys.argv[2:]:
    with Gallery.open(sys.argv[1], write=True) as gallery:
        gallery.remove(name)
        gallery.build_index()
        gallery.compact()
    print(name, flush=True)
"""


def test_killed_while_removing_it_forgets_whom_it_said_and_clears_what_was_left(tmp_path: Path) -> None:
    """At random moments; the removals that were not acknowledged are then asked for again."""
    folder, left = tmp_path / "g", {f"p{number}" for number in range(40)}
    with Gallery.create(folder, EMBEDDER, "approximate") as gallery:
        gallery.enrol_embeddings(draw(4000), [f"p{number}" for number in range(40)] * 100)
    for wait in np.random.default_rng().uniform(0, 0.3, 3):
        command = [sys.executable, "-c", CHANGE, str(folder), *sorted(left)[:-2]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
            said = set(process.stdout.read().split())
        with Gallery.open(folder) as gallery:
            here = set(gallery.people())
            assert here <= left - said
            assert len(here) >= len(left - said) - 1  # one removal was under way at most
            assert len(gallery) == 100 * len(here)
        left -= said
        if name := min(left - here, default=None):
            again = subprocess.run([sys.executable, "-c", CHANGE, str(folder), name], capture_output=True, text=True)
            assert again.returncode == 0 or "no person is called" in again.stderr  # all was done but the saying
            left = here
    with Gallery.open(folder, write=True) as gallery:
        expected = {"gallery.json", "lock", *names_of(gallery._store.manifest.generation)}
        built = gallery._store.manifest.built
        assert {path.name for path in folder.iterdir()} == expected | ({built.file} if built else set())
        gallery._store.check()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A gallery that was never closed, as a crash leaves it, and where each line of its log ends."""
    folder = tmp_path_factory.mktemp("written") / "g"
    gallery = filled(folder, 3, 1, 4)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    gallery.close()
    ends = np.flatnonzero(np.frombuffer((copy / LOG).read_bytes(), np.uint8) == ord("\n")) + 1
    return copy, ends.tolist()


@given(place=st.floats(0, 1), more=st.integers(0, 40))
@settings(max_examples=40)
def test_a_log_that_ends_anywhere_opens_with_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[Path, list[int]], place: float, more: int
) -> None:
    source, ends = written
    folder = tmp_path_factory.mktemp("cut") / "g"
    shutil.copytree(source, folder)
    cut = round(place * ends[-1])
    os.truncate(folder / LOG, cut)
    whole = sum(end <= cut for end in ends)
    faces = sum((3, 1, 4)[:whole])
    os.truncate(folder / VECTORS, min(faces * 32 + more, 8 * 32))  # vectors are on the disk before their line
    holds(folder, *(3, 1, 4)[:whole], write=False)
    holds(folder, *(3, 1, 4)[:whole])
    assert os.path.getsize(folder / VECTORS) == faces * 32
    with Gallery.open(folder, write=True) as gallery:  # and it goes on
        gallery.enrol_embeddings(draw(2, whole), f"p{whole}")
    holds(folder, *(3, 1, 4)[:whole], 2)


# ---------------------------------------------------------------------------------------------------------- interrupts


@contextmanager
def failing(patch: pytest.MonkeyPatch, at: int, error: BaseException) -> Iterator[list[str]]:
    """The at-th write to the disk (write, sync, truncation aside) fails, half done if it is a write."""
    calls: list[str] = []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            if len(calls) == at:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise error
            return real(*arguments)

        return call

    with patch.context() as local:
        for name in ("write", "fsync", "replace"):
            local.setattr(os, name, wrapped(name, getattr(os, name)))
        yield calls


ACTIONS: dict[str, tuple[Callable[[Gallery], Any], tuple[int, ...]]] = {
    "enrol": (lambda g: g.enrol_embeddings(draw(2, 2), "p2"), (3, 4, 2)),
    "remove": (lambda g: g.remove("p1"), (3, 0)),
    "correct": (lambda g: g.merge("p0", into="p1"), (0, 7)),
    "compact": (lambda g: (g.remove("p1"), g.compact()), (3, 0)),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failed_write_leaves_the_state_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, error: BaseException
) -> None:
    do, after = ACTIONS[action]
    for at in range(1, 40):
        folder = tmp_path / str(at)
        gallery = filled(folder, 3, 4)
        told: BaseException | None = None
        with failing(monkeypatch, at, error) as calls:
            try:
                do(gallery)
            except (KeyboardInterrupt, PolyfaceError) as raised:
                told = raised
        if isinstance(told, PolyfaceError):
            assert re.search(r"No space left on device.*safe", str(told))
        people = gallery.people()
        gallery.close()
        expected = [{f"p{number}": count for number, count in enumerate(state) if count} for state in ((3, 4), after)]
        assert people in expected
        if action != "correct":  # which leaves faces under another name than they are asked by
            holds(folder, *((3, 4) if people == expected[0] else after))
        if len(calls) < at:
            assert people == expected[1]
            break
    assert at >= 3  # a write and its sync at least were made to fail


def test_a_full_disk_is_told_in_one_line_of_what_was_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its closing fails as well."""
    filled(tmp_path / "g", 3).close()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    gallery = Gallery.open(tmp_path / "g", write=True)
    gallery.enrol_embeddings(draw(4, 1), "p1")

    def add() -> None:
        with gallery:
            for name in ("write", "replace"):
                monkeypatch.setattr(os, name, full)
            gallery.enrol_embeddings(draw(2, 2), "p2")

    with pytest.raises(PolyfaceError, match="nothing of it was stored, the 7 faces"):
        add()
    monkeypatch.undo()
    holds(tmp_path / "g", 3, 4)


# -------------------------------------------------------------------------------------------------------------- damage


@given(data=st.data(), name=st.sampled_from([LOG, VECTORS, "gallery.json"]), truncate=st.booleans())
@settings(max_examples=60)
def test_a_damaged_file_is_told_in_one_line_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, closed: Path, data: st.DataObject, name: str, truncate: bool
) -> None:
    """Whatever byte changes, wrong faces are never shown: an error names the file, or all is as it was."""
    folder = tmp_path_factory.mktemp("damaged") / "g"
    shutil.copytree(closed, folder)
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if truncate:
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    told = ""
    try:
        holds(folder, 3, 4, write=data.draw(st.booleans()))
    except PolyfaceError as error:
        told = str(error)
    assert "\n" not in told
    assert str(folder) in told if told else name == "gallery.json"
    if name == "gallery.json" and not told:  # it was a blank, or a figure of an error is to follow
        assert json.loads(content) == json.loads((closed / name).read_bytes())


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("closed") / "g"
    filled(folder, 3, 4).close()
    return folder


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def edit(folder: Path, sealed: bool = True, **changes: Any) -> None:
    """Change keys of the manifest; not sealed: as earlier versions wrote it, without a checksum."""
    told = json.loads((folder / "gallery.json").read_text()) | changes
    if not sealed:
        del told["sha256"]
    (folder / "gallery.json").write_text(json.dumps(told, indent=1))


EDITS: dict[str, Any] = {"format": 2, "embedder": "other", "dim": 4, "similarity": "cosine", "index": "exact"}
EDITS |= {"generation": 1, "next_id": 99, "faces": 1, "people": 1, "log_bytes": 0, "log_sha256": "0" * 64}
EDITS |= {
    "built": {"file": "index-1.faiss", "sha256": "0", "faces": 1, "last_id": 0, "recall": 1, "refine": 1, "kind": ""}
}
EDITS |= {"sha256": "0" * 64}


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("key", EDITS)
def test_every_key_of_the_manifest_is_under_its_checksum(closed: Path, tmp_path: Path, key: str, write: bool) -> None:
    shutil.copytree(closed, tmp_path / "g")
    edit(tmp_path / "g", **{key: EDITS[key]})
    before = state(tmp_path / "g")
    with pytest.raises(PolyfaceError, match="gallery.json"):
        Gallery.open(tmp_path / "g", write=write)
    assert state(tmp_path / "g") == before


def test_a_gallery_of_an_earlier_version_opens_and_is_sealed(closed: Path, tmp_path: Path) -> None:
    shutil.copytree(closed, tmp_path / "g")
    edit(tmp_path / "g", sealed=False)
    holds(tmp_path / "g", 3, 4, write=False)
    with Gallery.open(tmp_path / "g", EMBEDDER, write=True) as gallery:
        gallery.enrol_embeddings(draw(2, 2), "p2")
    assert "sha256" in json.loads((tmp_path / "g" / "gallery.json").read_text())
    holds(tmp_path / "g", 3, 4, 2)


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("key", ["dim", "embedder", "similarity", "generation", "log_bytes", "log_sha256"])
def test_a_refused_command_changes_nothing(closed: Path, tmp_path: Path, key: str, unfinished: bool) -> None:
    """Of an earlier version's gallery, too, whose manifest has no checksum; not even what a crash left is dropped."""
    folder = tmp_path / "g"
    shutil.copytree(closed, folder)
    changes = EDITS | {"log_bytes": 17}
    edit(folder, sealed=False, **{key: changes[key]})
    if unfinished:
        with open(folder / VECTORS, "ab") as file:
            file.write(bytes(7))
        (folder / "index-9.faiss").write_bytes(b"left by a crash")
    before = state(folder)
    with pytest.raises(PolyfaceError, match=r"g\b"):
        Gallery.open(folder, EMBEDDER, write=True)
    assert state(folder) == before
    edit(folder, **{key: json.loads((closed / "gallery.json").read_text())[key]})  # and it is as good as it was
    holds(folder, 3, 4)
    assert not (folder / "index-9.faiss").exists()


@pytest.mark.parametrize("name", [LOG, VECTORS, "gallery.json"])
def test_a_missing_file_is_named(closed: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(closed, tmp_path / "g")
    (tmp_path / "g" / name).unlink()
    with pytest.raises(PolyfaceError, match=name):
        Gallery.open(tmp_path / "g")


def test_a_line_of_another_log_is_noticed(closed: Path, tmp_path: Path) -> None:
    """Whole lines with right checksums, but not those that the gallery was closed with."""
    shutil.copytree(closed, tmp_path / "g")
    lines = (tmp_path / "g" / LOG).read_bytes().splitlines(keepends=True)
    (tmp_path / "g" / LOG).write_bytes(b"".join(reversed(lines)))
    with pytest.raises(PolyfaceError, match="is not the log"):
        Gallery.open(tmp_path / "g")


def test_a_damaged_vector_can_be_removed_with_its_person(closed: Path, tmp_path: Path) -> None:
    shutil.copytree(closed, tmp_path / "g")
    content = bytearray((tmp_path / "g" / VECTORS).read_bytes())
    content[4 * 32 + 3] ^= 64
    (tmp_path / "g" / VECTORS).write_bytes(content)
    with Gallery.open(tmp_path / "g", write=True) as gallery:
        with pytest.raises(PolyfaceError, match=r"vector 4 \('p1'.*is damaged"):
            gallery.search_embeddings(draw(1))
        gallery.remove("p1")
        gallery.compact()
    holds(tmp_path / "g", 3)


# ------------------------------------------------------------------------------------------------- writers and readers


def test_one_writes_and_others_read(tmp_path: Path) -> None:
    with filled(tmp_path / "g", 3) as writer:
        with pytest.raises(PolyfaceError, match="another process is writing"):
            Gallery.open(tmp_path / "g", write=True)
        with Gallery.open(tmp_path / "g") as reader:
            writer.enrol_embeddings(draw(1, 1), "p1")
            assert (len(reader), len(writer)) == (3, 4)
            with pytest.raises(PolyfaceError, match="opened for reading"):
                reader.enrol_embeddings(draw(1, 1), "p1")
            writer.remove("p0")
            writer.compact()
            assert reader.search_embeddings(draw(1), top=1)[0][0].person == "p0"  # as it was when opened
    with pytest.raises(PolyfaceError, match="it was closed"):
        writer.enrol_embeddings(draw(1), "p0")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear")
    with pytest.raises(PolyfaceError, match=r"diary.txt.*new or empty folder"):
        Gallery.create(tmp_path, EMBEDDER)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    filled(tmp_path / "g", 1).close()
    with pytest.raises(PolyfaceError, match="is a gallery already"):
        Gallery.create(tmp_path / "g", EMBEDDER)


def test_removal_is_final(tmp_path: Path) -> None:
    """In searches at once, in the log for ever, and after compaction in no byte of any file."""
    with filled(tmp_path / "g", 3, 4) as gallery:
        assert gallery.remove("p1") == 4
        assert {match.person for match in gallery.search_embeddings(draw(4, 1), top=9, by="image")[0]} == {"p0"}
    holds(tmp_path / "g", 3)
    with Gallery.open(tmp_path / "g", write=True) as gallery:
        assert gallery.info().removed == 4
        assert (gallery.compact(), gallery.compact()) == (4, 0)
        assert gallery.info().removed == 0
    content = b"".join(path.read_bytes() for path in (tmp_path / "g").iterdir())
    assert b"p1" not in content
    assert not any(vector.tobytes() in content for vector in draw(4, 1))
    assert all(vector.tobytes() in content for vector in draw(3, 0))
    holds(tmp_path / "g", 3)
