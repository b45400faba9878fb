"""Trials of a search: kept a line each, none carried out twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .loading import tool

trials = tool("trials")


def test_a_stopped_search_goes_on_where_it_was(tmp_path: Path) -> None:
    log, ran = tmp_path / "search" / "trials.jsonl", []

    def run(name: str) -> dict[str, Any]:
        ran.append(name)
        if name == "c" and len(ran) < 4:
            raise KeyboardInterrupt
        return {"trial": name, "error": len(ran)}

    def again() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for one in trials.carried_out(log, "abcd", lambda line, name: line["trial"] == name, run):
            assert trials.read(log)[-1] == one  # written before it is told
            found.append(one)
        return found

    assert trials.read(log) == []
    with pytest.raises(KeyboardInterrupt):
        again()
    assert [line["trial"] for line in trials.read(log)] == ["a", "b"]
    assert again() == [{"trial": "c", "error": 4}, {"trial": "d", "error": 5}]
    assert again() == []
    assert ran == ["a", "b", "c", "c", "d"]
    assert [line["error"] for line in trials.read(log)] == [1, 2, 4, 5]


def test_a_rate_is_tried_until_both_neighbours_of_the_best_are_worse() -> None:
    first = (0.001, 0.002, 0.004)
    found: dict[float, float] = {}
    for rate in first:
        assert trials.next_rate(found, first) == rate
        found[rate] = rate
    assert trials.next_rate(found, first) == 0.008
    assert trials.next_rate(found | {0.008: 1.0}, first) == 0.016
    assert trials.next_rate(found | {0.008: 1.0, 0.016: 0.5}, first) is None
    falling = {0.001: 4.0, 0.002: 2.0, 0.004: 1.0}
    assert trials.next_rate(falling, first) == 0.0005
    assert trials.next_rate(falling | {0.0005: 3.0}, first) is None
    small = {0.000025: 2.0, 0.00005: 1.0}
    assert trials.next_rate(small, tuple(small)) == 0.0000125, "half of a small rate loses no digit"


def test_the_command_line_tries_rates_of_the_rows_asked_for_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figure(line: Mapping[str, Any]) -> float:
        return float(line["figure"])

    def run(row: str, rate: float, data: Path, folder: Path, runs: Path) -> dict[str, Any]:
        assert (data, folder, runs) == (Path("faces"), tmp_path, Path("runs"))
        return {"row": row, "rate": rate, "figure": -abs(rate - 0.2)}

    def asked(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["search", "--folder", str(tmp_path), *words])
        trials.search_rates("", Path("elsewhere"), {"a": (0.1,), "b": (0.1,)}, figure, run, written.append)

    written: list[list[dict[str, Any]]] = []
    asked("--row", "a", "--data", "faces")
    asked("--write")
    assert [[(line["row"], line["rate"]) for line in lines] for lines in written] == [
        [("a", 0.1), ("a", 0.2), ("a", 0.4)]
    ]
    with pytest.raises(SystemExit):
        asked()
    assert "trials need --data DIR" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        asked("--row", "c", "--data", "faces")
    assert "no row is called 'c'; there are a, b" in capsys.readouterr().err
