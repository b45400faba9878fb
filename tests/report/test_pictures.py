"""Drawn faces, contact sheets and plots."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from polyface.errors import PolyfaceError
from polyface.metrics.sections import Curves
from polyface.report.faces import PREDICTED, TRUE, as_image, contact_sheet, draw_face, png
from polyface.report.plots import PALETTE, plot, plot_rows, plot_scatter

GREY = np.full((120, 160, 3), 128, np.uint8)
FIVE = np.array([[60.0, 40], [100, 40], [80, 60], [65, 85], [95, 85]])


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def changed(picture: Image.Image, base: np.ndarray = GREY) -> np.ndarray:
    """Which pixels differ from the picture drawn on: bool [H, W]."""
    return np.asarray((pixels(picture) != base).any(-1))


def near(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(np.abs(pixels(picture) - colour).max(-1) < 40)


def test_a_point_is_drawn_exactly_where_it_is() -> None:
    """Pixel centres are at integers: the mark of (80, 60) is centred on column 80 and row 60."""
    shape = np.array([[80.0, 60], [20, 20]])
    marked = changed(draw_face(GREY, points=shape))
    rows, columns = np.nonzero(marked[45:75, 65:95])
    assert len(rows) > 20
    assert [rows.mean() + 45, columns.mean() + 65] == pytest.approx([60, 80], abs=0.02)


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5])
def test_marks_are_placed_between_pixels(offset: float) -> None:
    drawn = pixels(draw_face(np.zeros_like(GREY), points=np.array([[80 + offset, 60], [20, 20]])))
    weight = drawn[45:75, 65:95].sum(-1)
    assert (weight.sum(0) * np.arange(65, 95)).sum() / weight.sum() == pytest.approx(80 + offset, abs=0.05)


def test_prediction_and_truth_have_their_colours_and_the_original_is_untouched() -> None:
    image = Image.fromarray(GREY)
    both = draw_face(image, points=FIVE, truth=FIVE + 12, lines=False)
    for x, y in FIVE.astype(int):
        assert near(both, PREDICTED)[y, x]
        assert near(both, TRUE)[y + 12, x + 12]
    assert (np.asarray(image) == GREY).all()


def test_lines_join_each_point_to_its_truth() -> None:
    large, face = np.zeros((600, 800, 3), np.uint8), FIVE * 5
    with_lines = near(draw_face(large, points=face, truth=face + [0, 60]), TRUE)
    without = near(draw_face(large, points=face, truth=face + [0, 60], lines=False), TRUE)
    assert with_lines[215:246, 300].all()
    assert not without[215:246, 300].any()


def test_68_points_get_outlines_that_stop_at_invisible_points() -> None:
    shape = np.full((68, 2), np.nan)
    shape[:17] = np.stack([np.linspace(20, 140, 17), np.full(17, 100.0)], axis=1)  # the jaw: 7.5 pixels apart
    between = 20 + 7.5 * 0.5 + 7.5 * np.arange(16)
    drawn = changed(draw_face(GREY, points=shape))
    assert drawn[100, between.astype(int)].all()
    assert not changed(draw_face(GREY, points=shape, lines=False))[100, between.astype(int)].any()
    shape[8] = np.nan
    drawn = changed(draw_face(GREY, points=shape))
    assert np.flatnonzero(~drawn[100, between.astype(int)]).tolist() == [7, 8]


def test_the_box_is_drawn_along_its_edges() -> None:
    drawn = changed(draw_face(GREY, box=[30, 20, 110, 100]))
    assert drawn[60, [30, 110]].all()
    assert drawn[[20, 100], 70].all()
    assert not drawn[25:95, 35:105].any()


def test_marks_grow_with_the_face() -> None:
    large = np.zeros((600, 800, 3), np.uint8)
    small = changed(draw_face(large, points=FIVE * 2), large).sum()
    assert changed(draw_face(large, points=FIVE * 6), large).sum() == pytest.approx(9 * small, rel=0.3)


def test_edges_are_smooth() -> None:
    drawn = pixels(draw_face(np.full((600, 800, 3), 255, np.uint8), points=5 * FIVE, lines=False))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 8  # an aliased mark has three colours


def test_size_scales_picture_and_points_together() -> None:
    scaled = draw_face(GREY, points=np.array([[80.0, 60], [20, 20]]), size=640)
    assert scaled.size == (640, 480)
    rows, columns = np.nonzero(changed(scaled, np.full((480, 640, 3), 128))[180:300, 260:390])
    assert [rows.mean() + 180, columns.mean() + 260] == pytest.approx([241.5, 321.5], abs=0.3)


def test_nothing_to_draw_and_points_outside_change_nothing() -> None:
    assert not changed(draw_face(GREY)).any()
    assert not changed(draw_face(GREY, points=np.full((5, 2), np.nan))).any()
    assert not changed(draw_face(GREY, points=np.full((5, 2), 900.0) + FIVE)).any()


@pytest.mark.parametrize(
    "picture",
    [Image.new("L", (8, 6)), Image.new("RGBA", (8, 6)), np.zeros((6, 8), np.uint8), np.zeros((6, 8, 1), np.uint8)],
)
def test_any_usual_picture_is_taken(picture: Image.Image | np.ndarray) -> None:
    converted = as_image(picture)
    assert (converted.mode, converted.size) == ("RGB", (8, 6))
    assert Image.open(io.BytesIO(png(picture))).size == (8, 6)


def test_misuse_is_explained() -> None:
    with pytest.raises(PolyfaceError, match="float64"):
        as_image(np.zeros((6, 8, 3)))  # type: ignore[arg-type]
    with pytest.raises(PolyfaceError, match=r"uint8 \[3, 6, 8\]"):
        as_image(np.zeros((3, 6, 8), np.uint8))
    with pytest.raises(PolyfaceError, match=r"\[points, 2\], found \[10\]"):
        draw_face(GREY, points=FIVE.ravel())
    with pytest.raises(PolyfaceError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(PolyfaceError, match="1 captions for 2 pictures"):
        contact_sheet([GREY, GREY], ["one"])
    with pytest.raises(PolyfaceError, match="at least one curve"):
        plot(Curves({}, "x", "y"))


def test_a_contact_sheet_is_a_grid_in_reading_order() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
    tiles = [Image.new("RGB", (30, 30), colour) for colour in colours]
    sheet = contact_sheet(tiles, columns=3, cell=60)
    gap = 4
    assert sheet.size == (gap + 3 * 64, gap + 2 * 64)
    for i, colour in enumerate(colours):
        assert sheet.getpixel((gap + 30 + 64 * (i % 3), gap + 30 + 64 * (i // 3))) == colour
    assert sheet.getpixel((gap + 30 + 128, gap + 30 + 64)) == (255, 255, 255)


def test_pictures_keep_their_shape_and_captions_stay_in_their_cell() -> None:
    wide = np.zeros((20, 80, 3), np.uint8)
    plain, captioned = contact_sheet([wide] * 2), contact_sheet([wide] * 2, ["a caption much too long " * 9, "b\nc"])
    dark = np.asarray((np.asarray(plain) == 0).all(-1))
    assert dark.sum() == 2 * 180 * 45
    assert captioned.height > plain.height
    first = np.asarray(captioned)[188 : 188 + 16].min((0, 2))  # the darkest of each column of the first line
    assert first[:188].min() < 100
    assert first[188:196].min() == 255


def test_plots_are_pictures_with_their_curves_and_marks() -> None:
    curves = {"landmarks": ([0, 1, 2], [3.0, 2, 1]), "pose": ([0, 1, 2], [1.0, np.nan, 2])}
    plain = np.asarray(Image.open(io.BytesIO(plot(Curves(curves, "step", "loss")))))
    marked = np.asarray(Image.open(io.BytesIO(plot(Curves(curves, "step", "loss", marks={"pose": 1.0}, y_log=True)))))
    assert plain.shape == marked.shape
    blue = (np.abs(plain[..., :3].astype(int) - (0x00, 0x72, 0xB2)).max(-1) < 30).sum()
    assert blue > 500
    assert (plain != marked).any()
    ced = Image.open(
        io.BytesIO(plot(Curves({"FLD": ([0, 5, 10], [0.0, 50, 100])}, "error, %", "faces, %", percent=True)))
    )
    assert min(ced.size) > 400


def test_the_interval_of_a_curve_is_a_band_in_its_colour() -> None:
    """A band from 1 to 3 around a curve at 2 colours about half of the plot, below and above the curve alike."""
    curves = {"FLD": ([300, 1000, 3000], [2.0, 2, 2])}
    plain, banded = (
        np.asarray(Image.open(io.BytesIO(plot(Curves(curves, "faces", "%", x_log=True, bands=bands)))))[..., :3]
        for bands in ({}, {"FLD": ([1, 1, 1], [3, 3, 3])})
    )
    pale = np.abs(banded.astype(int) - (217, 234, 243)).max(-1) < 6  # 15 % of #0072B2 on white
    assert pale.mean() > 0.4
    rows = np.flatnonzero(pale.any(1))
    curve = np.flatnonzero((np.abs(banded.astype(int) - (0x00, 0x72, 0xB2)).max(-1) < 30).sum(1) > 500)
    assert abs((curve - rows[0]).mean() - (rows[-1] - curve).mean()) < 5
    assert not (np.abs(plain.astype(int) - (217, 234, 243)).max(-1) < 6).mean() > 0.01


def test_groups_of_points_have_a_colour_and_kinds_a_marker() -> None:
    points = {
        "ann": {"photo": [[0, 0]], "caricature": [[1, 1]]},
        "bob": {"photo": np.zeros((0, 2)), "caricature": [[0, 1]]},
    }
    picture = np.asarray(Image.open(io.BytesIO(plot_scatter(points))).convert("RGB")).astype(int)
    without = {"ann": points["ann"], "bob": {"photo": [], "caricature": []}}
    other = np.asarray(Image.open(io.BytesIO(plot_scatter(without))).convert("RGB")).astype(int)
    changed = (picture != other).any(-1)
    assert 20 < changed.sum() < 0.9 * changed.size
    colours = [tuple(int(name[i : i + 2], 16) for i in (1, 3, 5)) for name in PALETTE[:3]]
    seen = [(np.abs(picture - colour).max(-1) < 12).any() for colour in colours]
    assert seen == [True, True, False]
    with pytest.raises(PolyfaceError, match="at least one point"):
        plot_scatter({})
    with pytest.raises(PolyfaceError, match="9 groups of 1 kinds: only 8 colours"):
        plot_scatter({str(i): {"photo": [[0, i]]} for i in range(9)})


def test_drawing_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, numpy; from polyface.report import faces, plots, page, published; "
        "from polyface.metrics import classification, sections; "
        "faces.draw_face(numpy.zeros((9, 9, 3), 'uint8'), box=[1, 1, 7, 7]); "
        "print({'torch', 'matplotlib', 'jinja2', 'matplotlib.pyplot'} & set(sys.modules)); "
        "plots.plot(sections.Curves({'a': ([1], [1])}, '', '')); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "False"]


def test_matrices_over_each_other_are_white_to_black_with_lines_between_blocks() -> None:
    """The columns of two blocks: one of zeros, one of each matrix's largest."""
    matrices = {"pose": np.tile([0.0, 0, 7, 7], (3, 1)), "light": np.tile([0.0, 0, 0.1, 0.1], (5, 1))}
    drawn = Image.open(io.BytesIO(plot_rows(matrices, {"left": 2, "right": 2}, x_label="", value="")))
    picture = np.asarray(drawn.convert("RGB")).astype(int)
    dark, line = (picture.max(-1) < 12), (np.abs(picture - (0xD5, 0x5E, 0x00)).max(-1) < 40)
    assert line.any(0).sum() in (1, 2, 3)  # one line, a pixel or two wide, at the same place in both
    at = int(np.flatnonzero(line.any(0)).mean())
    right, left = (dark[:, at + shift].mean() for shift in (25, -25))
    assert right > 0.5
    assert left < 0.1
    for some, blocks in (({}, {"left": 2}), (matrices, {})):
        with pytest.raises(PolyfaceError, match="at least one matrix and one block"):
            plot_rows(some, blocks, x_label="", value="")
