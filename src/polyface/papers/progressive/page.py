"""How soon columns learn, and what of a network learns: rows."""

from __future__ import annotations

from collections.abc import Iterator

from polyface.metrics.resampling import summarise
from polyface.metrics.result import Row
from polyface.models.bundle import load_bundle
from polyface.reproduce.jobs import Job, folder, trains
from polyface.reproduce.runs import Runs

NEAR = 0.95  # of the best accuracy


def rows(runs: Runs) -> list[Row]:
    """Of every variant whose trainings tell their accuracy on the validation faces epoch by epoch: that after the first
    epoch, the epochs until it is 95 % of the best (Fig. 5), the parameters that learn and the seconds an epoch."""
    return [row for name, variant in runs.measured.items() if trains(variant) for row in _training(runs, name)]


def _training(runs: Runs, name: str) -> Iterator[Row]:
    task = runs.stage(name).evaluation.main
    found = {seed: record for seed in runs.seeds(name) if (record := runs.record(name, seed))}
    curves = {
        seed: curve
        for seed, record in found.items()
        if len(curve := [row["accuracy"][task] for row in record["history"] if task in row.get("accuracy", {})]) > 1
    }
    if not curves:
        return
    seeds, title = tuple(curves), runs.title(name)
    figures = {
        f"{task} after epoch 1": ("%", [curve[0] for curve in curves.values()]),
        f"{task} epochs to 95 %": ("epochs", [_reached(curve) for curve in curves.values()]),
        f"{task} seconds an epoch": ("s", [found[seed]["seconds"] / len(found[seed]["history"]) for seed in seeds]),
        f"{task} parameters that learn": ("", [_learning(runs, name, seeds[0])]),
    }
    for metric, (unit, values) in figures.items():
        of_all = summarise(values)
        note = "on validation faces" if unit in ("%", "epochs") else ""
        yield Row(title, metric, of_all.mean, of_all.std, seeds=seeds, unit=unit, note=note)


def _reached(curve: list[float]) -> float:
    """The first epoch, from 1, whose accuracy is at least 95 % of the best one."""
    return float(next(epoch for epoch, one in enumerate(curve, 1) if one >= NEAR * max(curve)))


def _learning(runs: Runs, name: str, seed: int) -> float:
    network = load_bundle(folder(runs.out, Job(name, seed)) / runs.stage(name).name / "model", quiet=True).network
    return float(sum(one.numel() for one in network.parameters() if one.requires_grad))
