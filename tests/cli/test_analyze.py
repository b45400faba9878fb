"""`polyface analyze`: what is found is kept whatever ends it, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyface import demo
from polyface.data.detector import RetinaFace

Command = Callable[..., Any]
FACES = sorted(Path(demo.__file__).parent.glob("faces/*/neutral.jpg"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, face in enumerate(FACES[:3]):
        shutil.copy(face, folder / f"{number}.jpg")
    return folder


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_answers_go_to_stdout_and_errors_are_told_with_them(polyface: Command, saved: Path, photos: Path) -> None:
    (photos / "1.jpg").write_bytes(b"not a picture")
    Image.new("RGB", (80, 60)).save(photos / "2.jpg")
    told = polyface("analyze", photos, "--model", saved)
    assert told.status == 0
    first, second, third = lines(told.out)
    assert (len(first["faces"]), third["faces"]) == (1, [])
    assert "is not an image" in second["error"]
    assert f"polyface: {second['error']}\n" in told.err
    assert f"{photos / '2.jpg'}: no face found\n" in told.err


def test_only_where_nothing_could_be_analyzed_the_command_fails(
    polyface: Command, saved: Path, photos: Path, tmp_path: Path
) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"")
    told = polyface("analyze", photos, "--model", saved, "--out", tmp_path / "found.jsonl")
    assert "none of 3 images could be analyzed" in told.mistake
    assert [bool(line["error"]) for line in lines((tmp_path / "found.jsonl").read_text())] == [True] * 3
    told = polyface("analyze", photos / "0.jpg", "--model", saved)
    assert told.mistake == f"polyface: {photos / '0.jpg'}: is empty (0 bytes); fetch the file again"
    assert told.err.count("is empty") == 1
    assert lines(told.out)[0]["error"] in told.mistake


def test_outputs_are_checked_before_any_work(
    polyface: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyface.inference.analyzer.load_bundle", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "notes.jsonl").write_text("mine")
    (tmp_path / "folder.jsonl").mkdir()
    for options, what in (
        (("--out", tmp_path / "found.csv"), "expected a .jsonl or .parquet file"),
        (("--out", tmp_path / "notes.jsonl"), "was not made by Polyface"),
        (("--out", tmp_path / "folder.jsonl"), "is a folder"),
        (("--out", tmp_path / "notes.jsonl" / "found.jsonl"), "no folder that can be written"),
        (("--draw", tmp_path / "notes.jsonl"), "no folder that can be written"),
        (("--top", "few"), "--top is 'few': give a number of at least 1, or all"),
    ):
        assert what in polyface("analyze", photos, *options).mistake
    assert (tmp_path / "notes.jsonl").read_text() == "mine"


def test_a_photo_is_not_drawn_over_and_drawings_are_not_analyzed(
    polyface: Command, saved: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    for given in (["0.jpg", "1.jpg", "2.jpg"], ["."], ["."]):
        told = polyface("analyze", *given, "--draw", ".", "--model", saved)
        assert len(lines(told.out)) == 3
        assert "drawn: 0-2.jpg" in told.err
        assert sorted(p.name for p in Path().iterdir()) == sorted([*before, *(f"{n}-2.jpg" for n in range(3))])
    assert {name: Path(name).read_bytes() for name in before} == before
    for name in before:
        Path(name).unlink()
    assert "holds only what was drawn there" in polyface("analyze", ".", "--draw", ".", "--model", saved).mistake


def test_drawings_that_are_missing_are_drawn_from_what_is_known(
    polyface: Command, saved: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (photos, "--model", saved, "--out", tmp_path / "found.jsonl")
    assert polyface("analyze", *options).status == 0
    assert polyface("analyze", *options, "--draw", tmp_path / "drawn").err.count("drawn: ") == 3
    (tmp_path / "drawn" / "1.jpg").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("polyface.data.detector.RetinaFace.__call__", lambda *_: pytest.fail("analyzed again"))
        told = polyface("analyze", *options, "--draw", tmp_path / "drawn")
    assert told.status == 0
    assert f"drawn: {tmp_path / 'drawn' / '1.jpg'}" in told.err
    assert told.err.count("drawn: ") == 1
    table = (photos, "--model", saved, "--out", tmp_path / "found.parquet")
    assert polyface("analyze", *table).status == 0
    assert "there is nothing left to analyze" in polyface("analyze", *table).err
    assert polyface("analyze", *table, "--draw", tmp_path / "more").err.count("drawn: ") == 3
    assert len(pq.read_table(tmp_path / "found.parquet")) == 3


# ------------------------------------------------------------------------------------------------------------ endings


def started(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command as from a terminal: a shell's background job, and what it starts, ignores SIGINT."""
    command = [sys.executable, "-m", "polyface", "analyze", *map(str, arguments)]
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heeding}
    return subprocess.Popen(command, text=True, **(pipes | options))


@pytest.mark.parametrize("ending, suffix", [(signal.SIGINT, "parquet"), (signal.SIGKILL, "jsonl")])
def test_whatever_ends_it_the_same_command_goes_on(
    polyface: Command, saved: Path, photos: Path, tmp_path: Path, ending: int, suffix: str
) -> None:
    out, many = tmp_path / f"found.{suffix}", [photos / f"{number % 3}.jpg" for number in range(600)]
    kept = tmp_path / ("found.jsonl" if suffix == "jsonl" else "found.parquet.jsonl")
    arguments = (*many, "--model", saved, "--out", out, "--batch", "2", "--max-side", "640")
    process = started(*arguments)
    while process.poll() is None and not (kept.exists() and kept.stat().st_size > 2000):
        time.sleep(0.02)
    process.send_signal(ending)
    _, told = process.communicate(timeout=60)
    assert "Traceback" not in told
    assert process.returncode == (130 if ending == signal.SIGINT else -ending)
    if ending == signal.SIGINT:
        assert told.splitlines()[-1].endswith(f"{kept} holds what was found, and the same command goes on with it")
    found = [line for line in kept.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert 2 <= len(found) < 600
    many = many[: len(found) + 4]
    assert polyface("analyze", *many, *arguments[600:]).status == 0
    if suffix == "jsonl":
        assert out.read_text().startswith("".join(found))
        assert [line["path"] for line in lines(out.read_text())] == [str(path) for path in many]
    else:
        assert pq.read_table(out)["path"].to_pylist() == [str(path) for path in many]
        assert not kept.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_an_interrupt_without_out_says_that_the_next_run_begins_again(
    polyface: Command, saved: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are written before the next picture is read, so the one that stops it costs no earlier one."""
    detect = RetinaFace.__call__

    def detector(self: RetinaFace, image: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(image)
        return detect(self, image)

    seen: list[Any] = []
    monkeypatch.setattr(RetinaFace, "__call__", detector)
    told = polyface("analyze", photos, "--model", saved, "--batch", "1")
    assert (told.status, len(lines(told.out))) == (130, 2)
    assert told.err.splitlines()[-1] == ("polyface: interrupted after 2 of 3 images; the same command begins again")


def test_a_reader_that_goes_away_ends_it_without_a_word(saved: Path, photos: Path) -> None:
    process = started(*[photos] * 200, "--model", saved, "--batch", "1")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=60)
    assert process.stderr is not None
    told = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in told
    assert "Exception ignored" not in told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_one_line(saved: Path, photos: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "polyface", "analyze", str(photos), "--model", str(saved)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("polyface: No space left on device")
    assert "Traceback" not in done.stderr
