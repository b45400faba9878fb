"""Pictures of faces and of figures: landmarks and boxes drawn on images, contact sheets, curves as PNG.

Coordinates are those of the whole project: pixel centres at integers, (x, y) from 0 at the top left. Marks are drawn at
several times the resolution and reduced, so they are smooth, and their size follows the face's, so they suit both a
60-pixel crop and a large photo.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from polyface.errors import PolyfaceError
from polyface.evaluation.metrics import Floats
from polyface.schema import landmark_groups

if TYPE_CHECKING:
    from polyface.evaluation.all_pairs import AllPairsResult
    from polyface.evaluation.retrieval import RetrievalResult
    from polyface.evaluation.verification import VerificationResult

# Okabe & Ito's colours, told apart by colour-blind readers too; sky blue and orange also stand out on skin.
PREDICTED, TRUE, BOX = (86, 200, 255), (255, 159, 10), (255, 255, 255)
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#555555")

_MARKERS = "o^sD"

Picture = Image.Image | NDArray[np.uint8]
Curve = tuple[ArrayLike, ArrayLike]


def as_image(picture: Picture) -> Image.Image:
    """An RGB image of a PIL image or a uint8 array [H, W], [H, W, 1] or [H, W, 3]."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not array.size:
        raise PolyfaceError(f"a picture must be uint8 [H, W] or [H, W, 3], found {array.dtype} {list(array.shape)}")
    return Image.fromarray(array).convert("RGB")


def draw_face(
    image: Picture,
    box: ArrayLike | None = None,
    points: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    lines: bool = True,
    size: int | None = None,
) -> Image.Image:
    """The image with a face drawn on it, as a new RGB image.

    `box` is xyxy; `points` (predicted, blue) and `truth` (orange) are [P, 2], NaN where invisible. With `lines`, a
    layout of known outlines (68 points) gets them, and points drawn with their truth are joined to it. `size` scales
    the longer side first, so that a small crop is drawn on at a readable resolution.
    """
    picture = as_image(image)
    scale = 1.0 if size is None else size / max(picture.size)
    if size is not None:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    shapes = [_scaled(values, scale) for values in (truth, points)]
    corners = None if box is None else _scaled(np.asarray(box, dtype=np.float64).reshape(2, 2), scale)
    known = np.concatenate([shape for shape in (*shapes, corners) if shape is not None] or [np.empty((0, 2))])
    known = known[np.isfinite(known).all(1)]
    if not len(known):
        return picture
    layer = _Layer(picture.size, known)
    if corners is not None:
        layer.path(corners[[0, 0, 1, 1, 0], 0], corners[[0, 1, 1, 0, 0], 1], BOX, 1.0)
    if lines and all(shape is not None for shape in shapes):
        for (x0, y0), (x1, y1) in zip(*(shape for shape in shapes if shape is not None), strict=True):
            layer.path(np.array([x0, x1]), np.array([y0, y1]), TRUE, 1.0)
    for shape, colour in zip(shapes, (TRUE, PREDICTED), strict=True):
        if shape is not None:
            layer.landmarks(shape, colour, lines)
    return layer.onto(picture)


def _scaled(values: ArrayLike | None, scale: float) -> Floats | None:
    if values is None:
        return None
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise PolyfaceError(f"landmarks of one face must have the shape [points, 2], found {list(points.shape)}")
    return (points + 0.5) * scale - 0.5


