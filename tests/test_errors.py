"""Hints that end errors."""

from __future__ import annotations

from polyface.errors import nearest


def test_nearest_name_or_what_is_known() -> None:
    assert nearest("gendre", ["gender", "smile"]) == "did you mean 'gender'?"
    assert nearest("xyz", ["smile", "gender"]) == "known: gender, smile"
    assert nearest("xyz", []) == "none is known"


def test_a_long_list_is_cut() -> None:
    assert nearest("xyz", [f"{i:03}" for i in range(63)]).endswith("058, 059 and 3 more")
