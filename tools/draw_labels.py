"""Draws what few labels do, from the results files into docs/images: a figure by how many faces have labels, with its
95 % interval.

    python tools/draw_labels.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from polyface.metrics.sections import Curve, Curves
from polyface.report.plots import plot
from polyface.report.results import Results, read_results

DOCS = Path(__file__).parents[1] / "docs"
SIDE = "FLD+all, {faces} faces ({filters}) minus FLD, {faces} faces ({filters})"
EMOTION = ("imagenet", "encoder re-trained", "from scratch", "encoder frozen", "age+gender -> emotion")


def main() -> None:
    few, progressive = (read_results(DOCS / "results" / f"{name}.json") for name in ("tcdcn-labels-few", "progressive"))
    filters = {f"{one} filters": SIDE.replace("{filters}", one) for one in ("shared", "unshared")}
    pictures = {
        "tcdcn-labels-few": _drawn(few, filters, (300, 1000, 3000, 9000), "mean error", "FLD+all minus FLD (%)"),
        "progressive-few-labels": _drawn(
            progressive,
            {one: f"{one}, {{faces:,}} faces" for one in EMOTION},
            (250, 1000, 4000),
            "emotion",
            "accuracy (%)",
        ),
    }
    for name, block in pictures.items():
        (DOCS / "images" / f"{name}.png").write_bytes(plot(block))


def _drawn(results: Results, rows: Mapping[str, str], faces: Sequence[int], metric: str, told: str) -> Curves:
    """A curve for each of the rows, whose names have {faces} in the place of a number."""
    curves: dict[str, Curve] = {}
    bands = {}
    for name, row in rows.items():
        found = [results.get(row.format(faces=count), metric) for count in faces]
        curves[name] = (faces, [one.mean for one in found])
        ends = [one.interval or (math.nan, math.nan) for one in found]
        bands[name] = ([low for low, _ in ends], [high for _, high in ends])
    return Curves(curves, "faces with labels", told, x_log=True, bands=bands)


if __name__ == "__main__":
    main()
