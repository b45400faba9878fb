"""Choose the learning rate of every row of `dmm-cnn:small` on CelebA's 1,579 validation faces, by equal trials.

Each row that trains a network of its own for Tables 1 and 2 (AdamW, cross-entropy), and each of those that tell where
weights act (SGD, squared error), is trained at four rates, for 3 of its 8 epochs, with one seed. Each trial is a line
of the log, and a stopped search goes on.

    python tools/dmm_search.py --data DIR [--row NAME] [--worker I/N] [--write]
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from polyface.errors import PolyfaceError
from polyface.metrics.attributes import AttributesResult
from polyface.metrics.result import Row
from polyface.models.bundle import load_bundle
from polyface.protocols.evaluation import evaluate
from polyface.report.results import write_results
from polyface.training import stages
from polyface.training.recipe import load, slug
from polyface.training.stages import pool_of
from trials import carried_out, read

EPOCHS = 3
ADAMW, SGD = (0.001, 0.002, 0.004, 0.008), (0.001, 0.003, 0.01, 0.03)
RATES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("Baseline", "DMM-FAC", "DMM-EQ-AT", "DMM-SPP", "DMM-CNN", "DWA", "AW"), ADAMW),
    **dict.fromkeys(("Baseline, SGD", "DMM-EQ-FIX, SGD", "DMM-CNN, SGD"), SGD),
}
"""Row → the rates that it is tried at; as many for each."""
METRICS = ("mean accuracy", "mean balanced accuracy")
DIVERGED = "diverged at"


def run(row: str, rate: float, data: Path, folder: Path) -> dict[str, Any]:
    """Train a row at a rate, and tell its figures on the validation faces; or at which step its loss was not finite."""
    recipe = load("dmm-cnn:small")
    recipe.variants[row].set |= {"celeba.optimisation.lr": rate, "celeba.optimisation.epochs": EPOCHS}
    one, place = recipe.variant(row), folder / f"{slug(row)}-{rate}"
    options = stages.RunOptions(accelerator="cpu", threads=1, logger="none")
    try:
        result = stages.run(one, place, data, options)["celeba"]
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
    return {"row": row, "rate": rate, "seconds": round(result.seconds)} | figures


def told(line: dict[str, Any]) -> list[str]:
    """What a line of the log has of a trial."""
    return [key for key in (*METRICS, DIVERGED) if key in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--row", choices=list(RATES), help="this one alone")
    parser.add_argument("--worker", default="0/1")
    parser.add_argument("--folder", type=Path, default=Path("runs/dmm-search"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    log = given.folder / "trials.jsonl"
    if not given.write:
        worker, workers = map(int, given.worker.split("/"))
        todo = [(row, rate) for row, rates in RATES.items() if given.row in (None, row) for rate in rates]
        found = carried_out(
            log,
            todo[worker::workers],
            lambda line, trial: (line["row"], line["rate"]) == trial,
            lambda trial: run(*trial, given.data, given.folder),
        )
        for line in found:
            print(line["row"], line["rate"], {key: round(line[key], 2) for key in told(line)}, flush=True)
        return
    rows = [
        Row(
            f"trial {line['row']}, {line['rate']:g}", metric, line[metric], None, 1579, (0,),
            unit="steps" if metric == DIVERGED else "%",
        )
        for line in sorted(read(log), key=lambda line: (list(RATES).index(line["row"]), line["rate"]))
        for metric in told(line)
    ]  # fmt: skip
    write_results(
        Path("docs/results/dmm-cnn-search.json"), rows, command="python tools/dmm_search.py --write",
        data="CelebA, 1,579 validation faces", merge=False,
    )  # fmt: skip
    print(len(rows), "rows")


if __name__ == "__main__":
    main()
