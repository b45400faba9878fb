"""Trials of a search: kept a line each, none carried out twice."""

from __future__ import annotations

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
