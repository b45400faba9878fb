"""Choose TCDCN's settings on the 1,000 validation faces of MTFL: 37 trials for FLD alone, 20 for FLD+all.

First the settings that FLD alone has (learning rate, how weights start, crop, augmentation, landmark loss) are drawn 30
times, those of an earlier search are tried with four starts of the weights and three rates of the heads, and the best
kept (`chosen`); then, with those fixed, the ones that only side tasks have (λ, task-wise stopping's k and ε) are drawn
20 times. So again for the squared error and SGD: 8 rates, momenta and starts of the weights, and at the paper's rate 8
draws of λ and stopping. The order favours FLD. Trials are short (8 epochs), each is a line of the log, and a stopped
search goes on.

    python tools/tcdcn_search.py --data DIR [--part FLD|all|SGD|SGD-all] [--worker I/N] [--write]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from polyface.errors import PolyfaceError
from polyface.metrics.landmarks import evaluate_landmarks
from polyface.metrics.result import Row
from polyface.models.bundle import load_bundle
from polyface.models.predict import predict
from polyface.report.results import write_results
from polyface.schema import eyes
from polyface.training import stages
from polyface.training.recipe import load
from trials import carried_out, read

EPOCHS = 8
DRAWS = 30
NOISE = 0.1
"""Percent by which the error of a trial of one seed on 1,000 faces may differ by chance."""
GAINS = (None, 1.0, 1.5, 2.0)
RATE, SLOWER = 0.0013, (0.3, 0.1, 0.03)
OWN: list[dict[str, object]] = [
    *(
        {"mtfl.network.trunk.gain": gain, "mtfl.optimisation.lr": RATE, "mtfl.optimisation.body_lr": 1.0}
        for gain in GAINS
    ),
    *({"mtfl.optimisation.lr": round(RATE / body, 5), "mtfl.optimisation.body_lr": body} for body in SLOWER),
]
"""The best settings of an earlier search, with each start of the weights, and with heads that learn faster."""
SIDES = ("gender", "smile", "glasses", "pose")


PRINTED = [
    *((0.096, 0, None), (0.192, 0, None), (0.096, 0, 1.0), (0.048, 0, 1.0), (0.024, 0, 1.0), (0.012, 0, 1.0)),
    *((0.096, 0.9, None), (0.048, 0.9, None)),
]
"""Rates (the paper's is 0.096), momentum (it prints none) and starts of the weights."""


def fld(trial: int) -> dict[str, object]:
    """Thirty draws; then the settings that an earlier search chose (`OWN`)."""
    if trial >= DRAWS:
        return OWN[trial - DRAWS]
    draw = random.Random(trial)
    return {
        "mtfl.optimisation.lr": round(10 ** draw.uniform(-3.1, -2.3), 5),
        "mtfl.data.crop.scale": draw.choice([1.0, 1.1, 1.2, 1.3, 1.4]),
        "mtfl.data.augment.rotate": draw.choice([5, 10, 20, 30]),
        "mtfl.data.augment.zoom": draw.choice([0.05, 0.1, 0.2]),
        "mtfl.data.augment.shift": draw.choice([0.02, 0.05, 0.08]),
        "mtfl.data.augment.contrast": draw.choice([0.0, 0.2, 0.4]),
        "mtfl.tasks.landmarks.loss": draw.choice(["l1", "l1", "wing", "l2"]),
        "mtfl.data.batch": draw.choice([32, 64, 128]),
        "mtfl.optimisation.weight_decay": draw.choice([0.0005, 0.01, 0.1]),
        "mtfl.optimisation.body_lr": draw.choice([0.3, 1.0]),
        "mtfl.network.trunk.gain": draw.choice(GAINS),
    }


def side(trial: int, strongest: float = 0) -> dict[str, object]:
    draw = random.Random(1000 + trial)
    strength = 10 ** draw.uniform(-4, strongest)
    pose = strength * 10 ** draw.uniform(-0.5, 0.5)
    settings: dict[str, object] = {
        f"mtfl.tasks.{name}": {"kind": "classification", "column": name} for name in SIDES
    } | {f"mtfl.weighting.options.weights.{name}": float(f"{strength:.3g}") for name in SIDES[:3]}
    settings["mtfl.weighting.options.weights.pose"] = float(f"{pose:.3g}")
    if trial % 2:
        window = draw.choice([2, 3])
        threshold = float(f"{10 ** draw.uniform(-1, 2):.3g}")
        settings["mtfl.stopping"] = {"main": ["landmarks"], "window": window, "threshold": threshold}
    return settings


def printed(trial: int) -> dict[str, object]:
    """As printed, at the paper's own rate and at others, with and without momentum, from two starts of the weights."""
    asked = load("tcdcn").variants["FLD, SGD"].set
    rate, momentum, gain = PRINTED[trial]
    moved = asked["mtfl.optimisation"] | {"lr": rate, "momentum": momentum}
    return asked | {"mtfl.optimisation": moved, "mtfl.network.trunk.gain": gain}


def side_printed(trial: int) -> dict[str, object]:
    """As printed, at the paper's rate. Squared errors are small near the end, and so λ must be."""
    return load("tcdcn").variants["FLD, SGD"].set | side(trial, strongest=-1.5)


PARTS: dict[str, tuple[Callable[[int], dict[str, object]], int, str]] = {
    "FLD": (fld, DRAWS + len(OWN), ""),
    "all": (side, 20, "FLD"),
    "SGD": (printed, len(PRINTED), ""),
    "SGD-all": (side_printed, 8, ""),
}
"""Part → what it draws, how often, and the part whose best trial is kept."""


def chosen(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The trial of lowest error; of those that differ from it by no more than one trial's noise, the one whose heads
    learn fastest beside the trunk, because side tasks that are not learnt can help nothing."""
    best = min(float(t["mean error"]) for t in trials)
    alike = [t for t in trials if float(t["mean error"]) <= best + NOISE]
    return min(alike, key=lambda t: (t["settings"].get("mtfl.optimisation.body_lr", 1.0), float(t["mean error"])))


def run(name: str, settings: dict[str, object], data: Path, folder: Path) -> dict[str, object]:
    changes = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    recipe = load("tcdcn", [*changes, f"mtfl.optimisation.epochs={EPOCHS}"])
    stage = recipe.stage("mtfl")
    one = recipe.model_copy(update={"stages": [stage], "variants": {}})
    options = stages.RunOptions(accelerator="cpu", threads=1, logger="none")
    try:
        result = stages.run(one, folder / name, data, options)["mtfl"]
    except PolyfaceError as error:
        if "not finite" not in str(error):
            raise
        shutil.rmtree(folder / name)
        return {"trial": name, "mean error": 100.0, "failure rate": 100.0, "settings": settings, "balanced": {}}
    tasks = stages.stage_tasks(stage)
    pool = stages.stage_pool(stage, "val", data, tasks)
    assert pool is not None
    answers = predict(load_bundle(result.bundle).network, tasks, pool)
    points = answers["landmarks"]["points"]
    told = {one: tasks[one].evaluate(answers[one], pool.table) for one in tasks if one in SIDES}
    balanced = {one: round(found.balanced_accuracy, 1) for one, found in told.items()}  # type: ignore[attr-defined]
    found = evaluate_landmarks(points, pool.table.points("landmarks_5"), eyes=eyes(5))
    shutil.rmtree(folder / name)
    stopped = result.history[-1].get("stopped", {})
    return {
        "trial": name, "mean error": found.mean_error, "failure rate": found.failure_rate, "settings": settings,
        "balanced": balanced, "stopped": stopped, "seconds": round(result.seconds, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=list(PARTS), default="FLD")
    parser.add_argument("--worker", default="0/1")
    parser.add_argument("--folder", type=Path, default=Path("runs/tcdcn-search"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    log = given.folder / "trials.jsonl"
    if not given.write:
        worker, workers = map(int, given.worker.split("/"))
        draws, trials, before = PARTS[given.part]
        base: dict[str, object] = {}
        if before:
            kept = [t for t in read(log) if str(t["trial"]).startswith(f"{before} ")]
            if not kept:
                parser.error(f"{log} has no trial of {before}, whose best one is kept: run --part {before} first")
            base = dict(chosen(kept)["settings"])
        drawn = {f"{given.part} {trial:02d}": base | draws(trial) for trial in range(worker, trials, workers)}
        found = carried_out(
            log,
            drawn,
            lambda t, name: bool(t["trial"] == name),
            lambda name: run(name, drawn[name], given.data, given.folder),
        )
        for t in found:
            print(
                t["trial"],
                round(t["mean error"], 2),
                round(t["failure rate"], 1),
                t["balanced"],
                t["settings"],
                flush=True,
            )
        return
    rows = []
    for t in sorted(read(log), key=lambda t: str(t["trial"])):
        settings = {
            k.removeprefix("mtfl."): v for k, v in dict(t["settings"]).items() if not k.startswith("mtfl.tasks.g")
        }  # type: ignore[call-overload]
        figures = {metric: float(t[metric]) for metric in ("mean error", "failure rate")}
        figures |= {f"{task} balanced accuracy": float(value) for task, value in t["balanced"].items()}
        for metric, value in figures.items():
            rows.append(Row(f"trial {t['trial']}", metric, value, None, 1000, (0,), note=json.dumps(settings)))
    write_results(
        Path("docs/results/tcdcn-search.json"), rows, command="python tools/tcdcn_search.py --write",
        data="MTFL, 1,000 validation faces", merge=False,
    )  # fmt: skip
    print(len(rows), "rows;", np.round(min(r.mean for r in rows if r.metric == "mean error"), 2))


if __name__ == "__main__":
    main()
