"""Draws what few labels do, from the results files into docs/images: a figure by how many faces have labels, with its
95 % interval over faces and runs where there are three runs or more; and by the learning rate.

    python tools/draw_labels.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from polyface.metrics.sections import Curve, Curves
from polyface.report.plots import plot
from polyface.report.results import Results, read_results

DOCS = Path(__file__).parents[1] / "docs"
RUNS = 3  # of two the interval holds nearly everything, of one it says nothing of how runs differ
SIDE = "FLD+all, {faces} faces (%s) minus FLD, {faces} faces (%s)"
START = "68 transfer, {faces} faces minus 68 transfer, FLD alone, {faces} faces"
EMOTION = ("imagenet", "encoder re-trained", "from scratch", "encoder frozen", "age+gender -> emotion")


def main() -> None:
    few, progressive = (read_results(DOCS / "results" / f"{name}.json") for name in ("tcdcn-labels-few", "progressive"))
    side = {f"five points, {one} filters": SIDE % (one, one) for one in ("shared", "unshared")}
    differences = [_drawn(few, row, (300, 1000, 3000, 9000), "mean error") for row in side.values()]
    differences.append(_drawn(few, START, (100, 300), "common mean error"))
    emotion = [_drawn(progressive, f"{one}, {{faces:,}} faces", (250, 1000, 4000), "emotion") for one in EMOTION]
    pictures = {
        "tcdcn-labels-few": (dict(zip([*side, "68 points"], differences, strict=True)), "with minus without (%)"),
        "progressive-few-labels": (dict(zip(EMOTION, emotion, strict=True)), "accuracy (%)"),
    }
    for name, (drawn, told) in pictures.items():
        curves, bands = ({of: one[place] for of, one in drawn.items()} for place in (0, 1))
        block = Curves(curves, "faces with labels", told, x_log=True, bands=bands)
        (DOCS / "images" / f"{name}.png").write_bytes(plot(block))
    trials = read_results(DOCS / "results" / "progressive-rates.json")
    for faces in (250, 1000):
        found = {one: _by_rate(trials, f"trial {one}, {faces:,} faces, ", "emotion") for one in EMOTION}
        block = Curves(found, "learning rate", "accuracy on validation faces (%)", x_log=True)
        (DOCS / "images" / f"progressive-rates-{faces}.png").write_bytes(plot(block))


def _by_rate(results: Results, start: str, metric: str) -> Curve:
    """The figures of trials, whose name ends in their learning rate."""
    found = {
        float(one.row.removeprefix(start)): one.mean
        for one in results.rows
        if one.row.startswith(start) and one.metric == metric
    }
    return sorted(found), [found[rate] for rate in sorted(found)]


def _drawn(results: Results, row: str, faces: Sequence[int], metric: str) -> tuple[Curve, Curve]:
    """The figures of rows that differ by {faces} in their name, and the two ends of their intervals."""
    found = [results.get(row.format(faces=count), metric) for count in faces]
    ends = [one.interval if one.interval and len(one.seeds) >= RUNS else (math.nan, math.nan) for one in found]
    return (faces, [one.mean for one in found]), ([low for low, _ in ends], [high for _, high in ends])


if __name__ == "__main__":
    main()
