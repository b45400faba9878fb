"""What is printed is UTF-8 whatever the locale is, nothing that is printed raises, and a name is one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyface import cli
from polyface.cli.common import tell

ANY = "José – 日本 😀 "
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def printed(monkeypatch: pytest.MonkeyPatch, encoding: str, named: str, text: str) -> bytes:
    """What `print` writes to a stream of this encoding once the command has begun; named: PYTHONIOENCODING."""
    raw = io.BytesIO()
    monkeypatch.setenv("PYTHONIOENCODING", named)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, newline=""))
    monkeypatch.setattr(sys, "stderr", None)  # as a program without a window has it
    cli._print_utf8()
    print(text, end="", flush=True)
    return raw.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("named", ["", ":strict"])
def test_output_is_utf8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch, encoding: str, named: str) -> None:
    assert printed(monkeypatch, encoding, named, ANY) == ANY.encode("utf-8")


def test_names_that_are_not_utf8_are_told_and_those_that_are_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    latin, misread = os.fsdecode(b"caf\xe9"), "é".encode().decode("ascii", "surrogateescape")
    assert printed(monkeypatch, "ascii", "", f"{latin} {misread}") == "caf\\udce9 é".encode()


def test_an_encoding_of_ones_own_is_kept_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, "latin-1", "latin-1", "José – \udce9") == b"Jos\xe9 \\u2013 \\udce9"
    line = printed(monkeypatch, "ascii", "ascii:strict", json.dumps({"path": "é–.jpg"}, ensure_ascii=False))
    assert json.loads(line) == {"path": "é–.jpg"}


@pytest.mark.parametrize("environment", [C_LOCALE, {"PYTHONIOENCODING": "latin-1"}, {}])
def test_a_command_tells_any_name_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polyface", "data", "show", b"\xe9\n" + "é–.parquet".encode()]
    without = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", *C_LOCALE)}
    answer = subprocess.run(command, capture_output=True, cwd=tmp_path, env=without | environment, check=False)
    (line,) = answer.stderr.splitlines()
    assert answer.returncode == 1
    coded = "é\\u2013".encode("latin-1") if "PYTHONIOENCODING" in environment else "é–".encode()
    assert (
        line == b"polyface: \\udce9\\n" + coded + b".parquet: no such face table; make one with `polyface data import`"
    )


def test_a_line_on_stderr_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a\nb\x1b[31m.jpg: no face found")
    assert capsys.readouterr().err == "a\\nb\\x1b[31m.jpg: no face found\n"
