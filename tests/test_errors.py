"""Hints that end errors."""

from __future__ import annotations

import os
import pickle

import pytest

from polyface.errors import PolyfaceError, nearest, one_line, utf8


def test_nearest_name_or_what_is_known() -> None:
    assert nearest("gendre", ["gender", "smile"]) == "did you mean 'gender'?"
    assert nearest("xyz", ["smile", "gender"]) == "known: gender, smile"
    assert nearest("xyz", []) == "none is known"


def test_a_long_list_is_cut() -> None:
    assert nearest("xyz", [f"{i:03}" for i in range(63)]).endswith("058, 059 and 3 more")
    long = nearest("xyz", [f"{i:03} / " + 94 * "m" for i in range(40)])  # of 102 letters each with what parts them
    assert long.endswith(" and 26 more")
    assert nearest("xyz", [3000 * "m"]) == "known: " + 3000 * "m"


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("plain.jpg", "plain.jpg"),
        ("José–日本😀.jpg", "José–日本😀.jpg"),
        (b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "caf\\udce9.jpg"),  # Latin-1 on the disk
        ("é.jpg".encode().decode("ascii", "surrogateescape"), "é.jpg"),  # UTF-8 on the disk, read in a C locale
        ("\ud83d.jpg", "\\ud83d.jpg"),  # half a character, as Windows keeps it
    ],
)
def test_any_name_is_told_in_utf8(name: str, held: str) -> None:
    assert utf8(name) == held
    assert utf8(held) == held


def test_every_byte_is_kept_apart() -> None:
    names = [utf8(os.fsdecode(bytes([first]))) for first in range(1, 256)]
    assert len(set(names)) == 255
    assert all(name.encode("utf-8") for name in names)


def test_a_line_stays_one_line_and_moves_no_cursor() -> None:
    assert one_line("a\nb\r\x1b[2J\x85\u2028c\td") == "a\\nb\\r\\x1b[2J\\x85\\u2028c\td"
    assert one_line('‘Ann’ "B" می‌خواهم') == '‘Ann’ "B" می‌خواهم'  # quotes and joiners are text


def test_an_error_is_one_line_whatever_it_names() -> None:
    error = PolyfaceError("a\nb.jpg: is truncated")
    assert str(error) == "a\\nb.jpg: is truncated"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301
