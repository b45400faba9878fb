"""The folders of papers: found by name; their figures consistent with themselves, and honest about what differs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from polyface.errors import PolyfaceError
from polyface.papers import PAPERS, Paper, paper
from polyface.report.published import Published, read_published
from polyface.report.results import read_results
from polyface.reproduce import Runs
from polyface.schema import ATTRIBUTES
from polyface.training.recipe import load

ROOT = Path(__file__).parents[2]
PRINTED = ["tcdcn", "dmm-cnn", "caricature"]


def lookup(name: str, row: str, metric: str) -> Published | None:
    return next((figure for figure in paper(name).figures if (figure.row, figure.metric) == (row, metric)), None)


def detail(name: str) -> list[Published]:
    return [figure for figure in paper(name).figures if figure.detail]


# ------------------------------------------------------------------------------------------------- printed figures


@pytest.mark.parametrize("method", ["ESR", "SDM", "LBF", "TCDCN", "TCDCN-Averaged"])
def test_the_full_set_is_the_weighted_mean_of_its_parts(method: str) -> None:
    """300-W: full = (554 common + 135 challenging) / 689, which Table 1 satisfies to its rounding."""
    found = [lookup("tcdcn", method, f"mean error, 300-W {subset}") for subset in ("full", "common", "challenging")]
    full, common, challenging = (figure.value for figure in found if figure)
    assert full == pytest.approx((554 * common + 135 * challenging) / 689, abs=0.015)


@pytest.mark.parametrize("name", PRINTED)
def test_figures_have_a_source(name: str) -> None:
    assert all(figure.source and figure.value > 0 for figure in paper(name).figures)
    assert all(said.text and said.source for said in paper(name).statements)
    assert paper(name).statements


def test_figures_measured_on_images_that_are_not_public_say_so() -> None:
    assert all("IBUG" in figure.differs for figure in paper("tcdcn").figures if "300-W" in figure.metric)
    figure = lookup("tcdcn", "TCDCN", "time per face, CPU")
    assert figure is not None
    assert (figure.value, figure.unit) == (17, "ms")


def test_printed_figures_of_tables_two_and_three() -> None:
    values = {(f.row, f.metric): f.value for f in paper("dmm-cnn").figures}
    assert values["AW", "mean accuracy"] == 91.65
    assert values["LFWA UW", "mean accuracy"] == 84.11
    assert values["DW", "mean accuracy"] == values["DMM-CNN", "mean accuracy"] == 91.70
    assert values["LFWA DW", "mean accuracy"] == values["LFWA DMM-CNN", "mean accuracy"] == 86.56
    assert values["LFWA DMM-DW-FIX minus LFWA Baseline", "mean accuracy"] == 5.52
    assert ("LFWA MOON", "mean accuracy") not in values
    assert all("Mao" in f.source and f.differs for f in paper("dmm-cnn").figures)
    assert len(paper("dmm-cnn").statements) == 4


def test_printed_accuracies_by_attribute_fit_the_printed_means() -> None:
    """Where at most three of 40 attributes are not legible, the mean says what these are together: credible shares."""
    found: dict[str, list[float]] = {}
    for figure in detail("dmm-cnn"):
        method, attribute = figure.row.split(": ")
        assert attribute in ATTRIBUTES
        assert 50 < figure.value <= 100
        found.setdefault(method, []).append(figure.value)
    assert "LFWA GNAS" not in found
    checked = 0
    for method, values in found.items():
        mean = lookup("dmm-cnn", method, "mean accuracy")
        assert mean is not None
        if len(values) >= 37:
            checked += 1
            assert 70 < (40 * mean.value - sum(values)) / (40 - len(values)) < 98
    assert checked == 5
    bald = lookup("dmm-cnn", "DMM-CNN: Bald", "accuracy")
    assert bald is not None
    assert bald.value == 99.03
    assert lookup("dmm-cnn", "DMM-CNN: Bangs", "accuracy") is None


def test_spreads_are_read_beside_their_figures() -> None:
    figure = lookup("caricature", "Dynamic", "within C2P rank-10")
    assert figure is not None
    assert (figure.value, figure.std) == (99.21, 1.07)


def test_crossed_models_are_paired_as_the_rows_of_the_table_have_them() -> None:
    """Table 2 has no C2V of a model without a visual branch, and no V2C of one without a caricature branch."""
    of = {f.metric: {} for f in paper("caricature").figures if " model on " in f.metric}
    for figure in paper("caricature").figures:
        if figure.metric in of:
            of[figure.metric][figure.row] = figure.value
            assert "text" in figure.differs
    assert of == {
        "visual model on caricatures": {"Single-visual": 41.8, "Naive dynamic": 62.8, "Dynamic": 64.39},
        "caricature model on visual images": {"Single-cari": 53.6, "Naive dynamic": 61.9, "Dynamic": 80.04},
    }


@pytest.mark.parametrize("name", PRINTED)
def test_results_files_hold_the_figures_that_the_papers_print(name: str) -> None:
    results = read_results(ROOT / "docs" / "results" / f"{name}.json")
    papers = {(figure.row, figure.metric): figure.value for figure in paper(name).figures}
    wrong = {row.key: row.published for row in results.rows if row.published != papers.get(row.key)}
    assert wrong == {}


# ------------------------------------------------------------------------------------------------- folders

RECIPE = """
name: {name}
stages:
  - name: five
    data: {{tables: [{{name: synthetic}}]}}
    network: {{trunk: {{name: tcdcn}}}}
    tasks: {{landmarks: {{kind: landmarks, points: 5}}}}