class _Layer:
    """A transparent layer over the part of an image around some points, at a multiple of its resolution."""

    def __init__(self, size: tuple[int, int], points: Floats) -> None:
        extent = float(np.clip(np.ptp(points, axis=0).max(), 0.1 * min(size), max(size)))
        self.unit = max(extent / 110, 0.45)  # a thin line, in pixels of the image
        low = np.clip(np.floor(points.min(0) - 6 * self.unit), 0, np.array(size) - 1).astype(int)
        high = np.clip(np.ceil(points.max(0) + 6 * self.unit) + 1, low + 1, size).astype(int)
        self.low, self.size = low, high - low
        # Large faces need no supersampling to look smooth, and memory is bounded.
        self.times = max(1, min(4, math.isqrt(24_000_000 // int(self.size.prod()))))
        width, height = (int(side) for side in self.size * self.times)
        self.canvas = Image.new("RGBA", (width, height))
        self.draw = ImageDraw.Draw(self.canvas)

    def _place(self, points: Floats) -> list[tuple[float, float]]:
        placed = (points - self.low + 0.5) * self.times - 0.5
        return [(float(x), float(y)) for x, y in placed]

    def path(self, x: Floats, y: Floats, colour: tuple[int, int, int], weight: float) -> None:
        """A polyline over a dark rim; it is interrupted at invisible points."""
        points = np.stack([x, y], axis=1)
        gaps = np.flatnonzero(~np.isfinite(points).all(1))
        runs = [run[np.isfinite(run).all(1)] for run in np.split(points, gaps)]
        for rim, ink in ((2.0, (0, 0, 0, 70)), (1.0, (*colour, 235))):
            width = max(1, round(weight * rim * self.unit * self.times))
            for run in runs:
                if len(run) > 1:
                    self.draw.line(self._place(run), fill=ink, width=width, joint="curve")

    def landmarks(self, points: Floats, colour: tuple[int, int, int], lines: bool) -> None:
        """Dots, smaller the more there are, over the layout's outlines."""
        if lines:
            for group in landmark_groups(len(points)).values():
                self.path(points[group, 0], points[group, 1], colour, 0.9)
        radius = self.unit * self.times * (3.4 if len(points) <= 10 else 1.5)
        for x, y in self._place(points[np.isfinite(points).all(1)]):
            for rim, ink in ((1.35, (0, 0, 0, 170)), (1.0, (*colour, 255))):
                r = math.floor(radius * rim) + 0.5  # the drawing truncates to whole pixels: half ones keep the centre
                self.draw.ellipse((round(x - r), round(y - r), round(x + r), round(y + r)), fill=ink)

    def onto(self, picture: Image.Image) -> Image.Image:
        """The picture with the layer reduced and laid over it."""
        width, height = (int(side) for side in self.size)
        layer = self.canvas.resize((width, height), Image.Resampling.BOX)
        result = picture.convert("RGBA")
        result.alpha_composite(layer, (int(self.low[0]), int(self.low[1])))
        return result.convert("RGB")


def contact_sheet(
    images: Sequence[Picture],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    cell: int = 180,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Pictures in a grid, each fitted into `cell` × `cell` pixels, with a caption below; long lines are cut."""
    if not images:
        raise PolyfaceError("a contact sheet needs at least one picture")
    texts = [""] * len(images) if captions is None else list(captions)
    if len(texts) != len(images):
        raise PolyfaceError(f"{len(texts)} captions for {len(images)} pictures: give one each")
    font = ImageFont.load_default(max(11, cell / 14))
    line = math.ceil(max(11, cell / 14) * 1.3)
    below = line * max(len(text.splitlines()) for text in texts)
    columns = max(1, min(columns, len(images)))
    gap = max(4, cell // 22)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (gap + columns * (cell + gap), gap + rows * (cell + below + gap)), background)
    draw = ImageDraw.Draw(sheet)
    ink = (20, 20, 20) if sum(background) > 380 else (235, 235, 235)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        picture = as_image(image)
        ratio = cell / max(picture.size)
        fitted = picture.resize([max(1, round(side * ratio)) for side in picture.size], Image.Resampling.LANCZOS)
        left, top = gap + (i % columns) * (cell + gap), gap + (i // columns) * (cell + below + gap)
        sheet.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
        for row, words in enumerate(text.splitlines()):
            draw.text((left, top + cell + row * line + line // 6), _shortened(words, font, cell), fill=ink, font=font)
    return sheet


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def png(image: Picture) -> bytes:
    """The picture as PNG bytes."""
    buffer = io.BytesIO()
    as_image(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def plot_curves(
    curves: Mapping[str, Curve],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    marks: Mapping[str, float] | None = None,
    x_log: bool = False,
    y_log: bool = False,
    y_range: tuple[float, float] | None = None,
    size: tuple[float, float] = (7.0, 4.2),
) -> bytes:
    """Curves {name: (x, y)} with a legend, as PNG bytes.

    `marks` puts a dashed vertical line at an x, labelled, and in the colour of the curve of the same name if there is
    one (for example where a task stopped). Non-finite values leave gaps. Uses no global state of the plotting library.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    if not curves:
        raise PolyfaceError("a plot needs at least one curve")
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(curves)}
    for i, (name, (x, y)) in enumerate(curves.items()):
        style = "-" if i < len(PALETTE) else "--"
        axes.plot(np.asarray(x), np.asarray(y, dtype=np.float64), style, color=colours[name], label=name, linewidth=1.8)
    for name, position in (marks or {}).items():
        colour = colours.get(name, "#555555")
        axes.axvline(position, color=colour, linestyle=":", linewidth=1.4)
        axes.annotate(
            f" {name} stopped" if name in colours else f" {name}",
            (position, 0.985),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="right",
            va="top",
            color=colour,
            fontsize=8,
        )
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    if x_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    elif all(np.equal(np.mod(x, 1), 0).all() for x, _ in curves.values()):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))  # epochs, steps, ranks
    if y_log and any((np.asarray(y, dtype=np.float64) > 0).any() for _, y in curves.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter())  # numbers between powers of ten where there are few of these
    if y_range:
        axes.set_ylim(*y_range)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    longest = max(map(len, curves))
    figure.legend(
        loc="outside upper left", frameon=False, fontsize=9, ncols=max(1, min(len(curves), 90 // (longest + 7)))
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plot_scatter(
    points: Mapping[str, Mapping[str, ArrayLike]], title: str = "", size: tuple[float, float] = (7.0, 5.2)
) -> bytes:
    """Points {group: {kind: [N, 2]}} in a plane whose axes mean nothing, as PNG bytes: a colour a group (as many as
    `PALETTE` has), a marker a kind."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    kinds = list(dict.fromkeys(kind for group in points.values() for kind in group))
    if not kinds:
        raise PolyfaceError("a plot needs at least one point")
    if len(points) > len(PALETTE) or len(kinds) > len(_MARKERS):
        raise PolyfaceError(
            f"{len(points)} groups of {len(kinds)} kinds: only {len(PALETTE)} colours and {len(_MARKERS)} markers are "
            "told apart"
        )
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    markers = dict(zip(kinds, _MARKERS, strict=False))
    for colour, group in zip(PALETTE, points.values(), strict=False):
        for kind, where in group.items():
            x, y = np.asarray(where, dtype=np.float64).reshape(-1, 2).T
            axes.scatter(x, y, s=30, c=colour, marker=markers[kind], alpha=0.75, linewidths=0)
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_color("#dddddd")
    legend = [Line2D([], [], linestyle="", marker="o", color=c, label=n) for n, c in zip(points, PALETTE, strict=False)]
    for kind, marker in markers.items():
        legend.append(Line2D([], [], linestyle="", marker=marker, mfc="none", mec="#222222", label=kind))
    figure.legend(handles=legend, loc="outside right upper", frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plot_grid(
    values: Mapping[str, Sequence[float]], columns: Sequence[str], *, x_label: str, value: str, log: bool = False
) -> bytes:
    """Values {row: one a column} as a grid of colours, as PNG bytes. log: colours by the logarithm of values above 0;
    otherwise they are centred on 0. What is not finite (or not above 0) stays blank."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import CenteredNorm, LogNorm, Normalize
    from matplotlib.figure import Figure

    if not values or not columns:
        raise PolyfaceError("a grid of colours needs at least one row and one column")
    grid = np.array([list(row) for row in values.values()], dtype=np.float64)
    grid = np.ma.masked_invalid(np.where(grid > 0, grid, np.nan) if log else grid)
    norm: Normalize = LogNorm() if log and grid.count() else CenteredNorm()
    figure = Figure(
        figsize=(2.8 + 0.22 * max(len(columns), 12), 0.9 + 0.17 * len(values)), dpi=130, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = axes.imshow(grid, aspect="auto", interpolation="nearest", norm=norm, cmap="viridis" if log else "RdBu_r")
    step = max(1, len(columns) // 12)
    axes.set_xticks(range(0, len(columns), step), columns[::step], fontsize=8)
    axes.set_yticks(range(len(values)), list(values), fontsize=7)
    axes.set_xlabel(x_label)
    figure.colorbar(drawn, ax=axes, label=value)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plot_ced(errors: Mapping[str, ArrayLike], to: float = 10.0, title: str = "") -> bytes:
    """Cumulative error distributions of face errors {name: [N], percent}, with the AUC in the legend, as PNG bytes."""
    from polyface.evaluation.landmarks import auc, ced

    curves: dict[str, Curve] = {}
    for name, values in errors.items():
        x, fraction = ced(values, to)
        curves[f"{name} (AUC {auc(values, to):.1f} %)"] = (x, 100 * fraction)
    return plot_curves(
        curves, x_label="error, % of the normalising distance", y_label="faces, %", title=title, y_range=(0, 100.5)
    )


def plot_roc(results: Mapping[str, VerificationResult | AllPairsResult], title: str = "") -> bytes:
    """VAL over FAR, on a logarithmic axis, with the AUC in the legend, as PNG bytes."""
    curves = {f"{name} (AUC {one.auc.value:.1f} %)": _rates(one) for name, one in results.items()}
    return plot_curves(curves, x_label="FAR, %", y_label="VAL, %", title=title, x_log=True, y_range=(0, 100.5))


def plot_det(results: Mapping[str, VerificationResult | AllPairsResult], title: str = "") -> bytes:
    """FRR over FAR, both on logarithmic axes, with the equal error rate in the legend, as PNG bytes."""
    curves: dict[str, Curve] = {}
    for name, one in results.items():
        far, val = _rates(one)
        curves[f"{name} (EER {one.eer.value:.1f} %)"] = (far, np.where(val < 100, 100 - val, np.nan))
    return plot_curves(curves, x_label="FAR, %", y_label="FRR, %", title=title, x_log=True, y_log=True)


def _rates(result: VerificationResult | AllPairsResult, steps: int = 500) -> tuple[Floats, Floats]:
    """The largest VAL at each of some FARs, in percent, from that of a single pair on: millions of pairs fit a plot."""
    from polyface.evaluation.all_pairs import AllPairsResult
    from polyface.evaluation.pairs import roc

    if isinstance(result, AllPairsResult):
        return result.rates
    far, val = roc(result.distances, result.truth)
    levels = np.geomspace(100 / (result.n - result.same), 100, steps)
    return levels, val[np.searchsorted(far, levels * (1 + 1e-9), side="right") - 1]


def plot_cmc(results: Mapping[str, RetrievalResult], to: int = 20, title: str = "") -> bytes:
    """The share of probes found at each rank up to `to`, with rank-1 in the legend, as PNG bytes."""
    from polyface.evaluation.retrieval import cmc

    curves: dict[str, Curve] = {}
    for name, one in results.items():
        ranks, rate = cmc(one, to)
        curves[f"{name} (rank-1 {rate[0]:.1f} %)"] = (ranks, rate)
    return plot_curves(curves, x_label="rank", y_label="found, %", title=title, y_range=(0, 100.5))
