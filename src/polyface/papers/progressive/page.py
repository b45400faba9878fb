"""How soon columns learn, and what of a network learns: rows and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polyface.metrics.resampling import summarise
from polyface.metrics.result import Row, differences_of_runs
from polyface.metrics.sections import Curve, Curves, mean_curve
from polyface.models.bundle import load_bundle
from polyface.report.page import Section
from polyface.reproduce.jobs import Job, folder, trains
from polyface.reproduce.runs import Runs
from polyface.training.specs import StageSpec

NEAR = 0.95  # of the best accuracy
CURVES = "on validation faces"
ALONE, READS = "encoder frozen: ", " -> "
"""What the name of a row begins with whose column reads no other, and what follows the columns that others read."""


def rows(runs: Runs) -> list[Row]:
    """Of every variant whose trainings tell their accuracy on the validation faces epoch by epoch: that after the first
    epoch, the epochs until it is 95 % of the best (Fig. 5), the parameters that learn and the seconds an epoch; and how
    the first two differ between the variants that the recipe compares."""
    found = {name: one for name, variant in runs.measured.items() if trains(variant) and (one := _curves(runs, name))}
    own = [row for name, curves in found.items() for row in _training(runs, name, curves)]
    compared = [(one.better, one.than) for one in runs.recipe.comparisons]
    return own + [row for pair in compared if found.keys() >= set(pair) for row in _differences(runs, *pair, found)]


def sections(runs: Runs) -> list[Section]:
    """Fig. 5: each task's accuracy epoch by epoch, by a column alone and by those that read earlier ones; means over
    seeds."""
    of_task: dict[str, dict[str, Curve]] = {}
    for name in runs.measured:
        alone, task = name.startswith(ALONE), runs.stage(name).evaluation.main
        if (alone or name.endswith(f"{READS}{task}")) and (curves := _curves(runs, name)):
            told = "alone" if alone else name.removesuffix(f"{READS}{task}")
            each = [(range(1, len(curve) + 1), curve) for curve in curves.values()]
            of_task.setdefault(task, {})[told] = mean_curve(each)
    caption = "Accuracy on validation faces, the mean over seeds: of a column alone, and of columns that read these."
    return [
        Section(f"How soon {task} is learnt", [Curves(curves, "epoch", "accuracy (%)", caption)])
        for task, curves in of_task.items()
    ]


def _curves(runs: Runs, name: str) -> dict[int, list[float]]:
    """The main task's accuracy on the validation faces, an epoch each, by seed."""
    task = runs.stage(name).evaluation.main
    records = {seed: record for seed in runs.seeds(name) if (record := runs.record(name, seed))}
    curves = {
        seed: [row["accuracy"][task] for row in record["history"] if task in row.get("accuracy", {})]
        for seed, record in records.items()
    }
    return {seed: curve for seed, curve in curves.items() if len(curve) > 1}


def _soon(task: str, curve: list[float]) -> dict[str, tuple[str, float]]:
    """How soon a column learns: metric → unit and figure; the first epoch is 1."""
    reached = next(epoch for epoch, one in enumerate(curve, 1) if one >= NEAR * max(curve))
    return {f"{task} after epoch 1": ("%", curve[0]), f"{task} epochs to 95 %": ("epochs", float(reached))}


def _training(runs: Runs, name: str, curves: Mapping[int, list[float]]) -> Iterator[Row]:
    stage, seeds = runs.stage(name), tuple(curves)
    task = stage.evaluation.main
    records = [record for seed in seeds if (record := runs.record(name, seed))]
    figures = {
        f"{task} seconds an epoch": ("s", [record["seconds"] / len(record["history"]) for record in records]),
        f"{task} parameters that learn": ("", [_learning(runs, name, seeds[0])]),
    }
    if _told_from_the_first(stage):
        soon = [_soon(task, curve) for curve in curves.values()]
        figures |= {metric: (unit, [one[metric][1] for one in soon]) for metric, (unit, _) in soon[0].items()}
    for metric, (unit, values) in figures.items():
        of_all = summarise(values)
        note = CURVES if unit in ("%", "epochs") else ""
        yield Row(runs.title(name), metric, of_all.mean, of_all.std, seeds=seeds, unit=unit, note=note)


def _told_from_the_first(stage: StageSpec) -> bool:
    return stage.optimisation.validate_every == 1


def _differences(runs: Runs, better: str, than: str, found: Mapping[str, Mapping[int, list[float]]]) -> Iterator[Row]:
    """How much sooner one variant learns a task than another, paired by seed, where both tell from the first epoch."""
    stages = [runs.stage(name) for name in (better, than)]
    seeds = tuple(sorted(found[better].keys() & found[than].keys()))
    if not all(map(_told_from_the_first, stages)):
        return
    task = stages[0].evaluation.main
    ours, theirs = ({seed: _soon(task, found[name][seed]) for seed in seeds} for name in (better, than))
    for metric, (unit, _) in next(iter(ours.values()), {}).items():
        gaps = {seed: ours[seed][metric][1] - theirs[seed][metric][1] for seed in seeds}
        yield from differences_of_runs(runs.title(better), runs.title(than), metric, gaps, unit, CURVES)


def _learning(runs: Runs, name: str, seed: int) -> float:
    network = load_bundle(folder(runs.out, Job(name, seed)) / runs.stage(name).name / "model", quiet=True).network
    return float(sum(one.numel() for one in network.parameters() if one.requires_grad))
