"""Choose the settings of `caricature:small` without the test faces: those of `cavi` on CaVI's validation images and
pairs, those of `across` on people of CaVI who are held out of training.

Every trial changes the recipe as `TRIALS` says; it is a line of the log, and a stopped search goes on.

    python tools/caricature_search.py --data DIR [--only NAME] [--write]
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
from polyface.training import stages
from polyface.training.recipe import Recipe, load
from polyface.training.stages import pool_of
from trials import carried_out, read

TRIALS: dict[str, tuple[str, dict[str, Any]]] = {}
"""Name → the row that is trained and its changes, of the recipe's own settings where they say nothing else."""
TABLE_2 = ("Single-verif", "Single-visual", "Single-cari", "Naive dynamic", "Dynamic")


def trial(name: str, row: str, **changes: Any) -> None:
    TRIALS[name] = (row, {key.replace("__", "."): value for key, value in changes.items()})


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


def started(recipe: Recipe, row: str, data: Path, folder: Path) -> dict[str, Path]:
    """The bundle that a row starts from, made once."""
    if not recipe.variants[row].start:
        return {}
    (start,) = recipe.variants[row].start
    place = folder / "start" / start
    found = place / recipe.variants[start].stages[-1] / "model"
    return {found.parent.name: found if found.exists() else stages.untrained(recipe.variant(start), place, data, {})}


def run(name: str, data: Path, folder: Path) -> dict[str, Any]:
    row, changes = TRIALS[name]
    recipe = load("caricature:small")
    earlier = started(recipe, row, data, folder)
    recipe.variants[row].set |= changes
    recipe.variants[row].set["*.optimisation.validate_every"] = 1000
    one = recipe.variant(row)
    stage = one.measured
    strangers = stage.evaluation.protocol["name"] == "gallery-probe"
    if strangers:
        source = recipe.stage("across").data.tables[0]
        stage.data.tables = [source.model_copy(update={"options": {"split": "people"}})]
    place = folder / name.replace("/", "-")
    options = stages.RunOptions(accelerator="cpu", threads=1, logger="none")
    began = time.monotonic()
    if recipe.variants[row].predictor == "start":
        model = stages.untrained(one, place, data, {})
    else:
        model = stages.run(one, place, data, options, earlier)[stage.name].bundle
    seconds = round(time.monotonic() - began)
    bundle = load_bundle(model, quiet=True)
    part = "test" if strangers else "val"
    pool, tta = pool_of(stage, data, {}, part), TTA(mirror=stage.evaluation.mirror)
    sources = [source.name for source in stage.data.tables]
    found = evaluate(bundle, pool, stage.evaluation.protocol, part=part, data=data, sources=sources, tta=tta)
    figures = {
        row.metric: round(row.mean, 3)
        for prefix, one in found.results.items()
        for row in rows_of(name, {0: one}, prefix=prefix, resamples=0)
    }
    shutil.rmtree(place)
    said = {"trial": name, "row": row, "settings": changes, "faces": len(pool)}
    return said | {"figures": figures, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="*")
    parser.add_argument("--folder", type=Path, default=Path("runs/caricature-search"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    log = given.folder / "trials.jsonl"
    asked = [] if given.write else [name for name in TRIALS if fnmatch.fnmatchcase(name, given.only)]
    for found in carried_out(
        log, asked, lambda t, name: bool(t["trial"] == name), lambda name: run(name, given.data, given.folder)
    ):
        print(found, flush=True)
    if given.write:
        rows = [
            Row(f"trial {t['trial']}", metric, value, None, t["faces"], (0,))
            for t in read(log)
            for metric, value in t["figures"].items()
        ]
        write_results(
            Path("docs/results/caricature-search.json"), rows, merge=False,
            command="python tools/caricature_search.py --write",
            data="CaVI: validation images and pairs; for `across` people held out of training",
        )  # fmt: skip


if __name__ == "__main__":
    main()
