"""What a reproduction's page says of caricatures and photos: curves, mistakes, embeddings, weights over training."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from polyface import reproduce
from polyface.data.readers.common import Pair
from polyface.data.table import FaceTable
from polyface.data.writing import Record, write_table
from polyface.errors import PolyfaceError
from polyface.metrics.recognition.verification import VerificationResult
from polyface.protocols.recognition import RecognitionResult, judge_across, judge_cavi
from polyface.report.page import Figures, PlotSection, Section, Text, TextSection, render_report
from polyface.reproduce import caricature_pages
from polyface.reproduce.caricature_pages import (
    all_pairs_mistakes,
    curve_sections,
    embeddings_section,
    listed_mistakes,
    mistakes_section,
    recognition_sections,
)
from polyface.reproduce.jobs import Job, _store, answers_path, folder
from polyface.reproduce.pages import followed, training_section
from polyface.reproduce.tables import Faces, Runs
from polyface.training import stages
from polyface.training.recipe import load

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
    names, kinds = table.words("identity"), table.words("modality")
    rows = {kind: np.flatnonzero(kinds == kind) for kind in EACH}
    return [
        Pair(table.path(c), table.path(p), bool(names[c] == names[p]))
        for c in rows["caricature"]
        for p in rows["photo"]
    ]


def embedding(table: FaceTable, noise: float, seed: int = 0) -> np.ndarray:
    own = np.eye(5)[table.classes("identity", PEOPLE)]
    values = own + noise * np.random.default_rng(seed).normal(size=own.shape)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def cavi(table: FaceTable, pairs: list[Pair], noise: float) -> RecognitionResult:
    return judge_cavi({"verification": {"embedding": embedding(table, noise)}}, PEOPLE, table, pairs)


def opened(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def test_curves_of_methods(table: FaceTable, pairs: list[Pair]) -> None:
    across = {
        name: judge_across({"x": {"embedding": embedding(table, noise)}}, table, draws=2)
        for name, noise in (("Dynamic", 0.2), ("dlib", 0.5))
    }
    sections = curve_sections(across, "across data sets")
    assert [section.title for section in sections] == [
        f"{what}: across data sets" for what in ("ROC", "DET", "CMC, C2P", "CMC, P2C")
    ]
    for section in sections:
        assert isinstance(section, PlotSection)
        assert "Dynamic, dlib" in section.alt
        assert isinstance(section.image, bytes)
        assert min(opened(section.image).shape[:2]) > 400
    listed = {name: cavi(table, pairs, noise) for name, noise in (("Dynamic", 0.2), ("Single-verif", 0.5))}
    assert [section.title for section in curve_sections(listed)] == ["ROC", "DET"]
    assert curve_sections({"Single-visual": RecognitionResult()}) == []
    many = curve_sections({f"method {place}": listed["Single-verif"] for place in range(18)})
    assert isinstance(many[0], PlotSection)
    assert many[0].alt.endswith("method 15")
    assert many[0].caption == "First seed. Not drawn: method 16, method 17."
    assert "CMC, C2P: across data sets" in render_report("page", sections)


def test_the_clearest_mistakes_are_shown_caricature_over_photo(table: FaceTable, pairs: list[Pair]) -> None:
    found = cavi(table, pairs, 0.5).verification
    assert isinstance(found, VerificationResult)
    wrong = found.accepted & ~found.truth
    worst = int(np.flatnonzero(wrong)[found.distances[wrong].argmin()])
    section = mistakes_section("Mistakes", listed_mistakes(found, pairs), table, count=3)
    text, positives, negatives = section.blocks()
    assert isinstance(text, Text)
    assert isinstance(positives, Figures)
    assert isinstance(negatives, Figures)
    assert (positives.caption, negatives.caption) == ("False positives", "False negatives")
    assert 1 <= len(positives.figures) <= 3
    rows = [int(path.removesuffix(".png")) for path in (pairs[worst].caricature, pairs[worst].photo)]
    who = " / ".join(str(table.words("identity")[row]).replace("_", " ") for row in rows)
    assert positives.figures[0].caption == f"{who}: {found.distances[worst]:.2f}"
    picture = opened(positives.figures[0].image)
    height, width = picture.shape[:2]
    assert height > 1.5 * width
    for row, line in zip(rows, (height // 4, 3 * height // 4), strict=True):
        assert np.abs(picture[line, width // 2] - colour(row)).max() < 6
    names = {name.replace("_", " ") for name in PEOPLE}
    for figure in negatives.figures:
        assert figure.caption.rpartition(": ")[0] in names  # the one person's name, once
    distances = [float(figure.caption.rpartition(": ")[2]) for figure in negatives.figures]
    assert distances == sorted(distances, reverse=True)


def test_no_image_is_among_the_mistakes_twice() -> None:
    pairs = [Pair("a", "x", False), Pair("a", "y", False), Pair("b", "x", False), Pair("b", "y", False)]
    wrong = [(pairs[place], float(place)) for place in (2, 1, 0, 3)]
    assert [place for _, place in caricature_pages._apart(wrong)] == [2, 1]


def test_the_clearest_mistakes_among_all_pairs(table: FaceTable, pairs: list[Pair]) -> None:
    values = embedding(table, 0.7)
    wrong = all_pairs_mistakes(values, table, most=4)
    row_of = {table.path(row): row for row in range(len(table))}
    for kind, same, worst in (("false positives", False, min), ("false negatives", True, max)):
        apart = {
            pair: float(np.square(values[row_of[pair.caricature]] - values[row_of[pair.photo]]).sum())
            for pair in pairs
            if pair.same == same
        }
        assert wrong[kind][0][0] == worst(apart, key=apart.__getitem__)
        assert [distance for _, distance in wrong[kind]] == pytest.approx(
            sorted(apart.values(), reverse=same)[:4], abs=1e-5
        )


def test_other_pairs_than_were_judged_are_refused(table: FaceTable, pairs: list[Pair]) -> None:
    found = cavi(table, pairs, 0.5).verification
    assert isinstance(found, VerificationResult)
    with pytest.raises(PolyfaceError, match="the 149 pairs are not the 150 that were judged"):
        listed_mistakes(found, pairs[1:])
    with pytest.raises(PolyfaceError, match=r"section 'Mistakes': \d+.png is not in the table"):
        mistakes_section("Mistakes", listed_mistakes(found, pairs), table.take(np.arange(2)))


def test_a_perfect_run_has_no_mistake_to_show(table: FaceTable, pairs: list[Pair]) -> None:
    found = cavi(table, pairs, 0).verification
    assert isinstance(found, VerificationResult)
    (text,) = mistakes_section("Mistakes", listed_mistakes(found, pairs), table).blocks()
    assert isinstance(text, Text)


# --------------------------------------------------------------------------------------------------------- embeddings


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_embeddings_are_laid_out(table: FaceTable) -> None:
    networks = {name: embedding(table, noise) for name, noise in (("Single-visual", 0.4), ("Dynamic", 0.05))}
    section = embeddings_section("Embeddings", networks, table, people=PEOPLE[:3])
    text, figures = section.blocks()
    assert isinstance(text, Text)
    assert text.text.startswith("15 faces of 3 people, laid out by t-SNE")
    assert isinstance(figures, Figures)
    assert [figure.caption for figure in figures.figures] == ["Single-visual", "Dynamic"]
    again = embeddings_section("Embeddings", networks, table, people=PEOPLE[:3]).blocks()[1]
    assert again == figures
    with pytest.raises(PolyfaceError, match="section 'E': no face of zoe is in the table"):
        embeddings_section("E", networks, table, people=["cid", "zoe"])
    with pytest.raises(PolyfaceError, match="section 'E': 24 embeddings for 25 faces"):
        embeddings_section("E", {"x": networks["Dynamic"][1:]}, table)


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_people_who_are_alike_are_laid_out_together(table: FaceTable) -> None:
    places = caricature_pages._plane(embedding(table, 0.05).astype(np.float64), 0)
    people = table.classes("identity", PEOPLE)
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + np.where(np.eye(25), np.inf, 0)
    assert (people[apart.argmin(1)] == people).all()


def test_without_scikit_learn_the_section_says_what_it_needs(table: FaceTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    section = embeddings_section("Embeddings", {"Dynamic": embedding(table, 0.1)}, table)
    assert isinstance(section, TextSection)
    assert "polyface[explain]" in section.paragraphs[0]


def test_the_most_pictured_people_are_chosen(tmp_path: Path) -> None:
    counts = {"a": (9, 0), "b": (2, 3), "c": (5, 2), "d": (1, 9), "e": (3, 3)}
    faces = [(who, kind) for who, many in counts.items() for kind, n in zip(EACH, many, strict=True) for _ in range(n)]
    records = [
        Record(np.zeros((2, 2, 3), np.uint8), "", f"{row}", {"identity": who, "modality": kind})
        for row, (who, kind) in enumerate(faces)
    ]
    write_table(records, tmp_path / "t.parquet")
    table = FaceTable.open(tmp_path / "t.parquet")
    assert caricature_pages._most_pictured(table, 2) == ["b", "e"]
    assert caricature_pages._most_pictured(table, 9) == ["b", "c", "d", "e"]
    with pytest.raises(PolyfaceError, match="nobody in the table is on both a photo and a caricature"):
        caricature_pages._most_pictured(table.where(identity="a"), 2)


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
  Dynamic: {{stages: [cavi], seeds: 1}}
  Last: {{stages: [cavi], predictor: start, seeds: 1}}
  Never run: {{stages: [cavi], predictor: start}}
comparisons:
  - {{better: Dynamic, than: Single-visual}}
"""


