"""Answers kept as they are found: what stays, what is answered again, and what is never gone on with."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from polyface.data.images import encode_png
from polyface.errors import PolyfaceError
from polyface.files import lock
from polyface.inference import Analyzer, analyze_into, to_parquet
from polyface.models.bundle import Bundle

BOXES = [20.0, 15, 70, 75], [5.0, 5, 45, 50]
Pictures = Callable[..., np.ndarray]


@pytest.fixture
def analyzer(five: Bundle, told: Any) -> Analyzer:
    return Analyzer(five, detector=told(*BOXES), batch=2)


@pytest.fixture
def photos(picture: Pictures, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "photos" / f"{name}.png" for name in "abcd"]
    paths[0].parent.mkdir()
    for seed, path in enumerate(paths):
        path.write_bytes(encode_png(picture(seed=seed)))
    return paths


def run(analyzer: Analyzer, photos: Sequence[Path], out: Path, stop: int = 99, **options: Any) -> list[str]:
    """The names of those photos that are analyzed, not taken from an earlier run, until `stop` are."""
    new = []
    found = analyze_into(analyzer, photos, out, **options)
    for result, is_new in found:
        new += [Path(str(result.path)).name] if is_new else []
        if len(new) == stop:
            found.close()  # type: ignore[attr-defined]  # as an interrupt does
            break
    return new


def paths(out: Path) -> list[str]:
    return [Path(json.loads(line)["path"]).name for line in out.read_text().splitlines()]


def test_a_line_is_there_as_soon_as_its_answer(analyzer: Analyzer, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "found.jsonl"
    for number, (result, new) in enumerate(analyze_into(analyzer, photos, out), 1):
        last = json.loads(out.read_text().splitlines()[-1])
        assert (len(paths(out)), new) == (number, True)
        assert last == {"made_by": analyzer.id, "file": last["file"]} | result.to_dict()
    assert paths(out) == ["a.png", "b.png", "c.png", "d.png"]


def test_the_same_run_goes_on_and_a_half_line_is_no_answer(
    analyzer: Analyzer, photos: list[Path], tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "found.jsonl"
    run(analyzer, photos, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    for cut in (0, 1, 100, len(lines[2]) - 1):  # where a kill may end the third line
        out.write_bytes(b"".join(lines[:2]) + lines[2][:cut])
        assert run(analyzer, photos, out) == ["c.png", "d.png"]
        assert out.read_bytes() == whole.read_bytes()
    assert run(analyzer, photos, out) == []
    assert [result.to_dict() for result, new in analyze_into(analyzer, photos, out) if not new] == [
        result.to_dict() for result in analyzer(photos)
    ]


def test_what_changed_failed_or_came_since_is_answered_and_nothing_else(
    analyzer: Analyzer, photos: list[Path], picture: Pictures, tmp_path: Path
) -> None:
    out, sound = tmp_path / "found.jsonl", photos[1].read_bytes()
    photos[1].write_bytes(sound[:500])
    assert run(analyzer, photos[:3], out) == ["a.png", "b.png", "c.png"]
    assert "truncated or corrupt" in json.loads(out.read_text().splitlines()[1])["error"]
    photos[1].write_bytes(sound)
    photos[2].write_bytes(encode_png(picture(64, 48)))
    assert run(analyzer, photos, out) == ["b.png", "c.png", "d.png"]
    assert paths(out) == ["a.png", "b.png", "c.png", "d.png"]
    assert '"error"' not in out.read_text()
    assert json.loads(out.read_text().splitlines()[2])["width"] == 64
    photos[3].unlink()  # its answer cannot be made again
    assert run(analyzer, photos[:3], out) == []
    assert paths(out) == ["a.png", "b.png", "c.png", "d.png"]


def test_a_photo_that_is_given_twice_is_answered_twice(analyzer: Analyzer, photos: list[Path], tmp_path: Path) -> None:
    out, given = tmp_path / "found.jsonl", [photos[0]] * 3 + photos[1:2]
    assert run(analyzer, given, out, stop=2) == ["a.png", "a.png"]
    assert run(analyzer, given, out) == ["a.png", "b.png"]
    assert paths(out) == ["a.png"] * 3 + ["b.png"]


def test_answers_of_another_run_are_refused_and_stay(
    analyzer: Analyzer, make: Any, told: Any, photos: list[Path], tmp_path: Path
) -> None:
    out, table = tmp_path / "found.jsonl", tmp_path / "found.parquet"
    others = {
        "model": Analyzer(make(seed=5), detector=told(*BOXES)),
        "averaging": Analyzer(make(), detector=told(*BOXES), average=2),
        "top": Analyzer(make(), detector=told(*BOXES), top=None),
    }
    assert len({analyzer.id, *(other.id for other in others.values())}) == 4
    assert Analyzer(make(), detector=told(*BOXES), batch=7).id == analyzer.id
    for path in (out, table):
        run(analyzer, photos[:2], path)
        before = path.read_bytes()
        for other in others.values():
            with pytest.raises(PolyfaceError, match="answers of other models or options; .* --overwrite"):
                run(other, photos[:2], path)
        with pytest.raises(PolyfaceError, match=r"an answer about .*a\.png, which is not given now; .* --overwrite"):
            run(analyzer, photos[1:], path)
        assert path.read_bytes() == before
        assert run(others["top"], photos[1:], path, overwrite=True) == ["b.png", "c.png", "d.png"]
    assert paths(out) == ["b.png", "c.png", "d.png"]
    assert len(pq.read_table(table)) == 6


def test_overwrite_goes_on_with_its_own_answers(analyzer: Analyzer, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    out.write_text("my notes")
    assert run(analyzer, photos, out, stop=2, overwrite=True) == ["a.png", "b.png"]
    assert run(analyzer, photos, out, overwrite=True) == ["c.png", "d.png"]


@pytest.mark.parametrize(
    "content",
    [b"my notes", b'{"path": "a.png"}\n', b'{"made_by": "polyface", "path": [], "file": 1}\n', b"polyface\n\xff\n"],
)
def test_what_is_no_journal_is_refused_and_stays(
    analyzer: Analyzer, photos: list[Path], tmp_path: Path, content: bytes
) -> None:
    for out in (tmp_path / "notes.jsonl", tmp_path / "notes.parquet"):
        out.write_bytes(content)
        with pytest.raises(PolyfaceError, match=rf"{out.name}: .*--overwrite"):
            run(analyzer, photos, out)
        assert out.read_bytes() == content


def test_a_picture_is_never_the_output(analyzer: Analyzer, photos: list[Path], tmp_path: Path) -> None:
    before = photos[0].read_bytes()
    link, hard = tmp_path / "link.jsonl", tmp_path / "hard.jsonl"
    link.symlink_to(photos[0])
    hard.hardlink_to(photos[0])
    for out in (link, hard):
        with pytest.raises(PolyfaceError, match="is read by this command"):
            run(analyzer, photos, out, overwrite=True)
    with pytest.raises(PolyfaceError, match=r"expected a \.jsonl or \.parquet file"):
        run(analyzer, photos, tmp_path / "found.txt")
    assert photos[0].read_bytes() == before


def test_two_processes_do_not_write_one_file(analyzer: Analyzer, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    with lock(out), pytest.raises(PolyfaceError, match="another process"):
        run(analyzer, photos, out)


# ------------------------------------------------------------------------------------------------------------- Parquet


def test_a_table_is_whole_and_until_then_its_answers_are_json_lines(
    analyzer: Analyzer, photos: list[Path], tmp_path: Path
) -> None:
    out, kept, direct = tmp_path / "found.parquet", tmp_path / "found.parquet.jsonl", tmp_path / "direct.parquet"
    assert run(analyzer, photos, out, stop=3) == ["a.png", "b.png", "c.png"]
    assert not out.exists()
    assert paths(kept) == ["a.png", "b.png", "c.png"]
    assert run(analyzer, photos, out) == ["d.png"]
    assert not kept.exists()
    to_parquet(analyzer(photos), direct)
    assert pq.read_table(out).equals(pq.read_table(direct))  # numbers are as exact as if they had never been text
    before = out.stat()
    assert list(analyze_into(analyzer, photos, out)) == []
    assert out.stat() == before


def test_a_table_that_is_not_what_is_asked_for_is_made_anew(
    analyzer: Analyzer, photos: list[Path], tmp_path: Path
) -> None:
    out, sound = tmp_path / "found.parquet", photos[1].read_bytes()
    photos[1].write_bytes(b"")
    run(analyzer, photos[:2], out)
    assert len(pq.read_table(out)) == 2
    photos[1].write_bytes(sound)
    assert run(analyzer, photos[:2], out) == ["a.png", "b.png"]
    assert len(pq.read_table(out)) == 4
    run(analyzer, photos, out, stop=3)  # the folder has grown, and the run is stopped
    assert len(pq.read_table(out)) == 4
    assert run(analyzer, photos, out) == ["d.png"]
    assert len(pq.read_table(out)) == 8
    assert len(run(analyzer, photos, out, done=lambda photo: photo != photos[2])) == 4


# ----------------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_leaves_whole_lines(analyzer: Analyzer, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    run(analyzer, photos, out)
    whole = out.read_bytes()
    out.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) * 5 // 8, limits[1]))  # ends within the third line
    try:
        with pytest.raises(OSError) as told:
            run(analyzer, photos, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert told.value.filename == os.path.realpath(out)
    assert out.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    assert run(analyzer, photos, out) == ["c.png", "d.png"]
    assert out.read_bytes() == whole
