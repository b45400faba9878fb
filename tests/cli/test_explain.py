"""`polyface explain energy`: what it prints and draws, and the line that answers a mistake."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polyface.cli.common import aligned
from polyface.networks.trunks import TRUNKS

sys.path.insert(0, str(Path(__file__).parents[1] / "explain"))

from columns import Columns, bundle, faces

Command = Callable[..., Any]


@pytest.fixture
def columns() -> Iterator[None]:
    TRUNKS.add("columns", Columns)
    yield
    TRUNKS.remove("columns")


@pytest.fixture
def model(columns: None, tmp_path: Path) -> Path:
    return bundle().save(tmp_path / "model")


def figures(out: str, title: str) -> dict[str, list[str]]:
    """The lines below a title: the words of each by its first ones that are no numbers."""
    lines = out.split(f"{title}\n")[1].split("\n\n")[0].splitlines()
    return {" ".join(re.findall(r"[a-z][\w-]*", line)): re.findall(r"-?\d+\.?\d*", line) for line in lines[1:]}


def test_of_the_weights_alone(polyface: Command, model: Path) -> None:
    told = polyface("explain", "energy", model)
    assert told.status == 0
    found = figures(told.out, "Energy of the heads' weights")
    assert (found["identity"][0], found["pose"][0]) == ("8", "3")
    assert (float(found["pose"][-1]), float(found["side-task"][-1])) == (0, 0)  # none of identity's dimensions
    assert "rank-1" not in told.out


def test_on_faces_with_a_page(polyface: Command, model: Path, tmp_path: Path) -> None:
    faces(tmp_path / "faces.parquet", noise=5)
    page = tmp_path / "page.html"
    command = ("explain", "energy", model, tmp_path / "faces.parquet", "--out", page, "--protocol-option", "draws=2")
    told = polyface(*command)
    assert told.status == 0, told.err
    found = figures(told.out, "Recognition by x without some dimensions")
    assert found["rank-1 side-task"][1:5] == ["100.00"] * 4  # the first is of "rank-1"; 0, 10, 25 and 50 % out
    assert float(found["rank-1 identity"][4]) < 30
    if importlib.util.find_spec("sklearn"):
        chance, everything, *_, identity = figures(told.out, "What linear probes read")["pose"][1:]
        assert (chance, everything) == ("33.3", "100.0")
        assert float(identity) < 60
    text = page.read_text()
    assert text.count("data:image/png") == 4  # energies, weights, and rank-1 by x and by outputs
    assert "Recognition by the outputs of identity" in text


def test_a_page_is_made_again_and_nothing_else_is_overwritten(polyface: Command, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = ("explain", "energy", model, "--out", page)
    for _ in range(2):
        assert polyface(*command).status == 0
    assert "dimensions grouped by task" in page.read_text()
    page.write_text("mine")
    assert "was not made by Polyface" in polyface(*command).mistake
    assert page.read_text() == "mine"
    assert polyface(*command, "--overwrite").status == 0


def test_without_scikit_learn_all_but_the_probes_is_there(
    polyface: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces(tmp_path / "faces.parquet")
    monkeypatch.setattr("polyface.explain.probes.can_probe", lambda: False)
    told = polyface("explain", "energy", model, tmp_path / "faces.parquet", "--protocol-option", "draws=1")
    assert told.status == 0
    assert "Recognition by the outputs of identity" in told.out
    assert "Not measured: linear probes need scikit-learn, `pip install polyface[explain]`." in told.out


def test_columns_of_a_table_are_aligned() -> None:
    assert aligned(["a", ">count", "b"], [["x", "7", ""], ["longer", "1,234", "y"]]).splitlines() == [
        "a       count  b",
        "x           7",
        "longer  1,234  y",
    ]


@pytest.mark.parametrize(
    "arguments, line",
    [
        (("face68",), "face68: 'landmarks' reads trunk, which no other linear head does (others: none)"),
        (("identity",), "identity: the network has no linear head"),
        (("face5", "--main", "smil"), "face5: main names 'smil'; did you mean 'smile'?"),
        (("face5", "--p", "0"), "p is 0.0: the power of the weights must be above 0"),
        (("face6",), "no model 'face6': did you mean"),
        (("face5", "no.parquet"), "no.parquet: no such face table"),
        (
            ("face5", "no.parquet", "--protocol", "per-task"),
            "--protocol per-task compares no faces: name one that does",
        ),
        (("face5", "no.parquet", "--protocol", "gallery"), "did you mean 'gallery-probe'?"),
    ],
)
def test_a_mistake_is_one_line(polyface: Command, arguments: tuple[str, ...], line: str) -> None:
    assert line in polyface("explain", "energy", *arguments).mistake


def test_a_model_of_one_task_or_a_table_without_people_is_one_line(
    polyface: Command, columns: None, tmp_path: Path
) -> None:
    one = bundle({"pose": range(8)}).save(tmp_path / "one")
    assert "'pose' reads trunk, which no other linear head does" in polyface("explain", "energy", one).mistake
    both = bundle().save(tmp_path / "both")
    faces(tmp_path / "nobody.parquet", identity=None)
    told = polyface("explain", "energy", both, tmp_path / "nobody.parquet")
    assert "faces of the gallery have no identity" in told.mistake
