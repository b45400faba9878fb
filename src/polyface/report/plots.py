"""Figures as curves, scatter plots and grids: PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.sections import Curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart by colour-blind readers too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#555555")

_MARKERS = "o^sD"
_PLACES = 8  # so few are written on a logarithmic axis themselves


def canvas(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def encoded(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plot(block: Curves) -> bytes:
    """The curves of a block with a legend, as PNG bytes.

    Each mark is a dashed vertical line, labelled, and in the colour of the curve of the same name if there is one (for
    example where a task stopped). Non-finite values leave gaps. Uses no global state of the plotting library.
    """
    from matplotlib.ticker import LogFormatter, MaxNLocator

    legend = f" ({block.legend})" if block.legend else ""
    curves = {(name or block.y_label) + legend: curve for name, curve in block.curves.items()}
    if not curves:
        raise PolyfaceError("a plot needs at least one curve")
    figure = canvas(7.0, 4.2)
    axes = figure.add_subplot()
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(curves)}
    bands = {(name or block.y_label) + legend: band for name, band in block.bands.items()}
    for i, (name, (x, y)) in enumerate(curves.items()):
        if name in bands:
            low, high = (np.asarray(one, dtype=np.float64) for one in bands[name])
            axes.fill_between(np.asarray(x), low, high, color=colours[name], alpha=0.15, linewidth=0)
        style = "-" if i < len(PALETTE) else "--"
        axes.plot(np.asarray(x), np.asarray(y, dtype=np.float64), style, color=colours[name], label=name, linewidth=1.8)
    for name, position in block.marks.items():
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
    axes.set(xlabel=block.x_label, ylabel=block.y_label)
    if block.x_log:
        axes.set_xscale("log")
        places = np.unique(np.concatenate([np.asarray(x, dtype=np.float64) for x, _ in curves.values()]))
        if len(places) <= _PLACES:
            axes.set_xticks(places)
            axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
    elif all(np.equal(np.mod(x, 1), 0).all() for x, _ in curves.values()):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))  # epochs, steps, ranks
    if block.y_log and any((np.asarray(y, dtype=np.float64) > 0).any() for _, y in curves.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter())  # numbers between powers of ten where there are few of these
    if block.percent:
        axes.set_ylim(0, 100.5)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    longest = max(map(len, curves))
    figure.legend(
        loc="outside upper left", frameon=False, fontsize=9, ncols=max(1, min(len(curves), 90 // (longest + 7)))
    )
    return encoded(figure)


def plot_scatter(points: Mapping[str, Mapping[str, ArrayLike]]) -> bytes:
    """Points {group: {kind: [N, 2]}} in a plane whose axes mean nothing, as PNG bytes: a colour a group (as many as
    `PALETTE` has), a marker a kind."""
    from matplotlib.lines import Line2D

    kinds = list(dict.fromkeys(kind for group in points.values() for kind in group))
    if not kinds:
        raise PolyfaceError("a plot needs at least one point")
    if len(points) > len(PALETTE) or len(kinds) > len(_MARKERS):
        raise PolyfaceError(
            f"{len(points)} groups of {len(kinds)} kinds: only {len(PALETTE)} colours and {len(_MARKERS)} markers are "
            "told apart"
        )
    figure = canvas(7.0, 5.2)
    axes = figure.add_subplot()
    markers = dict(zip(kinds, _MARKERS, strict=False))
    for colour, group in zip(PALETTE, points.values(), strict=False):
        for kind, where in group.items():
            x, y = np.asarray(where, dtype=np.float64).reshape(-1, 2).T
            axes.scatter(x, y, s=30, c=colour, marker=markers[kind], alpha=0.75, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#dddddd")
    legend = [Line2D([], [], linestyle="", marker="o", color=c, label=n) for n, c in zip(points, PALETTE, strict=False)]
    for kind, marker in markers.items():
        legend.append(Line2D([], [], linestyle="", marker=marker, mfc="none", mec="#222222", label=kind))
    figure.legend(handles=legend, loc="outside right upper", frameon=False, fontsize=9)
    return encoded(figure)


def plot_grid(
    values: Mapping[str, Sequence[float]], columns: Sequence[str], *, x_label: str, value: str, log: bool = False
) -> bytes:
    """Values {row: one a column} as a grid of colours, as PNG bytes. log: colours by the logarithm of values above 0;
    otherwise they are centred on 0. What is not finite (or not above 0) stays blank."""
    from matplotlib.colors import CenteredNorm, LogNorm, Normalize

    if not values or not columns:
        raise PolyfaceError("a grid of colours needs at least one row and one column")
    grid = np.array([list(row) for row in values.values()], dtype=np.float64)
    grid = np.ma.masked_invalid(np.where(grid > 0, grid, np.nan) if log else grid)
    norm: Normalize = LogNorm() if log and grid.count() else CenteredNorm()
    figure = canvas(2.8 + 0.22 * max(len(columns), 12), 0.9 + 0.17 * len(values))
    axes = figure.add_subplot()
    drawn = axes.imshow(grid, aspect="auto", interpolation="nearest", norm=norm, cmap="viridis" if log else "RdBu_r")
    step = max(1, len(columns) // 12)
    axes.set_xticks(range(0, len(columns), step), columns[::step], fontsize=8)
    axes.set_yticks(range(len(values)), list(values), fontsize=7)
    axes.set_xlabel(x_label)
    figure.colorbar(drawn, ax=axes, label=value)
    return encoded(figure)


def plot_rows(groups: Mapping[str, ArrayLike], blocks: Mapping[str, int], *, x_label: str, value: str) -> bytes:
    """Matrices {name: [rows, columns]} of the same columns over each other, as PNG bytes: from white, 0, to black, the
    largest of each matrix. blocks: {name: so many columns}, from left to right, told above and parted by lines."""
    if not groups or not blocks:
        raise PolyfaceError("a picture of matrices needs at least one matrix and one block of columns")
    matrices = {name: np.atleast_2d(np.asarray(matrix, dtype=np.float64)) for name, matrix in groups.items()}
    heights = [float(np.clip(np.sqrt(len(matrix)), 2, 8)) for matrix in matrices.values()]
    figure = canvas(9.0, 1.3 + 0.24 * sum(heights))
    drawn = figure.subplots(len(matrices), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    ends = np.cumsum([0, *blocks.values()])
    for axes, (name, matrix) in zip(drawn, matrices.items(), strict=True):
        top = float(np.nanmax(matrix, initial=0)) or 1.0
        picture = axes.imshow(
            matrix / top, aspect="auto", interpolation="nearest", cmap="Greys", vmin=0, vmax=1,
            extent=(0, matrix.shape[1], len(matrix), 0),
        )  # fmt: skip
        axes.set_yticks([])
        axes.set_ylabel(f"{name} ({len(matrix)})", rotation=0, ha="right", va="center", fontsize=9)
        for end in ends[1:-1]:
            axes.axvline(end, color=PALETTE[1], linewidth=1)
    above = drawn[0].secondary_xaxis("top")
    named = [(name, (a + b) / 2) for name, a, b in zip(blocks, ends, ends[1:], strict=False) if b > a]
    above.set_xticks([middle for _, middle in named], [name for name, _ in named], fontsize=9)
    above.tick_params(length=0)
    drawn[-1].set_xlabel(x_label)
    figure.colorbar(picture, ax=list(drawn), label=value, aspect=30)
    return encoded(figure)
