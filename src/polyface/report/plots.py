"""Figures as curves, scatter plots and grids: PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.sections import Curve, Curves

# Okabe & Ito's colours, told apart by colour-blind readers too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#555555")

_MARKERS = "o^sD"


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


def plot(block: Curves) -> bytes:
    """The curves of a result, as PNG bytes."""
    named = {
        (name or block.y_label) + (f" ({block.legend})" if block.legend else ""): curve
        for name, curve in block.curves.items()
    }
    return plot_curves(
        named,
        x_label=block.x_label,
        y_label=block.y_label,
        marks=block.marks,
        x_log=block.x_log,
        y_log=block.y_log,
        y_range=(0, 100.5) if block.percent else None,
    )
