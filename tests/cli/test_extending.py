"""docs/extending.md is true: its package, one part of each kind, goes through the commands that it shows and others."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from polyface.data.synthetic import render
from polyface.parts import KINDS, registry
from polyface.report.results import read_results

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
Command = Callable[..., Any]


def blocks() -> tuple[dict[str, str], list[str]]:
    """The page's files by name, and its commands."""
    found = re.findall(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    commands = [line for language, _, text in found if language == "bash" for line in text.splitlines()]
    return {title: text for _, title, text in found if title}, commands


FILES, COMMANDS = blocks()
KINDS_OF = {registry(kind).group: kind for kind in KINDS}
POINTS = {
    KINDS_OF[group]: named for group, named in tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"].items()
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, with pictures, and the page's package installed in it."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    about = folder / "facework-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: facework\nVersion: 1.0\n")
    groups = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]
    lines = [line for g, named in groups.items() for line in (f"[{g}]", *(f"{k} = {v}" for k, v in named.items()))]
    (about / "entry_points.txt").write_text("\n".join(lines))
    faces = render(160, 48, seed=1, identities=4)
    for place in ("pictures", "turns"):
        (folder / place).mkdir()
        for row in range(160):
            labels = {name: values[row] for name, values in faces.labels.items()}
            name = f"{'abcd'[int(labels['identity'][-1]) % 4]}_{labels['yaw']:.0f}_{labels['age'] // 12:.0f}.png"
            Image.fromarray(faces.images[row]).save(folder / place / name)
    (folder / "pictures" / "holiday.png").write_bytes((folder / "pictures" / name).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        yield folder
        for module in [name for name in sys.modules if name.partition(".")[0] == "facework"]:
            del sys.modules[module]


def run(polyface: Command, line: str) -> Any:
    words = shlex.split(line)
    if words[1] == "import" or words[1:3] == ["data", "import"]:
        words += ["--on-bad", "skip"]
    if words[1] in ("train", "reproduce"):
        words += ["--device", "cpu"]
    told = polyface(*words[1:])
    assert told.status == 0, told.err
    return told


def test_every_kind_of_part_has_an_example() -> None:
    assert set(POINTS) == set(KINDS)


def test_parts_are_listed_and_loaded(package: Path, polyface: Command) -> None:
    told = run(polyface, "polyface parts").out
    for kind, named in POINTS.items():
        (name,) = named
        assert re.search(rf"^  {name} +\S.* \[facework\]$", told, re.M), kind
        assert registry(kind).origin(name) == "facework"
    assert run(polyface, "polyface parts weighting").out.count("\n") < told.count("\n")


def test_the_commands_of_the_page(package: Path, polyface: Command) -> None:
    said = {line: run(polyface, line) for line in COMMANDS}
    imported = next(told.out for line, told in said.items() if "data import" in line)
    assert f"{len(list(package.glob('turns/*.png')))} faces, 1 skipped" in imported
    assert "wrinkles" in next(told.out for line, told in said.items() if "data show" in line)
    history = json.loads(Path("runs/wrinkles/one/history.json").read_text())["history"]
    assert {round(value, 1) for value in history[0]["weights"].values()} <= {0.2 + 0.1 * i for i in range(9)} | {1.0}
    evaluated = next(told.out for line, told in said.items() if "turned-pairs" in line)
    assert re.search(r"verification +\d+\.\d+", evaluated)
    assert Path("wrinkles.onnx").stat().st_size > 1000
    rows = read_results("runs/wrinkles/results.json")
    assert rows.get("counted", "mean absolute error").published == 0.5
    assert rows.get("counted minus plain sum", "mean absolute error").interval is not None
    assert {row.row for row in rows.rows} >= {"counted", "plain sum", "without routing"}


def test_other_commands_take_the_parts_too(package: Path, polyface: Command) -> None:
    told = run(polyface, "polyface evaluate runs/wrinkles/one/model turns --data . --report page.html")
    assert "mean absolute error" in told.out
    assert "R²" in told.out
    assert "error curve" in Path("page.html").read_text()
    face = next(Path("turns").glob("*.png"))
    (line,) = run(polyface, f"polyface analyze {face} --model runs/wrinkles/one/model").out.splitlines()
    (answer,) = json.loads(line)["faces"]
    assert "value" in json.dumps(answer)
    compare = "polyface compare-weightings wrinkles --data . --variant counted --yes --device cpu"
    told = run(polyface, f"{compare} --weighting loudest --weighting dwa --set one.optimisation.epochs=1")
    assert "loudest" in told.out
