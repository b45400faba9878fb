"""What the page shows of caricatures and photos: mistakes, and maps of embeddings; and the whole page of such runs."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from polyface import reproduce
from polyface.data.readers.cavi import CaVI
from polyface.data.readers.common import Pair
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.explain.mistakes import WrongPair
from polyface.metrics.sections import Curves, Text
from polyface.papers.caricature.page import embeddings_section, rows, sections
from polyface.report.page import Figures, Section
from polyface.report.pairs import mistakes_section
from polyface.reproduce.jobs import Job, _store, answers_path, folder
from polyface.reproduce.pages import result_sections
from polyface.reproduce.runs import Runs
from polyface.training import stages
from polyface.training.course import Course
from polyface.training.recipe import load

from ..protocols.lists import everybody

PEOPLE = ["al_gore", "bob_dylan", "cid", "dan", "eve"]
EACH = {"caricature": 3, "photo": 2}


def colour(row: int) -> tuple[int, int, int]:
    return 40 + 8 * row, 250 - 8 * row, 128


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three caricatures and two photos each of five people to test, every picture of a colour of its own, and as many
    to train."""
    faces = [(name, kind) for name in PEOPLE for kind, count in EACH.items() for _ in range(count)]
    records = [
        Record(
            np.full((20, 16, 3), colour(row), np.uint8),
            "",
            f"{row}.png" if split == "test" else f"train/{row}.png",
            {"identity": name, "modality": kind, "split": split},
        )
        for split in ("test", "train")
        for row, (name, kind) in enumerate(faces)
    ]
    path = tmp_path_factory.mktemp("faces") / "t.parquet"
    write_table(records, path)
    return path


@pytest.fixture(scope="module")
def table(file: Path) -> FaceTable:
    return FaceTable.open(file).where(split="test")


@pytest.fixture(scope="module")
def pairs(table: FaceTable) -> list[Pair]:
    return everybody(table)


