"""`polyface demo`: photos, a training and a search on one page; the photos that travel with the package."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polyface.demo.photos import FACES, people
from polyface.gallery import Gallery
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.training import stages
from polyface.training.recipe import load

SMALL = (
    "--set", "synthetic.optimisation.epochs=1",
    "--set", "synthetic.data.tables=[{name: synthetic, options: {n: 400, size: 48}}]",
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demonstration with a short training, on a machine without FAISS."""
    out = tmp_path_factory.mktemp("demo")
    code = "import sys; sys.modules['faiss'] = None; from polyface.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--out", str(out), *SMALL]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.strip().endswith("report.html")
    return out


@pytest.fixture(scope="module")
def page(demo: Path) -> str:
    return (demo / "report.html").read_text()


def test_the_page_begins_with_photos_and_ends_with_a_search(page: str) -> None:
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert "people" in titles[0]
    assert any("grace_hopper.jpg" in title for title in titles)
    assert titles.index("A network trained now") < titles.index("Who is it? A search in a gallery")


def test_every_table_is_explained_and_no_column_is_empty(page: str) -> None:
    for section in re.findall(r"<section.*?</section>", page, re.S):
        if "<table>" in section:
            before = section[: section.index("<table>")]
            assert re.search(r"<(p|figcaption)>[^<]*[Ee]ach line[^<]*</", before), before[:300]
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>.*?</tr>", table, re.S)]
        assert all(any(cell.strip() for cell in column) for column in zip(*rows[1:], strict=True)), rows[0]


def test_photos_are_credited_where_they_are_shown(page: str) -> None:
    assert page.count("CC BY 4.0") >= 2


def test_the_search_finds_nearly_everybody(demo: Path, page: str) -> None:
    found = re.search(r"the same person in (\d+) of (\d+) searches", page)
    assert found is not None
    assert int(found[1]) >= int(found[2]) - 1
    with Gallery.open(demo / "gallery") as gallery:
        assert list(gallery.people()) == [person.name for person in people()]


def test_photos_in_the_package_are_those_of_the_notice() -> None:
    for person in people():
        assert person.neutral.is_file()
        assert person.smiling.is_file()
    photos = list(FACES.rglob("*.jpg"))
    assert len(photos) == 2 * len(people())
    assert sum(path.stat().st_size for path in photos) < 400_000
    notice = (FACES / "NOTICE.md").read_text()
    for words in ("Lisa DeBruine", "Benedict Jones", "CC BY 4.0", "10.6084/m9.figshare.5047666", "Changes", "Twelve"):
        assert words in notice
    assert len(people()) == 12


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_training_teaches_every_task_in_a_minute_of_one_core(tmp_path: Path) -> None:
    """On the test faces, which nothing was chosen by."""
    recipe = load("synthetic", ["synthetic.optimisation.precision=32-true"])
    began = time.process_time()
    options = stages.RunOptions(accelerator="cpu", logger="none", threads=1)
    trained = stages.run(recipe, tmp_path, None, options)["synthetic"]
    seconds = time.process_time() - began
    bundle = load_bundle(trained.bundle)
    results = evaluate(bundle, stages.pool_of(recipe.stages[0], None, bundle.tasks)).results
    for name in ("pose", "glasses", "smile", "gender"):
        assert results[f"{name} "].balanced_accuracy > 90
    assert results["landmarks "].failure_rate < 30
    assert seconds < 90  # about 45 on a processor with AVX2 alone
