"""The report: self-contained, escaped, and complete."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyface.errors import PolyfaceError
from polyface.files import check_output
from polyface.metrics.groups import groups_of, within
from polyface.metrics.landmarks import evaluate_landmarks
from polyface.metrics.result import Row, rows
from polyface.metrics.sections import Curves, Face, Table, Text
from polyface.report.page import (
    Code,
    Notes,
    Section,
    faces_section,
    measured_section,
    parts_section,
    photo_section,
    render_report,
    result_section,
    side_by_side,
    write_report,
)
from polyface.report.published import Published, Statement
from polyface.schema import eyes

FACE = np.array([[10.0, 20], [20, 20], [15, 25], [11, 30], [19, 30]])
PREDICTED = FACE + np.arange(1, 13)[:, None, None] * [[[0.1, 0]]]  # face i is off by i percent
NAMES = ("left eye", "right eye", "nose", "left mouth", "right mouth")
RESULT = evaluate_landmarks(PREDICTED, np.repeat(FACE[None], 12, 0), eyes=eyes(5), names=NAMES)
BY_POSE = {
    pose: rows(pose, {0: within(RESULT, faces)}) for pose, faces in groups_of(["left", "right", "left"] * 4).items()
}
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
        Section("About", [Text("First."), Text("Second.")]),
        measured_section("Figures", [row], PRINTED, [Statement("It is seven times faster.", "the text")]),
        Section("Training", [Curves({"pose": (steps, 1 / (1 + steps))}, "step", "loss", "Loss", marks={"pose": 20})]),
        Section("Weights", [Curves({"": (steps, steps)}, "step", "weight")]),
        *(result_section(section.title, section, lambda face: PICTURE) for section in RESULT.sections()),
        parts_section("Poses", "pose", BY_POSE),
        photo_section("Photo", PICTURE, "Two faces", [{"face": "1", "pose": "left"}, {"face": "2", "smile": "yes"}]),
        Section("Answers", [Table(["person", ">age"], [["Anna", "30"]])]),
        Section("Recipe", [Code("polyface train tcdcn"), Code("seed: 1\nstages: []")]),
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
    assert len(images) == 1 + 2 + 18 + 1
    assert all(re.match(r"data:image/(png|jpeg);base64,", image["src"] or "") and image["alt"] for image in images)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert all(min(image.size) > 0 for image in page.images())


def test_a_page_may_be_replaced_and_a_page_of_somebody_else_not(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    for _ in range(2):
        write_report(path, "Faces", [Section("One", [Text("two")])])
        check_output(path)
    path.write_text("<html>what I think of Polyface</html>", encoding="utf-8")
    with pytest.raises(PolyfaceError, match="was not made by Polyface"):
        check_output(path)


def test_every_text_is_escaped() -> None:
    row = Row(EVIL, EVIL, 1.0, unit=EVIL, note=EVIL)
    result = evaluate_landmarks(PREDICTED, np.repeat(FACE[None], 12, 0), eyes=eyes(5), names=[EVIL] * 5)
    text = render_report(
        EVIL,
        [
            Section(EVIL, [Text(EVIL), Code(EVIL), Curves({"": ([0], [1])}, EVIL, EVIL, EVIL)]),
            measured_section(EVIL, [row], [Published(EVIL, "other", 1, EVIL, EVIL)], text=EVIL),
            *(result_section(EVIL, section) for section in result.sections()),
            *side_by_side({EVIL: result}, EVIL),
            parts_section(EVIL, EVIL, {EVIL: [row]}),
            faces_section(EVIL, {EVIL: [(PICTURE, EVIL)]}, EVIL),
            photo_section(EVIL, PICTURE, EVIL, [{EVIL: EVIL}]),
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


def test_intervals_over_faces_only_and_precisions_are_noted() -> None:
    one = Row("a", "m", 1, seeds=(0,), interval=(0, 2), note="mine", precision="bf16-mixed")
    several = Row("b", "m", 1, 0.1, seeds=(0, 1), interval=(0, 2), over="faces and seeds", precision="bf16-mixed")
    table, notes = measured_section("Figures", [one, several]).blocks
    assert isinstance(table, Table)
    assert isinstance(notes, Notes)
    assert [row[-1] for row in table.rows] == ["1, 2, 3", "3"]
    assert list(notes.notes) == ["mine", "interval over faces only", "trained in bf16-mixed"]


def test_notes_are_said_once_and_numbered() -> None:
    rows = [Row("a", "m", 1, note="shared"), Row("b", "m", 2, note="shared"), Row("c", "m", 3, note="own")]
    blocks = measured_section("Figures", rows, [Published("c", "m", 4.0, "Paper, Table 1", "other boxes")]).blocks
    table, notes = blocks
    assert isinstance(table, Table)
    assert isinstance(notes, Notes)
    assert [row[-1] for row in table.rows] == ["1", "1", "2, 3, 4"]
    assert list(notes.notes) == ["shared", "own", "other boxes", "Paper, Table 1"]
    assert table.rows[2][3] == "4.00"


def test_a_row_of_its_own_published_figure_keeps_it() -> None:
    table = measured_section("F", [Row("a", "m", 1, published=2.0)], [Published("a", "m", 9.0, "s")]).blocks[0]
    assert isinstance(table, Table)
    assert table.rows[0][3] == "2.00"


def test_columns_in_which_no_row_says_anything_are_left_out() -> None:
    rows = [Row("a", "m", 1.0, n=5), Row("b", "m", 2.0)]
    plain, papers = measured_section("F", rows, [Published("c", "m", 9.0, "")]).blocks
    assert isinstance(plain, Table)
    assert isinstance(papers, Table)
    assert plain.header == ["row", "metric", ">measured", ">n"]
    assert plain.rows == [["a", "m", "1.00 %", "5"], ["b", "m", "2.00 %", ""]]
    assert papers.header == ["row", "metric", ">published"]
    (seen,) = measured_section("F", [Row("a", "m", 1.0, seeds=(0,), published=2.0)]).blocks
    assert isinstance(seen, Table)
    assert seen.header == ["row", "metric", ">measured", ">published", ">seeds"]


def test_published_figures_that_were_not_measured_are_listed_apart() -> None:
    blocks = measured_section("Figures", [Row("LBF", "mean error, 300-W full", 6.0)], PRINTED).blocks
    tables = [block for block in blocks if isinstance(block, Table)]
    assert len(tables) == 2
    assert len(tables[1].rows) == len(PRINTED) - 1
    assert ["SDM", "mean error, 300-W full", "7.52 %"] in [list(row[:3]) for row in tables[1].rows]
    assert ["LBF", "mean error, 300-W full", "6.32 %"] not in [list(row[:3]) for row in tables[1].rows]


def test_rows_of_parts_are_one_table() -> None:
    (table,) = parts_section("Poses", "pose", BY_POSE).blocks
    assert isinstance(table, Table)
    assert table.header == ["pose", ">n", ">mean error", ">failure rate"]
    assert table.caption == "In parentheses the 95 % bootstrap interval; of one seed it is over faces only."
    assert [row[:2] for row in table.rows] == [["left", "8"], ["right", "4"]]
    assert table.rows[0][2].startswith(f"{RESULT.face_errors[[0, 2, 3, 5, 6, 8, 9, 11]].mean():.2f} (")
    assert table.rows[0][3].startswith("12.50 (")


def test_faces_of_a_result_are_drawn_by_whoever_has_their_pictures() -> None:
    seen: list[int] = []

    def picture(face: Face) -> np.ndarray:
        seen.append(face.row)
        return PICTURE

    faces = RESULT.sections()[-1]
    text, *groups = result_section("Faces", faces, picture).blocks
    assert [group.caption for group in groups] == ["Best", "Median", "Worst"]  # type: ignore[union-attr]
    assert seen == [*range(6), *range(3, 9), *range(11, 5, -1)]
    captions = [figure.caption for figure in groups[2].figures]  # type: ignore[union-attr]
    assert captions[:2] == ["12.0 %", "11.0 %"]
    assert result_section("Faces", faces).blocks == [text]


def test_results_over_the_same_units_stand_side_by_side() -> None:
    """Their curves in one plot, their lines in one table, a column each where a table has one; others by themselves."""
    better = evaluate_landmarks(FACE + (PREDICTED - FACE) / 2, np.repeat(FACE[None], 12, 0), eyes=eyes(5), names=NAMES)
    other = evaluate_landmarks(PREDICTED[:5], np.repeat(FACE[None], 5, 0), eyes=eyes(5))
    curve, points = side_by_side({"plain": RESULT, "better": better}, "MTFL", "First seed.")
    assert [curve.title, points.title] == ["Error curve: MTFL", "By landmark: MTFL"]
    drawn = curve.blocks[0]
    assert isinstance(drawn, Curves)
    assert drawn.caption == "First seed."
    assert list(drawn.curves) == ["plain (AUC 37.5 %)", "better (AUC 67.5 %)"]
    figures, each = curve.blocks[1], points.blocks[0]
    assert isinstance(figures, Table)
    assert isinstance(each, Table)
    assert [row[:2] for row in figures.rows] == [["plain", "6.50"], ["better", "3.25"]]
    assert each.header == ["landmark", ">plain", ">better"]
    assert each.rows[0] == ["left eye", "6.50", "3.25"]
    apart = side_by_side({"plain": RESULT, "few": other})
    assert [section.title for section in apart] == ["Error curve: plain", "By landmark: plain", "Error curve: few"]


def test_large_photos_are_reduced_and_the_recipe_is_verbatim() -> None:
    large = np.zeros((900, 3000, 3), np.uint8)
    page = Page(render_report("R", [photo_section("Photo", large), Section("Recipe", [Code("a: 1\n  b: <2>")])]))
    assert page.images()[0].size == (1200, 360)
    assert "a: 1\n  b: <2>" in page.words


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "report.html", "First", sections())
    before = path.read_text(encoding="utf-8")
    assert Page(before).words.count("First") == 2
    with pytest.raises(PolyfaceError, match="a plot needs at least one curve"):
        write_report(path, "Second", [Section("Broken", [Curves({}, "x", "y")])])
    assert path.read_text(encoding="utf-8") == before
    assert len(list(path.parent.iterdir())) == 1