def embedding(table: FaceTable, noise: float, seed: int = 0) -> np.ndarray:
    own = np.eye(5)[table.classes("identity", PEOPLE)]
    values = own + noise * np.random.default_rng(seed).normal(size=own.shape)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def opened(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def test_the_clearest_mistakes_are_shown_over_each_other(table: FaceTable) -> None:
    """By hand: an embedding of one number a face; of ten pairs two are wrong, and the surest comes first."""
    wrong = {
        "false positives": [WrongPair(0, 8, 0.25), WrongPair(0, 9, 0.5), WrongPair(1, 9, 0.75)],
        "false negatives": [WrongPair(5, 9, 3.0)],
    }
    section = mistakes_section("Mistakes", wrong, table, count=2)
    text, positives, negatives = section.blocks
    assert isinstance(text, Text)
    assert isinstance(positives, Figures)
    assert isinstance(negatives, Figures)
    assert (positives.caption, negatives.caption) == ("False positives", "False negatives")
    assert [figure.caption for figure in positives.figures] == [
        "al gore / bob dylan: 0.25",
        "al gore / bob dylan: 0.75",
    ]
    assert [figure.caption for figure in negatives.figures] == ["bob dylan: 3.00"]
    picture = opened(positives.figures[0].image)
    height, width = picture.shape[:2]
    assert height > 1.5 * width
    for row, line in zip((0, 8), (height // 4, 3 * height // 4), strict=True):
        assert np.abs(picture[line, width // 2] - colour(row)).max() < 6
    (alone,) = mistakes_section("Mistakes", {"false positives": []}, table).blocks
    assert isinstance(alone, Text)


# --------------------------------------------------------------------------------------------------------- embeddings


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_embeddings_are_laid_out(table: FaceTable) -> None:
    networks = {name: embedding(table, noise) for name, noise in (("Single-visual", 0.4), ("Dynamic", 0.05))}
    section = embeddings_section("Embeddings", networks, table, people=PEOPLE[:3])
    text, figures = section.blocks
    assert isinstance(text, Text)
    assert text.text.startswith("15 faces of 3 people, laid out by t-SNE")
    assert isinstance(figures, Figures)
    assert [figure.caption for figure in figures.figures] == ["Single-visual", "Dynamic"]
    again = embeddings_section("Embeddings", networks, table, people=PEOPLE[:3]).blocks[1]
    assert again == figures
    with pytest.raises(PolyfaceError, match="section 'E': no face of zoe is in the table"):
        embeddings_section("E", networks, table, people=["cid", "zoe"])
    with pytest.raises(PolyfaceError, match="section 'E': 24 embeddings for 25 faces"):
        embeddings_section("E", {"x": networks["Dynamic"][1:]}, table)


def test_without_scikit_learn_the_section_says_what_it_needs(table: FaceTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    section = embeddings_section("Embeddings", {"Dynamic": embedding(table, 0.1)}, table)
    (text,) = section.blocks
    assert isinstance(text, Text)
    assert "polyface[explain]" in text.text


# ---------------------------------------------------------------------------------------------------- the whole page

RECIPE = """
name: faces
stages:
  - &photos
    name: photos
    data:
      tables: [{{name: {table}}}]
      boxes: {{source: image}}
      crop: {{size: 40, channels: 3, scale: 1.0}}
    network: {{trunk: {{name: tcdcn, channels: 3}}}}
    tasks: {{verification: {{kind: identity}}}}
    evaluation: {{main: verification, protocol: webcaricature}}
  - <<: *photos
    name: cavi
    tasks:
      verification: {{kind: identity}}
      visual: {{kind: identity, where: {{modality: photo}}}}
      caricature: {{kind: identity, where: {{modality: caricature}}}}
    evaluation: {{main: verification, protocol: cavi}}
variants:
  dlib: {{stages: [photos], predictor: start, prefix: "across ", seeds: 1}}
  Known across: {{stages: [photos], predictor: start, prefix: "across ", row: Known}}
  Single-visual:
    stages: [cavi]
    predictor: start
    set: {{cavi.tasks.verification: null, cavi.tasks.caricature: null, cavi.evaluation.main: visual}}
  Dynamic: {{stages: [cavi], seeds: 1, set: {{cavi.weighting: {{name: ming}}}}}}
  Last: {{stages: [cavi], predictor: start, seeds: 1}}
  Never run: {{stages: [cavi], predictor: start}}
comparisons:
  - {{better: Dynamic, than: Single-visual}}
"""


def course(tasks: list[str]) -> dict[str, Any]:
    """Of 100 iterations: caricatures are hardest in the first 40; the largest weight is there, and then on photos."""
    made = Course(100)
    for done in range(100):
        losses = {name: {"caricature": 3.0 if done < 40 else 0.5}.get(name, 1.0 + (name == "visual")) for name in tasks}
        weights = {name: {"caricature": 0.6 if done < 95 else 0.2}.get(name, 0.4) for name in tasks}
        made.add(done, losses, weights | {"visual": weights["visual"] + 0.1})
    return made.record() or {}


@pytest.fixture(scope="module")
def runs(
    file: Path, table: FaceTable, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[reproduce.Runs]:
    """Answers of five variants as if they had run, each with its record; the second seed of "Known across" alone."""
    out = tmp_path_factory.mktemp("runs")
    (out / "faces.yaml").write_text(RECIPE.format(table=file))
    recipe = load(out / "faces.yaml")

    def answered(name: str, noise: float, seed: int = 0, **record: Any) -> None:
        answers: dict[str, Any] = {}
        for place, task in enumerate(recipe.variant(name, seed).stages[-1].tasks):
            own = embedding(table, noise, place)
            answers[task] = {"embedding": own, "probabilities": own}
        _store(answers_path(out, Job(name, seed), "test"), answers, 0)
        stage = recipe.variant(name, seed).stages[-1]
        place = folder(out, Job(name, seed)) / stage.name
        place.mkdir()
        settings = json.loads(stage.model_dump_json()) | {"seed": seed}
        told = {"settings": settings, "history": [], "seconds": 1} | record
        (place / stages.HISTORY).write_text(json.dumps(told))

    stage = recipe.variant("Dynamic", 0).stages[-1]
    history = [
        {"epoch": e, "train": dict.fromkeys(stage.tasks, 3 / e), "weights": dict.fromkeys(stage.tasks, e / 6)}
        for e in (1, 2)
    ]
    for name, noise in {"dlib": 0.5, "Single-visual": 0.4, "Last": 0.6}.items():
        answered(name, noise)
    answered("Dynamic", 0.5, history=history, course=course(list(stage.tasks)))
    answered("Known across", 0.2, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaVI, "pairs", lambda self, root, part: pairs)
        yield Runs(recipe, out, out)


@pytest.fixture(scope="module")
def own(runs: reproduce.Runs) -> dict[str, Section]:
    return {section.title: section for section in sections(runs)}


def test_variants_of_one_prefix_are_shown_together(runs: reproduce.Runs, own: dict[str, Section]) -> None:
    assert list(own) == [
        "Weights and losses by iteration: Dynamic",
        *("Mistakes of dlib: across", "Embeddings: across"),
        *("Mistakes of Dynamic: cavi", "Embeddings: cavi"),
    ]
    curves = {section.title: section for section in result_sections(runs)}
    assert list(curves) == [
        *(f"{what}: across" for what in ("ROC", "DET")),
        *("CMC: across C2P", "CMC: across P2C", "ROC", "DET"),
    ]
    for title, names in {"ROC: across": ["dlib"], "DET": ["Dynamic", "Last"]}.items():
        (plot,) = curves[title].blocks
        assert isinstance(plot, Curves)
        drawn = [name.partition(" (")[0] for name in plot.curves]
        assert drawn == names  # neither of another seed nor of what verifies nothing


def test_rows_say_whether_weights_follow_the_hardest_task(runs: reproduce.Runs, own: dict[str, Section]) -> None:
    """All of the first ten iterations and half of the last ten; of networks without a course there is no row."""
    found = {(row.row, row.metric): (row.mean, row.seeds) for row in rows(runs)}
    assert found == {
        ("Dynamic", "caricature hardest"): (40, (0,)),
        ("Dynamic", "hardest weighted first"): (100, (0,)),
        ("Dynamic", "hardest weighted last"): (50, (0,)),
    }
    weights, losses = own["Weights and losses by iteration: Dynamic"].blocks
    assert isinstance(weights, Curves)
    assert isinstance(losses, Curves)
    steps, values = losses.curves["caricature"]
    assert np.asarray(steps).tolist() == list(range(1, 101))
    assert np.asarray(values).tolist() == [3.0] * 40 + [0.5] * 60
    assert list(weights.curves) == ["verification", "visual", "caricature"]


def test_faces_that_the_detector_misses_are_counted_by_kind(file: Path, tmp_path: Path) -> None:
    """Of 15 drawn caricatures it is told to miss four, of ten photos one."""
    (tmp_path / "faces.yaml").write_text(RECIPE.format(table=file).replace("source: image", "source: detector"))
    made = Runs(load(tmp_path / "faces.yaml"), tmp_path, tmp_path)
    words = np.array(["caricature"] * 15 + ["photo"] * 10)
    undetected = np.isin(np.arange(25), [0, 1, 2, 3, 20])
    pool = SimpleNamespace(undetected=undetected, table=SimpleNamespace(words=lambda column: words))
    made.faces = SimpleNamespace(of=lambda stage, part: pool)  # type: ignore[assignment]
    made.seeds = lambda name: [1] if name == "Known across" else []  # type: ignore[method-assign]
    made.record = lambda name, seed=0, stage="": None  # type: ignore[method-assign]
    found = {row.metric: (row.row, row.mean, row.n) for row in rows(made)}
    assert found == {
        "across missed photos": ("Detector", 10, 10),
        "across missed caricatures": ("Detector", pytest.approx(400 / 15), 15),
    }


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_a_network_of_one_task_is_beside_the_same_branch_of_that_of_several(own: dict[str, Section]) -> None:
    shown = {}
    for title, section in own.items():
        if title.startswith("Embeddings"):
            figures = section.blocks[1]
            assert isinstance(figures, Figures)
            shown[title] = [figure.caption for figure in figures.figures]
    assert shown == {"Embeddings: across": ["dlib"], "Embeddings: cavi": ["Single-visual", "Dynamic, visual"]}


def test_no_finished_run_adds_nothing() -> None:
    assert sections(Runs(load("tcdcn"), None, Path("nowhere"))) == []


def test_the_page_holds_it_all(runs: reproduce.Runs, own: dict[str, Section], tmp_path: Path) -> None:
    reproduce.collect(runs, tmp_path / "rows.json", "command", "faces")
    path = reproduce.table_report(tmp_path / "report.html", runs, tmp_path / "rows.json", extra=[*own.values()])
    page = path.read_text()
    for title in ("ROC", "CMC: across P2C", "Mistakes of Dynamic: cavi", "Training: Dynamic"):
        assert f"<h2>{title}" in page
    assert "weight over epoch of verification, visual, caricature" in page
    assert "Training: Last" not in page
