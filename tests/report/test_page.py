"""The report: self-contained, escaped, and complete."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyface.errors import PolyfaceError
from polyface.metrics.landmarks import evaluate_landmarks
from polyface.metrics.result import Row
from polyface.report.page import (
    CedSection,
    Code,
    FacesSection,
    GroupSection,
    LandmarkSection,
    MeasuredSection,
    Notes,
    PhotoSection,
    PlotSection,
    RecipeSection,
    Section,
    Table,
    TextSection,
    TrainingSection,
    best_median_worst,
    render_report,
    write_report,
)
from polyface.report.published import Published, Statement

FACE = np.array([[10.0, 20], [20, 20], [15, 25], [11, 30], [19, 30]])
PREDICTED = FACE + np.arange(1, 13)[:, None, None] * [[[0.1, 0]]]  # face i is off by i percent
RESULT = evaluate_landmarks(PREDICTED, np.repeat(FACE[None], 12, 0), groups={"pose": ["left", "right", "left"] * 4})
PRINTED = [
    Published("LBF", "mean error, 300-W full", 6.32, "Table 1", "all 689 faces"),
    Published("SDM", "mean error, 300-W full", 7.52, "Table 1", "all 689 faces"),
    Published("SDM", "time per face, CPU", 17, "the text", "a Core i5", "ms"),
]
PICTURE = np.full((40, 60, 3), 90, np.uint8)
EVIL = '<script>alert("x")</script> & <b>'
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    def images(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) for source in sources]


def sections() -> list[Section]:
    steps = np.arange(50)
    row = Row("TCDCN", "mean error, 300-W common", 5.9, 0.1, 330, (0, 1), (5.5, 6.2), note="Helen only")
    return [
        TextSection("About", ["First.", "Second."]),
        MeasuredSection("Figures", [row], PRINTED, [Statement("It is seven times faster.", "the text")]),
        CedSection("Distribution", {"TCDCN": RESULT.face_errors}),
        TrainingSection("Training", {"pose": (steps, 1 / (1 + steps))}, {"pose": (steps, steps)}, stopped={"pose": 20}),
        LandmarkSection("Landmarks", {"TCDCN": RESULT}, ["left eye", "right eye", "nose", "left mouth", "right mouth"]),
        GroupSection("Poses", "pose", {"TCDCN": RESULT}),
        best_median_worst("Faces", RESULT, lambda row: PICTURE, count=2),
        PhotoSection("Photo", PICTURE, "Two faces", [{"face": "1", "pose": "left"}, {"face": "2", "smile": "yes"}]),
        PlotSection("Plot", PICTURE, "A grey plot"),
        RecipeSection("Recipe", "seed: 1\nstages: []", "polyface train tcdcn"),
    ]


def test_every_section_is_in_the_page_and_linked() -> None:
    page = Page(render_report("TCDCN on MTFL", sections()))
    titles = [section.title for section in sections()]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    ids = [f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section"]
    assert links == ids
    assert len(ids) == len(titles)
    assert all(page.words.count(title) >= 2 for title in titles)
    assert page.words.count("TCDCN on MTFL") == 2
    for word in ("First.", "left mouth", "Helen only", "5.90 ± 0.10 (5.50–6.20) %", "polyface train tcdcn", "Worst"):
        assert word in page.words


def test_the_page_fetches_nothing() -> None:
    text = render_report("TCDCN", sections())
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1 + 2 + 6 + 1 + 1
    assert all(re.match(r"data:image/(png|jpeg);base64,", image["src"] or "") and image["alt"] for image in images)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert all(min(image.size) > 0 for image in page.images())


def test_every_text_is_escaped() -> None:
    row = Row(EVIL, EVIL, 1.0, unit=EVIL, note=EVIL)
    evil_result = evaluate_landmarks(PREDICTED, np.repeat(FACE[None], 12, 0), groups={EVIL: [EVIL] * 12})
    text = render_report(
        EVIL,
        [
            TextSection(EVIL, [EVIL]),
            MeasuredSection(EVIL, [row], [Published(EVIL, "other", 1, EVIL, EVIL)], text=EVIL),
            CedSection(EVIL, {EVIL: RESULT.face_errors}),
            LandmarkSection(EVIL, {EVIL: RESULT}, [EVIL] * 5),
            GroupSection(EVIL, EVIL, {EVIL: evil_result}),
            FacesSection(EVIL, {EVIL: [(PICTURE, EVIL)]}, EVIL),
            PhotoSection(EVIL, PICTURE, EVIL, [{EVIL: EVIL}]),
            RecipeSection(EVIL, EVIL, EVIL),
        ],
    )
    assert "<script" not in text
    assert "<b>" not in text
    assert text.count("&lt;script&gt;") > 25
    assert Page(text).words.count(EVIL) > 20


def test_the_page_is_readable_on_small_and_dark_screens() -> None:
    page = render_report("TCDCN", [])
    assert '<meta name="viewport" content="width=device-width' in page
    assert "@media (prefers-color-scheme: dark)" in page


def test_notes_are_said_once_and_numbered() -> None:
    rows = [Row("a", "m", 1, note="shared"), Row("b", "m", 2, note="shared"), Row("c", "m", 3, note="own")]
    blocks = MeasuredSection("Figures", rows, [Published("c", "m", 4.0, "Paper, Table 1", "other boxes")]).blocks()
    table, notes = blocks
    assert isinstance(table, Table)
    assert isinstance(notes, Notes)
    assert [row[-1] for row in table.rows] == ["1", "1", "2, 3, 4"]
    assert list(notes.notes) == ["shared", "own", "other boxes", "Paper, Table 1"]
    assert table.rows[2][3] == "4.00"


def test_a_row_of_its_own_published_figure_keeps_it() -> None:
    table = MeasuredSection("F", [Row("a", "m", 1, published=2.0)], [Published("a", "m", 9.0, "s")]).blocks()[0]
    assert isinstance(table, Table)
    assert table.rows[0][3] == "2.00"


def test_published_figures_that_were_not_measured_are_listed_apart() -> None:
    blocks = MeasuredSection("Figures", [Row("LBF", "mean error, 300-W full", 6.0)], PRINTED).blocks()
    tables = [block for block in blocks if isinstance(block, Table)]
    assert len(tables) == 2
    assert len(tables[1].rows) == len(PRINTED) - 1
    assert ["SDM", "mean error, 300-W full", "7.52 %"] in [list(row[:3]) for row in tables[1].rows]
    assert ["LBF", "mean error, 300-W full", "6.32 %"] not in [list(row[:3]) for row in tables[1].rows]


def test_tables_show_the_results_figures() -> None:
    (landmarks,) = LandmarkSection("L", {"a": RESULT}).blocks()
    (groups,) = GroupSection("G", "pose", {"a": RESULT}).blocks()
    assert isinstance(landmarks, Table)
    assert isinstance(groups, Table)
    assert [row[1] for row in landmarks.rows][:5] == ["6.50"] * 5
    assert landmarks.rows[5][1].startswith("6.50 (")
    assert [row[:2] for row in groups.rows] == [["left", "8"], ["right", "4"]]
    assert groups.rows[0][2].startswith(f"{RESULT.per_group['pose']['left'].mean_error:.2f} (")
    assert groups.rows[0][3].startswith("12.50 (")


def test_best_median_and_worst_faces_are_the_right_ones() -> None:
    seen: list[int] = []

    def picture(row: int) -> np.ndarray:
        seen.append(row)
        return PICTURE

    section = best_median_worst("Faces", RESULT, picture, count=2)
    assert seen == [0, 1, 5, 6, 11, 10]
    captions = {name: [caption for _, caption in faces] for name, faces in section.groups.items()}
    assert captions == {"Best": ["1.0 %", "2.0 %"], "Median": ["6.0 %", "7.0 %"], "Worst": ["12.0 %", "11.0 %"]}


def test_undefined_figures_are_dashes() -> None:
    truth = np.repeat(FACE[None], 2, 0)
    truth[:, 3] = math.nan
    (table,) = LandmarkSection("L", {"a": evaluate_landmarks(np.repeat(FACE[None], 2, 0), truth)}).blocks()
    assert isinstance(table, Table)
    assert [row[1] for row in table.rows[:5]] == ["0.00", "0.00", "0.00", "–", "0.00"]


def test_sections_that_do_not_fit_their_results_say_so() -> None:
    with pytest.raises(PolyfaceError, match="'L': every result must have the 2 landmarks"):
        LandmarkSection("L", {"a": RESULT}, ["one", "two"]).blocks()
    with pytest.raises(PolyfaceError, match="'G': no result has the grouping 'age'"):
        GroupSection("G", "age", {"a": RESULT}).blocks()


def test_large_photos_are_reduced_and_the_recipe_is_verbatim() -> None:
    large = np.zeros((900, 3000, 3), np.uint8)
    page = Page(render_report("R", [PhotoSection("Photo", large), RecipeSection("Recipe", "a: 1\n  b: <2>")]))
    assert page.images()[0].size == (1200, 360)
    assert "a: 1\n  b: <2>" in page.words
    assert RecipeSection("Recipe", "a").blocks() == [Code("a")]


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    class Broken:
        title = "Broken"

        def blocks(self) -> list[Code]:
            raise PolyfaceError("cannot show")

    path = write_report(tmp_path / "new" / "report.html", "First", sections())
    before = path.read_text(encoding="utf-8")
    assert Page(before).words.count("First") == 2
    with pytest.raises(PolyfaceError, match="cannot show"):
        write_report(path, "Second", [Broken()])
    assert path.read_text(encoding="utf-8") == before
    assert len(list(path.parent.iterdir())) == 1
