"""Choose the learning rate of rows of `progressive:small` on validation faces, by the same rule.

Each row is trained as the recipe says, with one seed, at five rates; the best of them is surrounded by twice and half
of it until both are worse. Each trial is a line of the log, and a stopped search goes on. Rows of 4,000 faces have the
rate that is best for 1,000.

    python tools/progressive_search.py --data DIR [--row "*250 faces"] [--runs runs] [--write]
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyface.metrics.result import Row
from polyface.metrics.result import rows as rows_of
from polyface.models.bundle import load_bundle
from polyface.models.predict import TTA
from polyface.protocols.evaluation import evaluate
from polyface.report.results import write_results
from polyface.reproduce.jobs import started
from polyface.training import stages
from polyface.training.recipe import load, slug
from polyface.training.stages import pool_of
from trials import figures_of, next_rate, search_rates

COLUMN, IMAGENET = (0.000025, 0.00005, 0.0001, 0.0002, 0.0005), (0.00025, 0.0005, 0.001, 0.002, 0.004)
FEW = {"from scratch": COLUMN, "encoder frozen": COLUMN, "encoder re-trained": COLUMN, "age+gender -> emotion": COLUMN}
RATES: dict[str, tuple[float, ...]] = {
    f"{row}, {faces} faces": rates
    for faces in ("250", "1,000")
    for row, rates in (FEW | {"imagenet": IMAGENET}).items()
}
"""Row → the rates that it is tried at first; as many for each."""


def run(row: str, rate: float, data: Path, folder: Path, runs: Path) -> dict[str, Any]:
    """Train a row at a rate, and tell its figures on the validation faces."""
    recipe = load("progressive:small")
    options = stages.RunOptions(accelerator="cpu", threads=1, logger="none")
    earlier = started(recipe, row, data, runs / recipe.place, options)
    name = recipe.variants[row].stages[-1]
    recipe.variants[row].set |= {f"{name}.optimisation.lr": rate}
    one, place = recipe.variant(row), folder / f"{slug(row)}-{rate}"
    stage = one.measured
    result = stages.run(one, place, data, options, earlier)[name]
    bundle, faces = load_bundle(result.bundle, quiet=True), pool_of(stage, data, {}, "val")
    tta = TTA(mirror=stage.evaluation.mirror)
    found = evaluate(bundle, faces, stage.evaluation.protocol, part="val", data=data, tta=tta).results
    shutil.rmtree(place)
    figures = {
        told.metric: round(told.mean, 3)
        for prefix, each in found.items()
        for told in rows_of(row, {0: each}, prefix=prefix, resamples=0)
    }
    asked = {metric: figures[metric] for metric in (name, f"{name} balanced accuracy")}
    return {"row": row, "rate": rate, "faces": len(faces), "seconds": round(result.seconds), "figures": asked}


def figure(line: Mapping[str, Any]) -> float:
    """Accuracy at emotions."""
    return float(line["figures"]["emotion"])


def write(lines: list[dict[str, Any]]) -> None:
    """The trials of rows whose search is finished as rows of a results file."""
    finished = [row for row in RATES if next_rate(figures_of(row, lines, figure), RATES[row]) is None]
    rows = [
        Row(f"trial {row}, {line['rate']:g}", metric, value, None, line["faces"], (0,), unit="%")
        for row in finished
        for line in sorted((line for line in lines if line["row"] == row), key=lambda line: line["rate"])
        for metric, value in line["figures"].items()
    ]
    write_results(
        Path("docs/results/progressive-rates.json"), rows, command="python tools/progressive_search.py --write",
        data="FER+, validation faces", merge=False,
    )  # fmt: skip
    print(len(rows), "rows")


if __name__ == "__main__":
    assert __doc__ is not None
    search_rates(__doc__, Path("runs/progressive-rates"), RATES, figure, run, write)
