"""General rooms name no paper and no data set: what knows one lies in a room that is about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "polyface"
EXEMPT = ("weighting", "networks/trunks", "networks/pretrained", "data/readers", "papers")
"""Where names of papers and data sets belong."""
TRUNK = "tcdcn"
"""A trunk has the name of its paper, which rooms that name trunks may say."""

PAPERS = ("tcdcn", "dmm", "cavinet", "ming", "mao")
_OF_FACES = ("cavi", "webcaricature", "celeba", "lfwa", "lfw", "cfp", "ijba")
DATA_SETS = (*_OF_FACES, "mtfl", "aflw", "helen", "lfpw", "300w", "ibug")
WORDS = re.compile(rf"(?i)(?<![a-z0-9])({'|'.join(PAPERS + DATA_SETS)})(?![a-z0-9])")
FILES = [path for path in SOURCE.rglob("*.py") if not path.relative_to(SOURCE).as_posix().startswith(EXEMPT)]


def docstrings(tree: ast.Module) -> set[int]:
    """The nodes that are docstrings: strings that stand alone, those below a constant among them."""
    alone = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    return {id(value) for value in alone if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def named(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every string and identifier of code, comments and docstrings aside."""
    told = docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield line, node.value
        for field in ("id", "attr", "arg", "name", "module"):
            if isinstance(text := getattr(node, field, None), str):
                yield line, text.replace("_", " ")


def test_a_name_in_code_is_seen() -> None:
    code = ast.parse(
        '"""Of CaVI."""\nfrom a.readers import cavi\nX = {"lfwa ": 1}\ndef pairs_of_mtfl(): """Of MTFL."""\n'
    )
    assert sorted(text for _, text in named(code) if WORDS.search(text)) == ["cavi", "lfwa ", "pairs of mtfl"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_general_rooms_name_no_paper_and_no_data_set(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]!r}"
        for line, text in named(ast.parse(path.read_text(encoding="utf-8")))
        for word in WORDS.findall(text)
        if not (room in ("networks", "export") and word.lower() == TRUNK)
    ]
    assert not found
