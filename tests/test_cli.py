"""The command line: what a user types, and the one line that answers a mistake."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from polyface.errors import PolyfaceError
from polyface.training.recipe import assignments

ROOT = Path(__file__).parents[1]


def process(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polyface", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=250, check=False)


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        answer = process("--help")
        seconds.append(time.perf_counter() - start)
        assert "reproduce" in answer.stdout
    assert min(seconds) < 1.0  # 0.2 s on a quiet machine; benchmarks/speed.py measures it


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("train", "tcdnc"), "unknown recipe 'tcdnc': did you mean 'tcdcn'?"),
        (("train", "synthetic", "--set", "synthetic.optimisation.learning=1"), "unknown key"),
        (("train", "tcdcn"), "no data folder was given"),
        (("data", "import", "mtlf", ".", "x.parquet"), "did you mean 'mtfl'?"),
        (("data", "show", "nowhere.parquet"), "no such face table"),
        (("reproduce", "tcdcn", "--only", "FDL"), "no variant matches FDL"),
        (("reproduce", "synthetic"), "recipe synthetic has no variants"),
        (("compare-weightings", "synthetic", "--weighting", "mdga"), "weighting.name is 'mdga'; did you mean 'mgda'?"),
        (("compare-weightings", "tcdcn"), "trains one task, nothing to weigh; choose a --variant: FLD (shared), "),
        (("analyze", "nowhere.jpg"), "nowhere.jpg"),
        (("evaluate", "nomodel", "mtfl"), "nomodel"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], line: str, polyface: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert line in polyface(*arguments).mistake


def test_a_mistake_ends_the_process_with_one_line(tmp_path: Path) -> None:
    answer = process("train", "tcdnc", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "polyface: unknown recipe 'tcdnc': did you mean 'tcdcn'?\n"


def test_compare_weightings_trains_in_processes_and_tells_its_command(tmp_path: Path) -> None:
    tables = "synthetic.data.tables=[{name: synthetic, options: {n: 260, size: 48}}]"
    changes = ("--set", "synthetic.optimisation.epochs=1", "--set", tables)
    places = ("--out", tmp_path / "runs", "--results", tmp_path / "small.json", "--report", tmp_path / "page.html")
    arguments = ("compare-weightings", "synthetic", "--weighting", "stch", *changes, *places)
    answer = process(*arguments, "--workers", "2", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "4 rows, 4 runs of the screening, 4 of them left" in answer.stdout
    assert "| main task alone |" in answer.stdout
    assert "about 0.0 hours here" in answer.stderr  # measured on the first run
    content = json.loads((tmp_path / "small.json").read_text())
    assert content["command"] == shlex.join(
        ["polyface", "compare-weightings", "synthetic", "--weighting", "stch", *changes]
    )
    assert "Weights over training" in (tmp_path / "page.html").read_text()


def test_name_value_options() -> None:
    assert assignments(["a.b=1e-3", "c=[1, x]"], "--option") == {"a.b": "1e-3", "c": [1, "x"]}
    assert assignments([], "--option") == {}
    for text, line in (("epochs", "--option epochs: expected name=value"), ("a=[", "--option a=[: not YAML")):
        with pytest.raises(PolyfaceError) as told:
            assignments([text], "--option")
        assert str(told.value).startswith(line)


def test_compare_weightings_explains_its_options() -> None:
    text = " ".join(process("compare-weightings", "--help").stdout.split())
    for words in ("YAML file {weighting: {option: value}}", "mgda:shared", "never on the test faces", "--final-seeds"):
        assert words in text


def test_readme_has_exactly_the_two_set_up_commands() -> None:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"<!-- (\w+)-command -->\n```bash\n(.*?)\n```", text, re.S)
    assert [name for name, _ in blocks] == ["demo", "test"]
    assert blocks[0][1].endswith("polyface demo")
    assert blocks[1][1].endswith("pytest")
