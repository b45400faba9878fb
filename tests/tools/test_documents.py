"""Tables and figures of documents, made from results files."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyface.errors import PolyfaceError
from polyface.metrics.result import Row

from ..report.rows import ALL, FAILURES, FLD, write
from .loading import TOOLS, tool

documents = tool("documents")
documents_are_current, main = documents.documents_are_current, documents.main
render_document, update_document = documents.render_document, documents.update_document

MARKED = """# Title

before
<!-- results: tcdcn rows="FLD (shared); FLD+all (shared)" metrics="mean error" published="no" -->
stale
<!-- /results -->
after

```
<!-- results: absent -->
```
"""


def test_documents_are_regenerated_between_their_markers(tmp_path: Path) -> None:
    write(tmp_path / "tcdcn.json", FLD, FAILURES, ALL)
    document = tmp_path / "docs" / "page.md"
    document.parent.mkdir()
    document.write_text(MARKED)
    assert documents_are_current([document.parent], tmp_path) == [document]
    assert update_document(document, tmp_path) is True
    text = document.read_text()
    assert "stale" not in text
    assert "| FLD (shared) | 8.25 ± 0.50 (8.00–8.50) | 3 | 2,995 | boxes differ |" in text
    assert text.startswith("# Title\n\nbefore\n<!-- results: tcdcn rows=")
    assert text.endswith("<!-- /results -->\nafter\n\n```\n<!-- results: absent -->\n```\n")
    assert update_document(document, tmp_path) is False
    assert documents_are_current([document], tmp_path) == []
    write(tmp_path / "tcdcn.json", Row("FLD (shared)", "mean error", 7.0))
    assert documents_are_current([document], tmp_path) == [document]


TABLE = '<!-- results: tcdcn rows="{}" metrics="{}" -->\n<!-- /results -->'


def test_above_intervals_of_before_it_is_said_how_they_were_made(tmp_path: Path) -> None:
    """Of several seeds, in a file that does not say what an interval is over."""
    one = replace(FLD, row="one seed", seeds=(0,))
    write(tmp_path / "tcdcn.json", FLD, replace(FLD, row="new", over="faces and seeds"), one, FAILURES)
    for rows, told in (("FLD (shared)", True), ("*", True), ("new", False), ("one seed", False)):
        text = render_document(TABLE.format(rows, "mean error"), tmp_path)
        assert ("They are made anew" in text) is told, rows
        assert text.index("| --- |") > (text.index("made anew") if told else 0)
    assert "made anew" not in render_document(TABLE.format("*", "failure rate"), tmp_path)  # has none


def test_what_is_not_measured_yet_is_left_out_where_it_is_expected(tmp_path: Path) -> None:
    write(tmp_path / "tcdcn.json", FLD, ALL)
    plain = render_document(TABLE.format("*", "mean error"), tmp_path)
    hopeful = render_document(TABLE.format("*; soon?", "mean error; * balanced accuracy?"), tmp_path)
    assert hopeful.split("-->", 1)[1] == plain.split("-->", 1)[1]
    assert "*Not measured yet.*" in render_document(TABLE.format("*", "left eye?; right eye?"), tmp_path)
    write(tmp_path / "tcdcn.json", Row("FLD+all (shared)", "smile balanced accuracy", 78.0, seeds=(0,)))
    assert "| smile balanced accuracy (%) |" in render_document(hopeful, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n<!-- results: tcdcn -->", "page:2: this table is not closed"),
        ("<!-- results: tcdcn -->\n<!-- results: tcdcn -->", "page:2: the table opened at page:1"),
        ("<!-- /results -->", "page:1: <!-- /results --> without"),
        ("<!-- results: tcdcn row=a -->\n<!-- /results -->", "page:1: unknown option 'row': did you mean 'rows'"),
        ("<!-- results: tcdcn rows -->\n<!-- /results -->", "page:1: the marker's options"),
        ("<!-- results: tcdcn rows=gone -->\n<!-- /results -->", "page:1: tcdcn.json: no row 'gone'"),
        ("<!-- results: none -->\n<!-- /results -->", "none.json: no such results file"),
    ],
)
def test_wrong_markers_are_errors_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "tcdcn.json", FLD)
    with pytest.raises(PolyfaceError, match=re.escape(message)):
        render_document(text, tmp_path, "page")


FIGURE = '{}<!-- figure: tcdcn row="FLD (shared)" metric="{}"{} -->old<!-- /figure -->'


def test_a_figure_in_a_line_is_regenerated(tmp_path: Path) -> None:
    write(tmp_path / "tcdcn.json", FLD, FAILURES)
    line = FIGURE.format("| a | ", "mean error", "") + " beside " + FIGURE.format("", "mean error", ' published="yes"')
    found = render_document(f"{line}\n```\n{line}\n```", tmp_path)
    shown, *fenced = found.split("\n")
    assert re.sub(r"<!--.*?-->", "", shown) == "| a | 8.25 % beside 9.00 %"
    assert fenced == ["```", line, "```"]
    assert render_document(found, tmp_path) == found
    wide = render_document(FIGURE.format("", "mean error", ' interval="yes"'), tmp_path)
    assert re.sub(r"<!--.*?-->", "", wide) == "8.25 % (8.00–8.50)"


@pytest.mark.parametrize(
    "line, message",
    [
        (FIGURE.format("", "mean eror", ""), "no result 'FLD (shared) / mean eror'; did you mean"),
        (FIGURE.format("", "failure rate", ' published="yes"'), "page:1: no figure was published for FLD (shared)"),
        (
            FIGURE.format("", "mean error", ' published="yes" interval="yes"'),
            "page:1: a published figure has no interval",
        ),
        (FIGURE.format("", "mean error", ' rows="a"'), "page:1: unknown option 'rows': did you mean 'row'?"),
        ("<!-- figure: tcdcn mean error -->1<!-- /figure -->", "page:1: the marker's options must read row="),
    ],
)
def test_a_wrong_marker_of_a_figure_is_an_error(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "tcdcn.json", FLD, FAILURES)
    with pytest.raises(PolyfaceError, match=re.escape(message)):
        render_document(line, tmp_path, "page")


@given(st.text(alphabet="ab #|`\n\r\u2028<!-"))
def test_a_document_without_markers_is_left_alone(text: str) -> None:
    assert render_document(text, Path("nowhere")) == text


def test_the_command_updates_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "tcdcn.json", FLD, ALL)
    document = tmp_path / "page.md"
    document.write_text(MARKED)
    arguments = [str(tmp_path), "--results", str(tmp_path)]
    assert main([*arguments, "--check"]) == 1
    assert document.read_text() == MARKED
    assert main(arguments) == 0
    assert "page.md: updated" in capsys.readouterr().out
    assert main([*arguments, "--check"]) == 0
    assert main([str(tmp_path / "gone.md")]) == 2
    assert "no such document" in capsys.readouterr().err


def test_it_runs_without_loading_torch(tmp_path: Path) -> None:
    write(tmp_path / "tcdcn.json", FLD, ALL)
    (tmp_path / "page.md").write_text(MARKED)
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-W", "error", "-X", "importtime", "-c", code, str(TOOLS / "documents.py")]
    done = subprocess.run([*command, tmp_path, "--results", tmp_path], capture_output=True, text=True, check=True)
    assert "page.md: updated" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in loaded
    assert not loaded & {"torch", "matplotlib", "jinja2"}
