"""Choose the learning rate of every row of `dmm-cnn:small` on validation faces, by the same rule.

Each row that trains a network of its own for Tables 1 and 2 (AdamW, cross-entropy), and each of those that tell where
weights act (SGD, squared error), is trained at four rates, for 3 of its 8 epochs, with one seed; the best of them is
surrounded by twice and half of it until both are worse. Rows of LFWA, which start from those, have their 15 epochs on
nine tenths of the training faces, and are judged on the rest. Each trial is a line of the log, and a stopped search
goes on.

    python tools/dmm_search.py --data DIR [--runs runs] [--row NAME] [--write]
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyface.errors import PolyfaceError
from polyface.metrics.attributes import AttributesResult
from polyface.metrics.result import Row
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.report.results import write_results
from polyface.reproduce.jobs import started
from polyface.training import stages
from polyface.training.recipe import load, slug
from polyface.training.stages import pool_of
from trials import search_rates

EPOCHS = 3
ADAMW, SGD, TUNED = (0.001, 0.002, 0.004, 0.008), (0.001, 0.003, 0.01, 0.03), (0.0005, 0.001, 0.002, 0.004)
OWN = ("Baseline", "DMM-FAC", "DMM-EQ-AT", "DMM-SPP", "DMM-CNN", "DWA", "AW")
LFWA, WITHOUT = "LFWA ", ", without CelebA"
RATES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(OWN, ADAMW),
    **dict.fromkeys(("Baseline, SGD", "DMM-EQ-FIX, SGD", "DMM-CNN, SGD"), SGD),
    **dict.fromkeys((*(LFWA + row for row in OWN), *(LFWA + row + WITHOUT for row in ("Baseline", "DMM-CNN"))), TUNED),
}
"""Row → the rates that it is tried at; as many for each."""
METRICS = ("mean accuracy", "mean balanced accuracy")
DIVERGED = "diverged at"


def run(row: str, rate: float, data: Path, folder: Path, runs: Path) -> dict[str, Any]:
    """Train a row at a rate, and tell its figures on the validation faces; or at which step its loss was not finite."""
    recipe = load("dmm-cnn:small")
    options = stages.RunOptions(accelerator="cpu", threads=1, logger="none")
    earlier = started(recipe, row, data, runs / recipe.place, options)
    stage = recipe.variants[row].stages[-1]
    shorter = {f"{stage}.optimisation.epochs": EPOCHS}
    held_out = {f"{stage}.data.tables.0.splits": None, f"{stage}.data.validate_on": "val"}
    recipe.variants[row].set |= {f"{stage}.optimisation.lr": rate, **(held_out if stage == "lfwa" else shorter)}
    one, place = recipe.variant(row), folder / f"{slug(row)}-{rate}"
    try:
        result = stages.run(one, place, data, options, earlier)[stage]
    except PolyfaceError as error:
        if not (step := re.search(r"step (\d+): the loss .* not finite", str(error))):
            raise
        shutil.rmtree(place)
        return {"row": row, "rate": rate, DIVERGED: int(step[1])}
    bundle = load_bundle(result.bundle, quiet=True)
    bundle.tasks.pop("landmarks", None)
    found = evaluate(bundle, pool_of(one.stages[0], data, bundle.tasks, "val")).results["attributes "]
    assert isinstance(found, AttributesResult)
    shutil.rmtree(place)
    figures = dict(zip(METRICS, (found.accuracy, found.balanced_accuracy), strict=True))
    return {"row": row, "rate": rate, "faces": found.n, "seconds": round(result.seconds)} | figures


def figure(line: Mapping[str, Any]) -> float:
    """Mean accuracy; 0 where it diverged."""
    return float(line.get(METRICS[0], 0.0))


def told(line: dict[str, Any]) -> list[str]:
    """What a line of the log has of a trial."""
    return [key for key in (*METRICS, DIVERGED) if key in line]


def write(lines: Sequence[dict[str, Any]]) -> None:
    """The trials as rows of a results file."""
    rows = [
        Row(
            f"trial {line['row']}, {line['rate']:g}", metric, line[metric], None, line.get("faces", 1579), (0,),
            unit="steps" if metric == DIVERGED else "%",
        )
        for line in sorted(lines, key=lambda line: (list(RATES).index(line["row"]), line["rate"]))
        for metric in told(line)
    ]  # fmt: skip
    write_results(
        Path("docs/results/dmm-cnn-search.json"), rows, command="python tools/dmm_search.py --write",
        data="CelebA and LFWA, validation faces", merge=False,
    )  # fmt: skip
    print(len(rows), "rows")


if __name__ == "__main__":
    assert __doc__ is not None
    search_rates(__doc__, Path("runs/dmm-search"), RATES, figure, run, write)
