"""Choose the settings of `pose-invariant:small` on validation people, who are never tested: those of PIE, and in the
wild those of Pins, CelebA and WebCaricature.

Every trial is a row of the recipe with changes (of PIE on both halves of the people, each with 6 people held out); it
is a line of the log, and a stopped search goes on.

    python tools/pose_search.py --data DIR [--only NAME] [--recipe FILE] [--write]
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
from polyface.report.results import write_results
from polyface.reproduce.jobs import Job, run_job, started
from polyface.reproduce.runs import Runs, by_prefix
from polyface.training.recipe import load, slug
from polyface.training.stages import RunOptions
from trials import carried_out, read

TRIALS: dict[str, tuple[str, dict[str, Any]]] = {}
"""Name → the row that is trained and its changes, of the recipe's own settings where they say nothing else."""
for row in ("PIE s-CNN", "PIE m-CNN dynamic"):
    for lr in (0.003, 0.01, 0.03):
        TRIALS[f"{row}, rate {lr}"] = row, {"pie.optimisation.lr": lr}
for decay in (0.002, 0.005, 0.02):
    TRIALS[f"id+L2, decay {decay}"] = "PIE s-CNN", {"pie.optimisation.weight_decay": decay}
for batch in (32, 16):
    for row in ("PIE s-CNN", "PIE m-CNN dynamic"):
        TRIALS[f"{row}, batch {batch}"] = row, {"pie.data.batch": batch}
for budget in (0.3, 1.0):
    TRIALS[f"PIE m-CNN dynamic, budget {budget}"] = "PIE m-CNN dynamic", {"pie.weighting.options.budget": budget}
    share = round(budget / 3, 4)
    weights = {"identity": 1.0, "pose": share, "illumination": share, "expression": share}
    TRIALS[f"PIE m-CNN fixed, budget {budget}"] = (
        "PIE m-CNN fixed",
        {"pie.weighting": {"name": "fixed", "options": {"weights": weights}}},
    )
for weighting in ("uncertainty", "gls", "upgrad"):
    TRIALS[f"weighting {weighting}"] = "PIE m-CNN dynamic", {"pie.weighting": {"name": weighting}}
# In the wild by turned faces among frontal ones alone, since LFW has no validation people. What two identity losses may
# share is given to the smaller one by the printed weights.
PROFILE = load("pose-invariant").variants["wild p-CNN, frontal-profile"].set["*.evaluation.protocol"]
PRINTED = {"groups": [{"tasks": ["identity", "grouped"], "budget": 1.0}, {"tasks": ["pose"], "budget": 0.1}]}
LEARNED = {"name": "yin-liu", "options": PRINTED}
TRIALS["wild m-CNN"] = "wild m-CNN", {"wild.evaluation.protocol": PROFILE | {"embedding": "identity"}}
for trial, changes in {
    "distil 60": {"wild.weighting": LEARNED},
    "distil 60, even": {},
    "distil 200, even": {"wild.distil.weight": 200},
}.items():
    TRIALS[f"wild p-CNN, {trial}"] = "wild p-CNN", {"wild.evaluation.protocol": PROFILE, **changes}


def run(name: str, recipe_name: str, data: Path, folder: Path) -> dict[str, Any]:
    row, changes = TRIALS[name]
    recipe = load(recipe_name)
    recipe.variants[row].set |= changes
    place, began = folder / name.replace("/", "-"), time.monotonic()
    options = RunOptions(accelerator="cpu", threads=1, logger="none")
    started(recipe, row, data, folder / "starts", options)  # once for all trials
    for start in recipe.variants[row].start:
        place.mkdir(parents=True, exist_ok=True)
        (place / slug(start)).symlink_to((folder / "starts" / slug(start)).resolve())
    for seed in range(recipe.variants[row].folds):
        run_job(recipe, Job(row, seed), data, place, options, parts=("val",))
    runs = Runs(recipe, data, place, parts=("val",))
    found = runs.whole(row, by_prefix(runs.results(row, "val")))
    figures = {
        one.metric: round(one.mean, 3)
        for prefix, results in found.items()
        for one in rows_of(name, results, prefix=prefix, resamples=0)
    }
    shutil.rmtree(place)
    seconds = round(time.monotonic() - began)
    return {"trial": name, "row": row, "settings": changes, "figures": figures, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="*")
    parser.add_argument("--recipe", default="pose-invariant:small")
    parser.add_argument("--folder", type=Path, default=Path("runs/pose-search"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    log = given.folder / "trials.jsonl"
    asked = [] if given.write else [name for name in TRIALS if fnmatch.fnmatchcase(name, given.only)]
    for found in carried_out(
        log,
        asked,
        lambda t, name: bool(t["trial"] == name),
        lambda name: run(name, given.recipe, given.data, given.folder),
    ):
        print(found, flush=True)
    if given.write:
        rows = [
            Row(f"trial {t['trial']}", metric, value, None, None, (0,))
            for t in read(log)
            for metric, value in t["figures"].items()
        ]
        write_results(
            Path(__file__).parents[1] / "docs/results/pose-invariant-search.json", rows, merge=False,
            command="python tools/pose_search.py --write",
            data="validation people: of PIE 12, 6 of each half; of Pins, CelebA and WebCaricature those held out",
        )  # fmt: skip


if __name__ == "__main__":
    main()