@pytest.fixture(scope="module")
def runs(
    file: Path, table: FaceTable, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[reproduce.Runs]:
    """Answers of five variants as if they had run; the second seed of "Known across" alone."""
    out = tmp_path_factory.mktemp("runs")
    (out / "faces.yaml").write_text(RECIPE.format(table=file))
    recipe = load(out / "faces.yaml")

    def answered(name: str, noise: float, seed: int = 0) -> None:
        answers: dict[str, Any] = {}
        for place, task in enumerate(recipe.variant(name, seed).stages[-1].tasks):
            own = embedding(table, noise, place)
            answers[task] = {"embedding": own, "probabilities": own}
        _store(answers_path(out, Job(name, seed), "test"), answers, 0)

    stage = recipe.variant("Dynamic", 0).stages[-1]
    history = [
        {"epoch": e, "train": dict.fromkeys(stage.tasks, 3 / e), "weights": dict.fromkeys(stage.tasks, e / 6)}
        for e in (1, 2)
    ]
    place = folder(out, Job("Dynamic", 0)) / stage.name
    place.mkdir(parents=True)
    settings = json.loads(stage.model_dump_json()) | {"seed": 0}
    (place / stages.HISTORY).write_text(json.dumps({"settings": settings, "history": history, "seconds": 1}))
    for name, noise in {"dlib": 0.5, "Single-visual": 0.4, "Dynamic": 0.5, "Last": 0.6}.items():
        answered(name, noise)
    answered("Known across", 0.2, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Faces, "pairs", lambda self, name: pairs)
        yield Runs(recipe, None, out)


@pytest.fixture(scope="module")
def sections(runs: reproduce.Runs) -> dict[str, Section]:
    return {section.title: section for section in recognition_sections(runs)}


def test_variants_of_one_protocol_and_prefix_are_shown_together(sections: dict[str, Section]) -> None:
    across, listed = "WebCaricature, across", "CaVI"
    assert list(sections) == [
        *(f"{what}: {across}" for what in ("ROC", "DET", "CMC, C2P", "CMC, P2C", "Mistakes of dlib", "Embeddings")),
        *(f"{what}: {listed}" for what in ("ROC", "DET", "Mistakes of Dynamic", "Embeddings")),
    ]
    for title, names in {f"ROC: {across}": "dlib", f"DET: {listed}": "Dynamic, Last"}.items():
        plot = sections[title]
        assert isinstance(plot, PlotSection)
        assert plot.alt.endswith(f" of {names}")  # neither of another seed nor of what verifies nothing


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_a_network_of_one_task_is_beside_the_same_branch_of_that_of_several(sections: dict[str, Section]) -> None:
    shown = {}
    for title, section in sections.items():
        if title.startswith("Embeddings"):
            figures = section.blocks()[1]
            assert isinstance(figures, Figures)
            shown[title] = [figure.caption for figure in figures.figures]
    assert shown == {
        "Embeddings: WebCaricature, across": ["dlib"],
        "Embeddings: CaVI": ["Single-visual", "Dynamic, visual"],
    }


def test_variants_of_no_protocol_add_nothing() -> None:
    assert recognition_sections(Runs(load("tcdcn"), None, Path("nowhere"))) == []


def test_the_page_holds_it_all(runs: reproduce.Runs, tmp_path: Path) -> None:
    reproduce.collect(runs, tmp_path / "rows.json", "command", "faces")
    page = reproduce.table_report(tmp_path / "report.html", runs, tmp_path / "rows.json").read_text()
    for title in ("ROC: CaVI", "CMC, P2C: WebCaricature, across", "Mistakes of Dynamic: CaVI", "Training: Dynamic"):
        assert f"<h2>{title}" in page
    assert "weight per task over training: verification, visual, caricature" in page
    assert "Training: Last" not in page


# ----------------------------------------------------------------------------------------------------------- training

HISTORY: list[dict[str, Any]] = [
    {"epoch": 1, "train": {"verification": 4.0, "visual": 3.0}, "weights": {"verification": 0.3, "visual": 0.7}},
    {
        "epoch": 2,
        "train": {"verification": 2.0, "visual": 1.0},
        "weights": {"verification": 0.6},
        "validation": {"verification": 5.0},
    },
]


def test_a_history_is_followed_by_task() -> None:
    assert followed(HISTORY, "train") == {"verification": ([1, 2], [4, 2]), "visual": ([1, 2], [3, 1])}
    assert followed(HISTORY, "validation") == {"verification": ([2], [5])}
    epochs, values = followed(HISTORY, "weights")["visual"]
    assert epochs == [1, 2]
    np.testing.assert_array_equal(values, [0.7, np.nan])
    assert followed(HISTORY, "thresholds") == followed([], "train") == {}


def test_weights_are_drawn_where_they_change() -> None:
    section = training_section("Training", HISTORY)
    assert (section.title, section.x_label) == ("Training", "epoch")
    assert list(section.weights) == ["verification", "visual"]
    assert section.validation == {}  # of one epoch there is no curve
    (figures,) = section.blocks()
    assert isinstance(figures, Figures)
    assert [figure.caption for figure in figures.figures] == ["Loss per task", "Weight per task"]
    for still in ({"verification": 0.3, "visual": 0.7}, {}):
        assert training_section("t", [row | {"weights": still} for row in HISTORY]).weights == {}
    rounded = [row | {"weights": {"visual": 0.1 + 1e-15 * row["epoch"]}} for row in HISTORY]
    assert training_section("t", rounded).weights == {}
    within = [row | {"weights": {"attributes/Male": row["epoch"]}} for row in HISTORY]
    assert training_section("t", within).weights == {}


def test_a_task_that_stopped_is_marked() -> None:
    last = {"epoch": 3, "train": {"verification": 1.0}, "validation": {"verification": 4.0}, "stopped": {"visual": 2}}
    section = training_section("t", [*HISTORY, last])
    assert section.stopped == {"visual": 2}
    assert section.validation == {"verification": ([2, 3], [5, 4])}
    np.testing.assert_array_equal(section.losses["visual"][1], [3, 1, np.nan])
