"""Choose the settings of `caricature` without the test faces: those of `cavi` on CaVI's validation images and pairs,
those of `across` on people of CaVI who are held out of training.

Every trial changes the recipe as `TRIALS` says; it is a line of the log, and a stopped search goes on. Of the rows that
RMSProp trains, each has as many trials as every other: the same learning rates, and its own weighting. `--best` prints
the one of each that is best on validation faces, to be written into the recipe.

    python tools/caricature_search.py --data DIR [--only "RMSProp: *"] [--write | --best]
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import time
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
from polyface.training.recipe import load
from polyface.training.stages import pool_of
from trials import carried_out, read

TRIALS: dict[str, tuple[str, str, dict[str, Any]]] = {}
"""Name → the recipe, the row that is trained and its changes, of the recipe's own settings where they say nothing
else."""


def trial(name: str, row: str, recipe: str = "caricature:small", **changes: Any) -> None:
    TRIALS[name] = (recipe, row, {key.replace("__", "."): value for key, value in changes.items()})


AUGMENT = {"rotate": 10, "zoom": 0.1, "shift": 0.06, "mirror": 0.5, "contrast": 0.3, "brightness": 0.15}
trial(
    "6 epochs, erasing, slower body",
    "Dynamic",
    cavi__data__augment=AUGMENT | {"erase": 0.3},
    cavi__optimisation__epochs=6,
    cavi__optimisation__body_lr=0.06,
)
trial(
    "6 epochs", "Dynamic", cavi__data__augment=AUGMENT, cavi__optimisation__body_lr=0.12, cavi__optimisation__epochs=6
)
trial(
    "12 epochs", "Dynamic", cavi__data__augment=AUGMENT, cavi__optimisation__body_lr=0.12, cavi__optimisation__epochs=12
)
trial("across, as published", "Photos")
trial("across, distilled", "Single-verif across", across__optimisation__epochs=3, across__distil__weight=10)
trial("across, slower body", "Single-verif across", across__optimisation__epochs=3, across__optimisation__body_lr=0.02)
trial(
    "across, slower body, distilled more",
    "Single-verif across",
    across__optimisation__epochs=3,
    across__optimisation__body_lr=0.02,
    across__distil__weight=60,
)
trial(
    "across, distilled much more",
    "Single-verif across",
    across__optimisation__epochs=3,
    across__optimisation__body_lr=0.04,
    across__distil__weight=200,
)
trial(
    "across, slower body, not distilled",
    "Single-verif across",
    across__optimisation__epochs=3,
    across__optimisation__body_lr=0.02,
    across__distil=None,
)
for weight in (20, 60, 200):
    trial(f"best, distilled by {weight}", "Best network across", across__distil__weight=weight)
trial("best, as published", "dlib")
trial("best, 8 epochs", "Best network across", across__optimisation__epochs=8)
for name in ("gls", "uncertainty", "upgrad"):
    trial(f"weighting {name}", "Dynamic", cavi__weighting={"name": name})
trial("weighting uniform", "Dynamic", cavi__weighting={"name": "uniform"})
trial("weighting ming", "Dynamic")

# Rates of RMSProp, the same for every row of a group, in two epochs. What the softmax of Dynamic learns by is the
# network's. Uniform sums the losses that others average, so that it may want a lower rate; Inception-ResNet's rows all
# want one, and are tried at that too.
RATES = (0.03, 0.1, 0.3)
LOWER = (0.01,)
PRINTED = ("Single-cari", "Naive dynamic", "Dynamic", "Uniform", "Fixed 80 %", "Uncertainty", "GradNorm")
OF_SMALL = (
    "Toy Dynamic",
    "Toy Naive dynamic",
    "IRv1 Dynamic",
    "IRv1 Naive dynamic",
    "IRv1 Uniform",
    "IRv1 Single-cari",
)
for name in (*PRINTED, *OF_SMALL):
    row, recipe = (f"{name}, RMSProp", "caricature:optimisers") if name in PRINTED else (name, "caricature:small")
    for lr in (*(LOWER if name.startswith("IRv1") else ()), *RATES):
        trial(f"RMSProp: {name}, {lr}", row, recipe, cavi__optimisation__lr=lr, cavi__optimisation__epochs=2)
JUDGED = ("verification", "visual id", "caricature id")


def run(name: str, data: Path, folder: Path, runs: Path) -> dict[str, Any]:
    source, row, changes = TRIALS[name]
    recipe = load(source)
    options = stages.RunOptions(accelerator="cpu", threads=1, logger="none")
    earlier = started(recipe, row, data, runs / recipe.place, options)  # once for all, and for a reproduction
    recipe.variants[row].set |= changes
    recipe.variants[row].set["*.optimisation.validate_every"] = 1000
    one = recipe.variant(row)
    stage = one.measured
    strangers = stage.evaluation.protocol["name"] == "gallery-probe"
    if strangers:
        table = recipe.stage("across").data.tables[0]
        stage.data.tables = [table.model_copy(update={"options": {"split": "people"}})]
    place = folder / name.replace("/", "-").replace(":", "")
    began = time.monotonic()
    if recipe.variants[row].predictor == "start":
        model = stages.untrained(one, place, data, {})
    else:
        model = stages.run(one, place, data, options, earlier)[stage.name].bundle
    seconds = round(time.monotonic() - began)
    bundle = load_bundle(model, quiet=True)
    part = "test" if strangers else "val"
    pool, tta = pool_of(stage, data, {}, part), TTA(mirror=stage.evaluation.mirror)
    sources = [table.name for table in stage.data.tables]
    found = evaluate(bundle, pool, stage.evaluation.protocol, part=part, data=data, sources=sources, tta=tta)
    figures = {
        row.metric: round(row.mean, 3)
        for prefix, one in found.results.items()
        for row in rows_of(name, {0: one}, prefix=prefix, resamples=0)
    }
    shutil.rmtree(place)
    said = {"trial": name, "row": row, "settings": changes, "faces": len(pool)}
    return said | {"figures": figures, "seconds": seconds}


def best(log: Path) -> None:
    """Print, of each row that RMSProp trains, the trial with the highest mean figure on validation faces."""
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for t in read(log):
        if t["trial"].startswith("RMSProp: "):
            figures = [t["figures"][metric] for metric in JUDGED if metric in t["figures"]]
            found.setdefault(t["row"], []).append((sum(figures) / len(figures), t["settings"]))
    for row, trials in found.items():
        figure, settings = max(trials, key=lambda one: one[0])
        print(f"{row}: {settings} ({figure:.2f} %, of {len(trials)} trials)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default="*")
    parser.add_argument("--folder", type=Path, default=Path("runs/caricature-search"))
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where a reproduction keeps what rows start from"
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--best", action="store_true")
    given = parser.parse_args()
    log = given.folder / "trials.jsonl"
    if given.best:
        best(log)
        return
    asked = [] if given.write else [name for name in TRIALS if fnmatch.fnmatchcase(name, given.only)]
    if asked and given.data is None:
        parser.error("trials need --data DIR")
    for found in carried_out(
        log,
        asked,
        lambda t, name: bool(t["trial"] == name),
        lambda name: run(name, given.data, given.folder, given.runs),
    ):
        print(found, flush=True)
    if given.write:
        rows = [
            Row(f"trial {t['trial']}", metric, value, None, t["faces"], (0,))
            for t in read(log)
            for metric, value in t["figures"].items()
        ]
        write_results(
            Path("docs/results/caricature-search.json"), rows,
            command="python tools/caricature_search.py --write",
            data="CaVI: validation images and pairs; for `across` people held out of training",
        )  # fmt: skip


if __name__ == "__main__":
    main()