"""


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """The folder of a paper that somebody else adds: nothing of Polyface's is changed for it."""
    folder = tmp_path / "their_papers" / "doe_2020"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text('"""Doe 2020: five landmarks.\n\nMore."""\nraise SystemError("is never run")\n')
    (folder / "recipe.yaml").write_text(RECIPE.format(name="doe-2020"))
    (folder / "published.yaml").write_text(
        """
tables:
  - source: Doe 2020, Table 1
    metric: "mean error, {column}"
    columns: [common, challenging]
    lines:
      Theirs: [5.6, ~]
      Another: [[4.9, 0.2], 11.9]
statements:
  - {text: It is fast., source: the text}
"""
    )
    (folder / "page.py").write_text(
        "from polyface.report.page import Section, Text\n"
        "def sections(runs): return [Section('Their page', [Text(str(runs))])]\n"
    )
    return folder


@pytest.fixture
def installed(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    points = [EntryPoint("doe", "their_papers.doe_2020", "polyface.papers")]
    points.append(EntryPoint("none", "json", "polyface.papers"))
    monkeypatch.syspath_prepend(made_up.parents[1])
    monkeypatch.setattr("polyface.registry.entry_points", lambda group: points if group == "polyface.papers" else [])
    yield "doe"
    sys.modules.pop("their_papers", None)


def test_the_folder_of_an_installed_package_is_a_paper(installed: str) -> None:
    assert load(installed).name == "doe-2020"
    assert PAPERS.about(installed) == "Doe 2020: five landmarks."
    found = paper(installed)
    assert [(f.row, f.metric, f.value, f.std) for f in found.figures] == [
        ("Theirs", "mean error, common", 5.6, None),
        ("Another", "mean error, common", 4.9, 0.2),
        ("Another", "mean error, challenging", 11.9, None),
    ]
    assert found.statements[0].text == "It is fast."
    (section,) = found.sections("the runs")  # type: ignore[arg-type]
    assert section.title == "Their page"
    with pytest.raises(PolyfaceError, match=r"recipe 'none' \(entry point json\) is no recipe: .*recipe.yaml"):
        load("none")


def test_a_folder_added_in_a_notebook_is_a_paper(made_up: Path) -> None:
    PAPERS.add("doe-2020", made_up)
    try:
        assert load("doe-2020").name == "doe-2020"
        assert len(paper("doe-2020").figures) == 3
    finally:
        PAPERS.remove("doe-2020")
    assert paper("doe-2020") == Paper("doe-2020")
    assert list(paper("doe-2020").sections(None)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRINTED)
def test_the_page_of_every_paper_can_be_loaded(name: str, tmp_path: Path) -> None:
    assert list(paper(name).sections(Runs(load(name), None, tmp_path))) == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("tables: [{source: a, colums: [x], lines: {}}]", "tables.0.columns: field required"),
        ("tables: [{source: a, columns: [x], lines: {A: [1, 2]}}]", "'A' has 2 cells for 1 columns"),
        ("tables: [{source: a, columns: [x, x], lines: {A: [1, 2]}}]", "'A', 'x' is there twice"),
        ("tables: [{source: a, columns: [x], row: '{lin}', lines: {A: [1]}}]", "'lin'"),
        ("tables: [", "while parsing"),
    ],
)
def test_mistakes_in_published_figures(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "published.yaml").write_text(text)
    with pytest.raises(PolyfaceError, match=f"published.yaml: .*{expected}"):
        read_published(tmp_path / "published.yaml")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_wheel_leaves_out_no_file_of_a_paper() -> None:
    """It holds everything under src/polyface but what .gitignore names."""
    files = [path for kind in ("yaml", "html") for path in (ROOT / "src" / "polyface").rglob(f"*.{kind}")]
    assert len(files) >= 2 * len(PRINTED) + 2
    done = subprocess.run(["git", "check-ignore", *map(str, files)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
