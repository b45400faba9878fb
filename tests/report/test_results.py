"""Results files, and figures as tables."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.metrics.result import Row
from polyface.report.results import (
    describe_commit,
    describe_machine,
    format_row,
    markdown_table,
    read_results,
)

from .rows import ALL, FAILURES, FLD, SPEED, write

finite = st.floats(-1e6, 1e6)
rows = st.builds(
    Row,
    row=st.text(min_size=1),
    metric=st.text(min_size=1),
    mean=finite,
    std=st.none() | finite,
    n=st.none() | st.integers(0, 10**6),
    seeds=st.lists(st.integers(0, 99)).map(tuple),
    interval=st.none() | st.tuples(finite, finite).map(lambda ends: (min(ends), max(ends))),
    published=st.none() | finite,
    unit=st.sampled_from(["%", "ms", ""]),
    note=st.text(),
    over=st.sampled_from(["", "faces only", "faces and seeds"]),
    precision=st.sampled_from(["", "bf16-mixed"]),
)


@given(st.lists(rows, min_size=1, unique_by=lambda row: row.key))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, entries: list[Row]) -> None:
    path = tmp_path_factory.mktemp("results") / "some.json"
    written = write(path, *entries)
    read = read_results(path)
    assert read == written
    assert [row.key for row in read.rows] == [row.key for row in entries]
    for row, entry in zip(read.rows, entries, strict=True):
        assert row.mean == pytest.approx(entry.mean, rel=1e-5)
        assert row.interval == (None if entry.interval is None else pytest.approx(entry.interval, rel=1e-5))
        kept = ("n", "seeds", "unit", "note", "over", "precision")
        assert [getattr(row, name) for name in kept] == [getattr(entry, name) for name in kept]


def test_the_file_has_the_documented_keys(tmp_path: Path) -> None:
    write(tmp_path / "tcdcn.json", FLD)
    content = json.loads((tmp_path / "tcdcn.json").read_text())
    assert set(content) == {"rows", "command", "commit", "machine", "data", "date"}
    assert content["rows"] == [
        {
            "row": "FLD (shared)",
            "metric": "mean error",
            "mean": 8.25,
            "std": 0.5,
            "n": 2995,
            "seeds": [0, 1, 2],
            "interval": [8.0, 8.5],
            "published": 9.0,
            "unit": "%",
            "note": "boxes differ",
        }
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", content["date"])


def test_merging_replaces_the_same_row_in_place_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "tcdcn.json"
    write(path, FLD, FAILURES)
    better = Row("FLD (shared)", "mean error", 7.0)
    assert write(path, better, ALL).rows == (better, FAILURES, ALL)
    assert write(path, ALL, merge=False).rows == (ALL,)


def test_kept_rows_stay_credited_to_the_run_that_measured_them(tmp_path: Path) -> None:
    path = tmp_path / "tcdcn.json"
    write(path, FLD, FAILURES, commit="old")
    merged = write(path, FLD, commit="new")
    assert merged.run.commit == "new"
    assert [(run.commit, keys) for run, keys in merged.earlier] == [("old", {FAILURES.key})]
    third = write(path, ALL, commit="third")
    assert {run.commit: keys for run, keys in third.earlier} == {"old": {FAILURES.key}, "new": {FLD.key}}
    # Measured again: nothing of the old run is left, and the same source needs no second entry.
    final = write(path, FAILURES, ALL, commit="new")
    assert final.earlier == ()
    assert "earlier" not in json.loads(path.read_text())


def test_a_failing_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tcdcn.json"
    write(path, FLD)
    before = path.read_bytes()

    def fail(self: Path, text: str, *_: object, **__: object) -> int:
        with open(self, "w") as file:
            file.write(text[: len(text) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, ALL)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix != ".lock"] == ["tcdcn.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable results file"),
        ("[]", "a list 'rows'"),
        ('{"rows": [{"row": "a", "metric": "b", "mean": 1, "mena": 2}]}', "row 0: unknown key 'mena': did you mean"),
        ('{"rows": [{"row": "a", "metric": "b"}]}', "row 0: .*mean"),
        ('{"rows": [{"row": "a", "metric": "b", "mean": NaN}]}', "mean must be a finite number"),
        ('{"rows": [3]}', "row 0: expected an object"),
        ('{"rows": [{"row": ["a"], "metric": "b", "mean": 1}]}', "row 0: row: "),
        ('{"rows": [{"row": "a", "metric": "b", "mean": 1, "seeds": "x"}]}', "row 0: seeds"),
        ('{"rows": [], "earlier": 3}', "earlier: "),
        ('{"rows": [], "earlier": [3]}', "earlier: 0"),
        ('{"rows": [], "earlier": [{"rows": [1]}]}', "earlier 0: rows: 0"),
        ("[" * 100_000, "not a readable results file"),
        ('{"rows": []}', "command"),
    ],
)
def test_a_malformed_file_is_named_with_the_key(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(PolyfaceError, match=f"(?s)bad.json.*{message}"):
        read_results(path)


def test_a_missing_file_or_row_is_explained(tmp_path: Path) -> None:
    with pytest.raises(PolyfaceError, match="no such results file"):
        read_results(tmp_path / "none.json")
    results = write(tmp_path / "tcdcn.json", FLD)
    assert results.get("FLD (shared)", "mean error") == FLD
    with pytest.raises(PolyfaceError, match=r"tcdcn.json: no result 'FLD / mean error'; did you mean 'FLD \(shared\)"):
        results.get("FLD", "mean error")


def test_the_machine_is_described_without_host_or_path() -> None:
    import platform

    machine = describe_machine()
    assert re.search(r"\d+ cores, Python 3\.\d+\.\d+.*, torch \d", machine)
    assert platform.node() not in machine
    assert "/home" not in machine


def test_the_commit_is_marked_dirty_by_code_but_not_by_documents(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    code, document = tmp_path / "src" / "polyface" / "a.py", tmp_path / "docs" / "a.md"
    for path in (code, document):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    git("init", "-q")
    assert describe_commit(code.parent) == "uncommitted"
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    assert describe_commit(code.parent) == commit
    document.write_text("2")
    assert describe_commit(code.parent) == commit
    code.write_text("2")
    assert describe_commit(code.parent) == f"{commit}+dirty"


def test_outside_a_checkout_the_commit_is_the_installed_version(tmp_path: Path) -> None:
    assert re.fullmatch(r"polyface \d.*|unknown", describe_commit(tmp_path))


def test_figures_as_text() -> None:
    assert format_row(FLD) == "8.25 ± 0.50 (8.00–8.50)"
    assert format_row(replace(FLD, mean=0.1, std=None, interval=(-0.5, 0.7))) == "0.10 (-0.50 to 0.70)"
    assert format_row(SPEED) == "1.23"
    assert format_row(Row("net", "parameters", 3412141, unit="")) == "3,412,141"


def test_an_interval_over_faces_only_says_so(tmp_path: Path) -> None:
    one = replace(FLD, std=None, seeds=(0,))
    assert replace(one, note="a; b").notes == ["a", "b", "interval over faces only"]
    results = write(
        tmp_path / "r.json", replace(one, over="pairs only"), replace(FLD, row="three", over="faces and seeds")
    )
    table = markdown_table(results)
    assert "| 8.25 (8.00–8.50) | 9.00 | 1 | 2,995 | interval over pairs only |" in table
    assert "| 8.25 ± 0.50 (8.00–8.50) | 9.00 | 3 | 2,995 |  |" in table
    assert table.endswith("All rows: boxes differ.")


def test_the_precision_of_a_training_is_shown_beside_its_row(tmp_path: Path) -> None:
    results = write(tmp_path / "r.json", replace(FLD, precision="bf16-mixed", note="a; b"), ALL)
    assert json.loads((tmp_path / "r.json").read_text())["rows"][0]["precision"] == "bf16-mixed"
    assert results.rows[0].precision == "bf16-mixed"
    assert "| a; b; trained in bf16-mixed |" in markdown_table(results)


def _write_many(path: Path, writer: int, count: int) -> None:
    for number in range(count):
        write(path, Row(f"writer {writer}", f"figure {number}", float(number)))


def test_two_writers_lose_no_row_of_each_other(tmp_path: Path) -> None:
    path, count = tmp_path / "both.json", 12
    context = get_context("fork")
    others = [context.Process(target=_write_many, args=(path, writer, count)) for writer in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    expected = {(f"writer {writer}", f"figure {number}") for writer in range(2) for number in range(count)}
    assert {row.key for row in read_results(path).rows} == expected


def test_the_table_puts_published_beside_measured(tmp_path: Path) -> None:
    results = write(tmp_path / "tcdcn.json", FLD, FAILURES, ALL)
    assert markdown_table(results).splitlines() == [
        "|  | mean error (%) | published | failure rate (%) | seeds | n | note |",
        "| --- | --: | --: | --: | --: | --: | --- |",
        "| FLD (shared) | 8.25 ± 0.50 (8.00–8.50) | 9.00 | 20.00 ± 1.00 | 3 | 2,995 | boxes differ |",
        "| FLD+all (shared) | 8.00 |  |  | 1 | 2,995 |  |",
    ]
    assert "published" not in markdown_table(results, published=False)


def test_what_figures_of_a_line_have_in_common_is_noted_once(tmp_path: Path) -> None:
    first = Row("peer", "rank-1", 50.0, note="by angle; ± 1.00 over draws")
    results = write(tmp_path / "r.json", first, replace(first, metric="rank-10", note="by angle; ± 2.00 over draws"))
    assert markdown_table(results).endswith("| by angle; ± 1.00 over draws; ± 2.00 over draws |")


def test_what_all_rows_have_in_common_is_said_below(tmp_path: Path) -> None:
    first = Row("a", "error", 5.0, note="by angle; one draw", precision="bf16-mixed", unit="%")
    results = write(tmp_path / "r.json", first, replace(first, row="b", note="one draw"))
    assert markdown_table(results).splitlines() == [
        "|  | error (%) | note |",
        "| --- | --: | --- |",
        "| a | 5.00 | by angle |",
        "| b | 5.00 |  |",
        "",
        "All rows: one draw; trained in bf16-mixed.",
    ]


def test_differences_whose_interval_excludes_0_are_bold(tmp_path: Path) -> None:
    small = Row("a minus b", "error", 0.2, interval=(-0.1, 0.5), unit="%", note="paired; the interval includes 0")
    large = replace(small, row="a minus c", mean=0.4, interval=(0.3, 0.5), note="paired; the interval excludes 0")
    assert markdown_table(write(tmp_path / "r.json", small, replace(large, over="seeds"))).splitlines()[2:] == [
        "| a minus b | 0.20 (-0.10 to 0.50) |",
        "| a minus c | **0.40 (0.30–0.50)** |",
        "",
        "All rows: paired. Bold: the interval excludes 0.",
    ]


def test_rows_and_metrics_are_chosen_and_ordered(tmp_path: Path) -> None:
    results = write(tmp_path / "tcdcn.json", FLD, FAILURES, ALL, SPEED)
    table = markdown_table(results, ["FLD+all (shared)", "FLD (*"], ["mean error"])
    assert re.findall(r"^\| (FLD\S* \(shared\))", table, re.MULTILINE) == ["FLD+all (shared)", "FLD (shared)"]
    assert "failure rate" not in table
    assert "| time (ms) |" in markdown_table(results, ["TCDCN"], ["time"])
    with pytest.raises(PolyfaceError, match=r"tcdcn.json: no row 'FLD \(shred\)': did you mean 'FLD \(shared\)'"):
        markdown_table(results, ["FLD (shred)"])
    with pytest.raises(PolyfaceError, match="no metric 'error'"):
        markdown_table(results, metrics=["error"])


def test_cells_cannot_break_the_table(tmp_path: Path) -> None:
    results = write(tmp_path / "a.json", Row("a|b", "m", 1, note="two\nlines | bars"))
    lines = markdown_table(results).splitlines()
    assert len(lines) == 3
    assert r"a\|b" in lines[2]
    assert r"two lines \| bars" in lines[2]


def test_a_copy_without_history_is_told_its_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYFACE_COMMIT", "abc123")
    assert describe_commit(tmp_path) == "abc123"
