"""When side tasks stopped, and what a shift that all labels of the test faces share is worth: rows, and Fig. 7."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyface.metrics.resampling import summarise
from polyface.metrics.result import Row
from polyface.metrics.result import rows as rows_of
from polyface.metrics.sections import Curve, Curves, mean_curve
from polyface.report.page import Section
from polyface.reproduce.jobs import trains
from polyface.reproduce.runs import Runs
from polyface.schema import eyes
from polyface.training.extras.stopping import StoppingSpec
from polyface.training.specs import StageSpec

SHIFTED, POINTS = "mtfl", 5
"""The data set whose test faces (AFLW's) are labelled further right than its training faces, and its points."""
PREFIX = "without shift, "
ITERATIONS = 2600
"""As far as Fig. 7 goes."""

Floats = NDArray[np.float64]


def rows(runs: Runs) -> list[Row]:
    """The errors of five points on AFLW's faces, once more without what each point is off on average; and when each
    side task stopped (Fig. 7), of variants that let it."""
    shifted = [row for name in runs.measured if _judged(runs, name) for row in _rows(runs, name)]
    stopping = [name for name, variant in runs.measured.items() if trains(variant) and _stops(runs.stage(name))]
    return shifted + [row for name in stopping for row in _stopped(runs, name)]


def _stops(stage: StageSpec) -> bool:
    """Whether side tasks may stop."""
    asked = stage.extras.get("stopping")
    return isinstance(asked, StoppingSpec) and asked.threshold is not None


def sections(runs: Runs) -> list[Section]:
    """Fig. 7: the main task's loss on validation faces by iteration, of each two variants that the recipe compares and
    that both looked at it; means over seeds. Vertical lines are where the first's side tasks stopped."""
    pairs = [
        (one.better, one.than) for one in runs.recipe.comparisons if {one.better, one.than} <= runs.measured.keys()
    ]
    caption = "Loss on fixed validation faces, the mean over seeds; lines: where side tasks stopped, on average."
    made = []
    for better, than in pairs:
        curves = {runs.title(name): curve for name in (better, than) if (curve := _looked(runs, name))}
        if len(curves) == 2:
            stopped = {task: np.mean([*at.values()]) for task, at in _stops_at(_records(runs, better)).items() if at}
            marks = {task: float(at) for task, at in stopped.items() if at <= ITERATIONS}
            block = Curves(curves, "iteration", "loss", caption, y_log=True, marks=marks)
            made.append(Section(f"Task-wise stopping: {runs.title(better)}", [block]))
    return made


def _looked(runs: Runs, name: str) -> Curve | None:
    """The main task's loss at each look at the validation faces, where all seeds of a variant took such looks."""
    main = runs.stage(name).evaluation.main
    looks = [record.get("stopping") for record in _records(runs, name).values()]
    if not looks or not all(looks):
        return None
    kept = [[look for look in run if look["step"] <= ITERATIONS] for run in looks if run]
    return mean_curve([([look["step"] for look in run], [look["validation"][main] for look in run]) for run in kept])


def _stopped(runs: Runs, name: str) -> Iterator[Row]:
    """Of each side task in how many runs it stopped, and after how many iterations where it did."""
    records = _records(runs, name)
    for task, at in _stops_at(records).items():
        share = 100 * len(at) / len(records)
        yield Row(runs.title(name), f"stopped: {task}", share, seeds=tuple(records), note="of the runs")
        if at:
            told, found = f"stopped at: {task}", summarise([*at.values()])
            yield Row(runs.title(name), told, found.mean, found.std, seeds=tuple(at), unit="iterations")


def _records(runs: Runs, name: str) -> dict[int, dict[str, Any]]:
    return {seed: record for seed in runs.seeds(name) if (record := runs.record(name, seed))}


def _stops_at(records: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Of each side task the iteration at which it stopped, by the seeds in which it did."""
    looks = [(seed, look) for seed, record in records.items() for look in record["stopping"]]
    return {
        task: {seed: float(look["step"]) for seed, look in looks if task in look["stopped"]}
        for task in dict.fromkeys(task for _, look in looks for task in look["criterion"])
    }


def _judged(runs: Runs, name: str) -> bool:
    stage = runs.stage(name)
    points = stage.tasks[stage.evaluation.main].get("points")
    return [table.name for table in stage.data.tables] == [SHIFTED] and points == POINTS


def _rows(runs: Runs, name: str) -> Iterator[Row]:
    results = {}
    for seed in runs.seeds(name):
        faces = runs.protocol(name, seed)[1].faces
        task, said = faces.tasks[faces.main], runs.answers(name, seed)[faces.main]["points"]
        points = without_shift(said, task.targets(faces.table).values.numpy())
        results[seed] = task.evaluate({"points": points}, faces.table)
    note = "less what each point is off on average on the other half of the faces"
    if results:
        yield from rows_of(runs.title(name), results, prefix=PREFIX, note=note)


def without_shift(points: Floats, truth: Floats) -> Floats:
    """Predicted points [N, 5, 2] less the mean error [5, 2] of each point, in distances between the eyes, of the other
    half of the faces: every other face is one half, so that no face has a part in what is taken off it."""
    left, right = (truth[:, each].mean(1) for each in eyes(POINTS))
    size = np.linalg.norm(right - left, axis=-1)[:, None, None]
    moved = np.array(points, dtype=np.float64)
    for half in (0, 1):
        error = np.nanmean(((points - truth) / size)[1 - half :: 2], axis=0)
        moved[half::2] -= error * size[half::2]
    return moved
