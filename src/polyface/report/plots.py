"""Figures as curves, scatter plots and grids: PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from polyface.errors import PolyfaceError
from polyface.metrics.resampling import Floats

if TYPE_CHECKING:
    from polyface.metrics.recognition.all_pairs import AllPairsResult
    from polyface.metrics.recognition.retrieval import RetrievalResult
    from polyface.metrics.recognition.verification import VerificationResult

# Okabe & Ito's colours, told apart by colour-blind readers too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#555555")

_MARKERS = "o^sD"

Curve = tuple[ArrayLike, ArrayLike]


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
    from polyface.metrics.landmarks import auc, ced

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
    from polyface.metrics.recognition.all_pairs import AllPairsResult
    from polyface.metrics.recognition.pairs import roc

    if isinstance(result, AllPairsResult):
        return result.rates
    far, val = roc(result.distances, result.truth)
    levels = np.geomspace(100 / (result.n - result.same), 100, steps)
    return levels, val[np.searchsorted(far, levels * (1 + 1e-9), side="right") - 1]


def plot_cmc(results: Mapping[str, RetrievalResult], to: int = 20, title: str = "") -> bytes:
    """The share of probes found at each rank up to `to`, with rank-1 in the legend, as PNG bytes."""
    from polyface.metrics.recognition.retrieval import cmc

    curves: dict[str, Curve] = {}
    for name, one in results.items():
        ranks, rate = cmc(one, to)
        curves[f"{name} (rank-1 {rate[0]:.1f} %)"] = (ranks, rate)
    return plot_curves(curves, x_label="rank", y_label="found, %", title=title, y_range=(0, 100.5))
