"""Files of settings: what is ambiguous, hidden or without end is told in one line, with its key and line."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from polyface.errors import PolyfaceError
from polyface.training.texts import read_yaml, read_yaml_file


def refused(text: str) -> str:
    with pytest.raises(PolyfaceError) as caught:
        read_yaml(text, "x.yaml")
    message = str(caught.value)
    assert message.startswith("x.yaml: ")
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_plain_values_are_what_they_say() -> None:
    assert read_yaml("a: [0, -0, 0.5, 00x, 0x10]", "") == {"a": [0, 0, 0.5, "00x", 16]}
    text = "a: &a {b: [1, -2.5, true, null, 'null', x y]}\nc: {<<: *a, d: 2}\n"
    inner = [1, -2.5, True, None, "null", "x y"]
    assert read_yaml(text, "") == {"a": {"b": inner}, "c": {"b": inner, "d": 2}}
    assert read_yaml("", "") is None
    assert read_yaml("a: {b: 1, <<: {b: 2}}", "") == {"a": {"b": 1}}  # one's own key is before a merged one


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a: 1\nb: {lr: 1, lr: 2}", r"b.lr \(line 2\): the key is there twice"),
        ("lr: 1\n'lr': 2", r"lr \(line 2\): the key is there twice"),
        ("a: [{b: 1}, {b: 1, b: 1}]", r"a.1.b \(line 1\): the key is there twice"),
        ("a: {<<: {b: 1}, <<: {b: 2}}", r"a.<< \(line 1\): the key is there twice"),
        ("seed: 010", r"seed \(line 1\): 010 means 8; write that"),
        ("seed: 1:30", r"seed \(line 1\): 1:30 means 90; write that"),
        ("lr: 1:30.5", r"1:30.5 means 90.5; write that"),
        ("a: .inf", r"a \(line 1\): .inf is not a finite number"),
        ("\na: [1, .NaN]", r"a.1 \(line 2\): .NaN is not a finite number"),
        ("a: 1.0e+999", "not a finite number"),
        ("-.inf", "-.inf is not a finite number"),
        ("a: 2024-01-31", r"a \(line 1\): timestamp .* in quotes"),
        ("a: 2024-13-45", r"a \(line 1\): timestamp .* in quotes"),
        ("a: !!binary eHl6", "binary"),
        ("a: !!set {b}", "set"),
        ("a: !!python/object/apply:os.system ['true']", "python/object/apply:os.system is no plain value"),
        ("a: !mine 1", "!mine"),
        ("no: 1", "the key no is not a word; put it in quotes"),
        ("a: {1: b}", "the key 1 is not a word"),
        ("a: {[1]: b}", "the key of several values is not a word"),
        ("a: &a [*a]", "stands for what it is part of"),
        ("a: &a {b: {c: *a}}", "stands for what it is part of"),
        ("a: [1\nb: 2", "not YAML .line 2"),
        ("a: *b", "not YAML .*undefined alias"),
        ("a: 1\n---\nb: 2", "not YAML .*another document"),
        ("a: \x01", "not YAML"),
        ("a: " + "9" * 5000, "not YAML .*4300"),
        ("a: " + "[" * 3000, "not YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, "too deep"),
    ],
)
def test_what_is_not_plain_is_told(text: str, expected: str) -> None:
    message = refused(text)
    assert re.search(expected, message), message


def test_aliases_of_aliases_are_refused_at_once() -> None:
    """Nine times nine times nine …: a billion values that YAML holds in nine lines."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    began = time.monotonic()
    assert "more than 100,000 values" in refused("\n".join(lines))
    assert time.monotonic() - began < 5


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for make, expected in (
        (lambda: None, "no such file"),
        (lambda: path.write_bytes("a: é".encode("latin-1")), "from 3 are not UTF-8"),
        (lambda: os.truncate(path, 2**24 + 1), "16,777,217 bytes"),
        (lambda: (path.unlink(), os.mkfifo(path)), "not a regular file"),
        (lambda: (path.unlink(), path.mkdir()), "not a regular file"),
    ):
        make()
        with pytest.raises(PolyfaceError, match=f"x.yaml: .*{expected}"):
            read_yaml_file(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml_file(path) == {"name": "x"}
